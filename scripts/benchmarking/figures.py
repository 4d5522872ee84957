"""The figures of the tables, computed from the rounds: medians, minima, ratios, and each peer's fastest mode."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarking.timing import Timing
from benchmarking.work import Pair, Subject


@dataclass(frozen=True)
class Spread:
    """A median, and the smallest and the largest value."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarize the values."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Duel:
    """All rounds against one peer in one mode: seconds per step, and how many times as long the peer takes.

    `ratio` is the median of the ratios within each pair of processes, because whatever slows the machine down for a
    while slows both processes of a pair.
    """

    peer: Subject
    ours: Timing
    theirs: Timing
    ratio: Spread

    @classmethod
    def of(cls, peer: Subject, pairs: Sequence[Pair]) -> "Duel":
        """Summarize the pairs with this peer."""
        theirs = [pair.theirs for pair in pairs if pair.theirs]
        ratio = Spread.of([pair.ratio for pair in pairs])
        return cls(peer, over_rounds([pair.ours for pair in pairs]), over_rounds(theirs), ratio)


def over_rounds(timings: Sequence[Timing]) -> Timing:
    """Return the median of the processes' medians, and the minimum of their minima."""
    medians = [timing.median for timing in timings]
    return Timing(
        statistics.median(medians), min(timing.minimum for timing in timings), sum(timing.samples for timing in timings)
    )


def duels(pairs: Sequence[Pair]) -> list[Duel]:
    """Return the duels of pairs of one job and piece of work, one per peer, mode and setting."""
    peers = dict.fromkeys(pair.peer for pair in pairs if pair.peer)
    return [Duel.of(peer, [pair for pair in pairs if pair.peer == peer]) for peer in peers]


def fastest(all_duels: Sequence[Duel], framework: str) -> Duel | None:
    """Return the duel against the fastest mode of a framework, or None if it was not measured."""
    mine = [duel for duel in all_duels if duel.peer.framework == framework]
    return min(mine, key=lambda duel: duel.theirs.median, default=None)
