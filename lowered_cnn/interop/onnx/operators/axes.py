"""Operators along axes: softmax, normalizations, pooling over axes, and products with matrices."""

import math
from collections.abc import Sequence

import numpy as np

from lowered_cnn.interop.onnx.assembly import Assembly
from lowered_cnn.interop.onnx.folding import axes_of
from lowered_cnn.interop.onnx.layout import BATCH, View
from lowered_cnn.interop.onnx.nodes import Node, Translation, Values, translate
from lowered_cnn.interop.onnx.operators.joining import scaled
from lowered_cnn.interop.onnx.operators.operands import Operand, alone, factors_of, listed, order_of
from lowered_cnn.layers import Dense, GlobalAvgPool, GlobalMaxPool, InstanceNorm, LayerNorm, LogSoftmax, Softmax


def softmax(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Add a Softmax or LogSoftmax; before operator set 13, all axes from the given one on were flattened into one."""
    x, _ = alone(node, operands)
    kind = Softmax if node.operator == "Softmax" else LogSoftmax
    axis = node.get("axis", -1 if node.opset >= 13 else 1) % len(x.axes)
    if any(BATCH in x.axes[place] for place in ([axis] if node.opset >= 13 else range(axis, len(x.axes)))):
        raise node.wrong("axis", "one other than that of the batch", axis)
    if node.opset < 13 and sum(length != 1 for length in x.lengths[axis:]) > 1:
        kept = [place for place in range(axis) if x.axes[place] != (BATCH,)]
        rest = range(axis, len(x.axes))
        source = build.arranged(x, [*([place] for place in kept), rest])
        name = build.add(Translation(kind(len(kept))), source, node)
        return [View(name, build.shapes[name], factors_of(x, [*kept, *rest]), x.axes)]
    if node.opset < 13:
        axis = next((place for place in range(axis, len(x.axes)) if x.lengths[place] != 1), axis)
    x = build.plain(x)
    if x.lengths[axis] == 1:
        source = build.arranged(x, [[place] for place in (axis, *order_of(x))])
        name = build.add(Translation(kind(0)), source, node)
        return [build.result(name, [axis, *order_of(x)], x)]
    return [x.of_node(build.add(Translation(kind(build.axis(x, axis, node))), x.node, node))]


def layer_norm(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Normalize over all axes from the given one on."""
    x, constants = alone(node, operands)
    axis = node.get("axis", -1) % len(x.axes)
    node.get("stash_type", 1)
    return [_normalized(build, node, x, list(range(axis, len(x.axes))), constants)]


def normalization(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Normalize over the given axes."""
    x, constants = alone(node, operands)
    axes = sorted({axis % len(x.axes) for axis in node.get("axes", [])})
    return [_normalized(build, node, x, axes, constants)]


def _normalized(build: Assembly, node: Node, x: View, axes: Sequence[int], constants: Sequence[Values | None]) -> View:
    """Normalize over axes: a LayerNorm if its numbers differ only along these, else an InstanceNorm and a Scale."""
    if any(BATCH in x.axes[axis] for axis in axes):
        raise node.wrong("axis", "axes other than that of the batch", list(axes))
    weight, bias = (*constants, None, None)[:2]
    epsilon = node.number("epsilon", 1e-5)
    kept = [axis for axis in order_of(build.plain(x)) if axis not in axes]
    numbers = [np.ones(()) if weight is None else weight, np.zeros(()) if bias is None else bias]
    shape = np.broadcast_shapes(*(values.shape for values in numbers), (1,) * len(x.axes))
    if len(shape) > len(x.axes) or any(own not in (1, length) for own, length in zip(shape, x.lengths, strict=True)):
        raise node.wrong("Scale", f"numbers that repeat over {listed(x.lengths)}", [values.shape for values in numbers])
    if (weight is None and bias is None) or any(shape[axis] > 1 for axis in kept):
        source = build.arranged(x, [kept, *([axis] for axis in axes)])
        name = build.add(Translation(InstanceNorm(epsilon)), source, node)
        x = View(name, build.shapes[name], factors_of(x, [*kept, *axes]), x.axes)
        return x if weight is None and bias is None else scaled(build, node, x, *numbers)
    whole_shape = [x.lengths[axis] if axis in axes else 1 for axis in range(len(x.axes))]
    values = [np.broadcast_to(values, whole_shape).reshape(-1) for values in numbers]  # type: ignore[arg-type]
    source = build.arranged(x, [axes, *([axis] for axis in kept)])
    norm = Translation(LayerNorm(epsilon), dict(zip(("weight", "bias"), values, strict=True)))
    name = build.add(norm, source, node, ("axes", tuple(axes)))
    return View(name, build.shapes[name], factors_of(x, [*axes, *kept]), x.axes)


def reduce(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Pool over axes: a mean, a maximum, or a sum, which is so many times the mean."""
    x, _ = alone(node, operands)
    axes, does_nothing = axes_of(node, operands), node.flag("noop_with_empty_axes", 0)
    if not axes:
        if does_nothing:
            return [x]
        raise node.wrong("axes", "some, but not the batch", axes)
    axes = sorted({axis % len(x.axes) for axis in axes})
    if any(BATCH in x.axes[axis] for axis in axes):
        raise node.wrong("axes", "all but the batch", axes)
    keeps = node.flag("keepdims", 1)
    count = math.prod(length for axis in axes if isinstance(length := x.lengths[axis], int))
    if count > 1:
        kept = [axis for axis in order_of(build.plain(x)) if axis not in axes]
        source = build.arranged(x, [kept, *([axis] for axis in axes)])
        pool = GlobalMaxPool() if node.operator == "ReduceMax" else GlobalAvgPool()
        name = build.add(Translation(pool), source, node)
        left = tuple(() if axis in axes else own for axis, own in enumerate(x.axes))
        x = View(name, build.shapes[name], factors_of(x, kept), left)
        if node.operator == "ReduceSum":
            x = scaled(build, node, x, np.array(float(count)))
    return [x if keeps else x.without(axes)]


def dense(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Multiply the last axis by a constant matrix, or the last but one by one from the left, and add a constant."""
    tensors = [operand for operand in operands[:2] if isinstance(operand, View)]
    if len(tensors) != 1:
        raise node.error("one input that is constant", "two that are not")
    [x], is_left = tensors, isinstance(operands[1], View)
    matrix, axis = operands[0 if is_left else 1], len(x.axes) - (2 if is_left else 1)
    assert isinstance(matrix, np.ndarray)
    if matrix.ndim > 2 and matrix.size == math.prod(matrix.shape[-2:]):
        matrix = matrix.reshape(matrix.shape[-2:])
    if matrix.ndim != 2 or axis < 1 or BATCH in x.axes[axis] or matrix.dtype.kind != "f":
        raise node.wrong("B", f"a constant matrix, for {listed(x.lengths)}", f"{matrix.dtype} {matrix.shape}")
    weight = matrix if is_left else matrix.T
    if weight.shape[1] != x.lengths[axis]:
        raise node.wrong("B", f"a matrix for {x.lengths[axis]} features", matrix.shape)
    values = {"weight": weight}
    if isinstance(bias := operands[2] if len(operands) > 2 else None, np.ndarray):
        values["bias"] = np.broadcast_to(bias.reshape(-1), (len(weight),))
    node = node.with_inputs(("", *(name for name in node.inputs if name in build.graph.known)))
    if x.is_batch_first and len(x.axes) == 2:
        return [_features(build, node, x, Translation(Dense(len(weight), len(values) > 1), values), ("right",))]
    x = build.plain(x)
    order = order_of(x, [axis])
    source = build.laid_out(x, order, x.shape if x.axes[axis] else None)
    places = order if build.shapes[source] != x.shape else build.stored_axes(x)
    layer = Dense(len(weight), len(values) > 1, places.index(axis))
    name = build.add(Translation(layer, values), source, node, ("left" if is_left else "right",))
    return [build.result(name, places, x)]


def _features(build: Assembly, node: Node, x: View, product: Translation, key: tuple[object, ...]) -> View:
    """Add a layer on all features of an example; in another order than ONNX's, its weights have that order too.

    But a model from here gets back the layers that it was written from.
    """
    if build.graph.is_ours:
        x = View.of(source := build.batch_first(x, node), build.shapes[source])
    order, places = list(x.order), [x.order.index(factor) for factor in x.axes[1]]
    weight = product.parameters["weight"]
    if places != list(range(len(order))):
        numbers = np.arange(weight.shape[1]).reshape([factor.length for factor in x.axes[1]])
        columns = numbers.transpose(np.argsort(places)).reshape(-1)
        product = Translation(product.layer, {**product.parameters, "weight": weight[:, columns]})
        key = (*key, tuple(places), tuple(factor.length for factor in order))
    source = build.flat(x)
    name = build.add(product, source, node, key)
    return View.of(name, build.shapes[name])


def gemm(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Multiply all features of an example by a constant matrix."""
    x, constants = alone(node, operands)
    if not x.is_batch_first or len(x.axes) != 2:
        raise node.error("an input (N, features)", listed(x.lengths))
    key = tuple((name, str(node.get(name, None))) for name in ("transB", "alpha", "beta"))
    product = translate(node, constants, (int(x.lengths[1]),))  # type: ignore[arg-type]
    return [_features(build, node, x, product, key)]
