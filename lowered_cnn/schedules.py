"""Schedules: the factor on the optimizer's learning rate at each point of training."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lowered_cnn.arrays import InputError, is_number, whole_number


class Schedule(ABC):
    """A function of training progress, from 0 (the first step) to just below 1 (the last one).

    It may also depend on the losses of the epochs so far, but keeps no state of its own.
    """

    @abstractmethod
    def factor(self, progress: float) -> float:
        """Return the factor on the learning rate."""

    def factor_after(self, progress: float, losses: Sequence[float]) -> float:
        """Return the factor after epochs with these losses, those on the dev set if there is one.

        By default, that is `factor(progress)`.
        """
        return self.factor(progress)


@dataclass(frozen=True)
class Constant(Schedule):
    """Always 1."""

    def factor(self, progress: float) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class StepDecay(Schedule):
    """Multiplied by `drop` at each of the points `at`, which are fractions of the training."""

    at: tuple[float, ...] = (0.5, 0.75)
    drop: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.at, Iterable) or not all(is_number(point) and 0 < point < 1 for point in self.at):
            raise InputError("StepDecay: at", "points between 0 and 1", repr(self.at))
        if not (is_number(self.drop) and 0 < self.drop <= 1):
            raise InputError("StepDecay: drop", "a factor above 0 and at most 1", repr(self.drop))

    def factor(self, progress: float) -> float:
        """Return drop^(number of points passed)."""
        return self.drop ** sum(progress >= point for point in self.at)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from 1 to 0: (1 + cos(pi progress)) / 2 (Loshchilov and Hutter, 2017)."""

    def factor(self, progress: float) -> float:
        """Return (1 + cos(pi progress)) / 2."""
        return (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up from `start` to 1 during the `warmup` fraction, then down to 0, each along half a cosine (Smith, 2018)."""

    warmup: float = 0.3
    start: float = 0.04

    def __post_init__(self) -> None:
        if not (is_number(self.warmup) and 0 < self.warmup < 1):
            raise InputError("OneCycle: warmup", "a fraction between 0 and 1", repr(self.warmup))
        if not (is_number(self.start) and 0 <= self.start <= 1):
            raise InputError("OneCycle: start", "a factor from 0 to 1", repr(self.start))

    def factor(self, progress: float) -> float:
        """Return the rising half cosine from `start` to 1, then the falling one to 0."""
        if progress < self.warmup:
            return self.start + (1 - self.start) * (1 - math.cos(math.pi * progress / self.warmup)) / 2
        return (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup))) / 2


@dataclass(frozen=True)
class Plateau(Schedule):
    """Multiplied by `drop` whenever the loss has not improved for `patience` epochs, but never below `least`.

    The loss is that on the dev set or, without one, the mean over the epoch. It has improved if it is more than
    `min_delta` below the last improvement. After a drop, the count of epochs starts again. Keras' ReduceLROnPlateau
    counts in the same way; PyTorch's waits one epoch longer.
    """

    drop: float = 0.1
    patience: int = 5
    min_delta: float = 1e-4
    least: float = 0.0

    def __post_init__(self) -> None:
        if not (is_number(self.drop) and 0 < self.drop < 1):
            raise InputError("Plateau: drop", "a factor between 0 and 1", repr(self.drop))
        whole_number("Plateau: patience", self.patience, 1)
        if not (is_number(self.min_delta) and 0 <= self.min_delta < math.inf):
            raise InputError("Plateau: min_delta", "a finite number of at least 0", repr(self.min_delta))
        if not (is_number(self.least) and 0 <= self.least <= 1):
            raise InputError("Plateau: least", "a factor from 0 to 1", repr(self.least))

    def factor(self, progress: float) -> float:
        """Return 1, the factor before any loss is known."""
        return 1.0

    def factor_after(self, progress: float, losses: Sequence[float]) -> float:
        """Return drop^(number of plateaus), but at least `least`."""
        best, waited, drops = math.inf, 0, 0
        for loss in losses:
            if loss < best - self.min_delta:
                best, waited = loss, 0
            else:
                waited += 1
            if waited == self.patience:
                waited, drops = 0, drops + 1
        return max(self.drop**drops, self.least)
