"""The reduction: who computes which shards of a batch, and how the sums of subtrees become the sum of the batch.

The shards are dealt to ranks (the processes of an MPI job; outside of a job there is one), and those of a rank to its
workers (processes that share a board). Each worker adds up its own subtree; the workers of a rank then add up their
sums, each in its slice of the vector; and the ranks exchange theirs in messages. Who adds never changes the order in
which numbers are added.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from lowered_cnn.training.barrier import Barrier
from lowered_cnn.training.board import Board
from lowered_cnn.training.gradients import Totals, halves
from lowered_cnn.training.ranks import Ranks


@dataclass(frozen=True)
class Deal:
    """The shards of each worker, and the sums (into, from) of workers' gradients that complete the tree."""

    shards: dict[int, range]
    sums: tuple[tuple[int, int], ...]


@cache
def deal(shards: range, workers: range) -> Deal:
    """Give each worker a subtree of the shards; if there are more workers than shards, some get none."""
    if not shards:
        return Deal({}, ())
    if len(shards) == 1 or len(workers) == 1:
        return Deal({workers[0]: shards}, ())
    crews = halves(workers)
    first, second = (deal(part, crew) for part, crew in zip(halves(shards), crews, strict=True))
    return Deal(first.shards | second.shards, (*first.sums, *second.sums, (crews[0][0], crews[1][0])))


@dataclass(frozen=True)
class Rank:
    """A rank as its workers know it: its number, and how many ranks there are. The first one alone reaches others."""

    number: int
    count: int


class Reduction:
    """One worker's part of the reduction; `ranks` is how a rank's first worker reaches the other ranks."""

    def __init__(self, board: Board, number: int, barrier: Barrier, rank: Rank, ranks: Ranks | None = None) -> None:
        self._board = board
        self._number = number
        self._barrier = barrier
        self._rank = rank
        self._ranks = ranks
        workers, size = board.gradients.shape
        self.gradient = board.gradients[number]
        self.part = slice(size * number // workers, size * (number + 1) // workers)

    def shards(self, count: int) -> range:
        """Return which of a batch's shards are this worker's; `gradient` is where their gradient belongs."""
        return self._dealt(count).shards.get(self._number, range(0))

    def sum(self, count: int, totals: Totals) -> Totals:
        """Add up, given the totals of this worker's shards, and return those of the batch.

        Afterwards `board.gradients[0]` holds the gradient of the batch: this worker's `part` of it, and all of it after
        the next `wait`.
        """
        board, part = self._board, self.part
        board.totals[self._number] = totals.loss, totals.correct, totals.answers
        self.wait()
        shares = {worker: _totals(row) for worker, row in enumerate(board.totals.tolist())}
        for into, other in self._dealt(count).sums:
            shares[into] += shares[other]
            board.gradients[into, part] += board.gradients[other, part]
        return self._sum_of_ranks(count, shares[0]) if self._rank.count > 1 else shares[0]

    def wait(self) -> None:
        """Return once all workers of this rank are here; what they wrote before is then visible."""
        self._barrier.wait()

    def _dealt(self, count: int) -> Deal:
        return deal(rank_shards(count, self._rank), range(len(self._board.gradients)))

    def _sum_of_ranks(self, count: int, totals: Totals) -> Totals:
        board = self._board
        self.wait()
        if self._ranks is not None:
            sums = deal(range(count), range(self._rank.count)).sums
            row = np.array([totals.loss, totals.correct, totals.answers])
            self._ranks.sum(row, sums)
            self._ranks.sum(board.gradients[0], sums)
            board.totals[0] = row
        self.wait()
        return _totals(board.totals[0].tolist())


def _totals(row: list[float]) -> Totals:
    loss, correct, answers = row
    return Totals(loss, int(correct), int(answers))


def rank_shards(count: int, rank: Rank) -> range:
    """Return which of a batch's shards are a rank's."""
    return deal(range(count), range(rank.count)).shards.get(rank.number, range(0))


def most_shards(count: int, rank: Rank) -> int:
    """Return how many of a batch's shards the rank with the most of them has."""
    return max(map(len, deal(range(count), range(rank.count)).shards.values()))
