"""Saliency: the gradient of a class's score with respect to the image (Simonyan et al., 2014), certified.

It is computed in float64, and compared with finite differences along random directions of length 1, within the bound
that `verify` derives. The image is moved a little first: where pixels are equal, max pooling has no gradient.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from lowered_cnn.arrays import Array, Images
from lowered_cnn.network import Network
from lowered_cnn.verify.differences import derivative, gradient_rounding, smooth_step, unit_directions
from lowered_cnn.verify.probe import sides

DIRECTIONS = 3

MOVED = 1e-3
"""The most that a number of an image is moved, as a part of the image's range."""


@dataclass(frozen=True)
class Comparison:
    """The derivative along a direction: by the gradient, by differences, and how far the two may be apart."""

    gradient: float
    difference: float
    bound: float

    @property
    def error(self) -> float:
        """The distance between the two."""
        return abs(self.gradient - self.difference)

    @property
    def holds(self) -> bool:
        """Whether the error is within its bound; NaN is not."""
        return self.error <= self.bound


@dataclass(frozen=True, eq=False)
class Saliency:
    """The gradient (*input shape) of the score of one class, and what it was compared with."""

    gradient: Array
    comparisons: tuple[Comparison, ...]


def saliency(network: Network, image: Images, number: int) -> Saliency:
    """Return the gradient of output `number` with respect to an image (*input shape), at inference."""
    double = Network(network.model, network.input_shape, dtype=np.float64)
    double.parameters.vector[...] = network.parameters.vector
    lowered = double.lower(1, training=False, wants_dx=True, fused=False)
    x = image.astype(np.float64) / (255 if image.dtype == np.uint8 else 1)
    x += MOVED * (float(np.ptp(x)) or 1.0) * np.random.default_rng(0).random(x.shape)

    def score(direction: Array, t: float) -> float:
        return float(lowered.forward((x + t * direction)[None])[0, number])

    def branch(direction: Array, t: float) -> bytes:
        score(direction, t)
        return sides(lowered.layers)

    score(x, 0.0)
    dx = lowered.backward(np.eye(1, network.output_shape[0], number))
    assert dx is not None
    gradient = dx[0].copy()
    rounding = gradient_rounding(float(np.sqrt(np.sum(gradient**2))))
    comparisons = []
    for direction in unit_directions(x.shape, DIRECTIONS):
        found = derivative(partial(score, direction), smooth_step(partial(branch, direction)))
        comparisons.append(Comparison(float(np.sum(gradient * direction)), found.value, found.bound + rounding))
    return Saliency(gradient, tuple(comparisons))
