"""Holds Ctrl-C back where it would get lost or leave something half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Delay a Ctrl-C that arrives inside the `with` block until the end of the block.

    Python loses one that arrives during an import, in the callback that frees the module's lock. Blocking SIGINT would
    not help, since BLAS has threads that do not block it. Only the main thread is ever interrupted.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if held:
            handler(*held[0])
