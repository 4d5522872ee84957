"""The workers that train: the calling process is worker 0, the others are its children."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lowered_cnn.data.dataset import Examples, Indices
from lowered_cnn.network import Network
from lowered_cnn.training.gradients import Totals, shard_count
from lowered_cnn.training.interrupts import interrupts_held
from lowered_cnn.training.worker import Barrier, Board, Capacity, Job, Step, Worker

if TYPE_CHECKING:
    from lowered_cnn.training.processes import Children

POSIX = os.name == "posix"
"""Whether there can be several workers: the way they share memory exists on Linux and macOS, not on Windows."""


class Team:
    """All the workers, which take each step together."""

    def __init__(self, network: Network, job: Job, board: Board, children: "Children | None") -> None:
        self._board = board
        self._network = network
        self._children = children
        self._worker = Worker(0, network, job, board, Barrier(board.arrivals, 0, children.check if children else None))

    def step(self, data: Examples, indices: Indices, number: int, epoch: int, learning_rate: float) -> Totals:
        """Take step `number` on these examples and return the batch's totals.

        With children, the network's parameters are copied to the board before the step and back after it, so that the
        caller's changes between two steps take effect. Next to a step the copies cost little.
        """
        board, vector = self._board, self._network.parameters.vector
        step = Step(number, epoch, len(indices), learning_rate)
        data.gather(indices, board.images[: len(indices)].reshape(len(indices), *data.image_shape))
        np.take(data.labels, indices, out=board.labels[: len(indices)], mode="clip")
        board.examples[: len(indices)] = indices
        if self._children is None:
            return self._worker.run(step)
        board.parameters[...] = vector
        self._children.send(step)
        totals = self._worker.run(step)
        vector[...] = board.parameters
        return totals


@contextmanager
def team(network: Network, job: Job, capacity: Capacity) -> Iterator[Team]:
    """Assemble the workers, at most one per shard of a batch; they end with the context.

    Without children, the parameters on the board are the network's own.
    """
    workers = min(capacity.workers, shard_count(capacity.images, job.shard_size))
    capacity = replace(capacity, workers=workers)
    if workers == 1:
        yield Team(network, job, Board.of(network, capacity, np.zeros, network.parameters.vector), None)
        return
    with interrupts_held():
        from lowered_cnn.training.processes import children

    with children(network, job, capacity) as (board, started):
        yield Team(network, job, board, started)
