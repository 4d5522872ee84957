"""The recipe: every choice that training involves, except the network, the data and the machine."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lowered_cnn.arrays import InputError, is_number, whole_number
from lowered_cnn.augmentation import Augmentation
from lowered_cnn.losses import Loss, SoftmaxCrossEntropy
from lowered_cnn.optimizers import SGD, Optimizer
from lowered_cnn.parameters import Parameter, with_rates
from lowered_cnn.schedules import OneCycle, Schedule

SHARD_SIZES = range(8, 65)
"""What the most examples in a shard may be by default: enough for fast products, and few enough for the cache."""


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults were chosen for MNIST on its dev split.

    `seed` determines the order of the examples, Dropout's noise and the augmentation, which changes each image anew in
    each epoch; training again with the same recipe repeats all three. With `fade` the augmentation fades out: over that
    last part of the epochs (0.5 for half of them) its amounts fall linearly, to 0 in the last one, so that training
    ends with real images; if it then goes on with more epochs, they rise again. `clip_norm` scales longer gradients
    down to that length (Pascanu et al., 2013). With `average` the network ends up with an exponential moving average of
    its weights (Polyak and Juditsky, 1992). Its decay in step t is `average`, but at most (1 + t) / (10 + t), so that
    it warms up. With `patience` training ends early once the dev accuracy (if targets are not class numbers, the dev
    loss) has not improved by more than `min_delta` in that many epochs, and the network ends up with the weights of the
    best one. `monitor` chooses another figure: "dev_accuracy", "dev_loss", or the name of a metric, where higher is
    better.

    `shard_size` is the most examples in a shard, the part of a batch that one worker runs at a time; by default half of
    the batch, but at least 8 and at most 64, so that two workers share it. More workers may need smaller shards. The
    size decides in which order gradients are added, and so their bits, and over how many examples BatchNorm normalizes.

    Parameters that are `frozen` keep their values, and so do the statistics of layers in which nothing learns; `rates`
    multiply the learning rates of others. Both take patterns of names, in which * stands for any text:
    `frozen=("conv*",)`, `rates={"dense2": 10.0}`. A pattern matches a parameter, or a layer and everything in it. Of
    several rates that match, the last one counts.
    """

    epochs: int = 3
    batch_size: int = 64
    optimizer: Optimizer = SGD(learning_rate=0.05, momentum=0.9, nesterov=True, l2=1e-3)
    schedule: Schedule = OneCycle(warmup=0.15)
    loss: Loss = SoftmaxCrossEntropy()
    seed: int = 0
    augmentation: Augmentation | None = None
    fade: float = 0.0
    clip_norm: float | None = None
    average: float | None = None
    patience: int | None = None
    min_delta: float = 0.0
    monitor: str | None = None
    shard_size: int | None = None
    frozen: Sequence[str] = ()
    rates: Mapping[str, float] | Sequence[tuple[str, float]] = ()

    def __post_init__(self) -> None:
        whole_number("Recipe: epochs", self.epochs, 1)
        whole_number("Recipe: batch_size", self.batch_size, 1)
        whole_number("Recipe: seed", self.seed, 0)
        for name, value, kind, wanted in (
            ("optimizer", self.optimizer, Optimizer, "an optimizer, such as SGD() or Adam()"),
            ("schedule", self.schedule, Schedule, "a schedule, such as OneCycle() or Constant()"),
            ("loss", self.loss, Loss, "a loss, such as SoftmaxCrossEntropy() or MeanSquaredError()"),
            ("augmentation", self.augmentation, Augmentation | None, "an Augmentation, or None"),
        ):
            if not isinstance(value, kind):
                raise InputError(f"Recipe: {name}", wanted, repr(value))
        if not (is_number(self.fade) and 0 <= self.fade <= 1):
            raise InputError("Recipe: fade", "a number from 0 to 1", repr(self.fade))
        if self.clip_norm is not None and not (is_number(self.clip_norm) and self.clip_norm > 0):
            raise InputError("Recipe: clip_norm", "a number above 0", repr(self.clip_norm))
        if self.average is not None and not (is_number(self.average) and 0 < self.average < 1):
            raise InputError("Recipe: average", "a number between 0 and 1", repr(self.average))
        if self.patience is not None:
            whole_number("Recipe: patience", self.patience, 1)
        if not (is_number(self.min_delta) and 0 <= self.min_delta < math.inf):
            raise InputError("Recipe: min_delta", "a finite number of at least 0", repr(self.min_delta))
        if self.shard_size is not None:
            whole_number("Recipe: shard_size", self.shard_size, 1)
        if not isinstance(self.monitor, str | None):
            raise InputError("Recipe: monitor", "dev_accuracy, dev_loss or a metric's name", repr(self.monitor))
        if not isinstance(self.frozen, Iterable):
            raise InputError("Recipe: frozen", 'patterns of names, such as "conv*"', repr(self.frozen))
        object.__setattr__(self, "frozen", (self.frozen,) if isinstance(self.frozen, str) else tuple(self.frozen))
        object.__setattr__(self, "rates", _pairs(self.rates))
        for pattern in self.frozen:
            if not isinstance(pattern, str):
                raise InputError("Recipe: frozen", 'patterns of names, such as "conv*"', repr(pattern))

    def with_rates(self, parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
        """Return a network's parameters with their rates, 0 for those that are frozen.

        Raises InputError for a pattern that matches none of them, and if nothing is left to learn.
        """
        return with_rates(parameters, self.frozen, _pairs(self.rates))

    @property
    def largest_shard(self) -> int:
        """The most examples in a shard."""
        return self.shard_size or min(max(-(-self.batch_size // 2), SHARD_SIZES[0]), SHARD_SIZES[-1])

    def average_decay(self, step: int) -> float:
        """Return the decay of the average in step 1, 2, ..."""
        return min(self.average or 0.0, (1 + step) / (10 + step))

    def augmentation_in(self, epoch: int) -> Augmentation | None:
        """Return the augmentation of epoch 1, 2, ..., scaled down if it fades."""
        left, fading = self.epochs - epoch, self.fade * self.epochs
        if self.augmentation is None or left >= fading:
            return self.augmentation
        return self.augmentation.scaled(left / fading)

    def out_of_patience(self, scores: Iterable[float]) -> bool:
        """Return whether training ends after epochs with these scores (higher is better)."""
        if self.patience is None:
            return False
        best, waited = -math.inf, 0
        for score in scores:
            waited = 0 if score > best + self.min_delta else waited + 1
            best = max(best, score)
        return waited >= self.patience

    def steps(self, examples: int, epochs: int | None = None) -> int:
        """Return the number of steps that `epochs` (by default all of them) take over that many examples."""
        return -(-examples // self.batch_size) * (self.epochs if epochs is None else epochs)

    def at_least(self, steps: int, most: int, examples: int) -> "Recipe":
        """Return the recipe with enough epochs for that many steps over these examples, but at most `most`."""
        needed = min(-(-steps // self.steps(examples, 1)), most)
        return replace(self, epochs=max(self.epochs, needed))

    def learning_rate(self, step: int, examples: int, losses: Sequence[float]) -> float:
        """Return the rate after that many steps over that many examples, and epochs with these losses."""
        factor = self.schedule.factor_after(step / self.steps(examples), losses)
        return float(self.optimizer.learning_rate * factor)

    def extended(self, epochs: int, step: int, examples: int, losses: Sequence[float]) -> "Recipe":
        """Return the recipe with more epochs; raises InputError if the rate after this step would then jump."""
        longer = replace(self, epochs=whole_number("resume: epochs", epochs, self.epochs))
        before, after = (recipe.learning_rate(step, examples, losses) for recipe in (self, longer))
        if before != after:
            jump = f"the learning rate of {self.schedule!r} would jump from {before:g} to {after:g}"
            raise InputError("resume: epochs", f"{self.epochs}, as {jump}", epochs)
        return longer


def _pairs(rates: object) -> tuple[tuple[str, float], ...]:
    """Return rates as pairs (pattern, rate), which a description can hold; raises InputError for anything else."""
    wanted = 'numbers above 0 by name, such as {"dense2": 10.0} (frozen=("dense2",) for 0)'
    try:
        pairs = tuple((name, rate) for name, rate in dict(rates).items())  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise InputError("Recipe: rates", wanted, repr(rates)) from error
    for name, rate in pairs:
        if not (isinstance(name, str) and is_number(rate) and 0 < rate < math.inf):
            raise InputError("Recipe: rates", wanted, f"{name!r}: {rate!r}")
    return pairs


COMPACT = Recipe(epochs=2, batch_size=128, optimizer=SGD(learning_rate=0.3, momentum=0.9, nesterov=True, l2=1e-3))
"""The recipe of the default command, for the network `compact`, whose normalization permits the high learning rate."""

BEST = Recipe(
    epochs=20,
    batch_size=64,
    optimizer=SGD(learning_rate=0.05, momentum=0.9, nesterov=True, l2=5e-4),
    schedule=OneCycle(warmup=0.15),
    loss=SoftmaxCrossEntropy(label_smoothing=0.1),
    augmentation=Augmentation(shift=2, rotation=12, scale=0.12, shear=10, elastic=0.6),
    fade=0.4,
    average=0.999,
)
"""The recipe with the best accuracy on MNIST's dev split, for the network `deep`: about eleven minutes on 2 cores."""

OBJECTS = replace(BEST, augmentation=Augmentation(shift=2, scale=0.1, flip=True, cutout=8))
"""The recipe for small pictures of things, which may face left as well as right, with the network `wide`."""

ADAPTIVE = Recipe(epochs=8, clip_norm=5.0)
"""The recipe for images unlike MNIST's, with the network `adaptive`; `at_least` gives small data more epochs."""
