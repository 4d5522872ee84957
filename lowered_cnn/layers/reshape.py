"""Layers that rearrange the numbers of an activation: views, permutations, slices, and borders."""

import math
import operator
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, SupportsIndex, TypeAlias, get_args

import numpy as np

from lowered_cnn.arrays import Array, InputError, Shape, is_number, whole_number
from lowered_cnn.layers.axes import axis_of, check_axis, size_of
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.lowering import Index
from lowered_cnn.window import Padding, Window

PadMode: TypeAlias = Literal["constant", "reflect", "edge"]


@dataclass(frozen=True)
class Flatten(Layer):
    """(C, H, W) becomes (C H W), channels first: a view, since the batch is the last axis."""

    kind: ClassVar[str] = "flatten"

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return (C H W,)."""
        return (math.prod(input_shape),)

    def lower(self, site: Site) -> Lowered:
        """Return the view."""
        return _View(site, self.output_shape(site.input_shape, site.name))


@dataclass(frozen=True)
class Reshape(Layer):
    """The same numbers in row-major order, in another `shape` without the batch: a view, as the batch is the last axis.

    One length may be -1: it follows from the others.
    """

    shape: Shape

    kind: ClassVar[str] = "reshape"

    def __post_init__(self) -> None:
        if not np.iterable(self.shape) or not tuple(self.shape):
            raise InputError("Reshape: shape", "a tuple of lengths", repr(self.shape))
        shape = tuple(whole_number("Reshape: shape", n, -1) for n in self.shape)
        if shape.count(-1) > 1 or 0 in shape:
            raise InputError("Reshape: shape", "lengths above 0, one of which may be -1", shape)
        object.__setattr__(self, "shape", shape)

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the shape, with a length in place of -1."""
        count, given = math.prod(input_shape), abs(math.prod(self.shape))
        if count % given or (-1 not in self.shape and count != given):
            raise InputError(f"{name}: input", f"as many numbers as {self.shape}", input_shape)
        return tuple(count // given if n == -1 else n for n in self.shape)

    def lower(self, site: Site) -> Lowered:
        """Return the view."""
        return _View(site, self.output_shape(site.input_shape, site.name))


class _View(Lowered):
    def __init__(self, site: Site, output: Shape) -> None:
        self.x_shape = (*site.input_shape, site.batch)
        self.y_shape = (*output, site.batch)

    def forward(self, x: Array) -> Array:
        """Y is X, seen in another shape."""
        return x.reshape(self.y_shape)

    def backward(self, dy: Array) -> Array:
        """dX is dY, in the shape of X."""
        return dy.reshape(self.x_shape)


class Permutation(Layer):
    """y is x seen in a shape with more axes, with these permuted, and then seen in y's shape."""

    @abstractmethod
    def permutation(self, input_shape: Shape, name: str) -> tuple[Shape, Shape]:
        """Return the shape that x is seen in, and the axes in their new order, both without the batch."""

    def lower(self, site: Site) -> Lowered:
        """Return the permutation with its buffers."""
        return _LoweredPermutation(self, site)


class _LoweredPermutation(Lowered):
    def __init__(self, layer: Permutation, site: Site) -> None:
        seen, axes = layer.permutation(site.input_shape, site.name)
        self.x_shape = (*seen, site.batch)
        self.order = (*axes, len(axes))
        self.y = site.workspace.output((*layer.output_shape(site.input_shape, site.name), site.batch))
        self.y_shape = tuple(self.x_shape[axis] for axis in self.order)
        self.dx = site.workspace.array((*site.input_shape, site.batch) if site.wants_gradients else (0,))

    def forward(self, x: Array) -> Array:
        """Y is X with its axes permuted."""
        np.copyto(self.y.reshape(self.y_shape), x.reshape(self.x_shape).transpose(self.order))
        return self.y

    def backward(self, dy: Array) -> Array:
        """dX is dY with its axes permuted back."""
        np.copyto(self.dx.reshape(self.x_shape).transpose(self.order), dy.reshape(self.y_shape))
        return self.dx


@dataclass(frozen=True)
class Transpose(Permutation):
    """The axes, counted without the batch, in another order: axis j of y is axis axes[j] of x.

    Transpose((1, 2, 0)) turns (C, H, W) into (H, W, C).
    """

    axes: Shape

    kind: ClassVar[str] = "transpose"

    def __post_init__(self) -> None:
        axes = tuple(self.axes) if isinstance(self.axes, Sequence) else ()
        for axis in axes:
            check_axis("Transpose", axis)
        if not axes or sorted(axes) != list(range(len(axes))):
            raise InputError("Transpose: axes", "0, 1, ..., each once", repr(self.axes))
        object.__setattr__(self, "axes", tuple(map(operator.index, axes)))

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the lengths in their new order."""
        if len(input_shape) != len(self.axes):
            raise InputError(f"{name}: input", f"a shape of {len(self.axes)} axes", input_shape)
        return tuple(input_shape[axis] for axis in self.axes)

    def permutation(self, input_shape: Shape, name: str) -> tuple[Shape, Shape]:
        """Return the input's shape, and the axes."""
        return input_shape, self.axes


@dataclass(frozen=True)
class ChannelShuffle(Permutation):
    """Channel k of y is channel (k mod G) C / G + floor(k / G) of x (C, *size), for G groups (Zhang et al., 2018)."""

    groups: int

    kind: ClassVar[str] = "channel_shuffle"

    def __post_init__(self) -> None:
        whole_number("ChannelShuffle: groups", self.groups, 1)

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the input's shape."""
        if input_shape[0] % self.groups:
            raise InputError(f"{name}: input", f"channels in {self.groups} groups of the same size", input_shape)
        return input_shape

    def permutation(self, input_shape: Shape, name: str) -> tuple[Shape, Shape]:
        """Return (G, C / G, positions), and the first two axes exchanged."""
        return (self.groups, input_shape[0] // self.groups, math.prod(input_shape[1:])), (1, 0, 2)


@dataclass(frozen=True)
class PixelShuffle(Permutation):
    """Channels become positions: (C r^2, H, W) becomes (C, H r, W r), with r the `factor` (Shi et al., 2016).

    y[c, i, j] = x[c r^2 + r (i mod r) + j mod r, floor(i / r), floor(j / r)]; likewise with any other
    number of axes.
    """

    factor: int

    kind: ClassVar[str] = "pixel_shuffle"

    def __post_init__(self) -> None:
        whole_number("PixelShuffle: factor", self.factor, 1)

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return (C, *size times the factor)."""
        taps = self.factor ** (len(input_shape) - 1)
        if len(input_shape) < 2 or input_shape[0] % taps:
            raise InputError(f"{name}: input", f"shape (C, *size) with C a multiple of {taps}", input_shape)
        return (input_shape[0] // taps, *(h * self.factor for h in input_shape[1:]))

    def permutation(self, input_shape: Shape, name: str) -> tuple[Shape, Shape]:
        """Return (C, r, r, H, W), and the order (C, H, r, W, r)."""
        channels, rank = self.output_shape(input_shape, name)[0], len(input_shape) - 1
        order = (axis for number in range(1, rank + 1) for axis in (rank + number, number))
        return (channels, *[self.factor] * rank, *input_shape[1:]), (0, *order)


@dataclass(frozen=True)
class Slice(Layer):
    """y is x[start:stop:step] along an `axis` of x without the batch: by default the channels.

    Negative numbers count from the end, as in Python; the step is at least 1.
    """

    axis: int = 0
    start: int = 0
    stop: int | None = None
    step: int = 1

    kind: ClassVar[str] = "slice"

    def __post_init__(self) -> None:
        check_axis("Slice", self.axis)
        for name in ("start", "stop"):
            value = getattr(self, name)
            if isinstance(value, bool) or not (isinstance(value, SupportsIndex) or (value is None and name == "stop")):
                raise InputError(f"Slice: {name}", "a whole number", repr(value))
        whole_number("Slice: step", self.step, 1)

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the input's shape, with fewer numbers along the axis."""
        axis = axis_of(self.axis, input_shape, name)
        count = len(range(input_shape[axis])[self.start : self.stop : self.step])
        if count == 0:
            raise InputError(f"{name}: input", f"something in [{self.start}:{self.stop}] of axis {axis}", input_shape)
        return (*input_shape[:axis], count, *input_shape[axis + 1 :])

    def lower(self, site: Site) -> Lowered:
        """Return the slice with its buffers."""
        return _LoweredSlice(self, site)


class _LoweredSlice(Lowered):
    def __init__(self, layer: Slice, site: Site) -> None:
        axis = axis_of(layer.axis, site.input_shape, site.name)
        self.part: Index = (*[slice(None)] * axis, slice(layer.start, layer.stop, layer.step))
        self.y = site.workspace.output((*layer.output_shape(site.input_shape, site.name), site.batch))
        self.dx = site.workspace.array((*site.input_shape, site.batch) if site.wants_gradients else (0,))

    def forward(self, x: Array) -> Array:
        """Y is the part of X."""
        np.copyto(self.y, x[self.part])
        return self.y

    def backward(self, dy: Array) -> Array:
        """dX is dY in its part, and 0 elsewhere."""
        self.dx.fill(0)
        np.copyto(self.dx[self.part], dy)
        return self.dx


@dataclass(frozen=True)
class Pad(Layer):
    """A border around (C, *size): `padding` is a number, or per axis a number or a pair.

    The `mode` says what is in it: "constant", the `value`; "edge", the outermost numbers again; "reflect", the input
    mirrored at its edge, without a second copy of the edge itself.
    """

    padding: Padding = 1
    value: float = 0.0
    mode: PadMode = "constant"

    kind: ClassVar[str] = "pad"

    def __post_init__(self) -> None:
        if not is_number(self.value):
            raise InputError("Pad: value", "a number", repr(self.value))
        if self.mode not in get_args(PadMode):
            raise InputError("Pad: mode", " or ".join(map(repr, get_args(PadMode))), repr(self.mode))

    def pads(self, rank: int, where: str) -> tuple[tuple[int, int], ...]:
        """Return the padding before and after each of `rank` axes."""
        pads = Window.of(rank, 1, padding=self.padding, where=where).padding
        if pads is None:
            raise InputError(f"{where}: padding", f"a number, or {rank} numbers or pairs", repr(self.padding))
        return pads

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return (C, *size with the border)."""
        size = size_of(input_shape, name)
        pads = self.pads(len(size), name)
        if self.mode == "reflect" and any(max(p) >= h for h, p in zip(size, pads, strict=True)):
            raise InputError(f"{name}: padding", f"less than the size {size}, which is reflected", pads)
        return (input_shape[0], *(h + sum(p) for h, p in zip(size, pads, strict=True)))

    def lower(self, site: Site) -> Lowered:
        """Return the border with its buffer."""
        return _LoweredPad(self, site)


class _LoweredPad(Lowered):
    def __init__(self, pad: Pad, site: Site) -> None:
        pads, size = pad.pads(len(site.input_shape) - 1, site.name), site.input_shape[1:]
        self.y = site.workspace.array((*pad.output_shape(site.input_shape, site.name), site.batch), pad.value)
        self.interior = tuple(slice(p[0], p[0] + h) for p, h in zip(pads, size, strict=True))
        # One axis after the other: the later ones repeat what the earlier ones have added, so corners are filled too.
        self.repeats: list[tuple[Index, Index]] = []
        if pad.mode != "constant":
            for axis, (p, h) in enumerate(zip(pads, size, strict=True), 1):
                for border, source in _sides(pad.mode, p, h):
                    ahead = (slice(None),) * axis
                    self.repeats.append(((*ahead, border), (*ahead, source)))
        self.edge = pad.mode == "edge"

    def forward(self, x: Array) -> Array:
        """Y is X with the border."""
        np.copyto(self.y[:, *self.interior], x)
        for border, source in self.repeats:
            np.copyto(self.y[border], self.y[source])
        return self.y

    def backward(self, dy: Array) -> Array:
        """dX is dY without the border, which is first added to what it repeats."""
        for border, source in self.repeats:
            dy[source] += dy[border].sum(axis=len(border) - 1, keepdims=True) if self.edge else dy[border]
        return np.ascontiguousarray(dy[:, *self.interior])


def _sides(mode: PadMode, pads: tuple[int, int], size: int) -> list[tuple[slice, slice]]:
    """Return the borders of an axis, before and after, each with what it repeats or reflects; none that is empty."""
    (before, after), end = pads, pads[0] + size
    if mode == "edge":
        sources = slice(before, before + 1), slice(end - 1, end)
    else:
        last = end - 2 - after
        sources = slice(2 * before, before, -1), slice(end - 2, None if last < 0 else last, -1)
    borders = slice(0, before), slice(end, end + after)
    return [pair for pair, count in zip(zip(borders, sources, strict=True), pads, strict=True) if count]
