"""Layers that only look at an activation in another shape."""

import math
from dataclasses import dataclass
from typing import ClassVar

from lowered_cnn.arrays import Array, Shape
from lowered_cnn.layers.layer import Layer, Lowered, Site


@dataclass(frozen=True)
class Flatten(Layer):
    """(C, H, W) becomes (C H W), channels first: a view, since the batch is innermost."""

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
        """The gradient goes back as it is, seen as maps again."""
        return dy.reshape(self.x_shape)
