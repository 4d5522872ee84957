"""Operators that give the same numbers other axes, which mostly costs nothing, or repeat them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lowered_cnn.interop.onnx.assembly import Assembly
from lowered_cnn.interop.onnx.folding import axes_of, resolved, whole
from lowered_cnn.interop.onnx.layout import BATCH, Factor, Length, View
from lowered_cnn.interop.onnx.nodes import Node, Translation
from lowered_cnn.interop.onnx.operators.joining import meet
from lowered_cnn.interop.onnx.operators.operands import MOST_COPIES, Operand, alone, factors_of, listed, order_of
from lowered_cnn.layers import Concat, Resize


def transpose(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Move axes."""
    x, _ = alone(node, operands)
    order = node.get("perm", range(len(x.axes))[::-1])
    if sorted(order) != list(range(len(x.axes))):
        raise node.wrong("perm", f"0 to {len(x.axes) - 1}, each once", list(order))
    return [x.transposed(order)]


def reshape(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Give the numbers other axes."""
    x, constants = alone(node, operands)
    given = constants[0] if constants else np.array(node.get("shape", []))
    if given is None or given.dtype.kind not in "iuO" or given.ndim != 1:
        raise node.wrong(
            "shape", "a vector of whole numbers", None if given is None else f"{given.dtype} {given.shape}"
        )
    return [reshaped(build, node, x, whole(given))]


def reshaped(build: Assembly, node: Node, x: View, wanted: list[Length]) -> View:
    """Return a tensor with axes of these lengths; raises InputError if examples are not kept apart."""
    lengths = resolved(node, x, wanted, build.examples)
    view = None if lengths is None else x.reshaped(lengths)
    if view is None and lengths is not None and x.is_batch_first:
        source = build.arranged(x, [range(1, len(x.axes))])
        view = View.of(source, build.shapes[source]).reshaped(lengths)
    if view is None:
        raise node.wrong("shape", f"axes that keep the examples of {listed(x.lengths)} apart", listed(wanted))
    return view


def flatten(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Join the axes before and behind the given one."""
    x, _ = alone(node, operands)
    axis = node.get("axis", 1)
    axis += len(x.axes) if axis < 0 else 0
    lengths: list[Any] = [math.prod(x.lengths[:axis]), math.prod(x.lengths[axis:])]
    return [reshaped(build, node, x, lengths)]


def squeeze(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Leave axes of length 1 out."""
    x, _ = alone(node, operands)
    axes = axes_of(node, operands)
    if axes is None:
        axes = [axis for axis, length in enumerate(x.lengths) if length == 1]
    axes = [axis % len(x.axes) for axis in axes]
    if any(x.lengths[axis] != 1 for axis in axes):
        raise node.wrong("axes", "axes of length 1", axes)
    return [x.without(axes)]


def unsqueeze(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Add axes of length 1."""
    x, _ = alone(node, operands)
    axes = axes_of(node, operands) or []
    rank = len(x.axes) + len(axes)
    places = sorted({axis % rank for axis in axes})
    if len(places) != len(axes):
        raise node.wrong("axes", "each once", axes)
    return [x.unsqueezed(places)]


def expand(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Repeat axes of length 1."""
    x, constants = alone(node, operands)
    wanted = whole(constants[0]) if constants and constants[0] is not None else []
    x = x.unsqueezed(range(len(wanted) - len(x.axes)))
    wanted = [*[1] * (len(x.axes) - len(wanted)), *wanted]
    times = {axis: new for axis, (new, old) in enumerate(zip(wanted, x.lengths, strict=True)) if new not in (1, old)}
    if any(x.lengths[axis] != 1 or not isinstance(new, int) or new < 1 for axis, new in times.items()):
        raise node.wrong("shape", f"that of the input, {listed(x.lengths)}, or another length than 1", listed(wanted))
    return [_repeated(build, node, x, times)]  # type: ignore[arg-type]


def tile(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Repeat axes."""
    x, [repeats] = alone(node, operands)
    times = dict(enumerate(whole(repeats))) if repeats is not None else {}
    if len(times) != len(x.axes) or any(not isinstance(n, int) or n < 1 for n in times.values()):
        raise node.wrong("repeats", f"{len(x.axes)} numbers above 0", listed(list(times.values())))
    for axis, count in times.items():
        if count != 1 and x.lengths[axis] != 1:
            if BATCH in x.axes[axis] or count > MOST_COPIES:  # type: ignore[operator]
                raise node.wrong("repeats", f"1 for the batch, and at most {MOST_COPIES} copies", count)
            x = meet(build, node, Concat(), [x] * int(count), axis)  # type: ignore[arg-type]
            times[axis] = 1
    return [_repeated(build, node, x, {axis: n for axis, n in times.items() if n != 1})]  # type: ignore[misc]


def _repeated(build: Assembly, node: Node, x: View, times: Mapping[int, int]) -> View:
    """Return a tensor with axes of length 1 that become longer, as maps of one position that are resized."""
    if not times:
        return x
    kept = order_of(build.plain(x))
    source = build.arranged(x, [kept, *([axis] for axis in times)])
    name = build.add(Translation(Resize(size=tuple(times.values()))), source, node)
    new = {axis: Factor(length) for axis, length in times.items()}
    axes = tuple((new[axis],) if axis in new else own for axis, own in enumerate(x.axes))
    return View(name, build.shapes[name], (*factors_of(x, kept), *new.values()), axes)


def depth_to_space(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Move channels to positions."""
    x, _ = alone(node, operands)
    size = node.get("blocksize", 1)
    n, channels, height, width = _maps(node, x)
    if size < 1 or channels % (size * size):
        raise node.wrong("blocksize", f"a number whose square divides {channels}", size)
    crd = node.get("mode", "DCR") == "CRD"
    depth = channels // (size * size)
    split: list[Length] = [n, depth, size, size, height, width] if crd else [n, size, size, depth, height, width]
    moved = reshaped(build, node, x, split).transposed((0, 1, 4, 2, 5, 3) if crd else (0, 3, 4, 1, 5, 2))
    return [reshaped(build, node, moved, [n, depth, height * size, width * size])]


def space_to_depth(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Move positions to channels."""
    x, _ = alone(node, operands)
    size = node.get("blocksize", 1)
    n, channels, height, width = _maps(node, x)
    if size < 1 or height % size or width % size:
        raise node.wrong("blocksize", f"a number that divides {height} and {width}", size)
    parts = reshaped(build, node, x, [n, channels, height // size, size, width // size, size])
    moved = parts.transposed((0, 3, 5, 1, 2, 4))
    return [reshaped(build, node, moved, [n, channels * size * size, height // size, width // size])]


def _maps(node: Node, x: View) -> tuple[Length, int, int, int]:
    if len(x.axes) != 4 or not x.is_batch_first:
        raise node.error("an input (N, C, H, W)", listed(x.lengths))
    n, *rest = x.lengths
    return (n, *(int(length) for length in rest))  # type: ignore[arg-type, return-value]
