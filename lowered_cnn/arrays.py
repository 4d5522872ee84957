"""Array and shape types, and the one error that reports wrong input."""

import copy
import dataclasses
import math
import operator
from numbers import Real
from typing import Any, SupportsIndex, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.floating]
"""A float32 or float64 array: activations, parameters, gradients."""

Mask: TypeAlias = npt.NDArray[np.bool_]
"""Truth values, one per number of an activation."""

Bytes: TypeAlias = npt.NDArray[np.uint8]
"""Images as stored: grey levels or colours from 0 to 255."""

Images: TypeAlias = npt.NDArray[np.uint8 | np.floating]
"""Images as networks take them: bytes, which are scaled to 0 to 1, or floats, which are used as they are."""

Labels: TypeAlias = npt.NDArray[np.int64]
"""Class numbers, one per example."""

Targets: TypeAlias = npt.NDArray[Any]
"""What a network should answer, one entry per example: class numbers, values, vectors or maps (N, ...)."""

Weights: TypeAlias = npt.NDArray[np.float64]
"""How much each example counts (N,)."""

Shape: TypeAlias = tuple[int, ...]

Value = TypeVar("Value")


MOST_AXES, MOST_NUMBERS = 32, 10**14
"""The most axes and numbers of an example or a parameter."""


class InputError(ValueError):
    """Wrong input, reported in one line: where, what was expected, and what was got."""

    def __init__(self, where: str, expected: object, got: object) -> None:
        super().__init__(where, expected, got)

    def __str__(self) -> str:
        where, expected, got = self.args
        return f"{where}: expected {expected}, got {got}".replace("\n", " ")


def whole_number(where: str, value: object, least: int, most: int | None = None) -> int:
    """Return `value` as an int; raises InputError unless it is a whole number from `least` to `most`."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(cast(SupportsIndex, value))
    except TypeError:
        number = least - 1
    if number < least or (most is not None and number > most):
        wanted = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(where, f"a whole number {wanted}", repr(value))
    return number


def is_number(value: object) -> bool:
    """Return whether a value is a single real number."""
    return isinstance(value, Real)


def check_finite(where: str, value: object) -> None:
    """Raise InputError unless a value is a finite number."""
    if not (is_number(value) and math.isfinite(cast(float, value))):
        raise InputError(where, "a finite number", repr(value))


def with_python_numbers(value: Value) -> Value:
    """Return a value with Python's numbers in place of NumPy's, also in the fields of its dataclasses and in sequences.

    A float32 array times np.float64(0.1) is computed in float64, times 0.1 in float32; a file would not tell the two
    numbers apart. What has no NumPy numbers is returned as it is.
    """
    if isinstance(value, np.generic):
        return cast(Value, value.item())
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        entries = [with_python_numbers(entry) for entry in value]
        same = all(new is old for new, old in zip(entries, value, strict=True))
        return value if same else cast(Value, type(value)(entries))
    if not dataclasses.is_dataclass(value):
        return value
    result = value
    for field in dataclasses.fields(value):
        before: object = getattr(value, field.name, None)
        after = with_python_numbers(before)
        if after is not before:
            result = copy.copy(value) if result is value else result
            object.__setattr__(result, field.name, after)
    return result


def check_flag(where: str, value: object) -> None:
    """Raise InputError unless a value is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(where, "True or False", repr(value))


def check_images(where: str, images: object) -> None:
    """Raise InputError unless the images are an array of bytes or of floating-point numbers."""
    if not isinstance(images, np.ndarray):
        raise InputError(where, "a NumPy array", type(images).__name__)
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise InputError(where, "uint8 (0 to 255) or floats", images.dtype)


def check_shape(where: str, expected: Shape, got: Shape) -> None:
    """Raise InputError unless the two shapes are equal."""
    if expected != got:
        raise InputError(where, expected, got)


def check_size(where: str, shape: Shape) -> None:
    """Raise InputError for a shape that no memory could hold; a batch of that shape still has a size in 64 bits."""
    if len(shape) > MOST_AXES or math.prod(shape) > MOST_NUMBERS:
        wanted = f"at most {MOST_AXES} axes and {MOST_NUMBERS:.0e} numbers"
        raise InputError(where, wanted, f"{len(shape)} axes and 2^{math.log2(math.prod(shape)):.0f} numbers")


def check_rank(where: str, axes: str, got: Shape) -> None:
    """Raise InputError unless the shape has as many axes as are named, as in `"C H W"`."""
    if len(got) != len(axes.split()):
        raise InputError(where, f"shape ({', '.join(axes.split())})", got)
