"""Losses: the value J of a batch and its gradient dZ together; the 1/m of the cost is applied here, once."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, InputError, Labels, Shape, Targets, Weights, is_number, whole_number


class Loss(ABC):
    """J(Z, targets): a sum over the examples of a batch, divided by the batch's total m."""

    ignore: int | None = None
    """The class number, if any, of examples or positions that do not count."""

    def total(self, targets: Targets, weights: Weights | None = None) -> float:
        """Return m for a whole batch: the number of its examples or, if they have weights (N,), the sum of those."""
        return float(len(targets)) if weights is None else float(weights.sum())

    @abstractmethod
    def value_and_gradient(
        self, z: Array, targets: Targets, m: float, weights: Weights | None = None
    ) -> tuple[float, Array]:
        """Return what n examples with outputs z (n, ...) contribute to J, and dJ/dZ.

        `m` is the total of the whole batch, so that the values and gradients of its shards add up. If there are
        `weights` (n,), each example's contribution is multiplied by its weight. z is left unchanged.
        """


def check_is_loss(loss: object) -> None:
    """Raise InputError unless something is a Loss."""
    if not isinstance(loss, Loss):
        raise InputError("loss", "a loss, such as SoftmaxCrossEntropy() or MeanSquaredError()", repr(loss))


def check_weights(loss: Loss, weights: Weights | None) -> None:
    """Raise InputError if examples have weights, and a loss of one's own takes none."""
    if weights is None:
        return
    try:
        signature(loss.value_and_gradient).bind("z", "targets", "m", "weights")
    except TypeError as error:
        wanted = f"none, as {type(loss).__name__}.value_and_gradient takes none"
        raise InputError("data: weights", wanted, f"{len(weights)} weights") from error


def loss_and_gradient(
    loss: Loss, z: Array, targets: Targets, m: float, weights: Weights | None = None
) -> tuple[float, Array]:
    """Return `loss.value_and_gradient`, also for a batch in which nothing counts (m = 0): J and dJ/dZ are then 0.

    Weights are passed only if there are some, so a custom loss need not take them.
    """
    return loss.value_and_gradient(z, targets, m or 1.0, *([] if weights is None else [weights]))


def softmax(z: Array) -> Array:
    """Y^[k] = exp(z[k] - max z) / sum over k of the same (S9), over axis 1, the classes, of z (N, classes, ...)."""
    z = np.asarray(z)
    if z.ndim < 2:
        raise InputError("softmax", "outputs (N, classes, ...)", z.shape)
    powers: Array = np.exp(z - z.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """J = -1/m sum over examples and classes of Y log Y^, with Y^ = softmax(Z); dJ/dZ = (Y^ - Y) / m (S9).

    Y is 1 for the label and 0 for all other classes, or, with `label_smoothing` e (Szegedy et al., 2016), 1 - e + e / K
    and e / K, for K classes. Outputs (N, classes, *size) have a label at each position of (N, *size), and J is the mean
    over all of them. Those whose label is `ignore` do not count.

    `class_weights` (classes) multiply Y, class by class, and J is a weighted mean: m is the sum of the weights of all
    labels that count, each times its example's weight, if examples have some. All this is as in PyTorch.
    """

    label_smoothing: float = 0.0
    class_weights: Sequence[float] | None = None
    ignore: int | None = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not (is_number(self.label_smoothing) and 0 <= self.label_smoothing < 1):
            wanted = "a number from 0 up to, but not including, 1"
            raise InputError(f"{name}: label_smoothing", wanted, repr(self.label_smoothing))
        if self.class_weights is not None:
            object.__setattr__(self, "class_weights", _factors(f"{name}: class_weights", self.class_weights))
        if self.ignore is not None:
            whole_number(f"{name}: ignore", self.ignore, -(2**63), 2**63 - 1)

    def total(self, targets: Targets, weights: Weights | None = None) -> float:
        """Return m for the class numbers (N, *size) of a whole batch: how many count, or the sum of their weights."""
        if self._all_count_alike(weights):
            return float(targets.size)
        counts = self._counts(targets, weights)
        if self.class_weights is not None:
            counts *= np.take(self.class_weights, targets.astype(np.int64), mode="clip")
        return float(counts.sum())

    def value_and_gradient(
        self, z: Array, targets: Targets, m: float, weights: Weights | None = None
    ) -> tuple[float, Array]:
        """Return J and dJ/dZ, for outputs z (n, classes, *size) and class numbers `targets` (n, *size)."""
        labels = _class_numbers(z, targets, self.ignore)
        chosen = _places(labels)
        sharp, smooth = 1 - self.label_smoothing, self.label_smoothing / z.shape[1]
        shifted = z - z.max(axis=1, keepdims=True)
        powers = np.exp(shifted)
        totals = powers.sum(axis=1)
        if not self._all_count_alike(weights):
            y = np.full_like(z, smooth)
            y[chosen] += sharp
            y *= _along(1, self._factor_of_each_class(z.shape[1]), z)
            y *= self._counts(targets, weights)[:, None]
            logs, powers = shifted - np.log(totals)[:, None], powers / totals[:, None]
            return -float(np.sum(y * logs, dtype=np.float64)) / m, (powers * y.sum(axis=1, keepdims=True) - y) / m
        losses = np.log(totals) - sharp * shifted[chosen]
        if smooth:
            losses -= smooth * shifted.sum(axis=1)
        powers /= totals[:, None] * m
        powers[chosen] -= sharp / m
        powers -= smooth / m
        return float(np.sum(losses, dtype=np.float64)) / m, powers

    def _all_count_alike(self, weights: Weights | None) -> bool:
        return weights is None and self.class_weights is None and self.ignore is None

    def _counts(self, targets: Targets, weights: Weights | None) -> Weights:
        """Return how much each label (n, *size) counts, whatever its class: its example's weight, or 0 if ignored."""
        counts = np.ones(targets.shape)
        if weights is not None:
            counts *= _along(0, weights, targets)
        if self.ignore is not None:
            counts[targets == self.ignore] = 0
        return counts

    def _factor_of_each_class(self, classes: int) -> Weights:
        factors = np.ones(classes) if self.class_weights is None else np.array(self.class_weights)
        if len(factors) != classes:
            raise InputError("SoftmaxCrossEntropy: class_weights", f"{classes} numbers, one per output", len(factors))
        return factors


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """J = 1/(2 m) sum over examples and features of (Z - Y)^2; dJ/dZ = (Z - Y) / m.

    m is the number of examples; PyTorch divides by that of all numbers, and not by 2. If examples have weights, each
    multiplies the example's sum, and m is the sum of the weights.
    """

    def value_and_gradient(
        self, z: Array, targets: Targets, m: float, weights: Weights | None = None
    ) -> tuple[float, Array]:
        """Return J and dJ/dZ, for targets shaped like z (n, ...), or class numbers (n), which are taken as one-hot."""
        difference = z.copy(order="K")
        if targets.ndim == 1 and z.shape[1:] != (1,):  # with a single output, these are values, not classes
            difference[np.arange(len(z)), _class_numbers(z, targets)] -= 1
        else:
            np.subtract(z, _values("mean squared error", z, targets), out=difference)
        slope = difference if weights is None else difference * _along(0, weights, z)
        value = float(np.sum(slope * difference, dtype=np.float64)) / (2 * m)
        return value, slope / m


class ElementwiseLoss(Loss):
    """A mean over all numbers of all examples, as in PyTorch; weighted, if examples have weights."""

    def total(self, targets: Targets, weights: Weights | None = None) -> float:
        """Return m for a whole batch: the count of all numbers in its targets, each times its example's weight."""
        return super().total(targets, weights) * math.prod(targets.shape[1:])

    def value_and_gradient(
        self, z: Array, targets: Targets, m: float, weights: Weights | None = None
    ) -> tuple[float, Array]:
        """Return J and dJ/dZ, for targets shaped like z (n, ...), or (n) if z is (n, 1)."""
        values, slopes = self.terms(z, _values(type(self).__name__, z, targets).astype(z.dtype, copy=False))
        if weights is not None:
            each = _along(0, weights, z)
            values, slopes = values * each, slopes * each
        return float(np.sum(values, dtype=np.float64)) / m, slopes / m

    @abstractmethod
    def terms(self, z: Array, y: Array) -> tuple[Array, Array]:
        """Return the loss of each number of z, given y of the same shape, and its derivative."""


@dataclass(frozen=True)
class MeanAbsoluteError(ElementwiseLoss):
    """J = 1/m sum over all numbers of |Z - Y|; dJ/dZ = sign(Z - Y) / m, which is 0 where they are equal."""

    def terms(self, z: Array, y: Array) -> tuple[Array, Array]:
        """Return |z - y| and sign(z - y)."""
        difference = z - y
        return np.abs(difference), np.sign(difference)


@dataclass(frozen=True)
class Huber(ElementwiseLoss):
    """J = 1/m sum over all numbers of d^2 / 2, or delta (|d| - delta / 2) where |d| > delta, for d = Z - Y.

    dJ/dZ is d / m, but at most delta / m and at least -delta / m (Huber, 1964).
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        if not (is_number(self.delta) and 0 < self.delta < math.inf):
            raise InputError("Huber: delta", "a finite number above 0", repr(self.delta))

    def terms(self, z: Array, y: Array) -> tuple[Array, Array]:
        """Return the loss of each difference, and the difference within -delta and delta."""
        difference = z - y
        size, slopes = np.abs(difference), np.clip(difference, -self.delta, self.delta)
        near = np.abs(slopes)
        return near * (size - near / 2), slopes


@dataclass(frozen=True)
class BinaryCrossEntropy(ElementwiseLoss):
    """J = -1/m sum over all numbers of p Y log s(Z) + (1 - Y) log(1 - s(Z)), with s the sigmoid; Y is from 0 to 1.

    dJ/dZ = ((1 - Y) s(Z) - p Y (1 - s(Z))) / m. The factor p on positive targets, `pos_weight`, is one number, or one
    for each output along axis 1.
    """

    pos_weight: float | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        if is_number(self.pos_weight):
            _factors("BinaryCrossEntropy: pos_weight", [self.pos_weight])
        else:
            object.__setattr__(self, "pos_weight", _factors("BinaryCrossEntropy: pos_weight", self.pos_weight))

    def terms(self, z: Array, y: Array) -> tuple[Array, Array]:
        """Return p y log(1 + exp(-z)) + (1 - y) log(1 + exp(z)) and its derivative, without overflow."""
        if y.size and not (y.min() >= 0 and y.max() <= 1):
            raise InputError("BinaryCrossEntropy: targets", "numbers from 0 to 1", f"{y.min():g} to {y.max():g}")
        power = np.exp(-np.abs(z))
        rest, of_larger = np.log1p(power), 1 / (1 + power)
        of_smaller = power * of_larger
        positive = z >= 0
        true, false = self._positive_weight(z) * y, 1 - y
        values = true * (np.maximum(-z, 0) + rest) + false * (np.maximum(z, 0) + rest)
        slopes = false * np.where(positive, of_larger, of_smaller) - true * np.where(positive, of_smaller, of_larger)
        return values, slopes

    def _positive_weight(self, z: Array) -> Array:
        factors = np.array(self.pos_weight, z.dtype)
        if factors.ndim == 0:
            return factors
        if factors.shape != z.shape[1:2]:
            raise InputError(
                "BinaryCrossEntropy: pos_weight", f"a number for each of {z.shape[1:2]} outputs", len(factors)
            )
        return _along(1, factors, z)


def _factors(where: str, values: object) -> tuple[float, ...]:
    """Return finite numbers of at least 0, not all of them 0, as a tuple; raises InputError for others."""
    try:
        factors = tuple(np.asarray(values, np.float64).tolist())
        valid = all(0 <= factor < math.inf for factor in factors) and any(factors)
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise InputError(where, "finite numbers of at least 0, not all of them 0", repr(values))
    return factors


def _along(axis: int, factors: Array, array: npt.NDArray[np.generic]) -> Array:
    """Return factors (length) in a shape that broadcasts along this axis of an array, in its type if it has floats."""
    shape: Shape = tuple(-1 if each == axis else 1 for each in range(array.ndim))
    return factors.astype(array.dtype if array.dtype.kind == "f" else factors.dtype).reshape(shape)


def _places(labels: Labels) -> tuple[Labels, ...]:
    """Return the indices that pick each label's own output: of labels (n, *size) from outputs (n, classes, *size)."""
    first, *others = (
        np.arange(length).reshape(-1, *(1,) * (labels.ndim - 1 - axis)) for axis, length in enumerate(labels.shape)
    )
    return first, labels, *others


def _values(where: str, z: Array, targets: Targets) -> npt.NDArray[np.generic]:
    """Return targets in the shape of z; those of a single output may come as (n)."""
    if targets.shape == z.shape[:1] and z.shape[1:] == (1,):
        return targets[:, None]
    if targets.shape != z.shape:
        raise InputError(f"{where}: targets", z.shape, targets.shape)
    return targets


def _class_numbers(z: Array, targets: Targets, ignore: int | None = None) -> Labels:
    """Return class numbers as int64, with 0 for ignored ones; raises InputError for anything else."""
    if z.ndim < 2:
        raise InputError("loss: outputs", "shape (N, classes)", z.shape)
    examples, classes, *size = z.shape
    if targets.shape != (examples, *size) or not np.issubdtype(targets.dtype, np.integer):
        wanted = f"class numbers of shape {(examples, *size)}" if size else f"{examples} class numbers"
        raise InputError("loss: labels", wanted, f"{targets.dtype} of shape {targets.shape}")
    labels = targets.astype(np.int64)
    if ignore is not None:
        labels[targets == ignore] = 0
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise InputError("loss: labels", f"numbers from 0 to {classes - 1}", f"{labels.min()} to {labels.max()}")
    return labels
