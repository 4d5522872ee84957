"""How long one step takes: warmed up, then timed in runs long enough for the clock."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

RUN_SECONDS = 0.02
LEAST_RUNS = 5
WARM_UP_STEPS = 3


def nothing() -> None:
    """Return at once: the step is done when it returns."""


@dataclass(frozen=True)
class Timed:
    """Something to time: `step` runs one step, `wait` waits for what steps left running, `close` ends it all."""

    step: Callable[[], object]
    wait: Callable[[], object] = nothing
    close: Callable[[], object] = nothing


@dataclass(frozen=True)
class Timing:
    """Seconds per step, over `samples` runs in one process."""

    median: float
    minimum: float
    samples: int

    @classmethod
    def of(cls, seconds: list[float]) -> "Timing":
        """Summarize the seconds per step of each run."""
        return cls(statistics.median(seconds), min(seconds), len(seconds))


def measure(run: Timed, seconds: float) -> Timing:
    """Warm up for half of `seconds`, then time steps for `seconds`, but never fewer than five runs."""
    try:
        step = min(_until(run, 1, seconds / 2, WARM_UP_STEPS))
        steps = max(1, round(RUN_SECONDS / step))
        return Timing.of(list(_until(run, steps, seconds, LEAST_RUNS)))
    finally:
        run.close()


def _until(run: Timed, steps: int, seconds: float, least: int) -> Iterator[float]:
    """Yield the seconds per step of each run of `steps` steps, for at least `least` runs."""
    spent, runs = 0.0, 0
    while spent < seconds or runs < least:
        start = time.perf_counter()
        for _ in range(steps):
            run.step()
        run.wait()
        taken = time.perf_counter() - start
        yield taken / steps
        spent, runs = spent + taken, runs + 1
