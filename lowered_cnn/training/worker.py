"""One worker's part of a step: the gradient of its shards, then its slice of the sum and the update."""

import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, Images, Labels, Shape
from lowered_cnn.augmentation import Augmentation
from lowered_cnn.losses import Loss
from lowered_cnn.network import Network
from lowered_cnn.optimizers import Optimizer
from lowered_cnn.parameters import ParameterVector
from lowered_cnn.training.gradients import Batch, ShardGradients, Totals, halves, shard_count

Scalar = TypeVar("Scalar", bound=np.generic)

SPIN_TURNS = 2000
"""How many times a worker looks for the others before it yields its core: a tenth of a millisecond."""

YIELD_TURNS = 1000
"""How many times it then yields its core before it sleeps; waking up takes as long as all of these together."""

LONGEST_SLEEP = 0.05


@dataclass(frozen=True)
class Capacity:
    """What a board has room for: the number of workers and of images, and the dtype of the images."""

    workers: int
    images: int
    pixels: np.dtype[np.uint8 | np.floating]


@dataclass(frozen=True)
class Board:
    """The arrays that all workers see."""

    parameters: Array
    """The flat vector."""
    gradients: Array
    """One vector per worker; after a step the first one holds the gradient of the batch."""
    images: Images
    """The batch, in an array (N, C, *size) that fits the largest batch."""
    labels: Labels
    """Its labels (N,)."""
    examples: Labels
    """Their positions in the data set (N,)."""
    totals: npt.NDArray[np.float64]
    """The loss and the number of correct answers of each worker."""
    arrivals: npt.NDArray[np.int64]
    """How many barriers each worker has reached."""

    @classmethod
    def of(cls, network: Network, capacity: Capacity, zeros: "Zeros", parameters: Array | None = None) -> "Board":
        """Make the arrays; `parameters`, if given, are used as they are."""
        size, dtype = network.parameters.vector.size, network.parameters.vector.dtype
        return cls(
            zeros((size,), dtype) if parameters is None else parameters,
            zeros((capacity.workers, size), dtype),
            zeros((capacity.images, *network.input_shape), capacity.pixels),
            zeros((capacity.images,), np.dtype(np.int64)),
            zeros((capacity.images,), np.dtype(np.int64)),
            zeros((capacity.workers, 2), np.dtype(np.float64)),
            zeros((capacity.workers,), np.dtype(np.int64)),
        )


class Zeros(Protocol):
    """A function that makes arrays of zeros: `np.zeros`, or one that takes them from shared memory."""

    def __call__(self, shape: Shape, dtype: "np.dtype[Scalar]", /) -> npt.NDArray[Scalar]:
        """Return an array of zeros."""


@dataclass(frozen=True)
class Job:
    """What stays the same for a worker throughout training."""

    loss: Loss
    optimizer: Optimizer
    augmentation: Augmentation | None
    clip_norm: float | None
    seed: int
    shard_size: int


@dataclass(frozen=True)
class Step:
    """One step: its number, from 0, its epoch, the number of examples on the board, and the learning rate."""

    number: int
    epoch: int
    examples: int
    learning_rate: float


@dataclass(frozen=True)
class Deal:
    """The shards of each worker, and the sums (into, from) of workers' gradients that complete the tree."""

    shards: dict[int, range]
    sums: tuple[tuple[int, int], ...]


def deal(shards: range, workers: range) -> Deal:
    """Give each worker a subtree of the shards; if there are more workers than shards, some get none."""
    if len(shards) == 1 or len(workers) == 1:
        return Deal({workers[0]: shards}, ())
    crews = halves(workers)
    first, second = (deal(part, crew) for part, crew in zip(halves(shards), crews, strict=True))
    return Deal(first.shards | second.shards, (*first.sums, *second.sums, (crews[0][0], crews[1][0])))


class Barrier:
    """Where workers wait for each other: tens of microseconds if all arrive together. `check` may raise meanwhile.

    A worker first spins, then yields its core between looks, then sleeps for a twentieth of the time waited so far.
    """

    def __init__(self, arrivals: npt.NDArray[np.int64], number: int, check: Callable[[], None] | None = None) -> None:
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
            if self._check:
                self._check()
            time.sleep(min(LONGEST_SLEEP, (time.monotonic() - start) / 20))

    def _order(self) -> None:
        """Keep processors that reorder memory accesses (ARM) from moving any past this: taking a lock twice does."""
        for _ in range(2):
            with self._lock:
                pass


class Worker:
    """Worker `number` of those that share a board; `network` uses the parameters on the board."""

    def __init__(self, number: int, network: Network, job: Job, board: Board, barrier: Barrier) -> None:
        count, size = board.gradients.shape
        self._number = number
        self._board = board
        self._barrier = barrier
        self._shard_size = job.shard_size
        self._clip_norm = job.clip_norm
        self._gradients = ShardGradients(
            network,
            job.loss,
            augmentation=job.augmentation,
            shard_size=job.shard_size,
            seed=job.seed,
            gradient=board.gradients[number],
        )
        start, stop = size * number // count, size * (number + 1) // count
        self._slice = slice(start, stop)
        owned = network.parameters.parameters
        self._update = job.optimizer.over(ParameterVector(owned, board.parameters), self._slice)
        self._sum = ParameterVector(owned, board.gradients[0])

    def run(self, step: Step) -> Totals:
        """Do this worker's part of a step, wait for the others, and return the batch's totals."""
        board, part = self._board, self._slice
        dealt = deal(range(shard_count(step.examples, self._shard_size)), range(len(board.gradients)))
        if self._number in dealt.shards:
            self._add_up(step, dealt.shards[self._number])
        self._barrier.wait()
        totals = {number: Totals(loss, int(correct)) for number, (loss, correct) in enumerate(board.totals.tolist())}
        for into, other in dealt.sums:
            totals[into] += totals[other]
            board.gradients[into, part] += board.gradients[other, part]
        scale = self._clipping()
        update, gradients = self._update, self._sum
        if scale < 1:
            gradients.vector[update.learned] *= scale
        gradients.vector[update.statistics] /= step.examples
        update.step(gradients, step.learning_rate)
        self._barrier.wait()
        return totals[0]

    def _clipping(self) -> float:
        """Return the factor that scales the gradient down to the clip norm; every worker computes the same bits."""
        if self._clip_norm is None:
            return 1.0
        self._barrier.wait()
        norm = math.sqrt(np.sum(np.square(self._sum.learned, dtype=np.float64)))
        self._barrier.wait()
        return self._clip_norm / max(norm, self._clip_norm)

    def _add_up(self, step: Step, shards: range) -> None:
        board = self._board
        here = slice(step.examples)
        batch = Batch(board.images[here], board.labels[here], board.examples[here], step.number, step.epoch)
        totals = self._gradients.sum(batch, shards)
        board.totals[self._number] = totals.loss, totals.correct
