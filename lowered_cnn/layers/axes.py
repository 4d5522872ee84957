"""Axes of an activation, counted without the batch: 0 is the channels, -1 the last axis before the batch."""

import operator

from lowered_cnn.arrays import InputError, Shape


def check_axis(where: str, axis: object) -> None:
    """Raise InputError unless an axis is a whole number."""
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise InputError(f"{where}: axis", "a whole number", repr(axis))


def axis_of(axis: int, shape: Shape, name: str) -> int:
    """Return the axis counted from the first one; raises InputError, with `name`, unless the shape has it."""
    number = operator.index(axis)
    if not -len(shape) <= number < len(shape):
        raise InputError(f"{name}: input", f"a shape that has an axis {number}", shape)
    return number % len(shape)
