"""Operators that take parts of axes, or put borders around them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lowered_cnn.interop.onnx.assembly import Assembly
from lowered_cnn.interop.onnx.folding import slices, split_lengths, whole
from lowered_cnn.interop.onnx.layout import BATCH, Batch, Place, View
from lowered_cnn.interop.onnx.nodes import Node, Translation, Values
from lowered_cnn.interop.onnx.operators.joining import meet
from lowered_cnn.interop.onnx.operators.operands import MOST_COPIES, Operand, alone, order_of
from lowered_cnn.interop.onnx.operators.reshaping import reshaped
from lowered_cnn.layers import Concat, Pad, Slice

FAR = 2**31 - 2
"""Where a Slice that goes to the end may say that it ends, at least."""


def sliced(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Take slices of axes."""
    x, _ = alone(node, operands)
    for axis, (start, stop, step) in slices(node, operands, len(x.axes)).items():
        length = x.lengths[axis]
        if not all(isinstance(number, int) for number in (length, start, stop, step)):
            if start != 0 or step != 1 or not (stop == length or (isinstance(stop, int) and stop >= FAR)):
                raise node.wrong("axes", "the batch whole", f"[{start}:{stop}:{step}] of axis {axis}")
            continue
        places = range(int(length))[start:stop:step]  # type: ignore[arg-type]
        if not places:
            raise node.wrong("ends", "something left", f"[{start}:{stop}:{step}] of {length}")
        x = take(build, node, x, axis, places)
    return [x]


def cut(build: Assembly, node: Node, x: View, axis: int, start: int, stop: int, step: int = 1) -> View:
    """Return x[start:stop:step] along one of ONNX's axes; the numbers are within its length."""
    length = x.lengths[axis]
    if (start, stop, step) == (0, length, 1):
        return x
    x = build.plain(x)
    part = Slice(build.axis(x, axis, node), start, stop, step)
    name = build.add(Translation(part), x.node, node)
    return build.result(name, build.stored_axes(x), x)


def split(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Divide an axis into parts."""
    x, _ = alone(node, operands)
    axis = node.get("axis", 0) % len(x.axes)
    length = x.lengths[axis]
    if not isinstance(length, int):
        raise node.wrong("axis", "one other than that of the batch", axis)
    parts = split_lengths(node, operands, length)
    if sum(parts) != length or min(parts) < 1 or len(parts) != len(node.outputs):
        raise node.wrong("split", f"lengths above 0 that add up to {length}", parts)
    ends = np.cumsum(parts).tolist()
    return [cut(build, node, x, axis, end - part, end) for part, end in zip(parts, ends, strict=True)]


def gather(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Take places of an axis."""
    x, constants = alone(node, operands)
    axis, places = node.get("axis", 0) % len(x.axes), constants[0]
    if places is not None and places.dtype == object and len(x.axes) == 1:
        return [_examples(node, x, places)]
    length = x.lengths[axis]
    if places is None or not isinstance(length, int) or places.dtype.kind not in "iu":
        raise node.wrong("indices", "constant whole numbers, and another axis than the batch", axis)
    numbers = [int(place) + (length if place < 0 else 0) for place in places.reshape(-1).tolist()]
    if not numbers or not 0 <= min(numbers) <= max(numbers) < length:
        raise node.wrong("indices", f"numbers from 0 to {length - 1}", places.tolist())
    part = take(build, node, x, axis, numbers)
    if places.ndim == 1:
        return [part]
    lengths = [*part.lengths[:axis], *places.shape, *part.lengths[axis + 1 :]]
    return [part.without([axis]) if places.ndim == 0 else reshaped(build, node, part, lengths)]


def gather_nd(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Take a grid of places on the first two axes: rows, then columns, as means over parts are written."""
    x, [places] = alone(node, operands)
    if node.get("batch_dims", 0) or places is None or places.shape[-1:] != (2,) or places.dtype.kind not in "iu":
        raise node.wrong("indices", "constant places on the first two axes", None if places is None else places.shape)
    rank = places.ndim - 1
    for split in range(1, rank):
        rows = places[(slice(None),) * split + (0,) * (rank - split) + (0,)]
        columns = places[(0,) * split + (slice(None),) * (rank - split) + (1,)]
        grid = np.stack(np.broadcast_arrays(rows.reshape(*rows.shape, *(1,) * columns.ndim), columns), axis=-1)
        if (grid == places).all() and not any(BATCH in axis for axis in x.axes[:2]):
            x = take(build, node, x, 0, rows.reshape(-1).tolist())
            x = take(build, node, x, 1, columns.reshape(-1).tolist())
            return [reshaped(build, node, x, [*places.shape[:-1], *x.lengths[2:]])]
    raise node.wrong("indices", "a grid of rows and columns", places.shape)


def _examples(node: Node, x: View, places: Values) -> View:
    """Return (N times features), of which each example's are taken, as (N, shape)."""
    count = math.prod(places.shape)
    wanted = [Place(count, number) for number in range(count)]
    view = x.reshaped([Batch(), *places.shape[1:]]) if places.reshape(-1).tolist() == wanted else None
    if view is None:
        raise node.wrong("indices", "the places of all numbers of each example", "others")
    return view


def take(build: Assembly, node: Node, x: View, axis: int, places: Sequence[int]) -> View:
    """Return what is at these places of an axis: slices, one behind the other."""
    if isinstance(places, range) and places.step > 0:
        return cut(build, node, x, axis, places[0], places[-1] + 1, places.step)
    runs: list[list[int]] = []
    for place in places:
        step = place - runs[-1][-1] if runs else 0
        if step > 0 and (len(runs[-1]) == 1 or step == runs[-1][1] - runs[-1][0]):
            runs[-1].append(place)
        else:
            runs.append([place])
    if len(runs) > MOST_COPIES:
        raise node.error(f"parts that consist of at most {MOST_COPIES} slices", len(runs))
    steps = [run[1] - run[0] if len(run) > 1 else 1 for run in runs]
    parts = [cut(build, node, x, axis, run[0], run[-1] + 1, step) for run, step in zip(runs, steps, strict=True)]
    return parts[0] if len(parts) == 1 else meet(build, node, Concat(), parts, axis)


def pad(build: Assembly, node: Node, operands: Sequence[Operand]) -> list[View]:
    """Add a border, or take one away."""
    x, constants = alone(node, operands)
    pads, value = _borders(node, x, constants)
    mode = node.get("mode", "constant")
    for axis, (before, after) in pads.items():
        length = x.lengths[axis]
        if min(before, after) < 0 and isinstance(length, int):
            x = cut(build, node, x, axis, max(0, -before), length - max(0, -after))
    pads = {axis: (max(0, b), max(0, a)) for axis, (b, a) in pads.items() if max(b, a) > 0}
    if not pads:
        return [x]
    if any(BATCH in x.axes[axis] for axis in pads):
        raise node.wrong("pads", "0 for the batch", pads)
    if mode == "wrap":
        for axis, (before, after) in pads.items():
            length = int(x.lengths[axis])  # type: ignore[arg-type]
            if max(before, after) > length:
                raise node.wrong("pads", f"at most {length}", (before, after))
            x = take(build, node, x, axis, [*range(length - before, length), *range(length), *range(after)])
        return [x]
    if mode not in ("constant", "reflect", "edge"):
        raise node.wrong("mode", "constant, reflect, edge or wrap", mode)
    order = order_of(build.plain(x), list(pads))
    first = next((axis for axis in order if axis not in pads), None)  # a Pad has an axis without a border, the first
    order = [axis for axis in order if axis != first]
    source = build.arranged(x, [[] if first is None else [first], *([axis] for axis in order)])
    border = tuple(pads.get(axis, (0, 0)) for axis in order)
    name = build.add(Translation(Pad(border, value if mode == "constant" else 0.0, mode)), source, node)
    return [build.result(name, [first, *order], x)]


def _borders(node: Node, x: View, constants: Sequence[Values | None]) -> tuple[dict[int, tuple[int, int]], float]:
    """Return what a Pad adds before and after each axis, and its value."""
    pads, value = node.get("pads", node.get("paddings", None)), node.get("value", 0.0)
    axes: list[Any] = list(range(len(x.axes)))
    if pads is None:
        if not constants or constants[0] is None or constants[0].dtype.kind not in "iu" or constants[0].ndim != 1:
            got = f"{constants[0].dtype} {constants[0].shape}" if constants and constants[0] is not None else "none"
            raise node.wrong("pads", "a vector of whole numbers", got)
        pads = constants[0].tolist()
        value = constants[1].item() if len(constants) > 1 and constants[1] is not None and constants[1].size else 0.0
        axes = whole(constants[2]) if len(constants) > 2 and constants[2] is not None else axes
    if len(pads) != 2 * len(axes):
        raise node.wrong("pads", f"{2 * len(axes)} numbers", len(pads))
    ends = zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True)
    return {axis % len(x.axes): (int(b), int(a)) for axis, b, a in ends if b or a}, float(value)
