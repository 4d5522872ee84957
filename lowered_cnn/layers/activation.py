"""Activations: functions of each number alone, and the softmax over channels."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, InputError, Mask, Shape, check_flag, is_number
from lowered_cnn.layers.erf import erf
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.losses import softmax


class _SameShape(Layer):
    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the input's shape."""
        return input_shape


@dataclass(frozen=True)
class ReLU(_SameShape):
    """y = max(x, 0); its gradient is 1 where x > 0, else 0, also at 0 (S5). Any shape."""

    kind: ClassVar[str] = "relu"

    def lower(self, site: Site) -> Lowered:
        """Return the rectifier with a buffer for y and, in training, one for the mask."""
        return _LoweredReLU(site)


class _LoweredReLU(Lowered):
    def __init__(self, site: Site) -> None:
        shape = (*site.input_shape, site.batch)
        self.y = site.workspace.array(shape)
        # A row of zeros, not the number 0: NumPy's vector loop for maximum wants two arrays (3 times as fast).
        self.zeros = site.workspace.array(shape[-2:])
        if site.wants_gradients:
            self.active = site.workspace.mask(shape)

    def forward(self, x: Array) -> Array:
        """Y = max(X, 0)."""
        return np.maximum(x, self.zeros, out=self.y)

    def backward(self, dy: Array) -> Array:
        """dX = dY where Y > 0, else 0."""
        np.greater(self.y, 0, out=self.active)
        return np.multiply(dy, self.active, out=dy)

    def sides(self) -> Mask:
        """Return where X > 0."""
        return self.y > 0


class Elementwise(_SameShape):
    """A function y = f(x) of each number alone, of any shape: f and its derivative are all that is needed."""

    @abstractmethod
    def value(self, x: Array, out: Array) -> None:
        """Write f(x)."""

    @abstractmethod
    def derivative(self, x: Array, y: Array, out: Array) -> None:
        """Write f'(x), for which y = f(x) may be of use."""

    def sides(self, x: Array) -> npt.NDArray[np.generic]:
        """Return on which side of f's kinks each x is; a smooth f has none."""
        return np.empty(0)

    def lower(self, site: Site) -> Lowered:
        """Return the function with a buffer for y and, in training, one for the derivative."""
        return _LoweredElementwise(self, site)


class _LoweredElementwise(Lowered):
    def __init__(self, function: Elementwise, site: Site) -> None:
        self.function = function
        self.y = site.workspace.array((*site.input_shape, site.batch))
        self.slope = site.workspace.array(self.y.shape if site.wants_gradients else (0,))
        self.x = self.y

    def forward(self, x: Array) -> Array:
        """Y = f(X)."""
        self.x = x
        self.function.value(x, self.y)
        return self.y

    def backward(self, dy: Array) -> Array:
        """dX = f'(X) dY."""
        self.function.derivative(self.x, self.y, self.slope)
        return np.multiply(dy, self.slope, out=dy)

    def sides(self) -> npt.NDArray[np.generic]:
        """Return on which side of f's kinks each X was."""
        return self.function.sides(self.x)


@dataclass(frozen=True)
class LeakyReLU(Elementwise):
    """y = x where x > 0, else slope x (Maas et al., 2013); its derivative at 0 is the slope."""

    slope: float = 0.01

    kind: ClassVar[str] = "leaky_relu"

    def __post_init__(self) -> None:
        _check_finite("LeakyReLU: slope", self.slope)

    def value(self, x: Array, out: Array) -> None:
        """Write x, or slope x."""
        np.multiply(x, self.slope, out=out)
        np.copyto(out, x, where=x > 0)

    def derivative(self, x: Array, y: Array, out: Array) -> None:
        """Write 1, or the slope."""
        out.fill(self.slope)
        np.copyto(out, 1, where=x > 0)

    def sides(self, x: Array) -> Mask:
        """Return where x > 0."""
        return x > 0


@dataclass(frozen=True)
class ELU(Elementwise):
    """y = x where x > 0, else alpha (exp(x) - 1) (Clevert et al., 2016)."""

    alpha: float = 1.0

    kind: ClassVar[str] = "elu"

    def __post_init__(self) -> None:
        _check_finite("ELU: alpha", self.alpha)

    def value(self, x: Array, out: Array) -> None:
        """Write x, or alpha (exp(x) - 1)."""
        np.expm1(np.minimum(x, 0, out=out), out=out)
        np.multiply(out, self.alpha, out=out)
        np.copyto(out, x, where=x > 0)

    def derivative(self, x: Array, y: Array, out: Array) -> None:
        """Write 1, or alpha exp(x) = y + alpha."""
        np.add(y, self.alpha, out=out)
        np.copyto(out, 1, where=x > 0)

    def sides(self, x: Array) -> Mask:
        """Return where x > 0."""
        return x > 0


@dataclass(frozen=True)
class Sigmoid(Elementwise):
    """y = 1 / (1 + exp(-x)), written (1 + tanh(x / 2)) / 2, which cannot overflow."""

    kind: ClassVar[str] = "sigmoid"

    def value(self, x: Array, out: Array) -> None:
        """Write (1 + tanh(x / 2)) / 2."""
        _sigmoid(x, out)

    def derivative(self, x: Array, y: Array, out: Array) -> None:
        """Write y (1 - y)."""
        np.multiply(y, np.subtract(1, y, out=out), out=out)


@dataclass(frozen=True)
class Tanh(Elementwise):
    """y = tanh(x)."""

    kind: ClassVar[str] = "tanh"

    def value(self, x: Array, out: Array) -> None:
        """Write tanh(x)."""
        np.tanh(x, out=out)

    def derivative(self, x: Array, y: Array, out: Array) -> None:
        """Write 1 - y^2."""
        np.subtract(1, np.multiply(y, y, out=out), out=out)


@dataclass(frozen=True)
class SiLU(Elementwise):
    """y = x sigmoid(x), also called swish (Elfwing et al., 2018)."""

    kind: ClassVar[str] = "silu"

    def value(self, x: Array, out: Array) -> None:
        """Write x sigmoid(x)."""
        _sigmoid(x, out)
        np.multiply(x, out, out=out)

    def derivative(self, x: Array, y: Array, out: Array) -> None:
        """Write y + s (1 - y), with s = sigmoid(x)."""
        _sigmoid(x, out)
        np.add(np.multiply(out, 1 - y, out=out), y, out=out)


@dataclass(frozen=True)
class GELU(Elementwise):
    """y = x Phi(x), with Phi(x) = (1 + erf(x / sqrt 2)) / 2 (Hendrycks and Gimpel, 2016).

    With `approximate`, Phi(x) is (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
    """

    approximate: bool = False

    kind: ClassVar[str] = "gelu"

    def __post_init__(self) -> None:
        check_flag("GELU: approximate", self.approximate)

    def value(self, x: Array, out: Array) -> None:
        """Write x Phi(x)."""
        np.multiply(x, self._phi(x), out=out)

    def derivative(self, x: Array, y: Array, out: Array) -> None:
        """Write Phi(x) + x Phi'(x)."""
        phi = self._phi(x)
        if self.approximate:
            inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
            density = 2 * phi * (1 - phi) * inner
        else:
            density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        np.add(phi, x * density, out=out)

    def _phi(self, x: Array) -> Array:
        if self.approximate:
            return (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
        return (1 + erf(x / math.sqrt(2))) / 2


@dataclass(frozen=True)
class Softmax(_SameShape):
    """y[k] = exp(x[k]) / sum over k of the same (S9), over channels or features, for each position.

    A network that is trained with SoftmaxCrossEntropy does without: that loss takes the numbers before it.
    """

    kind: ClassVar[str] = "softmax"

    def lower(self, site: Site) -> Lowered:
        """Return the softmax with a buffer for y."""
        return _LoweredSoftmax(site)


class _LoweredSoftmax(Lowered):
    def __init__(self, site: Site) -> None:
        self.y = site.workspace.array((*site.input_shape, site.batch))

    def forward(self, x: Array) -> Array:
        """Y = softmax(X)."""
        self.y[...] = np.moveaxis(softmax(np.moveaxis(x, -1, 0)), 0, -1)
        return self.y

    def backward(self, dy: Array) -> Array:
        """dX = Y (dY - sum over k of Y dY)."""
        np.subtract(dy, (self.y * dy).sum(axis=0), out=dy)
        return np.multiply(dy, self.y, out=dy)


def _sigmoid(x: Array, out: Array) -> None:
    np.tanh(np.multiply(x, 0.5, out=out), out=out)
    np.multiply(np.add(out, 1, out=out), 0.5, out=out)


def _check_finite(where: str, value: float) -> None:
    if not (is_number(value) and math.isfinite(value)):
        raise InputError(where, "a number", repr(value))
