"""Holds Ctrl-C back where it would get lost or leave something half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Delay a Ctrl-C that arrives inside the `with` block until the end of the block; a second one is not delayed.

    Python loses one that arrives during an import, in the callback that frees the module's lock. Blocking SIGINT would
    not help, since BLAS has threads that do not block it. Only the main thread is ever interrupted.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, FrameType | None]] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append((number, frame))
        if len(held) == 2:
            for each in held:
                handler(*each)

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if len(held) == 1:
            handler(*held[0])
