"""Exports a network as an ONNX model: nodes are named after layers, and initializers after parameters."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import InputError, Shape
from lowered_cnn.interop.onnx.package import PRODUCER, onnx_package
from lowered_cnn.layers import (
    ELU,
    GELU,
    LRN,
    AdaptiveAvgPool,
    Add,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Concatenate,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    Graph,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    InstanceNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    LogSoftmax,
    MaxPool,
    Multiply,
    Pad,
    PixelShuffle,
    PReLU,
    ReLU,
    Reshape,
    Residual,
    Resize,
    Scale,
    Sequential,
    Sigmoid,
    SiLU,
    Slice,
    Softmax,
    Standardize,
    Tanh,
    Transpose,
)
from lowered_cnn.layers.axes import axis_of
from lowered_cnn.layers.conv import Conv
from lowered_cnn.layers.conv_transpose import ConvTranspose
from lowered_cnn.layers.graph import X
from lowered_cnn.layers.layer import is_stock, qualified
from lowered_cnn.layers.reshape import Permutation
from lowered_cnn.network import Network
from lowered_cnn.storage import write_whole
from lowered_cnn.window import Sweep

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

OPSET = 20
"""The first operator set with Gelu."""

IR_VERSION = 9

IMAGES, OUTPUTS = "images", "outputs"

Border: TypeAlias = tuple[tuple[int, int], ...]
"""How much is added before and after each axis."""


def to_onnx(network: Network) -> "ModelProto":
    """Return the network, in inference mode, as an ONNX model that has passed onnx.checker.

    Its input is `images` (batch, *input shape), in floating point: divide bytes (0 to 255) by 255 first. Its output is
    `outputs` (batch, *output shape). The batch may have any size. The several inputs and outputs of a Graph keep their
    names. Raises InputError for a layer that ONNX has no operator for.
    """
    onnx = onnx_package()
    graph, model = _Graph(network), network.model
    if isinstance(model, Graph) and model.is_packed:
        inputs, outputs = graph.add_packed(model, network.input_shape)
    else:
        last = graph.add(model, "", network.input_shape, IMAGES)
        graph.node("Identity", OUTPUTS, [last], output=OUTPUTS)
        inputs, outputs = {IMAGES: network.input_shape}, {OUTPUTS: network.output_shape}
    kind = onnx.helper.np_dtype_to_tensor_dtype(network.parameters.vector.dtype)
    ends = (
        [onnx.helper.make_tensor_value_info(name, kind, ["batch", *shape]) for name, shape in shapes.items()]
        for shapes in (inputs, outputs)
    )
    proto: ModelProto = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, PRODUCER, *ends, graph.initializers),
        producer_name=PRODUCER,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(proto, full_check=True)
    return proto


def save_onnx(network: Network, path: str | os.PathLike[str]) -> None:
    """Write the network as an ONNX file; the file is complete or not written at all."""
    write_whole(Path(path), to_onnx(network).SerializeToString())


class _Graph:
    """The nodes and initializers so far; each layer adds its own and returns the name of its output."""

    def __init__(self, network: Network) -> None:
        self.onnx = onnx_package()
        self.parameters = dict(network.parameters)
        self.dtype = network.parameters.vector.dtype
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.owners: dict[str, str] = {}
        self.there: set[str] = set()

    def node(self, kind: str, name: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        """Add a node and return the name of its output, by default the name of the node."""
        output = output or name
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output

    def constant(self, name: str, values: npt.ArrayLike) -> str:
        """Add an initializer and return its name."""
        self.initializers.append(self.onnx.numpy_helper.from_array(np.array(values), name))
        return name

    def owned(self, layer: Layer, name: str, shape: Shape) -> list[str]:
        """Add the parameters of a layer and return their names."""
        return [self.parameter(qualified(name, parameter.name)) for parameter in layer.parameters(shape)]

    def owner(self, name: str) -> str:
        """Return the name under which a parameter is kept: that of its owner, if it is shared."""
        while own := next((own for own in self.owners if name.startswith(f"{own}.")), None):
            name = self.owners[own] + name[len(own) :]
        return name

    def parameter(self, name: str, shape: Shape | None = None, *, transposed: bool = False) -> str:
        """Add a parameter, unless it is there already, and return its name; a shared one has the name of its owner."""
        name = self.owner(name)
        if name not in self.there:
            self.there.add(name)
            values = self.parameters[name] if shape is None else self.parameters[name].reshape(shape)
            self.constant(name, values.T if transposed else values)
        return name

    def add(self, layer: Layer, name: str, shape: Shape, x: str) -> str:
        """Add a layer and return the name of its output, for an input x of this shape."""
        match layer:
            case _ if not is_stock(layer):  # it may compute anything
                pass
            case Sequential():
                for own, inner, inside in layer.steps(shape, name):
                    x = self.add(inner, qualified(name, own), inside, x)
                return x
            case Residual() | Concatenate():
                return self._graph(layer.graph, name, shape, x)
            case Graph():
                return self._graph(layer, name, shape, x)
            case Conv():
                where = _where(layer.sweep(shape, name), group=layer.groups)
                return self.node("Conv", name, [x, *self.owned(layer, name, shape)], **where)
            case ConvTranspose():
                sweep = layer.sweep(shape, name)
                used = zip(sweep.padded, sweep.output, sweep.window.stride, sweep.window.extent, strict=True)
                more = [padded - (o - 1) * s - e for padded, o, s, e in used]
                where = _where(sweep, group=layer.groups, output_padding=more)
                return self.node("ConvTranspose", name, [x, *self.owned(layer, name, shape)], **where)
            case Dense(axis=None):
                return self.node("Gemm", name, [x, *self.owned(layer, name, shape)], transB=1)
            case Dense():
                return self._dense_along_axis(layer, name, shape, x)
            case AdaptiveAvgPool():
                return self._adaptive_pool(layer, name, shape, x)
            case Resize():
                return self._resize(layer, name, shape, x)
            case MaxPool() | AvgPool():
                return self._pool(layer, name, shape, x)
            case GlobalAvgPool() | GlobalMaxPool():
                kind = "GlobalAveragePool" if isinstance(layer, GlobalAvgPool) else "GlobalMaxPool"
                return self.node("Flatten", f"{name}.flat", [self.node(kind, name, [x])])
            case BatchNorm():
                numbers = self.owned(layer, name, shape)
                rates: dict[str, Any] = {"epsilon": layer.epsilon, "momentum": 1 - layer.momentum}
                return self.node("BatchNormalization", name, [x, *numbers], **rates)
            case Standardize():
                alike = (-1, *(1 for _ in shape[1:]))
                mean, deviation = (self.parameter(qualified(name, own), alike) for own in ("mean", "deviation"))
                return self.node("Div", name, [self.node("Sub", f"{name}.difference", [x, mean]), deviation])
            case LayerNorm():
                numbers = self.owned(layer, name, shape)
                return self._on_last_axis(
                    0, name, shape, x, lambda own, x: self.node(
                        "LayerNormalization", own, [x, *numbers], axis=-1, epsilon=layer.epsilon
                    )
                )  # fmt: skip
            case GroupNorm():
                return self._group_norm(layer, name, shape, x)
            case InstanceNorm():
                numbers = self.owned(layer, name, shape) if layer.affine else self._ones_and_zeros(name, shape[0])
                return self.node("InstanceNormalization", name, [x, *numbers], epsilon=layer.epsilon)
            case LRN():
                return self._local_response(layer, name, shape, x)
            case PReLU():
                slopes = self.parameter(qualified(name, "weight"), (-1, *(1 for _ in shape[1:])))
                return self.node("PRelu", name, [x, slopes])
            case Scale():
                numbers = self.owned(layer, name, shape) if layer.learned else self._constants(layer, name, shape)
                if layer.weight:
                    x = self.node("Mul", f"{name}.product" if layer.bias else name, [x, numbers[0]])
                return self.node("Add", name, [x, numbers[-1]]) if layer.bias else x
            case Dropout():
                rate = self.constant(f"{name}.ratio", np.float32(layer.rate))
                return self.node("Dropout", name, [x, rate])
            case Pad():
                return self._pad(name, layer.pads(len(shape) - 1, name), layer.value, x, layer.mode)
            case Reshape():
                return self._reshape(name, layer.output_shape(shape, name), x)
            case Transpose():
                return self._transpose(name, layer.axes, x)
            case PixelShuffle() if len(shape) == 3:
                return self.node("DepthToSpace", name, [x], blocksize=layer.factor, mode="CRD")
            case Permutation():
                seen, axes = layer.permutation(shape, name)
                x = self._transpose(f"{name}.permuted", axes, self._reshape(f"{name}.seen", seen, x))
                return self._reshape(name, layer.output_shape(shape, name), x)
            case Slice():
                return self._slice(layer, name, shape, x)
            case Clip():
                limits = ((f"{name}.{end}", getattr(layer, end)) for end in ("low", "high"))
                return self.node("Clip", name, [x, *(self.constant(own, self.dtype.type(end)) for own, end in limits)])
            case HardSigmoid():
                return self.node("HardSigmoid", name, [x], alpha=layer.alpha, beta=layer.beta)
            case HardSwish():
                return self.node("HardSwish", name, [x])
            case SiLU():
                return self.node("Mul", name, [x, self.node("Sigmoid", f"{name}.sigmoid", [x])])
            case GELU():
                return self.node("Gelu", name, [x], approximate="tanh" if layer.approximate else "none")
            case LeakyReLU():
                return self.node("LeakyRelu", name, [x], alpha=layer.slope)
            case ELU():
                return self.node("Elu", name, [x], alpha=layer.alpha)
            case Softmax() | LogSoftmax():
                axis = 1 + axis_of(layer.axis, shape, name)
                return self.node(type(layer).__name__, name, [x], axis=axis)
            case Flatten():
                return self.node("Flatten", name, [x], axis=1)
            case ReLU():
                return self.node("Relu", name, [x])
            case Sigmoid():
                return self.node("Sigmoid", name, [x])
            case Tanh():
                return self.node("Tanh", name, [x])
        raise InputError(name or "network", "a layer that ONNX has an operator for", type(layer).__name__)

    def add_packed(self, graph: Graph, shape: Shape) -> tuple[dict[str, Shape], dict[str, Shape]]:
        """Add a graph of several inputs or outputs, and return the names and shapes of both."""
        shapes = graph.shapes(shape)
        ends = self._nodes(graph, "", shape, {name: name if graph.inputs else IMAGES for name in graph.sources})
        outputs = {}
        for name in graph.outputs:
            output = name if name not in graph.sources else f"{name}.output"
            if ends[name] != output:
                self.node("Identity", f"{name}.output", [ends[name]], output=output)
            outputs[output] = shapes[name]
        return {ends[name]: shapes[name] for name in graph.sources}, outputs

    def _graph(self, graph: Graph, name: str, shape: Shape, x: str) -> str:
        ends = self._nodes(graph, name, shape, self._parts(graph, name, x) if graph.inputs else {X: x})
        if len(graph.outputs) == 1:
            return ends[graph.outputs[0]]
        rows = [self.node("Flatten", f"{qualified(name, own)}.row", [ends[own]], axis=1) for own in graph.outputs]
        return self.node("Concat", f"{name}.outputs", rows, axis=1)

    def _parts(self, graph: Graph, name: str, x: str) -> dict[str, str]:
        """Add the inputs of a graph as parts of the one in which they are packed."""
        start, ends = 0, {}
        for entry in graph.inputs:
            own, end = qualified(name, entry.name), start + math.prod(entry.shape)
            limits = [
                self.constant(f"{own}.{at}", np.array([n]))
                for at, n in zip(("start", "end", "axis"), (start, end, 1), strict=True)
            ]
            ends[entry.name] = self._reshape(own, entry.shape, self.node("Slice", f"{own}.part", [x, *limits]))
            start = end
        return ends

    def _nodes(self, graph: Graph, name: str, shape: Shape, ends: dict[str, str]) -> dict[str, str]:
        """Add the nodes of a graph, and return the name of each output; `ends` has those of the inputs."""
        shapes = graph.shapes(shape, name)
        for node in graph.nodes:
            if node.shares is not None:
                self.owners[qualified(name, node.name)] = qualified(name, node.shares)
            own, taken = qualified(name, node.name), [ends[each] for each in node.inputs]
            match node.layer:
                case Add():
                    ends[node.name] = self.node("Sum" if len(taken) > 2 else "Add", own, taken)
                case Multiply():
                    ends[node.name] = self._product(own, taken)
                case Concat(axis):
                    ends[node.name] = self.node("Concat", own, taken, axis=1 + axis)
                case Layer():
                    ends[node.name] = self.add(node.layer, own, shapes[node.inputs[0]], taken[0])
                case _:
                    raise InputError(own, "a join that ONNX has an operator for", type(node.layer).__name__)
        return ends

    def _product(self, name: str, inputs: list[str]) -> str:
        """Add the product of any number of inputs."""
        *others, last = inputs
        product = others[0]
        for number, other in enumerate(others[1:], 2):
            product = self.node("Mul", f"{name}.{number}", [product, other])
        return self.node("Mul", name, [product, last])

    def _constants(self, layer: Layer, name: str, shape: Shape) -> list[str]:
        """Add numbers that do not learn: as nodes, not as initializers, which are parameters."""
        names = [self.owner(qualified(name, parameter.name)) for parameter in layer.parameters(shape)]
        for own in names:
            if own not in self.there:
                self.there.add(own)
                self.node("Constant", own, [], value=self.onnx.numpy_helper.from_array(self.parameters[own], own))
        return names

    def _reshape(self, name: str, shape: Shape, x: str) -> str:
        """Add a Reshape; a length of 0 stands for that of the batch."""
        return self.node("Reshape", name, [x, self.constant(f"{name}.shape", np.array([0, *shape], np.int64))])

    def _transpose(self, name: str, axes: Sequence[int], x: str) -> str:
        return self.node("Transpose", name, [x], perm=[0, *(axis + 1 for axis in axes)])

    def _on_last_axis(self, axis: int, name: str, shape: Shape, x: str, add: Callable[[str, str], str]) -> str:
        """Add what `add` adds for a name and an input; if it is not the last axis already, bring this one there."""
        if axis == len(shape) - 1:
            return add(name, x)
        order = [*(other for other in range(len(shape)) if other != axis), axis]
        y = add(f"{name}.last", self._transpose(f"{name}.first", order, x))
        return self._transpose(name, [order.index(place) for place in range(len(shape))], y)

    def _dense_along_axis(self, layer: Dense, name: str, shape: Shape, x: str) -> str:
        """Add a product with the transposed weights, along the last axis."""

        def add(own: str, x: str) -> str:
            weight = self.parameter(qualified(name, "weight"), transposed=True)
            if not layer.bias:
                return self.node("MatMul", own, [x, weight])
            bias = self.parameter(qualified(name, "bias"))
            return self.node("Add", own, [self.node("MatMul", f"{own}.product", [x, weight]), bias])

        return self._on_last_axis(axis_of(layer.axis or 0, shape, name), name, shape, x, add)

    def _ones_and_zeros(self, name: str, count: int) -> list[str]:
        ends = ((f"{name}.ones", np.ones), (f"{name}.zeros", np.zeros))
        return [self.constant(own, values(count, self.dtype)) for own, values in ends]

    def _group_norm(self, layer: GroupNorm, name: str, shape: Shape, x: str) -> str:
        """Add an InstanceNormalization of groups, as of channels; GroupNormalization came after this operator set."""
        groups = self._reshape(f"{name}.groups", (layer.groups, math.prod(shape) // layer.groups), x)
        plain = self._ones_and_zeros(name, layer.groups)
        z = self.node("InstanceNormalization", f"{name}.normalized", [groups, *plain], epsilon=layer.epsilon)
        names = qualified(name, "weight"), qualified(name, "bias")
        weight, bias = (self.parameter(own, (-1, *(1 for _ in shape[1:]))) for own in names)
        product = self.node("Mul", f"{name}.product", [self._reshape(f"{name}.maps", shape, z), weight])
        return self.node("Add", name, [product, bias])

    def _local_response(self, layer: LRN, name: str, shape: Shape, x: str) -> str:
        """Add an LRN, of images only: ONNX Runtime has no other."""
        options: dict[str, Any] = {"size": layer.size, "alpha": layer.alpha, "beta": layer.beta, "bias": layer.k}
        if len(shape) == 3:
            return self.node("LRN", name, [x], **options)
        images = self._reshape(f"{name}.images", (shape[0], math.prod(shape[1:]), 1), x)
        return self._reshape(name, shape, self.node("LRN", f"{name}.normalized", [images], **options))

    def _slice(self, layer: Slice, name: str, shape: Shape, x: str) -> str:
        axis = axis_of(layer.axis, shape, name)
        taken = range(shape[axis])[layer.start : layer.stop : layer.step]
        numbers = {"start": taken.start, "stop": taken.stop, "axis": axis + 1, "step": taken.step}
        return self.node(
            "Slice", name, [x, *(self.constant(f"{name}.{own}", np.array([n])) for own, n in numbers.items())]
        )

    def _adaptive_pool(self, layer: AdaptiveAvgPool, name: str, shape: Shape, x: str) -> str:
        size, parts = shape[1:], layer.output_shape(shape, name)[1:]
        if any(h % p for h, p in zip(size, parts, strict=True)):
            raise InputError(f"{name}: size", f"one that divides the input's size {size}, for ONNX", parts)
        kernel = tuple(h // p for h, p in zip(size, parts, strict=True))
        return self.node("AveragePool", name, [x], kernel_shape=kernel, strides=kernel)

    def _resize(self, layer: Resize, name: str, shape: Shape, x: str) -> str:
        """Add a Resize of all axes but those of the batch and the channels."""
        if layer.mode == "cubic" and len(shape) != 3:
            raise InputError(f"{name}: input", "shape (C, H, W) if it is cubic, for ONNX Runtime", shape)
        size = layer.output_shape(shape, name)[1:]
        scale: Any = layer.scale
        if layer.size is not None:
            inputs = [x, "", "", self.constant(f"{name}.size", np.array(size, np.int64))]
        else:
            scales = np.broadcast_to(np.array(scale, np.float32), len(size))
            inputs = [x, "", self.constant(f"{name}.scale", scales)]
        options: dict[str, Any] = {"mode": layer.mode, "coordinate_transformation_mode": layer.coordinates}
        if layer.mode == "nearest":
            options["nearest_mode"] = layer.rounding
        return self.node("Resize", name, inputs, axes=list(range(2, len(shape) + 1)), **options)

    def _pad(self, name: str, border: Border, value: float, x: str, mode: str = "constant") -> str:
        before, after = zip(*border, strict=True)
        pads = self.constant(f"{name}.pads", np.array([0, 0, *before, 0, 0, *after], np.int64))
        return self.node("Pad", name, [x, pads, self.constant(f"{name}.value", self.dtype.type(value))], mode=mode)

    def _pool(self, layer: MaxPool | AvgPool, name: str, shape: Shape, x: str) -> str:
        """Add a pooling node with explicit padding, including what ceil_mode adds, some of it as a Pad if needed.

        ONNX Runtime refuses padding as wide as the kernel, and has a different result for a window entirely inside the
        padding, which dilation makes possible. In ONNX either all of the padding counts in the mean or none of it,
        while here what ceil_mode adds never does.
        """
        sweep = layer.sweep(shape, name)
        nothing = ((0, 0),) * len(sweep.size)
        dilated = max(sweep.window.dilation) > 1
        if isinstance(layer, MaxPool):
            kind, value, border, counts = "MaxPool", -math.inf, sweep.pads if dilated else nothing, {}
        else:
            plain = sweep.window.padding or sweep.pads  # ceil_mode adds nothing to "same"
            apart = layer.count_include_pad and (dilated or plain != sweep.pads)
            kind, value, border = "AveragePool", 0.0, plain if apart else nothing
            counts = {"count_include_pad": int(layer.count_include_pad and not apart)}
        if border != nothing:
            x = self._pad(f"{name}.border", border, value, x)
        pads = tuple((p[0] - b[0], p[1] - b[1]) for p, b in zip(sweep.pads, border, strict=True))
        kernel = sweep.window.kernel
        if any(max(p) >= k for p, k in zip(pads, kernel, strict=True)):
            raise InputError(f"{name}: padding", f"less than the kernel {kernel}, for ONNX Runtime", pads)
        return self.node(kind, name, [x], **_where(replace(sweep, pads=pads), **counts))


def _where(sweep: Sweep, **more: Any) -> dict[str, Any]:
    """Return the attributes that describe a window, with explicit padding."""
    window = sweep.window
    pads = [p[0] for p in sweep.pads] + [p[1] for p in sweep.pads]
    places = {"strides": window.stride, "pads": pads, "dilations": window.dilation}
    return {"kernel_shape": window.kernel, **places, **more}
