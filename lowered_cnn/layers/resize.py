"""Interpolation, and means over equal parts: products with one small matrix per axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, InputError, Shape, is_number
from lowered_cnn.gemm import Role, multiply
from lowered_cnn.layers.axes import size_of
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.window import Lengths, lengths

Mode: TypeAlias = Literal["nearest", "linear", "cubic"]
Coordinates: TypeAlias = Literal["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"]
Rounding: TypeAlias = Literal["round_prefer_floor", "floor"]

Reals: TypeAlias = npt.NDArray[np.float64]

CUBIC = -0.75
"""The slope parameter of cubic interpolation, as in PyTorch and ONNX."""

BAND = 16
"""How many rows of a matrix are multiplied at a time: rows have few numbers other than 0, and neighbours share them."""


@dataclass(frozen=True)
class Resize(Layer):
    """Interpolation of (C, *size) along each axis: Resize(2) doubles the size, by repeating each number.

    Either `scale` or `size` is given, as one number or one per axis: the output size is floor(scale H), or the scale is
    OH / H. As in ONNX, `coordinates` say at which place p of the input output i lies: "half_pixel" at (i + 1/2) / scale
    - 1/2; "pytorch_half_pixel" at the same, but at 0 if OH is 1; "asymmetric" at i / scale; "align_corners" at
    i (H - 1) / (OH - 1). In the `mode` "nearest", the output is the number nearest to p: `rounding` takes halves down,
    or, with "floor", everything. In "linear" and "cubic" (Keys, 1981), it is interpolated from the 2 or 4 numbers
    around p. Beyond its border, the input is continued by its outermost numbers.

    PyTorch's Upsample is "asymmetric" with "floor" in the mode "nearest", else "half_pixel" or "align_corners".
    """

    scale: float | Sequence[float] | None = None
    size: Lengths | None = None
    mode: Mode = "nearest"
    coordinates: Coordinates = "half_pixel"
    rounding: Rounding = "round_prefer_floor"

    kind: ClassVar[str] = "resize"

    def __post_init__(self) -> None:
        if (self.scale is None) == (self.size is None):
            raise InputError("Resize", "either a scale or a size", "neither" if self.size is None else "both")
        for name, kind in (("mode", Mode), ("coordinates", Coordinates), ("rounding", Rounding)):
            value, options = getattr(self, name), get_args(kind)
            if value not in options:
                raise InputError(f"Resize: {name}", " or ".join(map(repr, options)), repr(value))

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return (C, *output size)."""
        size = size_of(input_shape, name)
        if self.size is not None:
            return (input_shape[0], *lengths(len(size), self.size, f"{name}: size"))
        output = tuple(math.floor(h * scale) for h, scale in zip(size, self._scales(len(size), name), strict=True))
        if min(output) < 1:
            raise InputError(name, "an output of at least one position", output)
        return (input_shape[0], *output)

    def lower(self, site: Site) -> Lowered:
        """Return the products with the matrices of interpolation."""
        return _LoweredAlongAxes(self.matrices(site.input_shape, site.name), site)

    def matrices(self, input_shape: Shape, name: str) -> list[Reals]:
        """Return for each axis the matrix (OH, H) that interpolates along it."""
        size, output = input_shape[1:], self.output_shape(input_shape, name)[1:]
        if self.size is not None:
            scales = [(float(oh), h) for h, oh in zip(size, output, strict=True)]
        else:
            scales = [(scale, 1) for scale in self._scales(len(size), name)]
        return [self._matrix(h, oh, *scale) for h, oh, scale in zip(size, output, scales, strict=True)]

    def _matrix(self, before: int, after: int, numerator: float, denominator: int) -> Reals:
        """Return the matrix (after, before) of one axis, for the scale numerator / denominator."""
        number = np.arange(after, dtype=np.float64)
        match self.coordinates:
            case "align_corners":
                place = number * (before - 1) / max(1, after - 1)
            case "asymmetric":
                place = number * denominator / numerator
            case _:
                centred = self.coordinates == "half_pixel" or after > 1
                place = (number + 0.5) * denominator / numerator - 0.5 if centred else np.zeros(1)
        matrix = np.zeros((after, before))
        for tap, weight in self._taps(place):
            np.add.at(matrix, (np.arange(after), np.clip(tap, 0, before - 1).astype(np.intp)), weight)
        return matrix

    def _taps(self, place: Reals) -> list[tuple[Reals, Reals]]:
        """Return what is read for each place: positions in the input, perhaps beyond its border, and their weights."""
        if self.mode == "nearest":
            return [(np.ceil(place - 0.5) if self.rounding == "round_prefer_floor" else np.floor(place), np.ones(1))]
        first = np.floor(place)
        t = place - first
        if self.mode == "linear":
            return [(first, 1 - t), (first + 1, t)]
        inner = [(first, _near(t)), (first + 1, _near(1 - t))]
        return [(first - 1, _far(1 + t)), *inner, (first + 2, _far(2 - t))]

    def _scales(self, rank: int, name: str) -> tuple[float, ...]:
        scale: Any = self.scale
        scales = tuple(scale) if np.iterable(scale) else (scale,) * rank
        if len(scales) != rank or not all(is_number(each) and 0 < each < math.inf for each in scales):
            raise InputError(f"{name}: scale", f"a number above 0, or {rank} of them", repr(scale))
        return tuple(map(float, scales))


def _near(distance: Reals) -> Reals:
    """Return the cubic weight of a number at a distance of up to 1."""
    return ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1


def _far(distance: Reals) -> Reals:
    """Return the cubic weight of a number at a distance from 1 to 2."""
    return CUBIC * (((distance - 5) * distance + 8) * distance - 4)


@dataclass(frozen=True)
class AdaptiveAvgPool(Layer):
    """y is the mean of each of `size` parts of an input (C, *input size): output (C, *size).

    `size` is one number, or one per axis. Part i of an axis goes from floor(i H / OH) up to, but not including,
    ceil((i + 1) H / OH), as in PyTorch: the parts overlap where OH does not divide H.
    """

    size: Lengths

    kind: ClassVar[str] = "adaptive_avg_pool"

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return (C, *size)."""
        return (input_shape[0], *lengths(len(size_of(input_shape, name)), self.size, f"{name}: size"))

    def lower(self, site: Site) -> Lowered:
        """Return the products with the matrices of means."""
        output = self.output_shape(site.input_shape, site.name)
        pairs = zip(site.input_shape[1:], output[1:], strict=True)
        return _LoweredAlongAxes([_means(before, after) for before, after in pairs], site)


def _means(before: int, after: int) -> Reals:
    matrix = np.zeros((after, before))
    for part, row in enumerate(matrix):
        first, end = part * before // after, -(-(part + 1) * before // after)
        row[first:end] = 1 / (end - first)
    return matrix


class _LoweredAlongAxes(Lowered):
    """The matrices, for each axis from the last to the first: m (OH, H), x (outer, H, inner), y (outer, OH, inner)."""

    def __init__(self, matrices: list[Reals], site: Site) -> None:
        shape, new = [*site.input_shape, site.batch], site.workspace.array
        self.steps: list[_Step] = []
        for axis in range(len(matrices), 0, -1):
            m = matrices[axis - 1]
            dx = new(tuple(shape) if site.wants_gradients else (0,))
            shape[axis] = len(m)
            self.steps.append(_Step(axis, _bands(m, site), _bands(m.T, site), new(tuple(shape)), dx))

    def forward(self, x: Array) -> Array:
        """Y = M X, along one axis after the other."""
        for step in self.steps:
            _multiply("forward", step.m, x, step.axis, out=step.y)
            x = step.y
        return x

    def backward(self, dy: Array) -> Array:
        """dX = M^T dY, along one axis after the other."""
        for step in reversed(self.steps):
            _multiply("dx", step.m_transposed, dy, step.axis, out=step.dx)
            dy = step.dx
        return dy


@dataclass(frozen=True)
class _Band:
    """Some `rows` of a matrix, cut to the `window` of columns that are not all 0."""

    m: Array
    rows: slice
    window: slice


@dataclass(frozen=True)
class _Step:
    axis: int
    m: list[_Band]
    m_transposed: list[_Band]
    y: Array
    dx: Array


def _bands(matrix: Reals, site: Site) -> list[_Band]:
    """Divide a matrix into bands of rows."""
    bands = []
    for start in range(0, len(matrix), BAND):
        rows = slice(start, min(start + BAND, len(matrix)))
        used = np.flatnonzero(matrix[rows].any(axis=0))
        window = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
        m = site.workspace.array(matrix[rows, window].shape)
        m[...] = matrix[rows, window]
        bands.append(_Band(m, rows, window))
    return bands


def _multiply(role: Role, bands: list[_Band], x: Array, axis: int, out: Array) -> None:
    """Multiply by a matrix in bands, along an axis."""
    outer = math.prod(x.shape[:axis])
    before, after = (each.reshape(outer, each.shape[axis], -1) for each in (x, out))
    for band in bands:
        multiply(role, band.m, before[:, band.window], out=after[:, band.rows])
