"""Layouts: where an ONNX tensor's axes lie in what a node computes, so that most Transposes and Reshapes are free."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from lowered_cnn.arrays import Shape


@dataclass(frozen=True)
class Batch:
    """The length of an axis that holds the batch: N times a known number. It knows the arithmetic of shapes."""

    times: int = 1

    def __mul__(self, other: object) -> "Batch":
        if not isinstance(other, int):
            return NotImplemented
        return Batch(self.times * other)

    __rmul__ = __mul__

    def __floordiv__(self, other: object) -> "Batch | int":
        divisor = other.times if isinstance(other, Batch) else other
        if not isinstance(divisor, int) or divisor == 0 or self.times % divisor:
            return NotImplemented
        times = self.times // divisor
        return times if isinstance(other, Batch) else Batch(times)

    def __str__(self) -> str:
        return "N" if self.times == 1 else f"{self.times} N"

    __repr__ = __str__


@dataclass(frozen=True)
class Place:
    """A place in a row of numbers: step n + offset, for the example n of the batch."""

    step: int
    offset: int

    def __mul__(self, other: int) -> "Place":
        return Place(self.step * other, self.offset * other)

    def __add__(self, other: int) -> "Place":
        return Place(self.step, self.offset + other)

    __rmul__, __radd__ = __mul__, __add__


Length: TypeAlias = int | Batch


@dataclass(frozen=True, eq=False)
class Factor:
    """Part of an axis, or all of it: a Reshape splits axes into factors and joins them, a Transpose moves them."""

    length: int


BATCH = Factor(0)
"""The batch, which no node stores."""


@dataclass(frozen=True)
class View:
    """An ONNX tensor: its axes, in terms of what the node called `node` computes, of this shape without the batch.

    `order` gives the factors of the shape in row-major order, and `axes` those of each of ONNX's axes. Factors of
    length 1 are left out, so an axis of that length has none.
    """

    node: str
    shape: Shape
    order: tuple[Factor, ...]
    axes: tuple[tuple[Factor, ...], ...]

    @classmethod
    def of(cls, node: str, shape: Shape) -> "View":
        """Return (N, *shape), laid out as ONNX has it."""
        axes = tuple((Factor(length),) if length > 1 else () for length in shape)
        return cls(node, shape, tuple(factor for axis in axes for factor in axis), ((BATCH,), *axes))

    @property
    def lengths(self) -> tuple[Length, ...]:
        """The shape of the ONNX tensor."""
        return tuple(Batch(_size(axis)) if BATCH in axis else _size(axis) for axis in self.axes)

    @property
    def is_batch_first(self) -> bool:
        """Whether the first axis is the batch."""
        return self.axes[:1] == ((BATCH,),)

    def of_node(self, node: str) -> "View":
        """Return the same view of another node, of the same shape."""
        return replace(self, node=node)

    def transposed(self, order: Sequence[int]) -> "View":
        """Return the view with its axes in another order."""
        return replace(self, axes=tuple(self.axes[axis] for axis in order))

    def unsqueezed(self, places: Sequence[int]) -> "View":
        """Return the view with axes of length 1 at these places."""
        rest = iter(self.axes)
        rank = len(self.axes) + len(places)
        return replace(self, axes=tuple(() if axis in places else next(rest) for axis in range(rank)))

    def without(self, places: Sequence[int]) -> "View":
        """Return the view without these axes, which have a length of 1."""
        return replace(self, axes=tuple(axis for place, axis in enumerate(self.axes) if place not in places))

    def reshaped(self, lengths: Sequence[Length]) -> "View | None":
        """Return the view with axes of these lengths, or None if no factors give them."""
        rest, axes, parts = [factor for axis in self.axes for factor in axis], [], dict[Factor, list[Factor]]()
        for length in lengths:
            times, wants_batch = (length.times, True) if isinstance(length, Batch) else (length, False)
            axis = list[Factor]()
            while times > 1 or wants_batch:
                if not rest or (rest[0] is BATCH) > wants_batch:
                    return None
                factor = rest.pop(0)
                if factor is BATCH:
                    wants_batch = False
                elif times % factor.length == 0:
                    times //= factor.length
                elif times > 1 and factor.length % times == 0:
                    both = [Factor(times), Factor(factor.length // times)]
                    origin = next((old for old, new in parts.items() if factor in new), factor)
                    before = parts.get(origin, [factor])
                    place = before.index(factor)
                    parts[origin] = [*before[:place], *both, *before[place + 1 :]]
                    factor, times = both[0], 1
                    rest.insert(0, both[1])
                else:
                    return None
                axis.append(factor)
            axes.append(tuple(axis))
        if rest:
            return None
        order = tuple(part for factor in self.order for part in parts.get(factor, [factor]))
        return replace(self, order=order, axes=tuple(axes))


def merged(seen: Sequence[int], order: Sequence[int]) -> tuple[Shape, Shape]:
    """Return a permutation with as few axes as possible: no lengths of 1, and those joined that stay together.

    It is given, and returned, as the shape that is permuted and the order of its axes.
    """
    runs: list[list[int]] = []
    for axis in order:
        if seen[axis] == 1:
            continue
        between = seen[runs[-1][-1] + 1 : axis] if runs and runs[-1][-1] < axis else [0]
        if runs and math.prod(between) == 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    ranked = sorted(range(len(runs)), key=lambda run: runs[run][0])
    lengths = [math.prod(seen[axis] for axis in runs[run]) for run in ranked]
    return tuple(lengths), tuple(ranked.index(run) for run in range(len(runs)))


def _size(axis: Sequence[Factor]) -> int:
    return math.prod(factor.length for factor in axis if factor is not BATCH)
