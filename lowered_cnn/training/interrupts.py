"""Holds Ctrl-C back where it would get lost or leave something half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Delay the KeyboardInterrupt of a Ctrl-C until the end of the `with` block; that of a second one comes at once.

    Python loses one that arrives during an import, in the callback that frees the module's lock. Blocking SIGINT would
    not help, since BLAS has threads that do not block it. Only the main thread is ever interrupted. A handler of the
    program's own is left alone.
    """
    handler = signal.default_int_handler
    if signal.getsignal(signal.SIGINT) is not handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, FrameType | None]] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append((number, frame))
        if len(held) == 2:
            handler(number, frame)

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if len(held) == 1:
            handler(*held[0])
