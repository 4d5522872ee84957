"""Joins: how a graph combines several branches into one: their sum, product or concatenation."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lowered_cnn.arrays import Array, InputError, Shape, check_shape, whole_number
from lowered_cnn.workspace import Workspace


@dataclass(frozen=True)
class JoinSite:
    """What a join is lowered for: the shapes of its inputs, without the batch, and which of them want a gradient."""

    name: str
    input_shapes: tuple[Shape, ...]
    batch: int
    wants_dx: tuple[bool, ...]
    workspace: Workspace


class LoweredJoin(ABC):
    """The form of a join that runs. Its contract is that of `Lowered`, with several x instead of one."""

    @abstractmethod
    def forward(self, xs: Sequence[Array]) -> Array:
        """Return y."""

    @abstractmethod
    def backward(self, dy: Array) -> list[Array | None]:
        """Return the gradient of each x that wants one, else None: separate arrays, one of which may be dy."""


@dataclass(frozen=True)
class Join(ABC):
    """A description of a join: a frozen dataclass without arrays or parameters."""

    kind: ClassVar[str]

    @abstractmethod
    def output_shape(self, input_shapes: Sequence[Shape], name: str) -> Shape:
        """Return y's shape for the inputs' shapes; raises InputError, with `name`, if they do not fit."""

    @abstractmethod
    def lower(self, site: JoinSite) -> LoweredJoin:
        """Allocate all buffers and return the form that runs."""


class _Broadcast(Join):
    """An element-wise join. Axes of length 1 are repeated, so that (C, 1, 1) fits (C, H, W)."""

    def output_shape(self, input_shapes: Sequence[Shape], name: str) -> Shape:
        """Return the greatest length along each axis."""
        try:
            shape = np.broadcast_shapes(*input_shapes)
        except ValueError:
            shape = ()
        if len({*map(len, input_shapes), len(shape)}) > 1:
            wanted = f"the shape of the first, {input_shapes[0]}, or lengths of 1 in it"
            raise InputError(f"{name}: inputs", wanted, ", ".join(map(str, input_shapes[1:])))
        return shape


@dataclass(frozen=True)
class Add(_Broadcast):
    """y = the sum of the inputs."""

    kind: ClassVar[str] = "add"

    def lower(self, site: JoinSite) -> LoweredJoin:
        """Return the sum with its buffers."""
        return _LoweredAdd(self, site)


@dataclass(frozen=True)
class Multiply(_Broadcast):
    """y = the product of the inputs, element by element: the gates of squeeze and excitation (Hu et al., 2018)."""

    kind: ClassVar[str] = "multiply"

    def lower(self, site: JoinSite) -> LoweredJoin:
        """Return the product with its buffers."""
        return _LoweredMultiply(self, site)


class _LoweredBroadcast(LoweredJoin):
    def __init__(self, join: _Broadcast, site: JoinSite) -> None:
        new, batch = site.workspace.array, site.batch
        output = join.output_shape(site.input_shapes, site.name)
        self.y = site.workspace.output((*output, batch))
        self.shapes, self.wants_dx = [(*shape, batch) for shape in site.input_shapes], site.wants_dx
        self.axes = [
            tuple(axis for axis, (own, length) in enumerate(zip(shape, output, strict=True)) if own < length)
            for shape in site.input_shapes
        ]
        # One gradient is written over dy: that of the last input with the shape of y.
        whole = [place for place, axes in enumerate(self.axes) if not axes and site.wants_dx[place]]
        self.in_place = whole[-1] if whole else None
        self.dxs = [
            new(shape) if wanted and place != self.in_place else None
            for place, (shape, wanted) in enumerate(zip(self.shapes, site.wants_dx, strict=True))
        ]


class _LoweredAdd(_LoweredBroadcast):
    def forward(self, xs: Sequence[Array]) -> Array:
        """Y = X1 + X2 + ..."""
        np.add(xs[0], xs[1], out=self.y) if len(xs) > 1 else np.copyto(self.y, xs[0])
        for x in xs[2:]:
            np.add(self.y, x, out=self.y)
        return self.y

    def backward(self, dy: Array) -> list[Array | None]:
        """dX = dY, summed over the axes along which X is repeated."""
        dxs: list[Array | None] = []
        for place, (dx, axes) in enumerate(zip(self.dxs, self.axes, strict=True)):
            if dx is not None:
                np.sum(dy, axis=axes, keepdims=True, out=dx) if axes else np.copyto(dx, dy)
            dxs.append(dy if place == self.in_place else dx)
        return dxs


class _LoweredMultiply(_LoweredBroadcast):
    def __init__(self, join: _Broadcast, site: JoinSite) -> None:
        super().__init__(join, site)
        self.xs: list[Array] = []
        self.product = site.workspace.array(self.y.shape if any(site.wants_dx) else (0,))

    def forward(self, xs: Sequence[Array]) -> Array:
        """Y = X1 X2 ..."""
        self.xs = list(xs)
        np.multiply(xs[0], xs[1], out=self.y) if len(xs) > 1 else np.copyto(self.y, xs[0])
        for x in xs[2:]:
            np.multiply(self.y, x, out=self.y)
        return self.y

    def backward(self, dy: Array) -> list[Array | None]:
        """dX = dY times all other inputs, summed over the axes along which X is repeated."""
        for place, (dx, axes) in enumerate(zip(self.dxs, self.axes, strict=True)):
            if dx is not None:
                self._times_others(place, dy, self.product if axes else dx)
                if axes:
                    np.sum(self.product, axis=axes, keepdims=True, out=dx)
        if self.in_place is not None:
            self._times_others(self.in_place, dy, dy)
        return [dy if place == self.in_place else dx for place, dx in enumerate(self.dxs)]

    def _times_others(self, place: int, dy: Array, out: Array) -> None:
        np.copyto(out, dy)
        for other, x in enumerate(self.xs):
            if other != place:
                np.multiply(out, x, out=out)


@dataclass(frozen=True)
class Concat(Join):
    """y = the inputs, concatenated along `axis`, counted without the batch: 0 is the channels or features."""

    axis: int = 0

    kind: ClassVar[str] = "concat"

    def __post_init__(self) -> None:
        whole_number("Concat: axis", self.axis, 0)

    def output_shape(self, input_shapes: Sequence[Shape], name: str) -> Shape:
        """Return the first input's shape, with the sum of the lengths along the axis."""
        first, axis = input_shapes[0], self.axis
        if axis >= len(first):
            raise InputError(f"{name}: axis", f"one of the {len(first)} of the inputs", axis)
        for shape in input_shapes[1:]:
            same = (*shape[:axis], *first[axis : axis + 1], *shape[axis + 1 :])
            check_shape(f"{name}: inputs (axis {axis} aside)", first, same)
        return (*first[:axis], sum(shape[axis] for shape in input_shapes), *first[axis + 1 :])

    def lower(self, site: JoinSite) -> LoweredJoin:
        """Return the concatenation with its buffers."""
        return _LoweredConcat(self, site)


class _LoweredConcat(LoweredJoin):
    def __init__(self, concat: Concat, site: JoinSite) -> None:
        self.y = site.workspace.output((*concat.output_shape(site.input_shapes, site.name), site.batch))
        self.wants_dx = site.wants_dx
        ends = np.cumsum([shape[concat.axis] for shape in site.input_shapes]).tolist()
        every = (slice(None),) * concat.axis
        self.parts = [(*every, slice(start, end)) for start, end in zip([0, *ends], ends, strict=False)]

    def forward(self, xs: Sequence[Array]) -> Array:
        """Y is the inputs, one after the other."""
        for part, x in zip(self.parts, xs, strict=True):
            np.copyto(self.y[part], x)
        return self.y

    def backward(self, dy: Array) -> list[Array | None]:
        """Each dX is its part of dY."""
        return [
            np.ascontiguousarray(dy[part]) if wanted else None
            for part, wanted in zip(self.parts, self.wants_dx, strict=True)
        ]
