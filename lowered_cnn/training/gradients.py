"""The gradient of a range of shards: each is run forward and backward, and a fixed tree adds the results."""

from dataclasses import dataclass

import numpy as np

from lowered_cnn.arrays import Array, Images, Labels, Targets, Weights
from lowered_cnn.augmentation import Augmentation
from lowered_cnn.layers.container import Stage, Tap
from lowered_cnn.losses import Loss, loss_and_gradient
from lowered_cnn.network import LoweredNetwork, Network
from lowered_cnn.training.metrics import right_answers


@dataclass(frozen=True)
class Batch:
    """Inputs (N, C, *size), targets (N, ...) and data set positions (N,) of the examples of one step.

    `step`, from 0, and the shard determine the noise; `epoch` and the position determine what the `augmentation` does
    to an example. `total` is what `Loss.total` returns for the whole batch; `weights` (N,), if any, say how much each
    example counts.
    """

    images: Images
    targets: Targets
    examples: Labels
    step: int
    epoch: int
    total: float
    weights: Weights | None = None
    augmentation: Augmentation | None = None


@dataclass(frozen=True)
class Totals:
    """The totals of a batch, or of part of one: its share of the loss, and how many of its answers are `correct`.

    There are `answers` only where targets are class numbers.
    """

    loss: float
    correct: int
    answers: int

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(self.loss + other.loss, self.correct + other.correct, self.answers + other.answers)


def halves(numbers: range) -> tuple[range, range]:
    """Cut a range in half, the first half longer by one if need be: the rule that builds the tree."""
    middle = (len(numbers) + 1) // 2
    return numbers[:middle], numbers[middle:]


def shard_count(examples: int, shard_size: int) -> int:
    """Return how many shards a batch is cut into: as few as possible, of at most `shard_size` examples each."""
    return -(-examples // shard_size)


def examples_of(shards: range, examples: int, shard_size: int) -> slice:
    """Return which of a batch's examples are in these shards; the first shards may have one example more."""
    size, longer = divmod(examples, shard_count(examples, shard_size))
    start, stop = (shard * size + min(shard, longer) for shard in (shards.start, shards.stop))
    return slice(start, stop)


class ShardGradients:
    """Adds up the gradients of a batch's shards, of at most `shard_size` examples each.

    The sum is a binary tree: the sum of the first half of the shards plus that of the second, down to single shards.
    Its order depends on the shards alone, and so do the bits of the result if BLAS uses one thread.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        *,
        shard_size: int,
        seed: int,
        gradient: Array,
        frozen: frozenset[str] = frozenset(),
    ) -> None:
        self._network = network
        self._loss = loss
        self._shard_size = shard_size
        self._seed = seed
        self._gradient = gradient
        self._frozen = frozen
        self._lowered: dict[int, LoweredNetwork] = {}
        self._spares: dict[int, Array] = {}

    def sum(self, batch: Batch, shards: range, depth: int = 0) -> Totals:
        """Write these shards' gradient into `gradient`; return their totals."""
        if len(shards) == 1:
            return self._run(batch, shards[0])
        first, second = halves(shards)
        totals = self.sum(batch, first, depth + 1)
        spare = self._spare(depth)
        np.copyto(spare, self._gradient)
        totals += self.sum(batch, second, depth + 1)
        self._gradient += spare
        return totals

    def first_fault(self, batch: Batch, shards: range) -> str | None:
        """Return where, on the way forward, a number that is not finite first appears in these shards, if one does."""
        for shard in shards:
            images, targets, weights = self._examples(batch, shard)
            lowered = self._network.lower(len(images), seed=self._seed, fused=False, frozen=self._frozen)
            sentinel = _Sentinel()
            with np.errstate(all="ignore"), lowered.tapped(sentinel):
                z = lowered.forward(images, position=(batch.step, shard))
                loss, _ = loss_and_gradient(self._loss, z, targets, batch.total, weights)
            if sentinel.fault or not np.isfinite(loss):
                return sentinel.fault or "the loss"
        return None

    def _run(self, batch: Batch, shard: int) -> Totals:
        images, targets, weights = self._examples(batch, shard)
        lowered = self._lowered_for(len(images))
        z = lowered.forward(images, position=(batch.step, shard))
        correct, answers = right_answers(z, targets, self._loss.ignore)
        loss, dz = loss_and_gradient(self._loss, z, targets, batch.total, weights)
        lowered.backward(dz)
        return Totals(loss, correct, answers)

    def _examples(self, batch: Batch, shard: int) -> tuple[Images, Targets, Weights | None]:
        """Return a shard's images, augmented, targets and weights."""
        part = examples_of(range(shard, shard + 1), len(batch.targets), self._shard_size)
        images = batch.images[part]
        if batch.augmentation is not None:
            images = batch.augmentation(images, batch.examples[part], self._seed, batch.epoch)
        return images, batch.targets[part], None if batch.weights is None else batch.weights[part]

    def _lowered_for(self, count: int) -> LoweredNetwork:
        if count not in self._lowered:
            self._lowered[count] = self._network.lower(
                count, seed=self._seed, gradients=self._gradient, frozen=self._frozen
            )
        return self._lowered[count]

    def _spare(self, depth: int) -> Array:
        """Return the buffer for the sum of the first half at this depth of the tree."""
        if depth not in self._spares:
            self._spares[depth] = np.empty_like(self._gradient)
        return self._spares[depth]


class _Sentinel(Tap):
    """Watches for the first number that is not finite."""

    def __init__(self) -> None:
        self.fault: str | None = None

    def forward(self, stage: Stage, x: Array, y: Array) -> None:
        """Remember the place of the first one."""
        if self.fault is None and not np.isfinite(x).all():
            self.fault = "the images"
        if self.fault is None and not np.isfinite(y).all():
            self.fault = f"the output of {stage.site.name}"
