"""Operators that become one layer each."""

import math
from collections.abc import Sequence
from dataclasses import replace

from lowered_cnn.interop.onnx.assembly import Assembly
from lowered_cnn.interop.onnx.layout import BATCH, View
from lowered_cnn.interop.onnx.nodes import Node, Translation, translate
from lowered_cnn.interop.onnx.operators.operands import Operand, alone, views
from lowered_cnn.layers import Dropout


def layer(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Add the layer of an operator that knows only ONNX's own layout."""
    x, constants = alone(node, operands)
    if x.is_batch_first and len(x.axes) == 1:
        raise node.error("an input of more axes than the batch", "(N)")
    source = build.batch_first(x, node)
    translation = translate(node, constants, build.shapes[source])
    name = build.add(translation, source, node)
    return [View.of(name, build.shapes[name])]


def elementwise(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Add the layer of an element-wise function, in any layout."""
    x, constants = alone(node, operands)
    return [x.of_node(build.add(translate(node, constants, x.shape), x.node, node))]


def global_pool(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Pool all positions; the axes are kept, with a length of 1."""
    [pooled] = layer(build, node, operands)
    rank = len(views(node, operands)[0].axes)
    return [pooled.unsqueezed(range(2, rank))]


def stochastic_depth(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Drop whole examples: all numbers of one are those of a single channel."""
    x, _ = alone(node, operands)
    source = build.reshaped(x.node, (1, math.prod(x.shape)))
    dropout = Translation(Dropout(node.number("ratio", 0.5), channels=True))
    return [x.of_node(build.reshaped(build.add(dropout, source, node), x.shape))]


def prelu(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Bring the axis that the slopes belong to to the front."""
    x, [slope] = alone(node, operands)
    if slope is None or slope.size == 1:
        return elementwise(build, node, operands)
    if node.opset < 7 and slope.ndim == 1:
        slope = slope.reshape(-1, *(1,) * (len(x.axes) - 2))
    shape = (1,) * (len(x.axes) - slope.ndim) + slope.shape
    long = [axis for axis, length in enumerate(shape) if length > 1]
    if len(long) != 1 or len(shape) != len(x.axes) or BATCH in x.axes[long[0]]:
        raise node.wrong("slope", "constant numbers along one axis", slope.shape)
    rest = [axis for axis in range(len(x.axes)) if axis != long[0] and x.axes[axis] != (BATCH,)]
    source = build.arranged(x, [long, *([axis] for axis in rest)])
    lined = slope.reshape(-1, *(1 for _ in rest))
    name = build.add(translate(node, [lined], build.shapes[source]), source, node, (node.attributes.get("negated"),))
    return [build.result(name, [*long, *rest], x)]


def negated_prelu(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Add a PReLU whose slopes have the opposite sign."""
    x, [slope] = alone(node, operands)
    return prelu(
        build,
        replace(node, operator="PRelu", attributes={"negated": 1}, used={"negated"}),
        [x, None if slope is None else -slope],
    )
