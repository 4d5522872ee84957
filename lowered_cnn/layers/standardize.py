"""Standardization: the network's inputs brought to mean 0 and deviation 1 by numbers measured on the training data."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, Images, InputError, Shape
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.parameters import Parameter

AT_ONCE = 64
"""How many images are held in float64 at once."""

ROUNDING = 1e-12
"""The most that rounding adds to the deviation of a channel that never changes, relative to its mean."""


@dataclass(frozen=True)
class Standardize(Layer):
    """y = (x - mean) / deviation, for each channel.

    Input (C, *size) or (features). As the first layer of a network, or where it takes an input of a Graph, it gets its
    two numbers per channel from the training images, before the first step of the first training. They are kept with
    the network, and learn nothing.
    A mean of 0 and a deviation of 1 count as not measured yet; any others, such as your own, are left alone.
    """

    kind: ClassVar[str] = "standardize"

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the input's shape."""
        return input_shape

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return mean and deviation, each (C)."""
        shape = input_shape[:1]
        return (Parameter("mean", shape, statistic=True), Parameter("deviation", shape, initial=1.0, statistic=True))

    def lower(self, site: Site) -> Lowered:
        """Return the standardization, the same in training and at inference."""
        return _LoweredStandardize(site)


class _LoweredStandardize(Lowered):
    """The matrices: x and y (channels, M), with M = positions times examples."""

    def __init__(self, site: Site) -> None:
        self.y = site.workspace.output((*site.input_shape, site.batch))
        self.matrix = (len(self.y), self.y.size // len(self.y))
        self.mean, self.deviation = (site.parameter(name)[:, None] for name in ("mean", "deviation"))
        self.wants_dx = site.wants_dx
        self.off = [site.gradient(name) for name in ("mean", "deviation")] if site.wants_gradients else []

    def forward(self, x: Array) -> Array:
        """Y = (X - mean) / deviation."""
        y = self.y.reshape(self.matrix)
        np.divide(np.subtract(x.reshape(self.matrix), self.mean, out=y), self.deviation, out=y)
        return self.y

    def backward(self, dy: Array) -> Array | None:
        """dX = dY / deviation; the statistics are left unchanged."""
        for off in self.off:
            off.fill(0)
        if not self.wants_dx:
            return None
        dx = dy.reshape(self.matrix)
        np.divide(dx, self.deviation, out=dx)
        return dy


def moments(parts: Iterable[Images]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the mean and the deviation (C) of each channel of images (N, C, *size), which come in parts.

    Bytes count as 0 to 1. A channel that never changes has the deviation 1. Parts are merged in their order (Chan,
    Golub and LeVeque, 1979), so means far from 0 cost no digits. Raises InputError for numbers that are not finite.
    """
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is reported below
        for images in parts:
            for start in range(0, len(images), AT_ONCE):
                x = _by_channel(images[start : start + AT_ONCE])
                own = x.mean(axis=1)
                x -= own[:, None]
                more, apart, total = x.shape[1], own - mean, count + x.shape[1]
                mean = mean + apart * (more / total)
                squares = squares + np.square(x, out=x).sum(axis=1) + apart**2 * (count * more / total)
                count = total
        deviation = np.sqrt(squares / count)
    if not (np.isfinite(mean).all() and np.isfinite(deviation).all()):
        raise InputError("Standardize: images", "finite numbers", "nan, inf or numbers too large to square")
    return mean, np.where(deviation > ROUNDING * np.abs(mean), deviation, 1.0)


def _by_channel(images: Images) -> npt.NDArray[np.float64]:
    """Return a copy of images (N, C, *size) as (C, N * positions), in float64, where bytes count as 0 to 1."""
    x = np.moveaxis(images, 1, 0).reshape(images.shape[1], -1).astype(np.float64)
    return np.divide(x, 255, out=x) if images.dtype == np.uint8 else x
