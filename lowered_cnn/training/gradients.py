"""The gradient of a batch: cut into shards, dealt to workers, summed by a fixed tree."""

from collections.abc import Sequence
from contextvars import copy_context
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array
from lowered_cnn.losses import Loss
from lowered_cnn.network import LoweredNetwork, Network


@dataclass(frozen=True)
class Totals:
    """What a batch, or a part of it, adds up to: its share of the loss and the number of right answers."""

    loss: float
    correct: int

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(self.loss + other.loss, self.correct + other.correct)


@dataclass(frozen=True)
class Shard:
    """A fixed run of a batch's examples; `number` is its place in the batch, `step` the batch's in the training."""

    images: npt.NDArray[np.generic]
    labels: npt.NDArray[np.generic]
    step: int
    number: int
    batch: int


class BatchGradient:
    """Computes loss and gradient of a batch with `workers` threads; `vector` holds the gradient.

    The batch is cut into shards of `shard_size` examples, the last one shorter. The gradients are added pairwise, one
    half of the shards and the other, down to single shards: that order depends on the shards alone, so the result is
    the same to the last bit for any number of workers, if BLAS runs one thread in each (the loop sees to that).
    """

    def __init__(self, network: Network, loss: Loss, *, shard_size: int, workers: int, seed: int) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self.vector = np.zeros_like(network.parameters.vector)
        self._shard_size = shard_size
        self._workers = [_Worker(network, loss, seed) for _ in range(workers)]
        self._threads = ThreadPoolExecutor(max(1, workers - 1), "worker")

    def __enter__(self) -> "BatchGradient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown()

    def __call__(self, images: npt.NDArray[np.generic], labels: npt.NDArray[np.generic], step: int) -> Totals:
        """Return loss and number of right answers for a batch (N, C, H, W), and leave its gradient in `vector`."""
        starts = range(0, len(images), self._shard_size)
        shards = [
            Shard(images[i : i + self._shard_size], labels[i : i + self._shard_size], step, number, len(images))
            for number, i in enumerate(starts)
        ]
        return self._sum(shards, self._workers, self.vector, depth=0)

    def _sum(self, shards: Sequence[Shard], workers: "Sequence[_Worker]", out: Array, depth: int) -> Totals:
        if len(shards) == 1:
            return workers[0].run(shards[0], out)
        half, share = (len(shards) + 1) // 2, len(workers) // 2
        spare = workers[share].spare(depth)
        if share:
            # A copy of the context, so that np.errstate holds in the thread as well.
            run = copy_context().run
            left = self._threads.submit(run, self._sum, shards[:half], workers[:share], out, depth + 1)
            right = self._sum(shards[half:], workers[share:], spare, depth + 1)
            totals = left.result() + right
        else:
            totals = self._sum(shards[:half], workers, out, depth + 1)
            totals += self._sum(shards[half:], workers, spare, depth + 1)
        out += spare
        return totals


class _Worker:
    """One thread's own lowered networks, one for each length of shard it has met, and its spare gradient vectors."""

    def __init__(self, network: Network, loss: Loss, seed: int) -> None:
        self._network = network
        self._loss = loss
        self._seed = seed
        self._lowered: dict[int, LoweredNetwork] = {}
        self._spares: dict[int, Array] = {}

    def spare(self, depth: int) -> Array:
        """Return the vector for the right half at this depth of the tree."""
        if depth not in self._spares:
            self._spares[depth] = np.empty_like(self._network.parameters.vector)
        return self._spares[depth]

    def run(self, shard: Shard, out: Array) -> Totals:
        """Run one shard forward and backward and leave its gradient in `out`."""
        count = len(shard.labels)
        if count not in self._lowered:
            self._lowered[count] = self._network.lower(count, seed=self._seed)
        lowered = self._lowered[count]
        lowered.noise.position = (shard.step, shard.number)
        z = lowered.forward(shard.images)
        correct = int(np.count_nonzero(z.argmax(axis=0) == shard.labels))
        loss, dz = self._loss.value_and_gradient(z, shard.labels, shard.batch)
        lowered.backward(dz)
        out[...] = lowered.gradients.vector
        return Totals(loss, correct)
