"""The complementary error function for arrays, which NumPy lacks."""

import math
from functools import cache

import numpy as np

from lowered_cnn.arrays import Array

LARGEST = 28.0
"""From here on erfc(x) is 0 in float64."""

MIDDLE = 3.0
DEGREE = 20
POINTS = 400
TERMS = 200


def erfc(x: Array) -> Array:
    """Return erfc(x) = 2 / sqrt(pi) times the integral of exp(-t^2) from x to infinity, for x in float64.

    For x >= 0 it is exp(-x^2) g(x) / (1 + 2 x), where g varies slowly and is, to 2e-15, a polynomial in
    (x - 3) / (x + 3) (Shepherd and Laframboise, 1981); erfc(-x) is 2 - erfc(x). The rounding of x^2 adds a relative
    error of x^2 units in the last place, as a change of x in its last place would too.
    """
    size = np.minimum(np.abs(x), LARGEST)
    place = (size - MIDDLE) / (size + MIDDLE)
    g = np.zeros_like(size)
    for coefficient in _coefficients():
        g *= place
        g += coefficient
    tail = np.exp(-size * size) * g / (1 + 2 * size)
    beyond = (x < 0).astype(x.dtype)
    result: Array = 2 * beyond + (1 - 2 * beyond) * tail
    return result


@cache
def _coefficients() -> list[float]:
    """Fit (1 + 2 x) exp(x^2) erfc(x); the highest power comes first."""
    from numpy.polynomial import Chebyshev, Polynomial

    furthest = (LARGEST - MIDDLE) / (LARGEST + MIDDLE)
    places = (furthest - 1 + (furthest + 1) * np.cos(np.linspace(0, np.pi, POINTS))) / 2
    sizes = MIDDLE * (1 + places) / (1 - places)
    g = [(1 + 2 * size) * _scaled(size) for size in sizes.tolist()]
    return [float(each) for each in Chebyshev.fit(places, g, DEGREE).convert(kind=Polynomial).coef[::-1]]


def _scaled(x: float) -> float:
    """Return exp(x^2) erfc(x): by the standard library or, where that loses digits, by Laplace's continued fraction."""
    if x < 2:
        return math.exp(x * x) * math.erfc(x)
    rest = x
    for k in range(TERMS, 0, -1):
        rest = x + k / 2 / rest
    return 1 / (math.sqrt(math.pi) * rest)
