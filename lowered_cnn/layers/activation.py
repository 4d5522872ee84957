"""Element-wise activations."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lowered_cnn.arrays import Array, Shape
from lowered_cnn.layers.layer import Layer, Lowered, Site


@dataclass(frozen=True)
class ReLU(Layer):
    """y = max(x, 0); its gradient is 1 where x > 0, else 0, also at 0 (S5). Any shape."""

    kind: ClassVar[str] = "relu"

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the input's shape."""
        return input_shape

    def lower(self, site: Site) -> Lowered:
        """Return the rectifier with a buffer for y and, in training, one for the mask."""
        return _LoweredReLU(site)


class _LoweredReLU(Lowered):
    def __init__(self, site: Site) -> None:
        shape = (*site.input_shape, site.batch)
        self.y = site.workspace.array(shape)
        # A row of zeros, not the number 0: NumPy's vector loop for maximum wants two arrays (3 times as fast).
        self.zeros = site.workspace.array(shape[-2:])
        if site.training:
            self.active = site.workspace.mask(shape)

    def forward(self, x: Array) -> Array:
        """Y = max(X, 0)."""
        return np.maximum(x, self.zeros, out=self.y)

    def backward(self, dy: Array) -> Array:
        """dX = dY where Y > 0, else 0."""
        np.greater(self.y, 0, out=self.active)
        return np.multiply(dy, self.active, out=dy)
