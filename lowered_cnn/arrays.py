"""Array and shape types, and the one voice in which wrong input is reported."""

import operator
from typing import SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.floating]
"""A float32 or float64 array: activations, parameters, gradients."""

Mask: TypeAlias = npt.NDArray[np.bool_]
"""Truth values, one for each number of an activation."""

Bytes: TypeAlias = npt.NDArray[np.uint8]
"""Images as they are stored: grey levels or colours from 0 to 255."""

Labels: TypeAlias = npt.NDArray[np.int64]
"""Class numbers, one an example."""

Shape: TypeAlias = tuple[int, ...]


class InputError(ValueError):
    """Wrong input, told in one line: where, what was expected, what was got."""

    def __init__(self, where: str, expected: object, got: object) -> None:
        super().__init__(where, expected, got)

    def __str__(self) -> str:
        where, expected, got = self.args
        return f"{where}: expected {expected}, got {got}"


def whole_number(where: str, value: object, least: int) -> int:
    """Return a whole number; raises InputError for anything else, and for numbers below `least`."""
    if not isinstance(value, SupportsIndex) or operator.index(value) < least:
        raise InputError(where, f"a whole number from {least}", repr(value))
    return operator.index(value)


def check_shape(where: str, expected: Shape, got: Shape) -> None:
    """Raise InputError unless both shapes are the same."""
    if expected != got:
        raise InputError(where, expected, got)


def check_rank(where: str, axes: str, got: Shape) -> None:
    """Raise InputError unless the shape has one length for each of the named axes, as in `"C H W"`."""
    if len(got) != len(axes.split()):
        raise InputError(where, f"shape ({', '.join(axes.split())})", got)
