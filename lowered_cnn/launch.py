"""The launch of the command line: Ctrl-C ends it silently while it is still being imported.

This happens on import, before anything else, because importing any module of a package imports the package first.
"""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""The exit code of a program that Ctrl-C has ended, as a shell reports it."""


def is_command() -> bool:
    """Return whether this program is `lowered-cnn`, or `python -m lowered_cnn.cli`, which Python is still locating."""
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    return os.path.splitext(program)[0] == "lowered-cnn" or (program == "-m" and "lowered_cnn.cli" in sys.orig_argv)


def leave(number: int, frame: FrameType | None) -> None:
    """End at once: an exception would print a traceback of imports, or be lost in one of them."""
    os._exit(INTERRUPTED)


def restore_interrupts() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, now that all is imported."""
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # one that is ignored stays ignored
    signal.signal(signal.SIGINT, leave)
