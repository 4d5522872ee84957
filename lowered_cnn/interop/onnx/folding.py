"""Constant folding: nodes whose inputs are all known are computed once, at reading, within limits of size."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lowered_cnn.arrays import Shape
from lowered_cnn.interop.onnx.layout import Batch, Length, Place, View
from lowered_cnn.interop.onnx.nodes import Node, Values
from lowered_cnn.interop.onnx.package import onnx_package

MOST_FOLDED = 2**26
"""The most numbers that are computed while a model is read."""


SLOW = 64
"""How many numbers one counts for where ONNX's reference implementation is a loop in Python."""


class Folder:
    """Computes nodes; the numbers of all results are limited, so that no model fills the memory or takes for ever."""

    def __init__(self) -> None:
        self.left = MOST_FOLDED

    def fold(self, node: Node, operands: Sequence[Values | None]) -> list[Values]:
        """Return what a node computes from constants; raises InputError if it cannot be, or is too large."""
        try:
            results = self._computed(node, operands)
        except (TypeError, ValueError, IndexError, ZeroDivisionError, OverflowError, MemoryError) as error:
            if any(operand is not None and operand.dtype == object for operand in operands):
                raise node.error("constants that do not depend on the number of examples", "N among them") from error
            raise node.error("constants that it can be computed from", f"{type(error).__name__}: {error}") from error
        return [_plain(result) for result in results]

    def _computed(self, node: Node, operands: Sequence[Values | None]) -> list[Values]:
        if node.operator in FOLDS:
            with np.errstate(all="ignore"):
                results = FOLDS[node.operator](self, node, list(operands))
            return results if isinstance(results, list) else [results]
        if node.operator not in BY_REFERENCE:
            raise node.error("an input that is not constant, or an operator that can be computed", "constants only")
        slowness = SLOW if node.operator in ("GatherND", "ScatterElements", "ScatterND") else 1
        self.spend(node, slowness * sum(operand.size for operand in operands if operand is not None))
        return _by_reference(node, operands)

    def spend(self, node: Node, numbers: int) -> None:
        """Take a result's numbers from the limit."""
        self.left -= max(0, numbers)
        if self.left < 0:
            raise node.error(f"at most {MOST_FOLDED:,} numbers that are computed from constants", "more")


def lengths_of(tensor: View | Values) -> Values:
    """Return the shape of a tensor as a constant, in which the batch has no number."""
    return _plain(np.array(tensor.lengths if isinstance(tensor, View) else tensor.shape, object))


def whole(values: Values) -> list[Length]:
    """Return the numbers of a constant shape."""
    return [length if isinstance(length, Batch) else int(length) for length in np.atleast_1d(values).tolist()]


def _plain(values: Values) -> Values:
    """Return whole numbers among which there is no batch as what they are."""
    values = np.asarray(values)
    if values.dtype == object and not any(isinstance(value, Batch | Place) for value in values.flat):
        return values.astype(np.int64)
    return values


def _by_reference(node: Node, operands: Sequence[Values | None]) -> list[Values]:
    """Run ONNX's own reference implementation of a node, whose result is no larger than its inputs."""
    from onnx.reference import ReferenceEvaluator

    helper = onnx_package().helper
    inputs = [f"x{place}" if operand is not None else "" for place, operand in enumerate(operands)]
    proto = helper.make_node(node.operator, inputs, ["y"], **node.attributes)
    known = {name: operand for name, operand in zip(inputs, operands, strict=True) if operand is not None}
    kinds = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(v.dtype), None) for name, v in known.items()
    ]
    ends = [helper.make_empty_tensor_value_info("y")]
    model = helper.make_model(
        helper.make_graph([proto], "node", kinds, ends), opset_imports=[helper.make_opsetid("", node.opset)]
    )
    with np.errstate(all="ignore"):
        return [np.asarray(result) for result in ReferenceEvaluator(model).run(None, known)]


def _elementwise(compute: Callable[..., Any]) -> "Fold":
    """Return the fold of an element-wise function, whose inputs broadcast."""

    def fold(folder: Folder, node: Node, operands: list[Any]) -> Values:
        shape = np.broadcast_shapes(*(operand.shape for operand in operands))
        folder.spend(node, math.prod(shape))
        result = np.asarray(operands[0]) if len(operands) == 1 else operands[0]
        for other in operands[1:]:
            result = compute(result, other)
        return np.asarray(result)

    return fold


def _compared(compute: Callable[..., Any]) -> "Fold":
    elementwise = _elementwise(compute)
    return lambda folder, node, operands: np.asarray(elementwise(folder, node, operands)).astype(np.bool_)


def _quotient(a: Any, b: Any) -> Any:
    """Divide as ONNX does: whole numbers are rounded towards 0."""
    if a.dtype == object or b.dtype == object:
        return a // b
    return a / b if a.dtype.kind == "f" else (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)


def _remainder(folder: "Folder", node: Node, operands: list[Any]) -> Values | list[Values]:
    return _elementwise(np.fmod if node.flag("fmod", 0) else np.mod)(folder, node, operands)


def _power(a: Any, b: Any) -> Any:
    return np.power(a, b).astype(a.dtype)


def _cast(folder: Folder, node: Node, operands: list[Any]) -> Values:
    onnx = onnx_package()
    if operands[0].dtype == object:
        return np.asarray(operands[0])
    folder.spend(node, operands[0].size)
    dtype = (
        operands[1].dtype if node.operator == "CastLike" else onnx.helper.tensor_dtype_to_np_dtype(node.get("to", 1))
    )
    return np.asarray(operands[0].astype(dtype))


def _gather(folder: Folder, node: Node, operands: list[Any]) -> Values:
    data, indices = operands
    axis = node.get("axis", 0)
    folder.spend(node, data.size // max(1, data.shape[axis]) * indices.size)
    return np.asarray(np.take(data, indices, axis=axis))


def slices(node: Node, operands: Sequence[Any], rank: int) -> dict[int, tuple[int, int, int]]:
    """Return start, stop and step of each axis that a Slice cuts."""
    rest = [None if operand is None else whole(operand) for operand in operands[1:]]
    starts, ends = (
        node.get(name, rest[place] if place < len(rest) else None) for place, name in enumerate(("starts", "ends"))
    )
    axes = node.get("axes", rest[2] if len(rest) > 2 else None) or range(len(starts))
    steps = (rest[3] if len(rest) > 3 else None) or [1] * len(starts)
    return {axis % rank: cut for axis, *cut in zip(axes, starts, ends, steps, strict=True)}  # type: ignore[misc]


def _slice(folder: Folder, node: Node, operands: list[Any]) -> Values:
    data = operands[0]
    parts = [slice(None)] * data.ndim
    for axis, (start, stop, step) in slices(node, operands, data.ndim).items():
        parts[axis] = slice(start, None if step < 0 and stop < -data.shape[axis] else stop, step)
    return np.asarray(data[tuple(parts)])


def _concat(folder: Folder, node: Node, operands: list[Any]) -> Values:
    folder.spend(node, sum(operand.size for operand in operands))
    return np.concatenate(operands, axis=node.get("axis", 1))


def axes_of(node: Node, operands: Sequence[Any], place: int = 1) -> list[int] | None:
    """Return the axes that are an attribute or, in later operator sets, an input."""
    given = operands[place] if len(operands) > place else None
    axes = node.get("axes", None if given is None else np.atleast_1d(given).tolist())
    return None if axes is None else [int(axis) for axis in axes]


def _unsqueeze(folder: Folder, node: Node, operands: list[Any]) -> Values:
    return np.expand_dims(operands[0], tuple(axes_of(node, operands) or ()))


def _squeeze(folder: Folder, node: Node, operands: list[Any]) -> Values:
    axes = axes_of(node, operands)
    return np.asarray(np.squeeze(operands[0], axis=None if axes is None else tuple(axes)))


def _reshape(folder: Folder, node: Node, operands: list[Any]) -> Values:
    data, wanted = operands[0], node.get("shape", None) or whole(operands[1])
    if not node.flag("allowzero", 0):
        wanted = [length or data.shape[axis] for axis, length in enumerate(wanted)]
    folder.spend(node, 0 if data.flags.c_contiguous else data.size)
    return np.asarray(data.reshape(wanted))


def _flatten(folder: Folder, node: Node, operands: list[Any]) -> Values:
    data = operands[0]
    axis = node.get("axis", 1)
    folder.spend(node, 0 if data.flags.c_contiguous else data.size)
    return np.asarray(data.reshape(math.prod(data.shape[: axis + data.ndim if axis < 0 else axis]), -1))


def _expand(folder: Folder, node: Node, operands: list[Any]) -> Values:
    shape: Any = np.broadcast_shapes(operands[0].shape, tuple(whole(operands[1])))  # type: ignore[arg-type]
    return np.broadcast_to(operands[0], shape)  # takes no memory


def _constant_of_shape(folder: Folder, node: Node, operands: list[Any]) -> Values:
    tensor = node.attributes.get("value")
    value = np.zeros(1, np.float32) if tensor is None else onnx_package().numpy_helper.to_array(tensor)
    shape: list[Any] = whole(operands[0]) if operands[0].size else []
    return np.broadcast_to(value.reshape(()), tuple(shape))  # takes no memory


def _tile(folder: Folder, node: Node, operands: list[Any]) -> Values:
    folder.spend(node, operands[0].size * math.prod(whole(operands[1])))
    return np.asarray(np.tile(operands[0], operands[1]))


def _range(folder: Folder, node: Node, operands: list[Any]) -> Values:
    start, limit, delta = (operand.item() for operand in operands)
    if limit == Batch() and (start, delta) == (0, 1):
        return np.array([Place(1, 0)])  # a place for each example
    folder.spend(node, max(0, math.ceil((limit - start) / delta)))
    return np.arange(start, limit, delta, dtype=operands[0].dtype)


def _where(folder: Folder, node: Node, operands: list[Any]) -> Values:
    folder.spend(node, math.prod(np.broadcast_shapes(*(operand.shape for operand in operands))))
    return np.asarray(np.where(*operands))


def _split(folder: Folder, node: Node, operands: list[Any]) -> list[Values]:
    data, axis = operands[0], node.get("axis", 0)
    parts = split_lengths(node, operands, data.shape[axis])
    return list(np.split(data, np.cumsum(parts)[:-1], axis=axis))


def split_lengths(node: Node, operands: Sequence[Any], length: int) -> list[int]:
    """Return the length of each part of a Split of an axis."""
    given = operands[1] if len(operands) > 1 else None
    parts = node.get("split", None if given is None else given.tolist())
    count = node.get("num_outputs", len(node.outputs))
    if count != len(node.outputs):
        raise node.wrong("num_outputs", len(node.outputs), count)
    size = -(-length // count)
    return list(parts) if parts is not None else [min(size, length - size * place) for place in range(count)]


def _transpose(folder: Folder, node: Node, operands: list[Any]) -> Values:
    return np.transpose(operands[0], node.get("perm", None))


def _reduced(compute: Callable[..., Any]) -> "Fold":
    def fold(folder: Folder, node: Node, operands: list[Any]) -> Values:
        axes = axes_of(node, operands)
        if not axes and node.get("noop_with_empty_axes", 0):
            return np.asarray(operands[0])
        keep = node.flag("keepdims", 1)
        folder.spend(node, operands[0].size)
        return np.asarray(compute(operands[0], axis=tuple(axes) if axes else None, keepdims=keep))

    return fold


def _shape(folder: Folder, node: Node, operands: list[Any]) -> Values:
    return lengths_of(operands[0])[node.get("start", 0) : node.get("end", None)]


Fold = Callable[[Folder, Node, list[Any]], Values | list[Values]]

FOLDS: Mapping[str, Fold] = {
    "Add": _elementwise(np.add),
    "And": _compared(np.logical_and),
    "Cast": _cast,
    "CastLike": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _elementwise(_quotient),
    "Equal": _compared(np.equal),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Greater": _compared(np.greater),
    "GreaterOrEqual": _compared(np.greater_equal),
    "Less": _compared(np.less),
    "LessOrEqual": _compared(np.less_equal),
    "Max": _elementwise(np.maximum),
    "Min": _elementwise(np.minimum),
    "Mod": _remainder,
    "Mul": _elementwise(np.multiply),
    "Or": _compared(np.logical_or),
    "Pow": _elementwise(_power),
    "Range": _range,
    "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min),
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda folder, node, operands: np.array(math.prod(operands[0].shape)),
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
"""The operators that are computed here, also of shapes with a batch in them, or that may have large results."""

BY_REFERENCE = frozenset(
    [
        "Abs",
        "Ceil",
        "Clip",
        "CumSum",
        "DequantizeLinear",
        "Erf",
        "Exp",
        "Floor",
        "GatherND",
        "IsInf",
        "IsNaN",
        "Log",
        "Neg",
        "NonZero",
        "Not",
        "Reciprocal",
        "ReduceL2",
        "ReduceMean",
        "Relu",
        "Round",
        "ScatterElements",
        "ScatterND",
        "Sigmoid",
        "Sign",
        "Sqrt",
        "Tanh",
        "Trilu",
    ]
)
"""The operators that ONNX's reference implementation computes: their results are no larger than their inputs."""


def resolved(node: Node, view: View, wanted: list[Length], fixed: int) -> list[Length] | None:
    """Return the lengths that a Reshape asks for, with numbers in place of 0 and -1, or None if they do not fit.

    `fixed` is the number of examples that the model was written for, or 0 if it takes any.
    """
    lengths = view.lengths
    if not node.flag("allowzero", 0):
        wanted = [lengths[axis] if length == 0 else length for axis, length in enumerate(wanted)]
    has_batch = [isinstance(length, Batch) for length in wanted]
    total = math.prod(length.times if isinstance(length, Batch) else length for length in lengths)
    if not any(has_batch) and wanted and view.is_batch_first and wanted[0] == fixed != 0:
        wanted, has_batch = [Batch(), *wanted[1:]], [True, *has_batch[1:]]
    if -1 in wanted:
        others = math.prod(length.times if isinstance(length, Batch) else length for length in wanted if length != -1)
        if others == 0 or total % others:
            return None
        rest: Length = total // others if any(has_batch) else Batch(total // others)
        return [rest if length == -1 else length for length in wanted]
    if not any(has_batch) and math.prod(map(int, wanted)) == total and wanted[:1] == [1]:  # type: ignore[arg-type]
        return [Batch(), *wanted[1:]]  # this runs with one example only
    return wanted


def numbers(values: Values) -> Shape:
    """Return a constant of whole numbers as a tuple."""
    return tuple(int(value) for value in np.atleast_1d(values).tolist())
