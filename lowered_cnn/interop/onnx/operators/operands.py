"""What an operator is given: tensors and constants, and their axes."""

from collections.abc import Sequence
from typing import TypeAlias

from lowered_cnn.interop.onnx.layout import BATCH, Factor, Length, View
from lowered_cnn.interop.onnx.nodes import Node, Values

Operand: TypeAlias = View | Values | None

MOST_COPIES = 256
"""The most slices that a part of an axis consists of, or copies that are made of it."""


def views(node: Node, operands: Sequence[Operand]) -> list[View]:
    """Return the inputs that are not constant; raises InputError if another one than the first is."""
    if not isinstance(operands[0], View):
        raise node.error("a first input that is not constant", node.inputs[0])
    return [operand for operand in operands if isinstance(operand, View)]


def alone(node: Node, operands: Sequence[Operand]) -> tuple[View, list[Values | None]]:
    """Return the first input and the constants behind it; raises InputError unless that is what the inputs are."""
    found = views(node, operands)
    if len(found) > 1:
        raise node.error("inputs that are constant, but for the first", "several that are not")
    return found[0], [operand for operand in operands[1:] if not isinstance(operand, View)]


def listed(lengths: Sequence[Length]) -> str:
    """Return lengths as an error shows them."""
    return f"({', '.join(map(str, lengths))})"


def order_of(x: View, also: Sequence[int] = ()) -> list[int]:
    """Return ONNX's axes in the order in which a plain tensor has them; `also` those of length 1 among these, last."""
    own = {axis: [f for f in factors if f is not BATCH] for axis, factors in enumerate(x.axes)}
    long = sorted((axis for axis, factors in own.items() if factors), key=lambda axis: x.order.index(own[axis][0]))
    return [*long, *(axis for axis in also if not own[axis])]


def factors_of(x: View, axes: Sequence[int]) -> tuple[Factor, ...]:
    """Return the factors of these axes, in order, the batch aside."""
    return tuple(factor for axis in axes for factor in x.axes[axis] if factor is not BATCH)
