"""ONNX's public backend interface: runs models node by node with our layers, on arrays of any shape."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lowered_cnn.arrays import Array, InputError
from lowered_cnn.gemm import multiply
from lowered_cnn.interop.onnx.folding import FOLDS, Folder
from lowered_cnn.interop.onnx.graph import operator_set
from lowered_cnn.interop.onnx.nodes import Node, Translation, Values, constant, translate, values_of
from lowered_cnn.interop.onnx.package import onnx_package
from lowered_cnn.layers import LogSoftmax, PixelShuffle, Sequential, Softmax
from lowered_cnn.layers.pool import MaxPool
from lowered_cnn.lowering import windows
from lowered_cnn.network import Network

try:
    from onnx.backend.base import Backend, BackendRep
except ImportError:
    onnx_package()  # says what is missing
    raise

if TYPE_CHECKING:
    from onnx import ModelProto


class LoweredBackend(Backend):
    """Prepares and runs models, on the CPU, whose operators are all in `OPERATORS`."""

    @classmethod
    def prepare(cls, model: "ModelProto", device: str = "CPU", **kwargs: Any) -> "LoweredModel":
        """Return the model, ready to run."""
        super().prepare(model, device, **kwargs)
        return LoweredModel(model)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Return whether models run on this device: only on the CPU."""
        return device.split(":")[0] == "CPU"


class LoweredModel(BackendRep):
    """A model that runs on arrays."""

    def __init__(self, model: "ModelProto") -> None:
        opset = operator_set(model, "ONNX model")
        self.nodes = [Node.of(node, opset) for node in model.graph.node]
        self.known = {tensor.name: values_of(tensor) for tensor in model.graph.initializer}
        self.inputs = [entry.name for entry in model.graph.input if entry.name not in self.known]
        self.outputs = [entry.name for entry in model.graph.output]
        for node in self.nodes:
            if node.operator not in OPERATORS:
                raise InputError(f"node {node.name}", f"one of {', '.join(sorted(OPERATORS))}", node.operator)

    def run(self, inputs: Sequence[Any], **kwargs: Any) -> tuple[Any, ...]:
        """Return the outputs, in the order of the graph's outputs, for inputs in the order of its inputs."""
        values: dict[str, Any] = self.known | dict(zip(self.inputs, inputs, strict=True))
        for node in self.nodes:
            operands = [values[name] if name else None for name in node.inputs]
            results = OPERATORS[node.operator](node, operands)
            values |= dict(zip(node.outputs, results, strict=False))
        return tuple(values[name] for name in self.outputs)


prepare = LoweredBackend.prepare
run_model = LoweredBackend.run_model
run_node = LoweredBackend.run_node
supports_device = LoweredBackend.supports_device


def _layer(node: Node, operands: list[Values]) -> list[Values]:
    """Run a node as a layer on its first input (N, C, *size); the other inputs are its parameters."""
    x, *constants = operands
    return [_predict(translate(node, constants, x.shape[1:]), x)]


def _predict(translation: Translation, x: Values) -> Values:
    return _network(translation, x).predict(_floats(x)).astype(x.dtype)


def _network(translation: Translation, x: Values) -> Network:
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    network = Network(Sequential(translation.layer), x.shape[1:], dtype=dtype)
    for name, values in translation.parameters.items():
        network.parameters.assign(f"{translation.layer.kind}1.{name}", values, "parameter")
    return network


def _floats(x: Values) -> Array:
    floats: Array = x if x.dtype == np.float64 else x.astype(np.float32)
    return floats


def _elementwise(node: Node, operands: list[Values]) -> list[Values]:
    """Run an elementwise function, for any shape."""
    x = operands[0]
    return [_layer(node, [x.reshape(1, -1)])[0].reshape(x.shape)]


def _softmax(node: Node, operands: list[Values]) -> list[Values]:
    """Run a Softmax or LogSoftmax on rows."""
    x, layer = operands[0], Translation(Softmax() if node.operator == "Softmax" else LogSoftmax())
    axis = node.get("axis", -1 if node.opset >= 13 else 1) % x.ndim
    if node.opset < 13:  # all axes from this one on are flattened into one
        rows = x.reshape(math.prod(x.shape[:axis]), -1)
        return [_predict(layer, rows).reshape(x.shape)]
    last = np.moveaxis(x, axis, -1)
    y = _predict(layer, last.reshape(-1, x.shape[axis]))
    return [np.moveaxis(y.reshape(last.shape), -1, axis)]


def _gemm(node: Node, operands: list[Values]) -> list[Values]:
    a, *rest = operands
    is_transposed = node.flag("transA", 0)
    attributes = {name: value for name, value in node.attributes.items() if name != "transA"}
    product = _layer(replace(node, attributes=attributes), [a.T if is_transposed else a, rest[0]])[0]
    if len(rest) == 1:
        return [product]
    return [product + a.dtype.type(node.get("beta", 1.0)) * rest[1]]


def _matmul(node: Node, operands: list[Values]) -> list[Values]:
    """Multiply as NumPy does: vectors get an axis of length 1, and stacks of matrices broadcast."""
    a, b = operands
    left, right = a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b
    stack = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left, right = (np.broadcast_to(each, (*stack, *each.shape[-2:])) for each in (left, right))
    product = np.empty((*stack, left.shape[-2], right.shape[-1]), a.dtype)
    multiply("forward", left, right, out=product)
    product = product[..., 0, :] if a.ndim == 1 else product
    return [product[..., 0] if b.ndim == 1 else product]


def _global_pool(node: Node, operands: list[Values]) -> list[Values]:
    x = operands[0]
    return [_layer(node, operands)[0].reshape(*x.shape[:2], *(1,) * (x.ndim - 2))]


def _max_pool(node: Node, operands: list[Values]) -> list[Values]:
    x = operands[0]
    translation = translate(node, [], x.shape[1:])
    y = _predict(translation, x)
    if len(node.outputs) < 2:
        return [y]
    assert isinstance(translation.layer, MaxPool)
    return [y, _places(translation.layer, x, column_major=node.flag("storage_order", 0))]


def _places(pool: MaxPool, x: Values, *, column_major: bool) -> Values:
    """Return the position of each window's maximum in the flattened x."""
    sweep = pool.sweep(x.shape[1:], "MaxPool")
    border = [(0, 0), (0, 0), *sweep.pads]
    padded = np.pad(_floats(x), border, constant_values=-np.inf)
    places = np.arange(x.size).reshape(x.shape)
    if column_major:
        maps = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *(1,) * len(sweep.size)) * math.prod(sweep.size)
        places = maps + np.arange(math.prod(sweep.size)).reshape(sweep.size[::-1]).T
    taps = [_taps(values, sweep) for values in (padded, np.pad(places, border))]
    first = taps[0].argmax(axis=0)
    chosen: Values = np.take_along_axis(taps[1], first[None], axis=0)[0]
    return chosen


def _taps(values: Values, sweep: Any) -> Values:
    """Return (taps, N, C, *output size) of values (N, C, *padded size)."""
    batch, channels = values.shape[:2]
    maps = np.ascontiguousarray(values.reshape(batch * channels, *values.shape[2:], 1))
    view = windows(maps, sweep).reshape(batch, channels, math.prod(sweep.window.kernel), *sweep.output)
    return np.moveaxis(view, 2, 0)


def _batch_norm(node: Node, operands: list[Values]) -> list[Values]:
    """Run the normalization; in training mode, with the statistics of the batch and its biased variance."""
    if not node.flag("training_mode", 0):
        return _layer(node, operands)
    momentum = node.number("momentum", 0.9)
    attributes = {name: value for name, value in node.attributes.items() if name not in ("training_mode", "momentum")}
    x = operands[0]
    network = _network(translate(replace(node, attributes=attributes), operands[1:], x.shape[1:]), x)
    y = network.lower(len(x), fused=False).forward(_floats(x)).astype(x.dtype)
    axes = (0, *range(2, x.ndim))
    measured = (x.mean(axis=axes), x.var(axis=axes))
    updated = (old * momentum + new * (1 - momentum) for old, new in zip(operands[3:], measured, strict=True))
    return [y, *(values.astype(x.dtype) for values in updated)]


def _dropout(node: Node, operands: list[Values]) -> list[Values]:
    x, *rest = operands
    ratio = rest[0] if rest and rest[0] is not None else node.get("ratio", 0.5)
    if len(rest) > 1 and rest[1] is not None and bool(rest[1]) and float(ratio):
        raise node.wrong("training_mode", "false, or a ratio of 0", f"true with a ratio of {float(ratio):g}")
    return [x, np.ones(x.shape, np.bool_)]


def _depth_to_space(node: Node, operands: list[Values]) -> list[Values]:
    """Bring the channels into the order of a PixelShuffle, and run it."""
    x, size = operands[0], node.get("blocksize", 1)
    if node.get("mode", "DCR") == "DCR":
        n, channels, height, width = x.shape
        x = x.reshape(n, size * size, channels // (size * size), height, width).swapaxes(1, 2).reshape(x.shape)
    return [_predict(Translation(PixelShuffle(size)), x)]


def _folded(node: Node, operands: list[Values]) -> list[Values]:
    """Run a node as constants are folded at reading."""
    return Folder().fold(node, operands)


def _arithmetic(node: Node, operands: list[Values]) -> list[Values]:
    """Run arithmetic, in which the second input was broadcast by another rule before operator set 7."""
    a, *others = operands
    if node.opset < 7 and node.get("broadcast", 0):
        axis = node.get("axis", a.ndim - others[0].ndim)
        others = [others[0].reshape((*others[0].shape, *(1,) * (a.ndim - axis - others[0].ndim)))]
    return _folded(node, [a, *others])


def _pad(node: Node, operands: list[Values]) -> list[Values]:
    x, *rest = operands
    if node.opset < 11:
        pads, axes, value = list(node.get("pads", [])), list(range(x.ndim)), node.get("value", 0.0)
    else:
        pads, axes = rest[0].tolist(), rest[2].tolist() if len(rest) > 2 else list(range(x.ndim))
        value = rest[1] if len(rest) > 1 and rest[1] is not None else 0
    amounts = [(0, 0)] * x.ndim
    for place, axis in enumerate(axes):
        amounts[axis] = (pads[place], pads[place + len(axes)])
    inside = (
        slice(max(0, -before), length - max(0, -after))
        for length, (before, after) in zip(x.shape, amounts, strict=True)
    )
    border = [(max(0, before), max(0, after)) for before, after in amounts]
    mode = node.get("mode", "constant")
    options: dict[str, Any] = {"constant_values": value} if mode == "constant" else {}
    return [np.pad(x[tuple(inside)], border, mode=mode, **options)]


OPERATORS: Mapping[str, Callable[[Node, list[Any]], list[Any]]] = {
    **dict.fromkeys(FOLDS.keys() - {"Cast", "CastLike"}, _folded),  # whose tests are about 8 bits and fewer
    **dict.fromkeys(("Add", "Div", "Mul", "Sub"), _arithmetic),
    **dict.fromkeys(
        ["AveragePool", "Conv", "ConvTranspose", "GroupNormalization", "InstanceNormalization", "LRN"], _layer
    ),
    **dict.fromkeys(
        ["Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Selu", "Sigmoid", "Tanh"], _elementwise
    ),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global_pool),
    **dict.fromkeys(("LogSoftmax", "Softmax"), _softmax),
    "BatchNormalization": _batch_norm,
    "Constant": lambda node, _: [constant(node)],
    "DepthToSpace": _depth_to_space,
    "Dropout": _dropout,
    "Gemm": _gemm,
    "Identity": lambda _, operands: operands,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Pad": _pad,
}
"""The operators that the backend runs."""

EXCLUDED: Mapping[str, str] = {
    "test_reduce_max_empty_set": "the largest of no numbers",
    "test_reduce_max_empty_set_bool": "the largest of no numbers",
    "test_reduce_min_empty_set": "the smallest of no numbers",
    "test_training_dropout": "random numbers from another generator",
    "test_training_dropout_default": "random numbers from another generator",
    "test_training_dropout_default_mask": "random numbers from another generator",
    "test_training_dropout_mask": "random numbers from another generator",
}
"""The official tests of these operators that do not apply, and why."""
