"""The launch of the command line: Ctrl-C ends it silently while it is still being imported."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""The exit code of a program that Ctrl-C has ended, as a shell reports it."""


def is_command() -> bool:
    """Return whether this program is `lowered-cnn`, or `python -m lowered_cnn.cli` while it is being located."""
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    return os.path.splitext(program)[0] == "lowered-cnn" or (program == "-m" and "lowered_cnn.cli" in sys.orig_argv)


def leave(number: int, frame: FrameType | None) -> None:
    """End at once: an exception would be printed with the imports that it interrupts, or be lost in one of them."""
    os._exit(INTERRUPTED)


def launched() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # one that is ignored stays so
    signal.signal(signal.SIGINT, leave)
