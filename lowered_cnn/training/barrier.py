"""The barrier at which workers wait for each other."""

import os
import threading
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

SPIN_TURNS = 2000
"""How many times a worker looks for the others before it yields its core: a tenth of a millisecond."""

YIELD_TURNS = 1000
"""How many times it then yields its core before it sleeps; waking up takes as long as all of these together."""

LONGEST_SLEEP = 0.05
"""Seconds."""


class Barrier:
    """Where workers wait for each other: tens of microseconds if all arrive together.

    While it waits, `check(worker, seconds)` is called with the worker that is missing, and for how long it has been; it
    may raise. A worker first spins, then yields its core between polls, then sleeps for a twentieth of the time so far.
    """

    def __init__(
        self, arrivals: npt.NDArray[np.int64], number: int, check: Callable[[int, float], None] | None = None
    ) -> None:
        self._arrivals = arrivals.data
        self._number = number
        self._others = [other for other in range(len(arrivals)) if other != number]
        self._check = check
        self._count = 0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return once all workers have been here as many times; what they wrote before is then visible."""
        self._count += 1
        self._order()
        self._arrivals[self._number] = self._count
        for other in self._others:
            self._await(other)
        self._order()

    def _await(self, other: int) -> None:
        for _ in range(SPIN_TURNS):
            if self._arrivals[other] >= self._count:
                return
        for _ in range(YIELD_TURNS):
            if self._arrivals[other] >= self._count:
                return
            os.sched_yield()
        start = time.monotonic()
        while self._arrivals[other] < self._count:
            waited = time.monotonic() - start
            if self._check:
                self._check(other, waited)
            time.sleep(min(LONGEST_SLEEP, waited / 20))

    def _order(self) -> None:
        """Keep processors that reorder memory accesses (ARM) from moving any past this: taking a lock twice does."""
        for _ in range(2):
            with self._lock:
                pass
