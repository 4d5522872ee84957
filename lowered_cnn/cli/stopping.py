"""Signals that ask a program to stop: the first is remembered, so that it stops in order; a second ends it at once."""

import os
import signal
import time
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Self

import numpy as np

from lowered_cnn.training.ranks import Ranks

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

ECHO = 0.3
"""Seconds in which another signal is an echo of the first: `timeout`, and a terminal that is closed, send two."""


class Stopping:
    """Inside the `with` block, `signal` is the first one that arrived, or None; ignored ones (nohup) stay ignored."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._heard = 0.0

    def __enter__(self) -> Self:
        heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._hear) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agreed(self, ranks: Ranks) -> "signal.Signals | None":
        """Return the signal that rank 0 has received, on all ranks, so that they stop after the same step."""
        number = np.array([self.signal or 0], np.float64)  # MPI copies bytes: the dtype must be that of the other ranks
        ranks.broadcast(number)
        if not number[0]:
            return None  # a signal that came meanwhile is for the next step
        self.signal = signal.Signals(int(number[0]))
        return self.signal

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._heard = signal.Signals(number), time.monotonic()
        elif time.monotonic() - self._heard > ECHO:
            with suppress(OSError):
                os.write(2, b"\n")  # ends the bar's line; print would raise if the signal came during another print
            os._exit(exit_code(number))


def exit_code(number: int) -> int:
    """Return what a shell reports for a program that a signal has ended."""
    return 128 + number
