"""The geometry of a sliding window: kernel, stride, padding, dilation, and the only copy of the output-size formula."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from lowered_cnn.arrays import InputError, Shape, check_size, whole_number

Lengths: TypeAlias = int | Sequence[int]
"""One number for all axes, or one per axis."""

Padding: TypeAlias = Literal["same", "valid"] | int | Sequence[int | Sequence[int]]
"""`"valid"` (none), `"same"`, one number for all sides, or per axis a number or a pair (before, after)."""


MOST_LENGTH = 2**31 - 1
"""The most that a kernel, a stride or a dilation may be: beyond it, sizes in bytes need more than 64 bits."""


@dataclass(frozen=True)
class Window:
    """A window over 1, 2, 3 or more axes; each field has one entry per axis.

    `padding` is None for "same": just enough for `ceil(size / stride)` positions, and the odd one goes after the input.
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
        """Build a window over `rank` axes from a layer's arguments; raises InputError if they are invalid."""
        return cls(
            lengths(rank, kernel, f"{where}: kernel"),
            lengths(rank, stride, f"{where}: stride"),
            _pads(rank, padding, f"{where}: padding"),
            lengths(rank, dilation, f"{where}: dilation"),
        )

    @property
    def extent(self) -> Shape:
        """The span of the window, the gaps of dilation included: `DH (KH - 1) + 1` on each axis."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def pads(self, size: Shape) -> tuple[tuple[int, int], ...]:
        """Return the padding for an input of this size as numbers: a pair (before, after) per axis."""
        return self.padding or tuple(_same(*axis) for axis in zip(size, self.extent, self.stride, strict=True))

    def over(self, size: Shape, where: str = "window", *, ceil: bool = False) -> "Sweep":
        """Lay the window over an input: `OH = floor((H + PH before + PH after - extent) / SH) + 1`, on each axis.

        With `ceil` the quotient is rounded up, by padding more after the input, unless the last window would then start
        in the padding after it. So an input smaller than the window may have a position too.
        """
        if len(size) != len(self.kernel):
            raise InputError(where, f"an input of {len(self.kernel)} axes under a window of {self.extent}", size)
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
        output = tuple((r + m) // s + 1 for r, m, s in zip(room, more, self.stride, strict=True))
        sweep = Sweep(self, size, pads, output)
        check_size(f"{where}: padded input", sweep.padded)
        return sweep


@dataclass(frozen=True)
class Sweep:
    """A window laid over an input of known size: the padding as numbers, and the output size."""

    window: Window
    size: Shape
    pads: tuple[tuple[int, int], ...]
    output: Shape

    @property
    def padded(self) -> Shape:
        """The size of the padded input."""
        return tuple(h + sum(p) for h, p in zip(self.size, self.pads, strict=True))

    @property
    def margins(self) -> list[tuple[slice, ...]]:
        """Where the padding lies in the padded input: before and after each axis."""
        sides = [(slice(0, p[0]), slice(p[0] + h, None)) for p, h in zip(self.pads, self.size, strict=True)]
        return [(*(slice(None),) * axis, side) for axis, both in enumerate(sides) for side in both]

    @property
    def interior(self) -> tuple[slice, ...]:
        """Where the input lies in the padded one."""
        return tuple(slice(p[0], p[0] + h) for h, p in zip(self.size, self.pads, strict=True))


def _same(size: int, extent: int, stride: int) -> tuple[int, int]:
    outputs = -(-size // stride)
    total = max(0, (outputs - 1) * stride + extent - size)
    return total // 2, total - total // 2


def lengths(rank: int, value: Lengths, where: str) -> Shape:
    """Return one length for each of `rank` axes; raises InputError if they are invalid."""
    given = tuple(value) if np.iterable(value) else (value,) * rank
    if len(given) != rank:
        raise InputError(where, f"a number, or {rank} of them", repr(value))
    numbers = tuple(whole_number(where, length, 1) for length in given)
    if max(numbers, default=1) > MOST_LENGTH:
        raise InputError(where, f"at most {MOST_LENGTH}", max(numbers))
    return numbers


def _pads(rank: int, value: Padding, where: str) -> tuple[tuple[int, int], ...] | None:
    if isinstance(value, str) and value in ("same", "valid"):
        return None if value == "same" else ((0, 0),) * rank
    sides = tuple(value) if np.iterable(value) else (value,) * rank
    pads = [tuple(side) if np.iterable(side) else (side, side) for side in sides]
    if len(pads) != rank or any(len(pad) != 2 for pad in pads):
        raise InputError(where, f"'same', 'valid', a number, or {rank} numbers or pairs", repr(value))
    return tuple((whole_number(where, before, 0), whole_number(where, after, 0)) for before, after in pads)
