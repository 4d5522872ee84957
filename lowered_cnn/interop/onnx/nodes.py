"""The nodes of an ONNX graph and the layers that they become: one translation per operator."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
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
    Conv1D,
    Conv2D,
    Conv3D,
    ConvTranspose1D,
    ConvTranspose2D,
    ConvTranspose3D,
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
    Sigmoid,
    Softmax,
    Tanh,
)
from lowered_cnn.window import Padding, Window

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

Values: TypeAlias = npt.NDArray[Any]
"""A tensor of any type."""


OWN_DOMAIN = ("", "ai.onnx")
"""The two names of ONNX's own operators' domain."""


@dataclass(frozen=True)
class Node:
    """One operator with its attributes; a node without a name goes by the name of its output.

    The name of an operator outside ONNX's own domain is prefixed with its domain.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    used: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, proto: "NodeProto", opset: int) -> "Node":
        """Read a node of a model with this operator set version."""
        name = proto.name or (proto.output[0] if proto.output else proto.op_type)
        check_distinct(f"node {name}: attributes", [a.name for a in proto.attribute])
        types = _attribute_types(proto.op_type, opset) if proto.domain in OWN_DOMAIN else {}
        for a in proto.attribute:
            if a.type != types.get(a.name, a.type):
                raise InputError(f"node {name} ({proto.op_type}): {a.name}", "the type that ONNX gives it", "another")
        attributes = {a.name: onnx_package().helper.get_attribute_value(a) for a in proto.attribute}
        operator = proto.op_type if proto.domain in OWN_DOMAIN else f"{proto.domain}.{proto.op_type}"
        return cls(name, operator, tuple(proto.input), tuple(proto.output), attributes, opset)

    def get(self, attribute: str, default: Any) -> Any:
        """Return an attribute, decoding bytes to str."""
        self.used.add(attribute)
        value = self.attributes.get(attribute, default)
        return value.decode() if isinstance(value, bytes) else value

    def flag(self, attribute: str, default: int) -> bool:
        """Return an attribute that is 0 or 1; raises InputError for other numbers, which readers take differently."""
        value = self.get(attribute, default)
        if value not in (0, 1):
            raise self.wrong(attribute, "0 or 1", value)
        return bool(value)

    def number(self, attribute: str, default: float) -> float:
        """Return a float32 attribute as the decimal number that was meant: 0.1, not 0.10000000149."""
        return float(f"{self.get(attribute, default):.7g}")

    def error(self, wanted: object, got: object) -> InputError:
        """Return an error that names the node and the operator."""
        return InputError(f"node {self.name} ({self.operator})", wanted, got)

    def wrong(self, attribute: str, wanted: object, got: object) -> InputError:
        """Return an error that names the node, the operator and the attribute."""
        return InputError(f"node {self.name} ({self.operator}): {attribute}", wanted, got)

    def finish(self) -> None:
        """Raise InputError if there is an attribute that was never read."""
        for attribute in self.attributes.keys() - self.used:
            raise self.wrong(attribute, "no such attribute", self.attributes[attribute])


@cache
def _attribute_types(operator: str, opset: int) -> Mapping[str, int]:
    """Return the type of each attribute that ONNX knows of one of its operators."""
    defs = onnx_package().defs
    try:
        schema = defs.get_schema(operator, opset)
    except defs.SchemaError:  # not an operator of that set
        return {}
    return {name: attribute.type.value for name, attribute in schema.attributes.items()}


@dataclass(frozen=True)
class Translation:
    """A layer and the values of its parameters."""

    layer: Layer
    parameters: Mapping[str, Values] = field(default_factory=dict)


Constants: TypeAlias = Sequence[Values | None]
"""The constant inputs of a node, from the second on; None for one that is omitted or not constant."""


def translate(node: Node, constants: Constants, shape: Shape) -> Translation:
    """Return the layer that a node becomes, for an input of this shape (without the batch).

    Raises InputError, which names the node, the operator and the attribute, for anything unsupported.
    """
    if node.operator not in TRANSLATIONS:
        raise InputError(f"node {node.name}", f"one of {', '.join(sorted(TRANSLATIONS))}", node.operator)
    translation = TRANSLATIONS[node.operator](node, constants, shape)
    node.finish()
    for parameter in translation.layer.parameters(shape):  # before anything of their size is allocated
        values = translation.parameters[parameter.name]
        if values.shape != parameter.shape or values.dtype.kind in "biu":
            wanted = f"floating-point numbers {parameter.shape}"
            raise node.wrong(parameter.name, wanted, f"{values.dtype} {values.shape}")
    return translation


def values_of(tensor: "TensorProto") -> Values:
    """Return a tensor of a model; raises InputError unless it has real numbers, which are in the model."""
    onnx, where = onnx_package(), f"tensor {tensor.name}"
    if tensor.data_location == onnx.TensorProto.EXTERNAL:  # from_onnx has read what lies beside a file
        raise InputError(where, "numbers in the model", "a reference to a file")
    if any(length < 0 for length in tensor.dims):
        raise InputError(where, "no negative lengths", list(tensor.dims))
    values: Values = onnx.numpy_helper.to_array(tensor)
    if values.dtype.kind in "cOSU":
        raise InputError(where, "real numbers", values.dtype)
    return values


def check_distinct(where: str, names: Sequence[str]) -> None:
    """Raise InputError if a name stands twice, which readers would take differently."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(where, "each name once", ", ".join(twice))


def constant(node: Node) -> Values:
    """Return the value of a Constant."""
    for name, value in node.attributes.items():
        if name == "value":
            return values_of(value)
        if name in ("value_float", "value_floats"):
            return np.array(value, np.float32)
        if name in ("value_int", "value_ints"):
            return np.array(value, np.int64)
    raise node.wrong("value", "a tensor, or numbers", ", ".join(node.attributes))


def _conv(node: Node, constants: Constants, shape: Shape) -> Translation:
    weight, bias = _weights(node, constants, shape)
    stride, dilation, padding = _window(node, weight.shape[2:], shape[1:])
    kind = (Conv1D, Conv2D, Conv3D)[len(shape) - 2]
    groups = node.get("group", 1)
    layer = kind(len(weight), weight.shape[2:], stride, padding, dilation, groups, bias is not None)
    return Translation(layer, _named(weight, bias))


def _conv_transpose(node: Node, constants: Constants, shape: Shape) -> Translation:
    weight, bias = _weights(node, constants, shape)
    kernel, groups, size = weight.shape[2:], node.get("group", 1), shape[1:]
    rank = len(size)
    stride, dilation = (tuple(node.get(name, [1] * rank)) for name in ("strides", "dilations"))
    more = list(node.get("output_padding", [0] * rank))
    auto_pad, pads = node.get("auto_pad", "NOTSET"), _pairs(node.get("pads", [0] * 2 * rank))
    wanted = node.get("output_shape", None)
    if auto_pad.startswith("SAME"):
        wanted = wanted or [h * s for h, s in zip(size, stride, strict=True)]
    if wanted is not None:
        axes = zip(size, stride, kernel, dilation, wanted[-rank:], more, strict=True)
        total = [s * (h - 1) + m + d * (k - 1) + 1 - out for h, s, k, d, out, m in axes]
        more = [m + max(0, -t) for m, t in zip(more, total, strict=True)]
        half = [max(0, t) // 2 for t in total]
        rest = [max(0, t) - h for t, h in zip(total, half, strict=True)]
        pads = tuple(zip(half, rest, strict=True) if auto_pad == "SAME_UPPER" else zip(rest, half, strict=True))
    kind = (ConvTranspose1D, ConvTranspose2D, ConvTranspose3D)[rank - 1]
    filters = weight.shape[1] * groups
    layer = kind(filters, kernel, stride, pads, _plain(more), dilation, groups, bias is not None)
    return Translation(layer, _named(weight, bias))


def _gemm(node: Node, constants: Constants, shape: Shape) -> Translation:
    weight, bias = (*constants, None, None)[:2]
    if weight is None or len(shape) != 1:
        raise node.wrong("B", "a constant matrix, and an input (batch, features)", f"an input (batch, {shape})")
    if node.flag("transA", 0):
        raise node.wrong("transA", 0, 1)
    matrix = weight if node.flag("transB", 0) else weight.T
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    node.get("broadcast", 0)  # operator sets before 7 have it for C, whose shape is checked below
    if bias is not None:
        try:
            bias = np.broadcast_to(bias * bias.dtype.type(beta), (1, len(matrix)))[0]
        except ValueError as error:
            raise node.wrong("C", f"shape ({len(matrix)},)", bias.shape) from error
    return Translation(Dense(len(matrix), bias is not None), _named(matrix * matrix.dtype.type(alpha), bias))


def _matmul(node: Node, constants: Constants, shape: Shape) -> Translation:
    return _gemm(node, constants[:1], shape)


def _max_pool(node: Node, constants: Constants, shape: Shape) -> Translation:
    kernel = tuple(node.get("kernel_shape", ()))
    stride, dilation, padding = _window(node, kernel, shape[1:])
    node.get("storage_order", 0)  # the order of the indices, which a network does not use
    return Translation(MaxPool(_plain(kernel), stride, padding, dilation, node.flag("ceil_mode", 0)))


def _average_pool(node: Node, constants: Constants, shape: Shape) -> Translation:
    kernel = tuple(node.get("kernel_shape", ()))
    stride, dilation, padding = _window(node, kernel, shape[1:])
    ceil, include = node.flag("ceil_mode", 0), node.flag("count_include_pad", 0)
    return Translation(AvgPool(_plain(kernel), stride, padding, dilation, ceil, include))


def _batch_norm(node: Node, constants: Constants, shape: Shape) -> Translation:
    names = ("weight", "bias", "running_mean", "running_var")
    parameters = {name: values for name, values in zip(names, constants, strict=False) if values is not None}
    if len(parameters) != len(names):
        raise node.wrong("inputs", "constant scale, B, mean and variance", sorted(parameters))
    if node.flag("training_mode", 0) or not node.flag("spatial", 1):
        raise node.wrong("training_mode", 0, 1)
    for old in ("is_test", "consumed_inputs"):
        node.get(old, 1)
    momentum = float(f"{1 - node.number('momentum', 0.9):.7g}")
    return Translation(BatchNorm(momentum or 0.1, node.number("epsilon", 1e-5)), parameters)


def _layer_norm(node: Node, constants: Constants, shape: Shape) -> Translation:
    if len(shape) != 1 or node.get("axis", -1) not in (1, -1):
        raise node.wrong("axis", "1, for an input (batch, features)", node.get("axis", -1))
    node.get("stash_type", 1)
    weight, bias = (*constants, None, None)[:2]
    if weight is None:
        raise node.wrong("Scale", "constant numbers", "none")
    bias = np.zeros_like(weight) if bias is None else bias
    return Translation(LayerNorm(node.number("epsilon", 1e-5)), _named(weight, bias))


def _dropout(node: Node, constants: Constants, shape: Shape) -> Translation:
    ratio = constants[0] if constants and constants[0] is not None else node.get("ratio", 0.5)
    for other in ("seed", "is_test"):
        node.get(other, 0)
    return Translation(Dropout(float(f"{float(ratio):.7g}")))


def _reduce_mean(node: Node, constants: Constants, shape: Shape) -> Translation:
    """Return the pooling that a mean over all positions amounts to: PyTorch exports a global average that way."""
    axes = node.get("axes", _row(node, "axes", constants, 0) or [])
    node.get("noop_with_empty_axes", 0)
    if sorted(axis % (len(shape) + 1) for axis in axes) != list(range(2, len(shape) + 1)):
        raise node.wrong("axes", f"all from 2 to {len(shape)}", list(axes))
    return Translation(AvgPool(_plain(shape[1:])) if node.flag("keepdims", 1) else GlobalAvgPool())


def _pad(node: Node, constants: Constants, shape: Shape) -> Translation:
    amounts, value = node.get("pads", None), node.get("value", 0.0)
    axes = list(range(len(shape) + 1))
    if amounts is None:
        amounts = _row(node, "pads", constants, 0) or []
        value = constants[1].item() if len(constants) > 1 and constants[1] is not None else 0.0
        axes = _row(node, "axes", constants, 2) or axes
    if node.get("mode", "constant") != "constant":
        raise node.wrong("mode", "constant", node.get("mode", "constant"))
    pairs = dict(zip((axis % (len(shape) + 1) for axis in axes), _pairs(amounts), strict=True))
    pads = tuple(pairs.get(axis, (0, 0)) for axis in range(len(shape) + 1))
    if pads[:2] != ((0, 0), (0, 0)) or min(map(min, pads)) < 0:
        raise node.wrong("pads", "no negative numbers, and 0 for batch and channels", list(amounts))
    return Translation(Pad(pads[2:], value))


def _softmax(node: Node, constants: Constants, shape: Shape) -> Translation:
    axis = node.get("axis", -1 if node.opset >= 13 else 1)
    # Before operator set 13, all axes from `axis` on were flattened into one.
    if axis % (len(shape) + 1) != 1 or (node.opset < 13 and len(shape) > 1):
        raise node.wrong("axis", "1 (channels)", axis)
    return Translation(Softmax())


def _flatten(node: Node, constants: Constants, shape: Shape) -> Translation:
    if node.get("axis", 1) not in (1, -len(shape)):
        raise node.wrong("axis", 1, node.get("axis", 1))
    return Translation(Flatten())


def _reshape(node: Node, constants: Constants, shape: Shape) -> Translation:
    wanted = list(node.get("shape", _row(node, "shape", constants, 0) or []))
    kept = wanted[:1] != [0] or not node.flag("allowzero", 0)
    if len(wanted) != 2 or wanted[1] not in (-1, math.prod(shape)) or not kept:
        raise node.wrong("shape", f"(batch, {math.prod(shape)})", wanted)
    return Translation(Flatten())


def _gelu(node: Node, constants: Constants, shape: Shape) -> Translation:
    return Translation(GELU(node.get("approximate", "none") == "tanh"))


def _leaky_relu(node: Node, constants: Constants, shape: Shape) -> Translation:
    return Translation(LeakyReLU(node.number("alpha", 0.01)))


def _elu(node: Node, constants: Constants, shape: Shape) -> Translation:
    return Translation(ELU(node.number("alpha", 1.0)))


def _always(layer: Layer) -> Callable[[Node, Constants, Shape], Translation]:
    def translation(node: Node, constants: Constants, shape: Shape) -> Translation:
        node.get("consumed_inputs", None)
        return Translation(layer)

    return translation


TRANSLATIONS: Mapping[str, Callable[[Node, Constants, Shape], Translation]] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Dropout": _dropout,
    "Elu": _elu,
    "Flatten": _flatten,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _always(GlobalAvgPool()),
    "GlobalMaxPool": _always(GlobalMaxPool()),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _leaky_relu,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Relu": _always(ReLU()),
    "Reshape": _reshape,
    "Sigmoid": _always(Sigmoid()),
    "Softmax": _softmax,
    "Tanh": _always(Tanh()),
}
"""The operators that become layers."""


def _weights(node: Node, constants: Constants, shape: Shape) -> tuple[Values, Values | None]:
    weight, bias = (*constants, None, None)[:2]
    if weight is None or not 2 <= len(shape) <= 4 or weight.ndim != len(shape) + 1:
        raise node.wrong(
            "W", f"constant filters for an input of shape {shape}", None if weight is None else weight.shape
        )
    if tuple(node.get("kernel_shape", weight.shape[2:])) != weight.shape[2:]:
        raise node.wrong("kernel_shape", weight.shape[2:], node.get("kernel_shape", ()))
    return weight, bias


def _window(node: Node, kernel: Shape, size: Shape) -> tuple[Any, Any, Padding]:
    """Return stride, dilation and padding; padding that depends on the input size becomes explicit numbers."""
    if len(kernel) != len(size):
        raise node.wrong("kernel_shape", f"{len(size)} numbers", kernel)
    stride, dilation = (tuple(node.get(name, [1] * len(size))) for name in ("strides", "dilations"))
    auto_pad, pads = node.get("auto_pad", "NOTSET"), _pairs(node.get("pads", [0] * 2 * len(size)))
    if auto_pad.startswith("SAME"):
        pads = Window.of(len(size), kernel, stride, "same", dilation).over(size).pads
    if auto_pad == "SAME_LOWER":
        pads = tuple((after, before) for before, after in pads)
    return _plain(stride), _plain(dilation), "valid" if not any(map(any, pads)) else pads


def _row(node: Node, name: str, constants: Constants, place: int) -> list[int] | None:
    """Return the whole numbers in a constant input, or None if it is omitted."""
    values = constants[place] if place < len(constants) else None
    if values is None:
        return None
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise node.wrong(name, "a vector of whole numbers", f"{values.dtype} {values.shape}")
    numbers: list[int] = values.tolist()
    return numbers


def _pairs(pads: Sequence[int]) -> tuple[tuple[int, int], ...]:
    half = len(pads) // 2
    return tuple((int(before), int(after)) for before, after in zip(pads[:half], pads[half:], strict=True))


def _plain(lengths: Sequence[int]) -> Any:
    """Return a single number if all axes have the same."""
    return int(lengths[0]) if len(set(lengths)) == 1 else tuple(map(int, lengths))


def _named(weight: Values, bias: Values | None) -> dict[str, Values]:
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
