"""Pooling: the maximum or the mean of each window."""

import itertools
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, InputError, Shape, check_flag
from lowered_cnn.gemm import multiply, multiply_at_b
from lowered_cnn.layers.axes import size_of
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.lowering import Border, Columns, Index, im2col, windows
from lowered_cnn.window import Lengths, Padding, Sweep, Window


@dataclass(frozen=True)
class _Pool(Layer):
    kernel: Lengths = 2
    stride: Lengths | None = None
    padding: Padding = "valid"
    dilation: Lengths = 1
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        check_flag(f"{type(self).__name__}: ceil_mode", self.ceil_mode)

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return (C, *output size)."""
        return (input_shape[0], *self.sweep(input_shape, name).output)

    def sweep(self, input_shape: Shape, name: str) -> Sweep:
        """Lay the window over an input (C, *size)."""
        size = size_of(input_shape, name)
        window = self.window(len(size), name)
        if window.padding is not None and any(max(p) >= e for p, e in zip(window.padding, window.extent, strict=True)):
            raise InputError(f"{name}: padding", f"less than the window {window.extent}", window.padding)
        return window.over(size, name, ceil=self.ceil_mode)

    def window(self, rank: int, where: str) -> Window:
        """Return the window over `rank` axes; raises InputError, starting with `where`, for invalid lengths."""
        stride = self.kernel if self.stride is None else self.stride
        return Window.of(rank, self.kernel, stride, self.padding, self.dilation, where)


@dataclass(frozen=True)
class MaxPool(_Pool):
    """y is the maximum of each window (S6), over inputs (C, *size) of any rank.

    With `ceil_mode`, one more window covers what would be left over of the input, as in PyTorch. The gradient goes only
    to the maximum; among equal ones, to the first in row-major order, as in PyTorch.
    """

    kind: ClassVar[str] = "max_pool"

    def lower(self, site: Site) -> Lowered:
        """Return the pooling with its buffers; for inference, one axis after the other."""
        return _MaxPoolByAxis(self, site) if site.workspace.shares else _LoweredMaxPool(self, site)


class _LoweredMaxPool(Lowered):
    def __init__(self, pool: MaxPool, site: Site) -> None:
        self.sweep = pool.sweep(site.input_shape, site.name)
        channels, batch, new = site.input_shape[0], site.batch, site.workspace.array
        self.border = Border(
            self.sweep, channels, batch, site.workspace, value=-math.inf, wants_dx=site.wants_gradients
        )
        self.taps = list(itertools.product(*map(range, self.sweep.window.kernel)))
        self.y = site.workspace.output((channels, *self.sweep.output, batch))
        self.windows = self.y
        if site.wants_gradients:
            self.routed = new(self.y.shape)
            self.hit, self.free = site.workspace.mask((2, *self.y.shape))

    def forward(self, x: Array) -> Array:
        """Y = max over the taps (a, b) of X[:, i SH + a DH - PH, j SW + b DW - PW]."""
        self.windows = windows(self.border.around(x), self.sweep)
        np.copyto(self.y, self._tap(self.windows, self.taps[0]))
        for tap in self.taps[1:]:
            np.maximum(self.y, self._tap(self.windows, tap), out=self.y)
        return self.y

    def backward(self, dy: Array) -> Array:
        """dX = sum over the taps of dY where this tap is the first one equal to Y."""
        self.border.gradient.fill(0)
        dwindows = windows(self.border.gradient, self.sweep)
        self.free.fill(True)
        for tap in self.taps:
            np.equal(self._tap(self.windows, tap), self.y, out=self.hit)
            np.logical_and(self.hit, self.free, out=self.hit)
            np.logical_xor(self.free, self.hit, out=self.free)
            np.multiply(dy, self.hit, out=self.routed)
            target = self._tap(dwindows, tap)
            np.add(target, self.routed, out=target)
        return self.border.inside()

    def sides(self) -> npt.NDArray[np.intp]:
        """Return which tap is the first one equal to Y."""
        first: npt.NDArray[np.intp] = np.argmax([self._tap(self.windows, tap) == self.y for tap in self.taps], axis=0)
        return first

    def _tap(self, all_windows: Array, tap: tuple[int, ...]) -> Array:
        index: Index = (slice(None), *tap)
        return all_windows[index]


class _MaxPoolByAxis(Lowered):
    """The same for inference, axis by axis: fewer maxima, no padding, and a few channels at a time, in cache."""

    def __init__(self, pool: MaxPool, site: Site) -> None:
        self.sweep, self.channels = pool.sweep(site.input_shape, site.name), site.input_shape[0]
        size, outputs = self.sweep.size, self.sweep.output
        self.y = site.workspace.output((self.channels, *outputs, site.batch))
        shapes = [(*outputs[:axis], *size[axis:], site.batch) for axis in range(1, len(size))]
        block_bytes, most = site.workspace.block_bytes, max(map(math.prod, [(*size, site.batch), *shapes]))
        self.step = self.channels
        if block_bytes is not None:
            self.step = min(self.channels, max(1, block_bytes // (most * site.workspace.dtype.itemsize)))
        self.between = [site.workspace.temporary((self.step, *shape)) for shape in shapes]

    def forward(self, x: Array) -> Array:
        """Y = max over the taps along the first axis, of the maxima over the taps along the second, ..."""
        for start in range(0, self.channels, self.step):
            block = slice(start, start + self.step)
            part = x[block]
            for axis, out in enumerate([*(between[: len(part)] for between in self.between), self.y[block]]):
                self._along(axis, part, out)
                part = out
        return self.y

    def _along(self, axis: int, x: Array, out: Array) -> None:
        """Write the maxima over the taps along an axis."""
        window, size, (before, _) = self.sweep.window, self.sweep.size[axis], self.sweep.pads[axis]
        every, stride = (slice(None),) * (1 + axis), window.stride[axis]
        out.fill(-math.inf)
        for tap in range(window.kernel[axis]):
            at = tap * window.dilation[axis] - before
            low, high = max(0, -(at // stride)), min(out.shape[1 + axis], (size - 1 - at) // stride + 1)
            if low < high:
                target = out[*every, low:high]
                np.maximum(target, x[*every, at + low * stride : at + (high - 1) * stride + 1 : stride], out=target)

    def backward(self, dy: Array) -> Array:
        """Not available: this form is for inference without gradients."""
        raise NotImplementedError


@dataclass(frozen=True)
class AvgPool(_Pool):
    """y is the mean of each window: a product with the constant row 1 / (KH KW) (S7), over inputs (C, *size).

    With `count_include_pad`, zeros of the padding count as values, as in PyTorch; without it, the mean is over what is
    inside the input, as in Keras. Padding that `ceil_mode` adds never counts. If nothing in a window counts, its mean
    is 0, and so is its gradient.
    """

    count_include_pad: bool = True

    kind: ClassVar[str] = "avg_pool"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag(f"{type(self).__name__}: count_include_pad", self.count_include_pad)

    def counts(self, sweep: Sweep) -> Array:
        """Return how many taps count in the mean of each window (*output size)."""
        size, pads = sweep.size, sweep.pads
        if self.count_include_pad:
            included = sweep.window.pads(sweep.size)  # without what `ceil_mode` adds
            size = replace(sweep, pads=included).padded
            pads = tuple((0, p[1] - q[1]) for p, q in zip(sweep.pads, included, strict=True))
        counted = im2col(np.ones((1, *size, 1), np.float32), replace(sweep, size=size, pads=pads))
        counts: Array = counted.sum(axis=tuple(range(1 + len(size))))[..., 0]
        return counts

    def lower(self, site: Site) -> Lowered:
        """Return the pooling as a matrix product for each channel."""
        return _LoweredAvgPool(self, site)


class _LoweredAvgPool(Lowered):
    """The matrices, for each channel: row (1, KH KW), columns (KH KW, P N), y (1, P N)."""

    def __init__(self, pool: AvgPool, site: Site) -> None:
        sweep = pool.sweep(site.input_shape, site.name)
        channels, taps = site.input_shape[0], math.prod(sweep.window.kernel)
        new = site.workspace.array
        self.batch = site.batch
        self.columns = Columns(sweep, channels, site.batch, site.workspace, wants_dx=site.wants_gradients)
        self.row = new((1, 1, taps), 1 / taps)
        self.y = site.workspace.output((channels, *sweep.output, site.batch))
        self.matrix = (channels, 1, self.y.size // channels)
        # Corrects for taps that do not count: KH KW over the number of those that do.
        counts = pool.counts(sweep)[..., None].astype(site.workspace.dtype)
        self.scale = None if (counts == taps).all() else np.where(counts > 0, taps / np.maximum(counts, 1), 0)

    def forward(self, x: Array) -> Array:
        """Y = row @ im2col(X)."""
        self.columns.read(x)
        y = self.y.reshape(self.matrix)
        for block in self.columns.blocks:
            multiply("forward", self.row, self._matrix(self.columns.im2col(block)), out=block.of(y, self.batch))
        return self.y if self.scale is None else np.multiply(self.y, self.scale, out=self.y)

    def backward(self, dy: Array) -> Array:
        """dX = col2im(row^T dY)."""
        if self.scale is not None:
            np.multiply(dy, self.scale, out=dy)
        dz = dy.reshape(self.matrix)
        self.columns.clear()
        for block in self.columns.blocks:
            columns = self.columns.empty(block)
            multiply_at_b("dx", self.row, block.of(dz, self.batch), out=self._matrix(columns))
            self.columns.col2im(block, columns)
        return self.columns.dx()

    def _matrix(self, columns: Array) -> Array:
        return columns.reshape(columns.shape[0], self.row.shape[-1], -1)


@dataclass(frozen=True)
class _GlobalPool(Layer):
    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return (C,)."""
        size_of(input_shape, name)
        return input_shape[:1]


@dataclass(frozen=True)
class GlobalAvgPool(_GlobalPool):
    """y[c] is the mean of channel c over all positions: input (C, *size), output (C)."""

    kind: ClassVar[str] = "global_avg_pool"

    def lower(self, site: Site) -> Lowered:
        """Return the mean as a matrix product for each channel."""
        return _LoweredGlobalAvgPool(site)


class _LoweredGlobalAvgPool(Lowered):
    """The matrices, for each channel: row (1, P), x (P, N), y (1, N)."""

    def __init__(self, site: Site) -> None:
        channels, positions = site.input_shape[0], math.prod(site.input_shape[1:])
        self.row = site.workspace.array((1, 1, positions), 1 / positions)
        self.y = site.workspace.output((channels, site.batch))
        self.matrix = (channels, positions, site.batch)
        self.dx = site.workspace.array((*site.input_shape, site.batch) if site.wants_gradients else (0,))

    def forward(self, x: Array) -> Array:
        """Y = row @ X."""
        multiply("forward", self.row, x.reshape(self.matrix), out=self.y[:, None, :])
        return self.y

    def backward(self, dy: Array) -> Array:
        """dX = row^T dY."""
        multiply_at_b("dx", self.row, dy[:, None, :], out=self.dx.reshape(self.matrix))
        return self.dx


@dataclass(frozen=True)
class GlobalMaxPool(_GlobalPool):
    """y[c] is the maximum of channel c over all positions: input (C, *size), output (C).

    The gradient goes only to the maximum; among equal ones, to the first in row-major order.
    """

    kind: ClassVar[str] = "global_max_pool"

    def lower(self, site: Site) -> Lowered:
        """Return the pooling with its buffers."""
        return _LoweredGlobalMaxPool(site)


class _LoweredGlobalMaxPool(Lowered):
    """The matrices, for each channel: x (P, N), y (1, N)."""

    def __init__(self, site: Site) -> None:
        channels, positions = site.input_shape[0], math.prod(site.input_shape[1:])
        self.y = site.workspace.output((channels, site.batch))
        self.matrix = (channels, positions, site.batch)
        self.dx = site.workspace.array((*site.input_shape, site.batch) if site.wants_gradients else (0,))
        self.x = self.dx

    def forward(self, x: Array) -> Array:
        """Y = max over the positions of X."""
        self.x = x
        return np.max(x.reshape(self.matrix), axis=1, out=self.y)

    def backward(self, dy: Array) -> Array:
        """dX is dY at the first maximum, and 0 elsewhere."""
        first = self.x.reshape(self.matrix).argmax(axis=1)
        self.dx.fill(0)
        np.put_along_axis(self.dx.reshape(self.matrix), first[:, None], dy[:, None], axis=1)
        return self.dx

    def sides(self) -> npt.NDArray[np.intp]:
        """Return the position of the first maximum."""
        first: npt.NDArray[np.intp] = self.x.reshape(self.matrix).argmax(axis=1)
        return first
