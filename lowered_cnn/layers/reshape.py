"""Layers that change an activation's shape: a view, and a border."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lowered_cnn.arrays import Array, InputError, Shape, is_number
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.window import Padding, Window


@dataclass(frozen=True)
class Flatten(Layer):
    """(C, H, W) becomes (C H W), channels first: a view, since the batch is the last axis."""

    kind: ClassVar[str] = "flatten"

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return (C H W,)."""
        return (math.prod(input_shape),)

    def lower(self, site: Site) -> Lowered:
        """Return the view."""
        return _View(site)


class _View(Lowered):
    def __init__(self, site: Site) -> None:
        self.x_shape = (*site.input_shape, site.batch)
        self.y_shape = (math.prod(site.input_shape), site.batch)

    def forward(self, x: Array) -> Array:
        """Y is X, seen as a matrix."""
        return x.reshape(self.y_shape)

    def backward(self, dy: Array) -> Array:
        """dX is dY, in the shape of X."""
        return dy.reshape(self.x_shape)


@dataclass(frozen=True)
class Pad(Layer):
    """A border of a constant value around (C, *size): `padding` is a number, or per axis a number or a pair."""

    padding: Padding = 1
    value: float = 0.0

    kind: ClassVar[str] = "pad"

    def __post_init__(self) -> None:
        if not is_number(self.value):
            raise InputError("Pad: value", "a number", repr(self.value))

    def pads(self, rank: int, where: str) -> tuple[tuple[int, int], ...]:
        """Return the padding before and after each of `rank` axes."""
        pads = Window.of(rank, 1, padding=self.padding, where=where).padding
        if pads is None:
            raise InputError(f"{where}: padding", f"a number, or {rank} numbers or pairs", repr(self.padding))
        return pads

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return (C, *size with the border)."""
        if len(input_shape) < 2:
            raise InputError(f"{name}: input", "shape (C, *size)", input_shape)
        pads = self.pads(len(input_shape) - 1, name)
        return (input_shape[0], *(h + sum(p) for h, p in zip(input_shape[1:], pads, strict=True)))

    def lower(self, site: Site) -> Lowered:
        """Return the border with its buffer."""
        return _LoweredPad(self, site)


class _LoweredPad(Lowered):
    def __init__(self, pad: Pad, site: Site) -> None:
        pads = pad.pads(len(site.input_shape) - 1, site.name)
        self.y = site.workspace.array((*pad.output_shape(site.input_shape, site.name), site.batch), pad.value)
        self.interior = tuple(slice(p[0], p[0] + h) for p, h in zip(pads, site.input_shape[1:], strict=True))

    def forward(self, x: Array) -> Array:
        """Y is X with the border."""
        np.copyto(self.y[:, *self.interior], x)
        return self.y

    def backward(self, dy: Array) -> Array:
        """dX is dY without the border."""
        return np.ascontiguousarray(dy[:, *self.interior])
