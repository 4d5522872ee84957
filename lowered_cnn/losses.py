"""Losses: the value J of a batch and its gradient dZ together; the 1/m of the cost is applied here, once."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, InputError, Labels, is_number


class Loss(ABC):
    """J(Z, targets) over m examples."""

    @abstractmethod
    def value_and_gradient(self, z: Array, targets: npt.NDArray[np.generic], m: int) -> tuple[float, Array]:
        """Return what n examples with outputs z (n, ...) contribute to J, and dJ/dZ.

        `m` is the size of the whole batch, so that the values and gradients of its shards add up. z is left unchanged.
        """


def check_is_loss(loss: object) -> None:
    """Raise InputError unless something is a Loss."""
    if not isinstance(loss, Loss):
        raise InputError("loss", "a loss, such as SoftmaxCrossEntropy() or MeanSquaredError()", repr(loss))


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
    and e / K, for K classes.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not (is_number(self.label_smoothing) and 0 <= self.label_smoothing < 1):
            wanted = "a number from 0 up to, but not including, 1"
            raise InputError("SoftmaxCrossEntropy: label_smoothing", wanted, repr(self.label_smoothing))

    def value_and_gradient(self, z: Array, targets: npt.NDArray[np.generic], m: int) -> tuple[float, Array]:
        """Return J and dJ/dZ, for outputs z (n, classes) and class numbers `targets` (n)."""
        labels = _class_numbers(z, targets)
        examples = np.arange(len(z))
        sharp, smooth = 1 - self.label_smoothing, self.label_smoothing / z.shape[1]
        shifted = z - z.max(axis=1, keepdims=True)
        powers = np.exp(shifted)
        totals = powers.sum(axis=1)
        losses = np.log(totals) - sharp * shifted[examples, labels]
        if smooth:
            losses -= smooth * shifted.sum(axis=1)
        powers /= totals[:, None] * m
        powers[examples, labels] -= sharp / m
        powers -= smooth / m
        return float(np.sum(losses, dtype=np.float64)) / m, powers


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """J = 1/(2 m) sum over examples and features of (Z - Y)^2; dJ/dZ = (Z - Y) / m."""

    def value_and_gradient(self, z: Array, targets: npt.NDArray[np.generic], m: int) -> tuple[float, Array]:
        """Return J and dJ/dZ, for targets shaped like z (n, ...), or class numbers (n), which are taken as one-hot."""
        difference = z.copy(order="K")
        if targets.ndim == 1 and z.shape[1:] != (1,):  # of one output, these are values, not classes
            difference[np.arange(len(z)), _class_numbers(z, targets)] -= 1
        elif targets.shape == z.shape:
            np.subtract(z, targets, out=difference)
        else:
            raise InputError("mean squared error: targets", z.shape, targets.shape)
        value = float(np.sum(np.square(difference), dtype=np.float64)) / (2 * m)
        return value, difference / m


def _class_numbers(z: Array, targets: npt.NDArray[np.generic]) -> Labels:
    if z.ndim != 2:
        raise InputError("loss: outputs", "shape (N, classes)", z.shape)
    examples, classes = z.shape
    if targets.shape != (examples,) or not np.issubdtype(targets.dtype, np.integer):
        raise InputError("loss: labels", f"{examples} class numbers", f"{targets.dtype} of shape {targets.shape}")
    labels = targets.astype(np.int64)
    if examples and not (labels.min() >= 0 and labels.max() < classes):
        raise InputError("loss: labels", f"numbers from 0 to {classes - 1}", f"{labels.min()} to {labels.max()}")
    return labels
