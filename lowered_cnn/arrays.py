"""Array and shape types, and the one voice in which wrong input is reported."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.floating]
"""A float32 or float64 array: activations, parameters, gradients."""

Bytes: TypeAlias = npt.NDArray[np.uint8]
"""Images as they are stored: grey levels or colours from 0 to 255."""

Labels: TypeAlias = npt.NDArray[np.int64]
"""Class numbers, one an example."""

Shape: TypeAlias = tuple[int, ...]


class InputError(ValueError):
    """Wrong input, told in one line: where, what was expected, what was got."""

    def __init__(self, where: str, expected: object, got: object) -> None:
        super().__init__(f"{where}: expected {expected}, got {got}")


def check_shape(where: str, expected: Shape, got: Shape) -> None:
    """Raise InputError unless both shapes are the same."""
    if expected != got:
        raise InputError(where, expected, got)


def check_rank(where: str, axes: str, got: Shape) -> None:
    """Raise InputError unless the shape has one length for each of the named axes, as in `"C H W"`."""
    if len(got) != len(axes.split()):
        raise InputError(where, f"shape ({', '.join(axes.split())})", got)
