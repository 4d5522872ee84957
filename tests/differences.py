"""The gradient check: derivatives along random directions by central differences, in float64.

No sum of signed differences and no average: an error shows in each direction, and the largest one counts.
"""

from collections.abc import Callable

import numpy as np

from lowered_cnn.arrays import Array

STEP = 1e-4
"""How far to go to either side: both the neglected fifth derivative and the rounding are then below 1e-10."""


def derivative(f: Callable[[float], float], step: float = STEP) -> float:
    """Return f'(0) by central differences of two steps, extrapolated after Richardson: the error is O(step^4)."""

    def central(h: float) -> float:
        return (f(h) - f(-h)) / (2 * h)

    return (4 * central(step / 2) - central(step)) / 3


def relative_error(j: Callable[[Array], float], at: Array, gradient: Array, directions: int = 3) -> float:
    """Return the largest error of the gradient of J along some random unit directions, over the gradient's length."""
    generator = np.random.default_rng(at.shape)
    return max(_error(j, at, gradient, generator.standard_normal(at.shape)) for _ in range(directions))


def _error(j: Callable[[Array], float], at: Array, gradient: Array, direction: Array) -> float:
    unit = direction / np.linalg.norm(direction)
    numeric = derivative(lambda t: j(at + t * unit))
    return float(abs(numeric - (gradient * unit).sum()) / np.linalg.norm(gradient))
