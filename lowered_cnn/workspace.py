"""The one place that allocates buffers, so that a network's memory is known before its first step."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, Shape

BLOCK_BYTES = 2 * 1024 * 1024
"""Most bytes in a block of columns: few enough for a core's share of the L3 cache, enough to call NumPy seldom."""

RUN = 1024
"""How many numbers in a row NumPy's loops need, so that their start costs little."""


@dataclass(eq=False)
class Slot:
    """Memory that several layers use in turn, as long as it has `holders`."""

    memory: Array
    holders: int = 1


@dataclass
class Taken:
    """The slots that one layer took when it was lowered."""

    outputs: list[Slot] = field(default_factory=list)
    temporaries: list[Slot] = field(default_factory=list)


class Workspace:
    """The buffers of one lowered network; `bytes` is their total size.

    `block_bytes` limits a block of columns. None turns blocking off: a convolution is then one im2col and one GEMM.

    If it `shares` memory, as at inference, layers that run one after the other use the same. A container takes note of
    what each layer has `taken`, and releases the slots of an output once all layers that read it have been lowered.
    """

    def __init__(self, dtype: npt.DTypeLike, block_bytes: int | None = BLOCK_BYTES, *, shares: bool = False) -> None:
        self.dtype = np.dtype(dtype)
        self.block_bytes = block_bytes
        self.shares = shares
        self.bytes = 0
        self._taken = Taken()
        self._free: list[Slot] = []
        self._scratch = np.empty(0, self.dtype)
        self._ones = np.empty(0, self.dtype)

    def array(self, shape: Shape, value: float = 0.0, dtype: npt.DTypeLike | None = None) -> Array:
        """Return a buffer for the caller alone, filled with `value`; its dtype is the network's unless given."""
        buffer: Array = np.full(shape, value, self.dtype if dtype is None else dtype)
        self.bytes += buffer.nbytes
        return buffer

    def mask(self, shape: Shape) -> npt.NDArray[np.bool_]:
        """Return a boolean buffer for the caller alone."""
        buffer = np.zeros(shape, np.bool_)
        self.bytes += buffer.nbytes
        return buffer

    def output(self, shape: Shape) -> Array:
        """Return a buffer for y, whose contents are arbitrary at first; shared, it lasts until y has been read."""
        return self._shared(shape, self._taken.outputs)

    def temporary(self, shape: Shape) -> Array:
        """Return a buffer for the caller; shared, its contents are arbitrary whenever another layer has run."""
        return self._shared(shape, self._taken.temporaries)

    def _shared(self, shape: Shape, taken: list[Slot]) -> Array:
        count = math.prod(shape)
        if not self.shares or not count:
            return self.array(shape)
        fitting = [slot for slot in self._free if slot.memory.size >= count]
        if fitting:
            slot = min(fitting, key=lambda slot: slot.memory.size)
            self._free.remove(slot)
            slot.holders = 1
        else:
            slot = Slot(np.empty(count, self.dtype))
            self.bytes += slot.memory.nbytes
        taken.append(slot)
        return slot.memory[:count].reshape(shape)

    @contextmanager
    def lowering(self) -> Iterator[Taken]:
        """Note what a layer takes that is lowered inside the `with` block; its temporaries are then free."""
        before, self._taken = self._taken, Taken()
        try:
            yield self._taken
        finally:
            self.release(self._taken.temporaries)
            self._taken = before

    def slots_of_y(self, taken: Taken, slots_of_x: tuple[Slot, ...]) -> tuple[Slot, ...]:
        """Return the slots that a layer's y is in, held once more: those of x if it took none, as y may be a view."""
        if taken.outputs:
            return tuple(taken.outputs)
        self.hold(slots_of_x)
        return slots_of_x

    def hold(self, slots: Iterable[Slot]) -> None:
        """Keep slots for one more holder."""
        for slot in slots:
            slot.holders += 1

    def release(self, slots: Iterable[Slot]) -> None:
        """Give slots up; those that nobody else holds are free for other layers."""
        for slot in slots:
            slot.holders -= 1
            if not slot.holders:
                self._free.append(slot)

    def scratch(self, shape: Shape) -> Array:
        """Return a buffer shared by all layers: its contents last only until another layer runs."""
        count = math.prod(shape)
        if count > self._scratch.size:
            self._scratch = self.array((max(count, (self.block_bytes or 0) // self.dtype.itemsize),))
        return self._scratch[:count].reshape(shape)

    def zeros(self, shape: Shape) -> Array:
        """Return zeros that broadcast to `shape`: an array, since NumPy's maximum of an array and a number is slow.

        They have as many of the last axes as it takes for a run of `RUN` numbers.
        """
        first = len(shape) - 1
        while first and math.prod(shape[first:]) < RUN:
            first -= 1
        return self.array(shape[first:])

    def ones(self, count: int) -> Array:
        """Return a vector of ones: the right-hand side that turns a sum over positions into a matrix product."""
        if count > self._ones.size:
            self._ones = self.array((count,), 1.0)
        return self._ones[:count]
