"""Dropout: random zeros in training, the identity at inference."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lowered_cnn.arrays import Array, InputError, Shape, check_flag, is_number
from lowered_cnn.layers.layer import Layer, Lowered, Site


@dataclass(frozen=True)
class Dropout(Layer):
    """In training y = x m / (1 - rate), where m is 0 with probability `rate`, else 1; at inference y = x.

    With `channels`, m is the same for all positions of a channel of (C, *size): whole channels become 0, as in
    PyTorch's Dropout2d (Tompson et al., 2015). The masks depend on the seed, the step and the shard, never on the
    number of workers. (Srivastava et al., 2014.)
    """

    rate: float = 0.5
    channels: bool = False

    kind: ClassVar[str] = "dropout"

    def __post_init__(self) -> None:
        if not (is_number(self.rate) and 0 <= self.rate < 1):
            raise InputError("Dropout", "a rate from 0 up to, but not including, 1", repr(self.rate))
        check_flag("Dropout: channels", self.channels)

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the input's shape."""
        return input_shape

    def lower(self, site: Site) -> Lowered:
        """Return the random mask for training, the identity for inference."""
        return _LoweredDropout(self, site) if site.training else _Identity()


class _LoweredDropout(Lowered):
    def __init__(self, dropout: Dropout, site: Site) -> None:
        shape = (*site.input_shape, site.batch)
        self.rate = dropout.rate
        self.site = site
        alike = (shape[0], *(1 for _ in shape[1:-1]), shape[-1]) if dropout.channels else shape
        self.y, self.mask = site.workspace.array(shape), site.workspace.array(alike)
        self.draws = site.workspace.array(alike, dtype=np.float32)

    def forward(self, x: Array) -> Array:
        """Y = X M / (1 - rate)."""
        self.site.noise.generator(self.site.name).random(out=self.draws, dtype=np.float32)
        np.greater_equal(self.draws, self.rate, out=self.mask)
        self.mask /= 1 - self.rate
        return np.multiply(x, self.mask, out=self.y)

    def backward(self, dy: Array) -> Array:
        """dX = dY M / (1 - rate)."""
        return np.multiply(dy, self.mask, out=dy)


class _Identity(Lowered):
    def forward(self, x: Array) -> Array:
        """Y is X."""
        return x

    def backward(self, dy: Array) -> Array:
        """dX is dY."""
        return dy
