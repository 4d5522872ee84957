"""Activations: element-wise functions, and the softmax over channels."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, InputError, Mask, Shape, check_flag, is_number
from lowered_cnn.layers.erf import erfc
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.losses import softmax

RUN = 16 * 1024
"""How many numbers an element-wise function is given at a time."""


class _SameShape(Layer):
    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the input's shape."""
        return input_shape


@dataclass(frozen=True)
class ReLU(_SameShape):
    """y = max(x, 0); its gradient is 1 where x > 0 and 0 elsewhere, at 0 as well (S5). Any shape."""

    kind: ClassVar[str] = "relu"

    def lower(self, site: Site) -> Lowered:
        """Return the ReLU with a buffer for y and, if gradients are wanted, one for the mask."""
        return _LoweredReLU(site)


class _LoweredReLU(Lowered):
    def __init__(self, site: Site) -> None:
        shape = (*site.input_shape, site.batch)
        self.y = site.workspace.output(shape)
        self.zeros = site.workspace.zeros(shape)
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
    """An element-wise function y = f(x), for any shape: a subclass only defines f and its derivative.

    Both are accurate to a few units in the last place of each number, however small it is.
    """

    @abstractmethod
    def value(self, x: Array) -> Array:
        """Return f(x)."""

    @abstractmethod
    def derivative(self, x: Array) -> Array:
        """Return f'(x)."""

    def sides(self, x: Array) -> npt.NDArray[np.generic]:
        """Return the side of f's kinks that each x is on; empty if f is smooth."""
        return np.empty(0)

    def lower(self, site: Site) -> Lowered:
        """Return the function with a buffer for y."""
        return _LoweredElementwise(self, site)


class _LoweredElementwise(Lowered):
    """Works on a run of numbers at a time, so that intermediate results are small and stay in cache."""

    def __init__(self, function: Elementwise, site: Site) -> None:
        self.function = function
        self.x = self.y = site.workspace.output((*site.input_shape, site.batch))
        self.runs = [slice(start, start + RUN) for start in range(0, self.y.size, RUN)]

    def forward(self, x: Array) -> Array:
        """Y = f(X)."""
        self.x = x
        flat_x, flat_y = x.reshape(-1), self.y.reshape(-1)
        for run in self.runs:
            flat_y[run] = self.function.value(flat_x[run])
        return self.y

    def backward(self, dy: Array) -> Array:
        """dX = f'(X) dY."""
        flat_x, dx = self.x.reshape(-1), dy.reshape(-1)
        for run in self.runs:
            dx[run] *= self.function.derivative(flat_x[run])
        return dy

    def sides(self) -> npt.NDArray[np.generic]:
        """Return the side of f's kinks that each X was on."""
        return self.function.sides(self.x)


@dataclass(frozen=True)
class LeakyReLU(Elementwise):
    """y = x where x > 0, else slope x (Maas et al., 2013); its derivative at 0 is the slope."""

    slope: float = 0.01

    kind: ClassVar[str] = "leaky_relu"

    def __post_init__(self) -> None:
        _check_finite("LeakyReLU: slope", self.slope)

    def value(self, x: Array) -> Array:
        """Return max(x, 0) + slope min(x, 0)."""
        return np.maximum(x, 0) + self.slope * np.minimum(x, 0)

    def derivative(self, x: Array) -> Array:
        """Return 1, or the slope."""
        return _one_or(self.slope, x)

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

    def value(self, x: Array) -> Array:
        """Return max(x, 0) + alpha (exp(min(x, 0)) - 1)."""
        return np.maximum(x, 0) + self.alpha * np.expm1(np.minimum(x, 0))

    def derivative(self, x: Array) -> Array:
        """Return 1, or alpha exp(x); y + alpha would lose digits."""
        return _one_or(self.alpha, x) * np.exp(np.minimum(x, 0))

    def sides(self, x: Array) -> Mask:
        """Return where x > 0."""
        return x > 0


@dataclass(frozen=True)
class Sigmoid(Elementwise):
    """y = 1 / (1 + exp(-x))."""

    kind: ClassVar[str] = "sigmoid"

    def value(self, x: Array) -> Array:
        """Return 1 / (1 + exp(-x))."""
        return _sigmoid(x)

    def derivative(self, x: Array) -> Array:
        """Return y (1 - y) = 1 / (2 cosh(x / 2))^2; 1 - y would lose digits."""
        return _bell(x)


@dataclass(frozen=True)
class Tanh(Elementwise):
    """y = tanh(x)."""

    kind: ClassVar[str] = "tanh"

    def value(self, x: Array) -> Array:
        """Return tanh(x)."""
        return np.tanh(x)

    def derivative(self, x: Array) -> Array:
        """Return 1 - y^2 = 1 / cosh(x)^2; 1 - y^2 would lose digits."""
        return np.square(_over_cosh(1, x))


@dataclass(frozen=True)
class SiLU(Elementwise):
    """y = x sigmoid(x), also called swish (Elfwing et al., 2018)."""

    kind: ClassVar[str] = "silu"

    def value(self, x: Array) -> Array:
        """Return x sigmoid(x)."""
        return x * _sigmoid(x)

    def derivative(self, x: Array) -> Array:
        """Return sigmoid(x) + x times its derivative."""
        return _sigmoid(x) + x * _bell(x)


@dataclass(frozen=True)
class GELU(Elementwise):
    """y = x Phi(x), with Phi(x) = (1 + erf(x / sqrt 2)) / 2 (Hendrycks and Gimpel, 2016).

    With `approximate`, Phi(x) is (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2. Always computed in float64: an
    exponent of about -x^2 / 2 would leave few correct digits in float32.
    """

    approximate: bool = False

    kind: ClassVar[str] = "gelu"

    def __post_init__(self) -> None:
        check_flag("GELU: approximate", self.approximate)

    def value(self, x: Array) -> Array:
        """Return x Phi(x)."""
        return x * self._phi(_within_tails(x))

    def derivative(self, x: Array) -> Array:
        """Return Phi(x) + x Phi'(x)."""
        x = _within_tails(x)
        if self.approximate:
            density = _bell(_twice_inner(x)) * math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * x * x)
        else:
            density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        return self._phi(x) + x * density

    def _phi(self, x: Array) -> Array:
        """Return Phi(x), by sigmoid or erfc: 1 + tanh and 1 + erf would lose digits where x < 0."""
        return _sigmoid(_twice_inner(x)) if self.approximate else erfc(x / -math.sqrt(2)) / 2


@dataclass(frozen=True)
class Softmax(_SameShape):
    """y[k] = exp(x[k]) / sum over k of the same (S9), over channels or features, for each position.

    A network trained with SoftmaxCrossEntropy does without it: that loss applies softmax itself.
    """

    kind: ClassVar[str] = "softmax"

    def lower(self, site: Site) -> Lowered:
        """Return the softmax with a buffer for y."""
        return _LoweredSoftmax(site)


class _LoweredSoftmax(Lowered):
    def __init__(self, site: Site) -> None:
        self.y = site.workspace.output((*site.input_shape, site.batch))

    def forward(self, x: Array) -> Array:
        """Y = softmax(X)."""
        self.y[...] = np.moveaxis(softmax(np.moveaxis(x, -1, 0)), 0, -1)
        return self.y

    def backward(self, dy: Array) -> Array:
        """dX = Y (dY - sum over k of Y dY)."""
        np.subtract(dy, (self.y * dy).sum(axis=0), out=dy)
        return np.multiply(dy, self.y, out=dy)


def _sigmoid(x: Array) -> Array:
    """Return exp(x) / (1 + exp(x)), which rounds to 1 from x = 40 on, in float64 too."""
    # An array of 40s, not the number: NumPy's vectorized minimum needs two arrays.
    power = np.exp(np.minimum(x, np.full_like(x, 40)))
    result: Array = power / (1 + power)
    return result


def _bell(x: Array) -> Array:
    """Return the derivative of the sigmoid."""
    return np.square(_over_cosh(0.5, x / 2))


def _over_cosh(height: float, x: Array) -> Array:
    """Return height / cosh(x), or 0 where cosh overflows: its square, which is all that is used, is 0 long before."""
    with np.errstate(over="ignore"):
        result: Array = height / np.cosh(x)
    return result


def _one_or(slope: float, x: Array) -> Array:
    """Return 1 where x > 0, else the slope: a sum with one term 0, which is exact, and faster than np.where."""
    positive = (x > 0).astype(x.dtype)
    return positive + slope * (1 - positive)


def _within_tails(x: Array) -> Array:
    """Return x in float64, clipped to -40 and 40: beyond, the tails of a normal distribution are 0."""
    return np.clip(x.astype(np.float64), -40, 40)


def _twice_inner(x: Array) -> Array:
    """Return 2 sqrt(2 / pi) (x + 0.044715 x^3)."""
    return math.sqrt(8 / math.pi) * (x + 0.044715 * x * x * x)


def _check_finite(where: str, value: float) -> None:
    if not (is_number(value) and math.isfinite(value)):
        raise InputError(where, "a finite number", repr(value))
