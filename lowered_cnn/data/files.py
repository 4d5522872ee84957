"""Files of unknown origin: only plain files are opened."""

import os
import stat
from pathlib import Path

from lowered_cnn.arrays import InputError


def check_is_file(path: Path, wanted: str) -> None:
    """Raise InputError unless a path is a plain file: a pipe may never deliver anything, and a device may never end."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # a ValueError for a name that contains a zero byte
        raise InputError(str(path), wanted, error) from error
    if not stat.S_ISREG(mode):
        raise InputError(str(path), wanted, "a folder" if stat.S_ISDIR(mode) else "a pipe or a device")
