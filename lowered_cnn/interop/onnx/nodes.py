"""The nodes of an ONNX graph and the layers that they become: one translation per operator."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import InputError, Shape
from lowered_cnn.interop.onnx.package import onnx_package
from lowered_cnn.layers import (
    ELU,
    GELU,
    LRN,
    AvgPool,
    BatchNorm,
    Clip,
    Conv1D,
    Conv2D,
    Conv3D,
    ConvTranspose1D,
    ConvTranspose2D,
    ConvTranspose3D,
    Dense,
    Dropout,
    GlobalAvgPool,
    GlobalMaxPool,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    InstanceNorm,
    Layer,
    LeakyReLU,
    MaxPool,
    PReLU,
    ReLU,
    Resize,
    Scale,
    Sequential,
    Sigmoid,
    SiLU,
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
    """One operator with its attributes; a node without a `given` name goes by the name of its output.

    The name of an operator outside ONNX's own domain is prefixed with its domain.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    given: str = ""
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
        return cls(name, operator, tuple(proto.input), tuple(proto.output), attributes, opset, proto.name)

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

    def with_inputs(self, inputs: tuple[str, ...]) -> "Node":
        """Return the node with other inputs."""
        return replace(self, inputs=inputs)

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
    if not node.flag("spatial", 1):
        raise node.wrong("spatial", 1, 0)
    node.flag("training_mode", 0)  # a network has its own
    for old in ("is_test", "consumed_inputs"):
        node.get(old, 1)
    momentum = float(f"{1 - node.number('momentum', 0.9):.7g}")
    return Translation(BatchNorm(momentum or 0.1, node.number("epsilon", 1e-5)), parameters)


def _dropout(node: Node, constants: Constants, shape: Shape) -> Translation:
    ratio = constants[0] if constants and constants[0] is not None else node.get("ratio", 0.5)
    for other in ("seed", "is_test"):
        node.get(other, 0)
    return Translation(Dropout(float(f"{float(ratio):.7g}")))


def _gelu(node: Node, constants: Constants, shape: Shape) -> Translation:
    return Translation(GELU(node.get("approximate", "none") == "tanh"))


def _leaky_relu(node: Node, constants: Constants, shape: Shape) -> Translation:
    return Translation(LeakyReLU(node.number("alpha", 0.01)))


def _elu(node: Node, constants: Constants, shape: Shape) -> Translation:
    return Translation(ELU(node.number("alpha", 1.0)))


def _celu(node: Node, constants: Constants, shape: Shape) -> Translation:
    if node.get("alpha", 1.0) != 1:
        raise node.wrong("alpha", 1, node.get("alpha", 1.0))
    return Translation(ELU(1.0))


def _selu(node: Node, constants: Constants, shape: Shape) -> Translation:
    gamma, alpha = node.get("gamma", 1.0507010221481323), node.get("alpha", 1.6732631921768188)
    layer = Sequential(ELU(alpha), Scale((1,), bias=False, learned=False, initial=gamma))
    return Translation(layer, {"scale1.weight": np.array([gamma])})


def _swish(node: Node, constants: Constants, shape: Shape) -> Translation:
    if node.get("alpha", 1.0) != 1:
        raise node.wrong("alpha", 1, node.get("alpha", 1.0))
    return Translation(SiLU())


def _hard_sigmoid(node: Node, constants: Constants, shape: Shape) -> Translation:
    return Translation(HardSigmoid(_sixth(node.number("alpha", 0.2)), node.number("beta", 0.5)))


def _sixth(number: float) -> float:
    """Return 1/6 for the float32 number next to it."""
    return 1 / 6 if math.isclose(number, 1 / 6, rel_tol=1e-6) else number


def _clip(node: Node, constants: Constants, shape: Shape) -> Translation:
    ends = [None if end is None else end.item() for end in (*constants, None, None)[:2]]
    low, high = node.get("min", ends[0]), node.get("max", ends[1])
    low, high = (-math.inf if low is None else float(low)), (math.inf if high is None else float(high))
    return Translation(ReLU() if (low, high) == (0, math.inf) else Clip(low, high))


def _prelu(node: Node, constants: Constants, shape: Shape) -> Translation:
    slope = constants[0]
    if slope is None or slope.size not in (1, shape[0]) or (slope.size > 1 and slope.shape[-len(shape)] != shape[0]):
        raise node.wrong(
            "slope", f"a constant for each of the {shape[0]} channels", None if slope is None else slope.shape
        )
    is_shared = slope.size == 1 and shape[0] > 1
    return Translation(PReLU(is_shared), {"weight": slope.reshape(-1)})


def _lrn(node: Node, constants: Constants, shape: Shape) -> Translation:
    rates = (node.number(name, default) for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    return Translation(LRN(node.get("size", 0), *rates))


def _instance_norm(node: Node, constants: Constants, shape: Shape) -> Translation:
    weight, bias = (*constants, None, None)[:2]
    if weight is None or bias is None:
        raise node.wrong("inputs", "constant scale and B", "others")
    epsilon = node.number("epsilon", 1e-5)
    if (weight == 1).all() and (bias == 0).all():
        return Translation(InstanceNorm(epsilon))
    return Translation(InstanceNorm(epsilon, affine=True), _named(weight, bias))


def _group_norm(node: Node, constants: Constants, shape: Shape) -> Translation:
    weight, bias = (*constants, None, None)[:2]
    if weight is None or bias is None:
        raise node.wrong("inputs", "constant scale and bias", "others")
    groups = node.get("num_groups", 1)
    node.get("stash_type", 1)
    weight, bias = (numbers.reshape(-1) for numbers in (weight, bias))
    if len(weight) == groups != shape[0]:  # before operator set 21, there was one number per group
        weight, bias = (np.repeat(numbers, shape[0] // groups) for numbers in (weight, bias))
    return Translation(GroupNorm(groups, node.number("epsilon", 1e-5)), _named(weight, bias))


def _resize(node: Node, constants: Constants, shape: Shape) -> Translation:
    scales, size = _resize_amounts(node, constants, shape)
    mode = node.get("mode", "nearest")
    plain = "asymmetric" if node.operator == "Upsample" or node.opset < 11 else "half_pixel"
    coordinates = node.get("coordinate_transformation_mode", plain)
    rounding = node.get("nearest_mode", "floor" if plain == "asymmetric" else "round_prefer_floor")
    if mode == "cubic" and node.number("cubic_coeff_a", -0.75) != -0.75:
        raise node.wrong("cubic_coeff_a", -0.75, node.number("cubic_coeff_a", -0.75))
    for name, least in (("antialias", 0), ("exclude_outside", 0)):
        if node.flag(name, least):
            raise node.wrong(name, 0, 1)
    for name in ("extrapolation_value", "cubic_coeff_a", "keep_aspect_ratio_policy"):
        if name == "keep_aspect_ratio_policy" and node.get(name, "stretch") != "stretch":
            raise node.wrong(name, "stretch", node.get(name, "stretch"))
        node.get(name, 0)
    given = {"size": size} if size is not None else {"scale": tuple(float(f"{scale:.7g}") for scale in scales)}
    return Translation(Resize(mode=mode, coordinates=coordinates, rounding=rounding, **given))


def _resize_amounts(node: Node, constants: Constants, shape: Shape) -> tuple[Any, Any]:
    """Return either the scales or the size of the axes behind the channels."""
    rank = len(shape) + 1
    place = 0 if node.operator == "Upsample" or node.opset < 11 else 1
    given = [values if values is not None and values.size else None for values in constants[place : place + 2]]
    scales, size = (*given, None, None)[:2]
    if scales is None and "scales" in node.attributes:
        scales = np.array(node.get("scales", ()))
    axes = [axis % rank for axis in node.get("axes", range(rank))]
    amounts = size if size is not None else scales
    if amounts is None or len(amounts) != len(axes):
        raise node.wrong("scales", f"constant numbers for {len(axes)} axes", None if amounts is None else len(amounts))
    by_axis = dict(zip(axes, amounts.tolist(), strict=True))
    first = [by_axis.get(axis, 1) for axis in (0, 1)] if size is None else [1, by_axis.get(1, shape[0]) / shape[0]]
    if first != [1, 1] or any(axis not in by_axis for axis in range(2, rank)):
        raise node.wrong("scales", "none for batch and channels, and one for each other axis", amounts.tolist())
    numbers = tuple(by_axis[axis] for axis in range(2, rank))
    return (None, tuple(map(int, numbers))) if size is not None else (numbers, None)


def _always(layer: Layer) -> Callable[[Node, Constants, Shape], Translation]:
    def translation(node: Node, constants: Constants, shape: Shape) -> Translation:
        node.get("consumed_inputs", None)
        return Translation(layer)

    return translation


TRANSLATIONS: Mapping[str, Callable[[Node, Constants, Shape], Translation]] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Celu": _celu,
    "Clip": _clip,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Dropout": _dropout,
    "Elu": _elu,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _always(GlobalAvgPool()),
    "GlobalMaxPool": _always(GlobalMaxPool()),
    "GroupNormalization": _group_norm,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _always(HardSwish()),
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LeakyRelu": _leaky_relu,
    "MaxPool": _max_pool,
    "PRelu": _prelu,
    "Relu": _always(ReLU()),
    "Resize": _resize,
    "Selu": _selu,
    "Sigmoid": _always(Sigmoid()),
    "Swish": _swish,
    "Tanh": _always(Tanh()),
    "Upsample": _resize,
}
"""The operators that become a layer each, for inputs in ONNX's layout (N, C, *size) or (N, features)."""


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
