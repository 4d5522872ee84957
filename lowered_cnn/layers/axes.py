"""Axes of an activation, counted without the batch: 0 is the channels, -1 the last axis before the batch."""

import operator

from lowered_cnn.arrays import InputError, Shape


def size_of(input_shape: Shape, name: str) -> Shape:
    """Return the size of an input (C, *size); raises InputError, with `name`, unless it has one."""
    if len(input_shape) < 2:
        raise InputError(f"{name}: input", "shape (C, *size)", input_shape)
    return input_shape[1:]


def check_axis(where: str, axis: object) -> None:
    """Raise InputError unless an axis is a whole number."""
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise InputError(f"{where}: axis", "a whole number", repr(axis))


def axis_of(axis: int, shape: Shape, name: str) -> int:
    """Return an axis as a number from 0 on; raises InputError, with `name`, unless the shape has it."""
    number = operator.index(axis)
    if not -len(shape) <= number < len(shape):
        raise InputError(f"{name}: input", f"a shape that has an axis {number}", shape)
    return number % len(shape)
