"""Activations: element-wise functions, and the softmax along an axis."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, InputError, Mask, Shape, check_finite, check_flag, is_number
from lowered_cnn.gemm import row_sums
from lowered_cnn.layers.axes import axis_of, check_axis
from lowered_cnn.layers.erf import erfc
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.losses import softmax
from lowered_cnn.parameters import Parameter

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


@dataclass(frozen=True)
class Clip(_SameShape):
    """y = min(max(x, low), high); its gradient is 1 where low < x < high, else 0, at both ends too. Any shape.

    The default is ReLU6 (Howard et al., 2017). A limit may be infinite.
    """

    low: float = 0.0
    high: float = 6.0

    kind: ClassVar[str] = "clip"

    def __post_init__(self) -> None:
        if not (is_number(self.low) and is_number(self.high) and self.low < self.high):
            raise InputError("Clip", "two numbers, low < high", f"{self.low!r} and {self.high!r}")

    def lower(self, site: Site) -> Lowered:
        """Return the function with a buffer for y and, if gradients are wanted, two for masks."""
        return _LoweredClip(self, site)


class _LoweredClip(Lowered):
    def __init__(self, clip: Clip, site: Site) -> None:
        shape = (*site.input_shape, site.batch)
        self.low, self.high = clip.low, clip.high
        self.y = site.workspace.output(shape)
        if site.wants_gradients:
            self.active, self.below = site.workspace.mask(shape), site.workspace.mask(shape)

    def forward(self, x: Array) -> Array:
        """Y = min(max(X, low), high)."""
        np.clip(x, self.low, self.high, out=self.y)
        return self.y

    def backward(self, dy: Array) -> Array:
        """dX = dY where low < Y < high, else 0."""
        np.greater(self.y, self.low, out=self.active)
        np.less(self.y, self.high, out=self.below)
        np.logical_and(self.active, self.below, out=self.active)
        return np.multiply(dy, self.active, out=dy)

    def sides(self) -> npt.NDArray[np.generic]:
        """Return whether X > low plus whether X < high."""
        return np.add(self.y > self.low, self.y < self.high, dtype=np.int8)


@dataclass(frozen=True)
class PReLU(_SameShape):
    """y = x where x > 0, else weight x, with one weight per channel, or a single one if `shared` (He et al., 2015).

    Input (C, *size) or (features). Weights start at 0.25 and do not decay; the derivative at 0 is the weight.
    """

    shared: bool = False

    kind: ClassVar[str] = "prelu"

    def __post_init__(self) -> None:
        check_flag("PReLU: shared", self.shared)

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return weight, (C) or (1)."""
        return (Parameter("weight", (1,) if self.shared else input_shape[:1], initial=0.25),)

    def lower(self, site: Site) -> Lowered:
        """Return the function with its buffers."""
        return _LoweredPReLU(site)


class _LoweredPReLU(Lowered):
    """The matrices: x, y, negative and spare (C, M), or (1, M) for a shared weight."""

    def __init__(self, site: Site) -> None:
        self.weight = site.parameter("weight")[:, None]
        shape = (*site.input_shape, site.batch)
        self.y = site.workspace.output(shape)
        self.negative, self.spare = (site.workspace.temporary(shape) for _ in range(2))
        self.zeros = site.workspace.zeros(shape)
        self.matrix = (len(self.weight), self.y.size // len(self.weight))
        if site.wants_gradients:
            self.dweight = site.gradient("weight")
            self.ones = site.workspace.ones(self.matrix[1])
            self.active = site.workspace.mask(self.y.shape)

    def forward(self, x: Array) -> Array:
        """Y = max(X, 0) + weight min(X, 0)."""
        np.minimum(x, self.zeros, out=self.negative)
        np.multiply(self.negative.reshape(self.matrix), self.weight, out=self.spare.reshape(self.matrix))
        self.x = x
        return np.add(np.maximum(x, self.zeros, out=self.y), self.spare, out=self.y)

    def backward(self, dy: Array) -> Array:
        """dX = dY where X > 0, else weight dY; dweight = (min(X, 0) dY) 1."""
        dx, spare = dy.reshape(self.matrix), self.spare.reshape(self.matrix)
        row_sums("dweight", np.multiply(self.negative.reshape(self.matrix), dx, out=spare), self.ones, out=self.dweight)
        np.multiply(dx, self.weight, out=spare)
        np.multiply(self.spare, np.less_equal(self.x, 0, out=self.active), out=self.spare)
        np.multiply(dy, np.greater(self.x, 0, out=self.active), out=dy)
        return np.add(dy, self.spare, out=dy)

    def sides(self) -> Mask:
        """Return where X > 0."""
        return self.x > 0


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
        check_finite("LeakyReLU: slope", self.slope)

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
        check_finite("ELU: alpha", self.alpha)

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
class HardSigmoid(Elementwise):
    """y = min(max(alpha x + beta, 0), 1) (Courbariaux et al., 2015); its derivative at both ends is 0."""

    alpha: float = 1 / 6
    beta: float = 0.5

    kind: ClassVar[str] = "hard_sigmoid"

    def __post_init__(self) -> None:
        check_finite("HardSigmoid: alpha", self.alpha)
        check_finite("HardSigmoid: beta", self.beta)

    def value(self, x: Array) -> Array:
        """Return alpha x + beta, clipped to 0 and 1."""
        result: Array = np.clip(self._line(x), 0, 1)
        return result

    def derivative(self, x: Array) -> Array:
        """Return alpha, or 0."""
        result: Array = self.alpha * (self.sides(x) == 1).astype(x.dtype)
        return result

    def sides(self, x: Array) -> npt.NDArray[np.generic]:
        """Return 0, 1 or 2 where the line is at or below 0, between 0 and 1, or from 1 on."""
        line = self._line(x)
        return np.add(line > 0, line >= 1, dtype=np.int8)

    def _line(self, x: Array) -> Array:
        return self.alpha * x + self.beta


@dataclass(frozen=True)
class HardSwish(Elementwise):
    """y = x min(max(x + 3, 0), 6) / 6 (Howard et al., 2019); its derivative is 0 at -3 and 1 at 3."""

    kind: ClassVar[str] = "hard_swish"

    def value(self, x: Array) -> Array:
        """Return x (x + 3) / 6, with x + 3 clipped to 0 and 6."""
        result: Array = x * (np.clip(x + 3, 0, 6) / 6)
        return result

    def derivative(self, x: Array) -> Array:
        """Return 0, (2 x + 3) / 6 or 1."""
        sides = self.sides(x)
        result: Array = (sides == 1) * ((2 * np.clip(x, -3, 3) + 3) / 6) + (sides == 2)
        return result

    def sides(self, x: Array) -> npt.NDArray[np.generic]:
        """Return 0, 1 or 2 where x <= -3, between -3 and 3, or x >= 3."""
        return np.add(x > -3, x >= 3, dtype=np.int8)


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
class _AlongAxis(Layer):
    axis: int = 0

    def __post_init__(self) -> None:
        check_axis(type(self).__name__, self.axis)

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the input's shape."""
        axis_of(self.axis, input_shape, name)
        return input_shape


@dataclass(frozen=True)
class Softmax(_AlongAxis):
    """y[k] = exp(x[k]) / sum over k of the same (S9), along an axis of x without the batch: by default the channels.

    A network trained with SoftmaxCrossEntropy does without it: that loss applies softmax itself.
    """

    kind: ClassVar[str] = "softmax"

    def lower(self, site: Site) -> Lowered:
        """Return the softmax with a buffer for y."""
        return _LoweredSoftmax(self.axis, site)


class _LoweredSoftmax(Lowered):
    def __init__(self, axis: int, site: Site) -> None:
        self.axis = axis_of(axis, site.input_shape, site.name)
        self.y = site.workspace.output((*site.input_shape, site.batch))

    def forward(self, x: Array) -> Array:
        """Y = softmax(X)."""
        ends = (-1, self.axis), (0, 1)
        self.y[...] = np.moveaxis(softmax(np.moveaxis(x, *ends)), *reversed(ends))
        return self.y

    def backward(self, dy: Array) -> Array:
        """dX = Y (dY - sum over k of Y dY)."""
        np.subtract(dy, (self.y * dy).sum(axis=self.axis, keepdims=True), out=dy)
        return np.multiply(dy, self.y, out=dy)


@dataclass(frozen=True)
class LogSoftmax(_AlongAxis):
    """y[k] = x[k] - log(sum over k of exp(x[k])), along an axis of x without the batch: by default the channels."""

    kind: ClassVar[str] = "log_softmax"

    def lower(self, site: Site) -> Lowered:
        """Return the function with buffers for y and its exponential."""
        return _LoweredLogSoftmax(self.axis, site)


class _LoweredLogSoftmax(Lowered):
    def __init__(self, axis: int, site: Site) -> None:
        self.axis = axis_of(axis, site.input_shape, site.name)
        shape = (*site.input_shape, site.batch)
        self.y, self.powers = site.workspace.output(shape), site.workspace.temporary(shape)

    def forward(self, x: Array) -> Array:
        """Y = X - max - log(sum over k of exp(X - max))."""
        np.subtract(x, x.max(axis=self.axis, keepdims=True), out=self.y)
        total = np.exp(self.y, out=self.powers).sum(axis=self.axis, keepdims=True)
        np.divide(self.powers, total, out=self.powers)
        np.subtract(self.y, np.log(total), out=self.y)
        return self.y

    def backward(self, dy: Array) -> Array:
        """dX = dY - exp(Y) sum over k of dY."""
        np.multiply(self.powers, dy.sum(axis=self.axis, keepdims=True), out=self.powers)
        return np.subtract(dy, self.powers, out=dy)


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
