"""im2col and col2im, an adjoint pair of index maps: <im2col x, c> = <x, col2im c>.

Notation, for two axes (the code works for any number of them): an activation x is (C, H, W, N), a window of KH x KW
taps is at OH x OW positions, and

    columns[c, a, b, i, j, n] = x[c, i SH + a DH - PH, j SW + b DW - PW, n]      (zero outside x)

Seen as a matrix, (C KH KW) x (OH OW N), the columns are what a filter bank (K, C KH KW) multiplies.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided

from lowered_cnn.arrays import Array, Shape, check_shape
from lowered_cnn.window import Sweep
from lowered_cnn.workspace import Workspace

Index: TypeAlias = tuple[slice | int, ...]


def windows(padded: Array, sweep: Sweep) -> Array:
    """View an activation (C, *padded size, N) as (C, *taps, *positions, N): every window, without a copy."""
    channels, *axes, batch = padded.strides
    window = sweep.window
    return as_strided(
        padded,
        (padded.shape[0], *window.kernel, *sweep.output, padded.shape[-1]),
        (
            channels,
            *(d * stride for d, stride in zip(window.dilation, axes, strict=True)),
            *(s * stride for s, stride in zip(window.stride, axes, strict=True)),
            batch,
        ),
    )


def copy_positions(out: Array, x: Array) -> None:
    """Copy an activation (..., N) whose positions may be apart: the N numbers of a position at once, as one item."""
    position_copy(out, x)()


def position_copy(out: Array, x: Array) -> Callable[[], None]:
    """Return `copy_positions` as a function of no arguments, for arrays that stay where they are in memory."""
    if x.shape[-1] > 1:
        item = np.dtype((np.void, x.shape[-1] * x.itemsize))
        out, x = out.view(item), x.view(item)
    return partial(np.copyto, out, x)


def im2col(x: Array, sweep: Sweep) -> Array:
    """Return the columns (C, *taps, *positions, N) of an activation (C, *size, N), all at once."""
    check_shape("im2col: x", (*x.shape[:1], *sweep.size, *x.shape[-1:]), x.shape)
    columns = Columns(sweep, x.shape[0], x.shape[-1], Workspace(x.dtype, block_bytes=None))
    columns.read(x)
    return columns.im2col(columns.blocks[0])


def col2im(columns: Array, sweep: Sweep) -> Array:
    """Return the activation (C, *size, N): each entry of the columns, added where im2col reads it from."""
    wanted = (*columns.shape[:1], *sweep.window.kernel, *sweep.output, *columns.shape[-1:])
    check_shape("col2im: columns", wanted, columns.shape)
    adjoint = Columns(sweep, columns.shape[0], columns.shape[-1], Workspace(columns.dtype, block_bytes=None))
    adjoint.col2im(adjoint.blocks[0], columns)
    return adjoint.dx()


@dataclass(frozen=True)
class Block:
    """A run of consecutive positions in row-major order: its slices of the first axes, and its range of positions."""

    positions: tuple[slice, ...]
    start: int
    stop: int

    def shape(self, output: Shape) -> Shape:
        """Return the run's number of positions on each axis, out of all positions `output`."""
        cut_axes = tuple(part.stop - part.start for part in self.positions)
        return cut_axes + output[len(cut_axes) :]

    def of(self, matrices: Array, batch: int) -> Array:
        """Return the run's part of matrices (..., positions * batch)."""
        return matrices[..., self.start * batch : self.stop * batch]


def cut(output: Shape, position_bytes: int, block_bytes: int | None) -> list[Block]:
    """Cut all positions into blocks of at most `block_bytes` (at least one position); None makes one block."""
    total = math.prod(output)
    most = total if block_bytes is None else max(1, block_bytes // position_bytes)
    axis = next(i for i in range(len(output)) if math.prod(output[i + 1 :]) <= most)
    length, inner = output[axis], math.prod(output[axis + 1 :])
    parts = math.ceil(length / (most // inner))
    edges = [length * part // parts for part in range(parts + 1)]
    blocks: list[Block] = []
    for outer in itertools.product(*(range(n) for n in output[:axis])):
        for first, last in itertools.pairwise(edges):
            start = blocks[-1].stop if blocks else 0
            positions = (*(slice(i, i + 1) for i in outer), slice(first, last))
            blocks.append(Block(positions, start, start + (last - first) * inner))
    return blocks


class Border:
    """Pads an activation with a constant and, as the adjoint, crops its gradient.

    Without padding, neither copies anything.
    """

    def __init__(
        self,
        sweep: Sweep,
        channels: int,
        batch: int,
        workspace: Workspace,
        *,
        value: float = 0.0,
        wants_dx: bool = True,
    ) -> None:
        padded, plain = (channels, *sweep.padded, batch), (channels, *sweep.size, batch)
        self._needed = padded != plain
        self._interior = (slice(None), *sweep.interior)
        self._padded, self._value = workspace.temporary(padded if self._needed else (0,)), value
        self._padded.fill(value)
        # Shared memory has to be padded anew each time.
        self._frame = [(slice(None), *margin) for margin in sweep.margins if workspace.shares]
        inner = workspace.temporary if self._needed else workspace.output
        self.gradient = inner(padded if wants_dx else (0,))
        self._dx = workspace.output(plain) if self._needed and wants_dx else self.gradient

    def around(self, x: Array) -> Array:
        """Return x (C, *size, N) with its border: (C, *padded size, N)."""
        for step in self.steps(x):
            step()
        return self.padded(x)

    def padded(self, x: Array) -> Array:
        """Return where x is with its border once the steps are taken."""
        return self._padded if self._needed else x

    def steps(self, x: Array) -> Iterator[Callable[[], None]]:
        """Yield the calls that give x its border, for an x that stays where it is in memory."""
        if self._needed:
            for margin in self._frame:
                yield partial(self._padded[margin].fill, self._value)
            yield partial(np.copyto, self._padded[self._interior], x)

    def inside(self) -> Array:
        """Return `gradient`, (C, *padded size, N), without the border: (C, *size, N)."""
        if self._needed:
            np.copyto(self._dx, self.gradient[self._interior])
        return self._dx


class Columns:
    """The columns of one activation, made block by block, and their adjoint.

    The columns live in scratch memory of bounded size; the backward pass computes them again, so that none are kept.
    """

    def __init__(self, sweep: Sweep, channels: int, batch: int, workspace: Workspace, *, wants_dx: bool = True) -> None:
        self._taps = (channels, *sweep.window.kernel)
        self._sweep = sweep
        self._batch = batch
        rows = math.prod(self._taps)
        self.blocks = cut(sweep.output, rows * batch * workspace.dtype.itemsize, workspace.block_bytes)
        longest = max(block.stop - block.start for block in self.blocks)
        self._scratch = workspace.scratch((rows * longest * batch,))
        self._border = Border(sweep, channels, batch, workspace, wants_dx=wants_dx)
        self._windows = self._scratch
        self._dwindows = windows(self._border.gradient, sweep) if wants_dx else self._scratch

    def read(self, x: Array) -> None:
        """Take the activation (C, *size, N) to make columns of; it must not change while they are in use."""
        self._windows = windows(self._border.around(x), self._sweep)

    def empty(self, block: Block) -> Array:
        """Return scratch memory for a block of columns, (C, *taps, *positions of the block, N)."""
        shape = (*self._taps, *block.shape(self._sweep.output), self._batch)
        return self._scratch[: math.prod(shape)].reshape(shape)

    def im2col(self, block: Block) -> Array:
        """Return a block of columns, (C, *taps, *positions of the block, N); the next block overwrites it."""
        columns = self.empty(block)
        copy_positions(columns, self._windows[self._at(block)])
        return columns

    def clear(self) -> None:
        """Set the gradient of the activation to zero, before blocks are added to it."""
        self._border.gradient.fill(0)

    def col2im(self, block: Block, columns: Array) -> None:
        """Add a block of the columns' gradient to the activation's, tap by tap."""
        target = self._dwindows[self._at(block)]
        for tap in itertools.product(*map(range, self._sweep.window.kernel)):
            index: Index = (slice(None), *tap)
            np.add(target[index], columns[index], out=target[index])

    def dx(self) -> Array:
        """Return the gradient of the activation, (C, *size, N)."""
        return self._border.inside()

    def _at(self, block: Block) -> tuple[slice, ...]:
        return (slice(None),) * len(self._taps) + block.positions
