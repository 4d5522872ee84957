"""Arithmetic: tensors join, in one layout, and constants scale and shift."""

import functools
import math
from collections.abc import Sequence

import numpy as np

from lowered_cnn.interop.onnx.assembly import Assembly
from lowered_cnn.interop.onnx.layout import BATCH, View
from lowered_cnn.interop.onnx.nodes import Node, Translation, Values
from lowered_cnn.interop.onnx.operators.operands import Operand, alone, listed, order_of, views
from lowered_cnn.layers import Add, Clip, Concat, Join, Multiply, ReLU, Scale, Standardize


def arithmetic(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Add, subtract, multiply or divide: tensors join, and constants scale and shift."""
    found = [operand for operand in operands if isinstance(operand, View)]
    constants = [operand for operand in operands if isinstance(operand, np.ndarray)]
    if len(operands) != 2 and node.operator in ("Sub", "Div"):
        raise node.error("two inputs", len(operands))
    axis = node.get("axis", None) if node.opset < 7 else None
    if node.opset < 7 and node.get("broadcast", 0) and constants and axis is not None:
        constants = [_old_broadcast(found[0], constants[0], axis)]
    if node.operator == "Sub" and isinstance(operands[1], View):
        found[-1] = scaled(build, node, found[-1], np.array(-1.0))
    if node.operator == "Div" and isinstance(operands[1], View):
        raise node.error("a divisor that is constant", "another")
    x = found[0] if len(found) == 1 else meet(build, node, Multiply() if node.operator == "Mul" else Add(), found)
    for values in constants:
        if values.dtype.kind not in "fiu":
            raise node.error("real numbers", values.dtype)
        if node.operator in ("Mul", "Div"):
            x = scaled(build, node, x, 1 / values if node.operator == "Div" else values)
        else:
            is_subtracted = node.operator == "Sub" and isinstance(operands[0], View)
            x = scaled(build, node, x, None, -values if is_subtracted else values)
    return [x]


def _old_broadcast(x: View, values: Values, axis: int) -> Values:
    """Return a constant with the axes that it had, before operator set 7, by another rule."""
    return values.reshape(*values.shape, *(1,) * (len(x.axes) - axis % len(x.axes) - values.ndim))


def scale(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Multiply by a constant, and add one."""
    x, (weight, bias) = alone(node, operands)
    assert weight is not None
    return [scaled(build, node, x, weight, bias)]


def scaled(build: Assembly, node: Node, x: View, weight: Values | None, bias: Values | None = None) -> View:
    """Multiply a tensor by a constant that broadcasts to it, and add one."""
    numbers = {name: values for name, values in (("weight", weight), ("bias", bias)) if values is not None}
    rank = max(values.ndim for values in numbers.values())
    x = x.unsqueezed(range(rank - len(x.axes))) if rank > len(x.axes) else x
    shape = np.broadcast_shapes(*(values.shape for values in numbers.values()), (1,) * len(x.axes))
    if any(own > 1 and own != length for own, length in zip(shape, x.lengths, strict=True)):
        raise node.error(f"constant numbers that repeat over {listed(x.lengths)}", shape)
    if math.prod(shape) > 1:
        x = build.plain(x)
    order = order_of(x) if math.prod(shape) > 1 else []
    axes = build.stored_axes(x) if math.prod(shape) > 1 else []
    stored = tuple(1 if axis is None else shape[axis] for axis in axes) or (1,)
    moved = {name: _moved(values, shape, order, stored) for name, values in numbers.items()}
    plain = stored == (x.shape[0], *(1 for _ in x.shape[1:]))
    learned = build.is_learned(node, math.prod(shape))
    layer = Scale(None if plain else stored, "weight" in moved, "bias" in moved, learned)
    constants = [place for place, name in enumerate(node.inputs) if name in build.graph.known]
    key = (node.operator, *constants, *order)  # what else makes the numbers what they are
    node = node.with_inputs(("", *(node.inputs[place] for place in constants)))
    return x.of_node(build.add(Translation(layer, moved), x.node, node, key))


def _moved(values: Values, shape: Sequence[int], order: Sequence[int], stored: Sequence[int]) -> Values:
    """Return a constant with its axes in another order."""
    whole_shape = (1,) * (len(shape) - values.ndim) + values.shape
    rest = [axis for axis in range(len(shape)) if axis not in order]
    moved = values.reshape(whole_shape).transpose([*rest, *order])
    return np.broadcast_to(moved, [shape[axis] for axis in (*rest, *order)]).reshape(stored)


def standardized(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Subtract a constant, and divide by one: a Standardize if they belong to the channels."""
    x, (mean, deviation) = alone(node, operands)
    assert mean is not None
    assert deviation is not None
    shape = (1,) * (len(x.axes) - mean.ndim) + mean.shape
    plain = build.plain(x)
    first = build.stored_axes(plain)[0]
    is_first = math.prod(shape) == 1 or (first is not None and shape[first] == math.prod(shape))
    if not is_first or mean.size != plain.shape[0]:
        return [scaled(build, node, scaled(build, node, x, None, -mean), 1 / deviation)]
    numbers = {"mean": mean.reshape(-1), "deviation": deviation.reshape(-1)}
    return [plain.of_node(build.add(Translation(Standardize(), numbers), plain.node, node, ("standardize",)))]


def concat(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Put tensors one behind the other."""
    if not all(isinstance(operand, View) for operand in operands):
        raise node.error("inputs that are not constant", "a constant")
    found = views(node, operands)
    axis = node.get("axis", 1) % len(found[0].axes)
    if any(len(x.axes) != len(found[0].axes) for x in found):
        raise node.error("inputs of as many axes as the first", ", ".join(listed(x.lengths) for x in found))
    if any(BATCH in x.axes[axis] for x in found):
        raise node.wrong("axis", "one other than that of the batch", axis)
    return [meet(build, node, Concat(), found, axis)]


def meet(build: Assembly, node: Node, join: Join, found: Sequence[View], axis: int | None = None) -> View:
    """Bring tensors into the layout of the largest, and join them; a Concat does so along one of ONNX's axes."""
    rank = max(len(x.axes) for x in found)
    found = [x.unsqueezed(range(rank - len(x.axes))) for x in found]
    if len({tuple(factors[:1] == (BATCH,) for factors in x.axes) for x in found}) > 1:
        raise node.error("inputs with the batch as the same axis", ", ".join(listed(x.lengths) for x in found))
    if any(BATCH in factors[1:] for x in found for factors in x.axes):
        raise node.error("the batch first in its axis", ", ".join(listed(x.lengths) for x in found))
    largest = build.plain(max(found, key=lambda x: math.prod(x.shape)))
    order = order_of(largest)
    if axis is not None and axis not in order:
        order = [axis, *order]
    others = {place for x in found for place, factors in enumerate(x.axes) if any(f is not BATCH for f in factors)}
    order += sorted(others - set(order))
    same = largest.shape if all(x.shape == largest.shape for x in found) and axis is None else None
    sources = [build.laid_out(x, order, same) for x in found]
    name = build.join(join if axis is None else Concat(order.index(axis)), sources, node)
    if build.shapes[name] == largest.shape and same is not None:
        return largest.of_node(name)
    return build.result(name, order, largest)


def negative(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Multiply by -1."""
    x, _ = alone(node, operands)
    return [scaled(build, node, x, np.array(-1.0))]


def mean(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Add tensors, and divide by their number."""
    found = views(node, operands)
    return [scaled(build, node, meet(build, node, Add(), found), np.array(1 / len(operands)))]


def power(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Multiply a tensor by itself, up to three times."""
    x, [exponent] = alone(node, operands)
    number = exponent.item() if exponent is not None and exponent.size == 1 else None
    if number not in (1, 2, 3, 4):
        raise node.wrong("Y", "an exponent of 1, 2, 3 or 4", number)
    return [x if number == 1 else meet(build, node, Multiply(), [x] * int(number))]


def limit(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Take the minimum or the maximum with a constant, or of several tensors."""
    found = [operand for operand in operands if isinstance(operand, View)]
    constants = [operand for operand in operands if isinstance(operand, np.ndarray)]
    if len(found) > 1 and not constants:
        return [functools.reduce(functools.partial(_larger, build, node), found)]
    if len(found) != 1 or any(values.size != 1 for values in constants):
        raise node.error("one input that is not constant, and single numbers", f"{len(found)} and {len(constants)}")
    numbers = [float(values.reshape(())) for values in constants]
    is_low = node.operator == "Max"
    clip = Clip(max(numbers), math.inf) if is_low else Clip(-math.inf, min(numbers))
    return [found[0].of_node(build.add(Translation(clip), found[0].node, node))]


def _larger(build: Assembly, node: Node, a: View, b: View) -> View:
    """Return max(a, b) = a + max(b - a, 0), or min(a, b) = a - max(a - b, 0)."""
    minus = np.array(-1.0)
    if node.operator == "Max":
        difference = meet(build, node, Add(), [b, scaled(build, node, a, minus)])
        return meet(build, node, Add(), [a, rectified(build, node, difference)])
    difference = meet(build, node, Add(), [a, scaled(build, node, b, minus)])
    return meet(build, node, Add(), [a, scaled(build, node, rectified(build, node, difference), minus)])


def absolute(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Return |x| = max(x, 0) + max(-x, 0)."""
    x, _ = alone(node, operands)
    both = [rectified(build, node, x), rectified(build, node, scaled(build, node, x, np.array(-1.0)))]
    return [meet(build, node, Add(), both)]


def rectified(build: Assembly, node: Node, x: View) -> View:
    """Return max(x, 0)."""
    return x.of_node(build.add(Translation(ReLU()), x.node, node))


def cast(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Do nothing: a network has one precision."""
    x, _ = alone(node, [operands[0]])
    if node.operator == "Cast" and node.get("to", 1) not in (1, 10, 11, 16):
        raise node.wrong("to", "a type of floating-point numbers", node.get("to", 1))
    node.get("saturate", 1)
    return [x]
