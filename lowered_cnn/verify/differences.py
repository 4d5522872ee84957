"""Finite differences that know their own error: derivatives along a direction, in float64, each with a bound.

Central differences D(h) = (f(h) - f(-h)) / 2 h have errors of order h^2, h^4, ...; Richardson's extrapolation
R = (64 D(h/4) - 20 D(h/2) + D(h)) / 45 leaves h^6. The remaining error has two parts, and both are estimated: the
truncation error is less than the distance from R to the extrapolation of one order less; the rounding error follows
from the noise of f.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lowered_cnn.arrays import Array

Function: TypeAlias = Callable[[float], float]

UNIT_ROUNDOFF = 2.0**-53
"""The largest relative error of one operation in float64."""

STEP = 1e-3
"""The first h to try: about where the two parts of the error are equal."""

SHRINK = 1 / 8
"""The factor from one h to the next, if there is a kink within it or f bends too much."""

SMALLEST = 1e-8

SPACING = 1e-3
"""The distance, in steps, between the values that noise is estimated from: too small for a kink among them."""


@dataclass(frozen=True)
class Derivative:
    """f'(0), off by at most `bound`."""

    value: float
    bound: float


def gradient_rounding(length: float) -> float:
    """Return how far, at worst, rounding takes a gradient of this length from the exact one, along any direction."""
    return 64 * UNIT_ROUNDOFF * length


def noise(f: Function, spacing: float = SPACING * STEP) -> float:
    """Return how far, at worst, rounding takes f(t) from a smooth function.

    Fourth differences of close values leave only the noise of a smooth f (Hamming, 1971; More and Wild, 2011): its
    deviation is their root mean square over sqrt(70). From so few differences, the estimate may be half the true one.
    The worst case is taken as 16 deviations plus the rounding of f itself.
    """
    values = np.array([f(spacing * k) for k in range(-8, 9)])
    deviation = np.sqrt(np.mean(np.square(np.diff(values, 4))) / 70)
    return float(16 * deviation + 4 * UNIT_ROUNDOFF * np.abs(values).max())


def derivative(f: Function, step: float = STEP) -> Derivative:
    """Return f'(0), extrapolated from steps h, h/2 and h/4, with a bound on its error.

    While more is truncated than rounded, f bends too much or has a kink within h, and h is made smaller.
    """
    best, truncated = _extrapolated(f, step)
    while truncated > best.bound / 2 and step > SMALLEST:
        step *= SHRINK
        found, truncated = _extrapolated(f, step)
        best = min(best, found, key=lambda each: each.bound)
    return best


def _extrapolated(f: Function, h: float) -> tuple[Derivative, float]:
    """Return f'(0) with the bound on its error, and how much of that is truncated."""
    far, middle, near = ((f(step) - f(-step)) / (2 * step) for step in (h, h / 2, h / 4))
    value = (64 * near - 20 * middle + far) / 45
    truncated = abs(value - (4 * near - middle) / 3)
    rounded = (64 * 4 + 20 * 2 + 1) / 45 * noise(f, SPACING * h) / h
    return Derivative(value, truncated + rounded), truncated


def smooth_step(branch: Callable[[float], bytes], step: float = STEP) -> float:
    """Return the largest h = step, step / 8, ... for which f takes the same branch at every kink from -h to h.

    `branch` returns which branches f takes; it is compared at six points. A kink may remain within the smallest step.
    """
    here = branch(0.0)
    while step > SMALLEST and any(branch(t * step) != here for t in (-1, -0.5, -0.25, 0.25, 0.5, 1)):
        step *= SHRINK
    return step


def unit_directions(shape: tuple[int, ...], count: int) -> list[Array]:
    """Return random directions of length 1, the same each time."""
    drawn = np.random.default_rng([count, *shape]).standard_normal((count, *shape))
    return [direction / np.sqrt(np.sum(direction**2)) for direction in drawn]


def relative_error(j: Callable[[Array], float], at: Array, gradient: Array, directions: int = 3) -> float:
    """Return the largest error of J's gradient along some random unit directions, relative to the gradient's length.

    Errors are neither added with their signs nor averaged: the largest one counts.
    """
    length = float(np.sqrt(np.sum(gradient**2)))

    def error(direction: Array) -> float:
        return abs(derivative(lambda t: j(at + t * direction)).value - float(np.sum(gradient * direction)))

    return max(map(error, unit_directions(at.shape, directions))) / length
