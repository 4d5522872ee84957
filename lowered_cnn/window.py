"""Where a sliding window stands: kernel, stride, padding and dilation, and the one home of the output-size formula."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from lowered_cnn.arrays import InputError, Shape, whole_number

Lengths: TypeAlias = int | Sequence[int]
"""One number for every axis, or one number an axis."""

Padding: TypeAlias = Literal["same", "valid"] | int | Sequence[int | Sequence[int]]
"""`"valid"` (none), `"same"`, one number for every side, or for each axis a number or a pair (before, after)."""


@dataclass(frozen=True)
class Window:
    """A window over 1, 2, 3 or more axes; each field has one entry an axis.

    `padding` is None for "same": so much that the output has `ceil(size / stride)` positions, the odd one behind.
    """

    kernel: Shape
    stride: Shape
    padding: tuple[tuple[int, int], ...] | None
    dilation: Shape

    @classmethod
    def of(
        cls,
        rank: int,
        kernel: Lengths,
        stride: Lengths = 1,
        padding: Padding = "valid",
        dilation: Lengths = 1,
        where: str = "window",
    ) -> "Window":
        """Build a window over `rank` axes from what users write; raises InputError for what makes no sense."""
        return cls(
            _lengths(rank, kernel, f"{where}: kernel"),
            _lengths(rank, stride, f"{where}: stride"),
            _pads(rank, padding, f"{where}: padding"),
            _lengths(rank, dilation, f"{where}: dilation"),
        )

    @property
    def extent(self) -> Shape:
        """What the window spans, holes included: `DH (KH - 1) + 1` on each axis."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def pads(self, size: Shape) -> tuple[tuple[int, int], ...]:
        """Return the padding in numbers, a pair (before, after) for each axis of an input."""
        return self.padding or tuple(_same(*axis) for axis in zip(size, self.extent, self.stride, strict=True))

    def over(self, size: Shape, where: str = "window", *, ceil: bool = False) -> "Sweep":
        """Lay the window over an input: `OH = floor((H + PH before + PH after - extent) / SH) + 1`, for each axis.

        With `ceil` the quotient is rounded up, by more padding behind, if the last position still begins before the
        padding behind: so an input smaller than the window may have a position too.
        """
        if len(size) != len(self.kernel):
            raise InputError(where, f"an input of {len(self.kernel)} lengths under a window of {self.extent}", size)
        pads = self.pads(size)
        room = [h + sum(p) - e for h, p, e in zip(size, pads, self.extent, strict=True)]
        more = [-r % s for r, s in zip(room, self.stride, strict=True)] if ceil else [0] * len(size)
        more = [m if r + m < h + p[0] else 0 for m, r, h, p in zip(more, room, size, pads, strict=True)]
        if min(r + m for r, m in zip(room, more, strict=True)) < 0:
            spare = [s - 1 if ceil else 0 for s in self.stride]
            axes = zip(pads, self.extent, spare, strict=True)
            least = tuple(max(1, e - sum(p) - rounded) for p, e, rounded in axes)
            raise InputError(where, f"an input of at least {least} under a window of {self.extent}", size)
        pads = tuple((before, after + m) for (before, after), m in zip(pads, more, strict=True))
        return Sweep(self, size, pads, tuple((r + m) // s + 1 for r, m, s in zip(room, more, self.stride, strict=True)))


@dataclass(frozen=True)
class Sweep:
    """A window laid over an input of known size: the padding in numbers, and the output's size."""

    window: Window
    size: Shape
    pads: tuple[tuple[int, int], ...]
    output: Shape

    @property
    def padded(self) -> Shape:
        """The input's size with its border."""
        return tuple(h + sum(p) for h, p in zip(self.size, self.pads, strict=True))

    @property
    def interior(self) -> tuple[slice, ...]:
        """Where the input lies inside its border."""
        return tuple(slice(p[0], p[0] + h) for h, p in zip(self.size, self.pads, strict=True))


def _same(size: int, extent: int, stride: int) -> tuple[int, int]:
    outputs = -(-size // stride)
    total = max(0, (outputs - 1) * stride + extent - size)
    return total // 2, total - total // 2


def _lengths(rank: int, value: Lengths, where: str) -> Shape:
    lengths = tuple(value) if np.iterable(value) else (value,) * rank
    if len(lengths) != rank:
        raise InputError(where, f"a number, or {rank} of them", repr(value))
    return tuple(whole_number(where, length, 1) for length in lengths)


def _pads(rank: int, value: Padding, where: str) -> tuple[tuple[int, int], ...] | None:
    if isinstance(value, str) and value in ("same", "valid"):
        return None if value == "same" else ((0, 0),) * rank
    sides = tuple(value) if np.iterable(value) else (value,) * rank
    pads = [tuple(side) if np.iterable(side) else (side, side) for side in sides]
    if len(pads) != rank or any(len(pad) != 2 for pad in pads):
        raise InputError(where, f"'same', 'valid', a number, or {rank} numbers or pairs", repr(value))
    return tuple((whole_number(where, before, 0), whole_number(where, after, 0)) for before, after in pads)
