"""Exports a network as an ONNX model: nodes are named after layers, and initializers after parameters."""

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import InputError, Shape
from lowered_cnn.interop.onnx.package import onnx_package
from lowered_cnn.layers import (
    ELU,
    GELU,
    AvgPool,
    BatchNorm,
    Concatenate,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    Layer,
    LayerNorm,
    LeakyReLU,
    MaxPool,
    Pad,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Standardize,
    Tanh,
)
from lowered_cnn.layers.container import Branches
from lowered_cnn.layers.conv import Conv
from lowered_cnn.layers.conv_transpose import ConvTranspose
from lowered_cnn.layers.layer import is_stock, qualified
from lowered_cnn.network import Network
from lowered_cnn.storage import write_whole
from lowered_cnn.window import Sweep

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

OPSET = 20
"""The first operator set with Gelu."""

IR_VERSION = 9

ABSORBED = 1e-30
"""1 + this is 1 in either precision."""

IMAGES, OUTPUTS = "images", "outputs"

Border: TypeAlias = tuple[tuple[int, int], ...]
"""How much is added before and after each axis."""


def to_onnx(network: Network) -> "ModelProto":
    """Return the network, in inference mode, as an ONNX model that has passed onnx.checker.

    Its input is `images` (batch, *input shape), in floating point: divide bytes (0 to 255) by 255 first. Its output is
    `outputs` (batch, *output shape). The batch may have any size. Raises InputError for a layer that ONNX has no
    operator for.
    """
    onnx = onnx_package()
    graph = _Graph(network)
    last = graph.add(network.model, "", network.input_shape, IMAGES)
    graph.node("Identity", OUTPUTS, [last], output=OUTPUTS)
    kind = onnx.helper.np_dtype_to_tensor_dtype(network.parameters.vector.dtype)
    ends = (
        [onnx.helper.make_tensor_value_info(name, kind, ["batch", *shape])]
        for name, shape in ((IMAGES, network.input_shape), (OUTPUTS, network.output_shape))
    )
    model: ModelProto = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "lowered_cnn", *ends, graph.initializers),
        producer_name="lowered_cnn",
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def save_onnx(network: Network, path: str | os.PathLike[str]) -> None:
    """Write the network as an ONNX file; the file is complete or not written at all."""
    write_whole(Path(path), to_onnx(network).SerializeToString())


class _Graph:
    """The nodes and initializers so far; each layer adds its own and returns the name of its output."""

    def __init__(self, network: Network) -> None:
        self.onnx = onnx_package()
        self.parameters = network.parameters
        self.dtype = network.parameters.vector.dtype
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []

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
        names = [qualified(name, parameter.name) for parameter in layer.parameters(shape)]
        return [self.constant(own, self.parameters[own]) for own in names]

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
                return self._branches(layer, name, shape, x)
            case Conv():
                where = _where(layer.sweep(shape, name), group=layer.groups)
                return self.node("Conv", name, [x, *self.owned(layer, name, shape)], **where)
            case ConvTranspose():
                sweep = layer.sweep(shape, name)
                used = zip(sweep.padded, sweep.output, sweep.window.stride, sweep.window.extent, strict=True)
                more = [padded - (o - 1) * s - e for padded, o, s, e in used]
                where = _where(sweep, group=layer.groups, output_padding=more)
                return self.node("ConvTranspose", name, [x, *self.owned(layer, name, shape)], **where)
            case Dense():
                return self.node("Gemm", name, [x, *self.owned(layer, name, shape)], transB=1)
            case MaxPool() | AvgPool():
                return self._pool(layer, name, shape, x)
            case GlobalAvgPool() | GlobalMaxPool():
                kind = "GlobalAveragePool" if isinstance(layer, GlobalAvgPool) else "GlobalMaxPool"
                return self.node("Flatten", name, [self.node(kind, f"{name}.maps", [x])])
            case BatchNorm():
                numbers = self.owned(layer, name, shape)
                rates: dict[str, Any] = {"epsilon": layer.epsilon, "momentum": 1 - layer.momentum}
                return self.node("BatchNormalization", name, [x, *numbers], **rates)
            case Standardize():
                return self._standardize(name, x)
            case LayerNorm():
                if len(shape) != 1:
                    raise InputError(f"{name}: input", "shape (features), because ONNX normalizes the last axes", shape)
                numbers = self.owned(layer, name, shape)
                return self.node("LayerNormalization", name, [x, *numbers], axis=1, epsilon=layer.epsilon)
            case Dropout():
                rate = self.constant(f"{name}.ratio", np.float32(layer.rate))
                return self.node("Dropout", name, [x, rate])
            case Pad():
                return self._pad(name, layer.pads(len(shape) - 1, name), layer.value, x)
            case SiLU():
                return self.node("Mul", name, [x, self.node("Sigmoid", f"{name}.sigmoid", [x])])
            case GELU():
                return self.node("Gelu", name, [x], approximate="tanh" if layer.approximate else "none")
            case LeakyReLU():
                return self.node("LeakyRelu", name, [x], alpha=layer.slope)
            case ELU():
                return self.node("Elu", name, [x], alpha=layer.alpha)
            case Softmax():
                return self.node("Softmax", name, [x], axis=1)
            case Flatten():
                return self.node("Flatten", name, [x], axis=1)
            case ReLU():
                return self.node("Relu", name, [x])
            case Sigmoid():
                return self.node("Sigmoid", name, [x])
            case Tanh():
                return self.node("Tanh", name, [x])
        raise InputError(name or "network", "a layer that ONNX has an operator for", type(layer).__name__)

    def _branches(self, layer: Branches, name: str, shape: Shape, x: str) -> str:
        ends = [self.add(branch, qualified(name, own), shape, x) for own, branch in layer.branches]
        if isinstance(layer, Residual):
            return self.node("Add", name, ends)
        return self.node("Concat", name, ends, axis=1)

    def _standardize(self, name: str, x: str) -> str:
        """Add a normalization with the variance 1, and an epsilon that 1 absorbs: (x - mean) times 1 / deviation."""
        mean, deviation = (self.parameters[f"{name}.{own}"] for own in ("mean", "deviation"))
        numbers = {
            "scale": 1 / deviation,
            "bias": np.zeros_like(mean),
            "mean": mean,
            "variance": np.ones_like(mean),
        }
        inputs = [self.constant(f"{name}.{own}", values) for own, values in numbers.items()]
        return self.node("BatchNormalization", name, [x, *inputs], epsilon=ABSORBED)

    def _pad(self, name: str, border: Border, value: float, x: str) -> str:
        before, after = zip(*border, strict=True)
        pads = self.constant(f"{name}.pads", np.array([0, 0, *before, 0, 0, *after], np.int64))
        return self.node("Pad", name, [x, pads, self.constant(f"{name}.value", self.dtype.type(value))])

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
