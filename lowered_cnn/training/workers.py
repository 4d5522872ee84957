"""The workers that train: the calling process is worker 0, the others are its children."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lowered_cnn.arrays import Array
from lowered_cnn.data.dataset import Examples, Indices, gather_rows
from lowered_cnn.network import Network
from lowered_cnn.training.barrier import Barrier
from lowered_cnn.training.board import Board, Capacity
from lowered_cnn.training.gradients import Totals, examples_of, shard_count
from lowered_cnn.training.interrupts import interrupts_held
from lowered_cnn.training.ranks import Ranks
from lowered_cnn.training.reduction import Reduction, rank_shards
from lowered_cnn.training.worker import Step, Task, Worker

if TYPE_CHECKING:
    from lowered_cnn.training.processes import Children

POSIX = os.name == "posix"
"""Whether there can be several workers: the way they share memory exists on Linux and macOS, not on Windows."""


class Team:
    """All the workers of this rank, which take each step together; `buffers` is the optimizer's state."""

    def __init__(
        self, network: Network, task: Task, board: Board, ranks: Ranks, children: "Children | None" = None
    ) -> None:
        self._network = network
        self._task = task
        self._board = board
        self._children = children
        barrier = Barrier(board.arrivals, 0, children.await_worker if children else None)
        self._worker = Worker(network, task, board, Reduction(board, 0, barrier, task.rank, ranks))
        self.buffers = board.buffers

    def read(self, data: Examples, indices: Indices, step: Step) -> None:
        """Read those of a step's examples that are in the shards of this rank."""
        if self._children is not None:
            self._children.check()
        board = self._board
        here = examples_of(self._shards(step), step.examples, self._task.shard_size)
        data.gather(indices[here], board.images[here].reshape(-1, *data.image_shape))
        gather_rows(data.targets, indices[here], board.targets[here])
        if data.weights is not None:
            board.weights[here] = data.weights[indices[here]]
        board.examples[here] = indices[here]

    def step(self, step: Step) -> Totals:
        """Take a step on the examples that were read; return the batch's totals.

        With children, the network's parameters are copied to the board before the step and back after it, so that the
        caller's changes between two steps take effect. Next to a step the copies cost little.
        """
        board, vector = self._board, self._network.parameters.vector
        if self._children is None:
            return self._worker.run(step)
        board.parameters[...] = vector
        self._children.send(step)
        totals = self._worker.run(step)
        vector[...] = board.parameters
        return totals

    def first_fault(self, step: Step) -> str | None:
        """Return where, in this rank's part of the last batch, a number that is not finite first appears, or None."""
        return self._worker.first_fault(step, self._shards(step))

    def _shards(self, step: Step) -> range:
        return rank_shards(shard_count(step.examples, self._task.shard_size), self._task.rank)


@contextmanager
def team(network: Network, task: Task, capacity: Capacity, buffers: Array, ranks: Ranks) -> Iterator[Team]:
    """Assemble the workers, with this state of the optimizer; they end with the context.

    Without children, the parameters and buffers on the board are the caller's own.
    """
    if capacity.workers == 1:
        board = Board.of(network, len(buffers), capacity, np.zeros)
        yield Team(network, task, replace(board, parameters=network.parameters.vector, buffers=buffers), ranks)
        return
    with interrupts_held():
        from lowered_cnn.training.processes import children

    with children(network, task, capacity) as (board, started):
        board.buffers[...] = buffers
        yield Team(network, task, board, ranks, started)
