"""Row lowering: im2col along the width only. Along the height the taps are already there, one row further down.

For windows without stride or dilation. An activation x is (C, H, W, N), with its padding (C, HP, WP, N), and

    rows[h, b, c, j, n] = x[c, h, j + b, n]

The columns of output row i are `rows[i : i + KH]`, read as a matrix (KH KW C) x (OW N): overlapping views, where
im2col makes KH copies. In the adjoint, dX of input row h is one product over the output rows h - KH + 1 to h, which are
adjacent as well; only the taps along the width are left for col2im to add.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

from lowered_cnn.arrays import Array
from lowered_cnn.fusion.engine import Engine, Plan
from lowered_cnn.gemm import multiply, multiply_a_bt, multiply_at_b
from lowered_cnn.lowering import Border


@dataclass(frozen=True)
class InputRows:
    """The `count` input rows from `h` on: dX of the first sums the output rows from `source` on, weighted by `taps`.

    Taps are counted from the bottom up, so that they ascend with the output rows.
    """

    h: int
    count: int
    source: int
    taps: slice


class RowEngine(Engine):
    """The matrices, for each row of outputs: weight (K, KH KW C), columns (KH KW C, OW N), z (K, OW N)."""

    def __init__(self, plan: Plan) -> None:
        site, new = plan.site, plan.site.workspace.array
        channels, (filters, self.height, width) = site.input_shape[0], plan.output
        self.taps, across = plan.sweep.window.kernel
        # If there is no dX to add up, outputs that are pooled together lie apart, so that the pooling reads long runs.
        self.across = plan.patch[1]
        apart = 1 if site.wants_dx else self.across
        self.line = (apart, width // apart, site.batch)
        self.row = (across, channels, *self.line)
        line, step = width * site.batch, plan.patch[0]
        self.blocks = plan.blocks(
            step, step * (across * channels + filters) * line, fixed=(self.taps - 1) * across * channels * line
        )
        most = max(last - first for first, last in self.blocks)
        # One scratch for both directions: the columns of a block are no longer needed when its dX is computed.
        self.scratch = site.workspace.scratch((most + self.taps - 1, *self.row))
        self.border = Border(plan.sweep, channels, site.batch, site.workspace, wants_dx=site.wants_dx)
        self.windows = self.scratch
        # The weight in the order of the columns, (K, KH, KW, C).
        self.parameter = site.parameter("weight").transpose(0, 2, 3, 1)
        self.weight = site.workspace.temporary(self.parameter.shape)
        self.wants_dx = site.wants_dx
        # A block's dz is stored after the last dz rows of the block before, which dX of its first rows sums too.
        self.above = self.taps - 1 if site.wants_dx else 0
        self.memory = site.workspace.temporary((self.above + most, filters, *self.line))
        self.dweight = site.gradient("weight").transpose(0, 2, 3, 1)
        transposed = (self.weight[0].size, filters)
        self.parts = new((most, *transposed)).swapaxes(1, 2)
        self.sum, self.part = (new(transposed).T for _ in range(2))
        if site.wants_dx:
            self.dwindows = self._view(self.border.gradient)
            # The weight for each tap along the height, from the bottom up: (KH, K, KW, C).
            self.transposed = new((self.taps, filters, across, channels))

    def read(self, x: Array) -> None:
        """Take the activation (C, H, W, N), and the weight."""
        self.windows = self._view(self.border.around(x))
        np.copyto(self.weight, self.parameter)

    def forward(self, first: int, last: int) -> Array:
        """Z = weight @ columns, for each row."""
        z = self._rows(last - first)
        multiply("forward", _matrix(self.weight), self._columns(first, last), out=_matrices(z))
        return self._patches(z)

    def start(self) -> None:
        """Set the sums to zero."""
        self.sum.fill(0)
        if self.wants_dx:
            self.border.gradient.fill(0)
            np.copyto(self.transposed, self.weight[:, ::-1].swapaxes(0, 1))

    def dz(self, count: int) -> Array:
        """Return the buffer for a block's dz."""
        return self._patches(self._rows(count))

    def backward(self, first: int, last: int) -> None:
        """dweight += dZ columns^T, and dX."""
        count = last - first
        multiply_a_bt("dweight", _matrices(self._rows(count)), self._columns(first, last), out=self.parts[:count])
        self.sum += np.add.reduce(self.parts[:count], axis=0, out=self.part)
        if self.wants_dx:
            for run in self._runs(first, last):
                self._add_dx(run, self.memory[run.source - first + self.above :])
            np.copyto(self.memory[: self.above], self.memory[count : count + self.above])

    def finish(self) -> Array | None:
        """Write dweight and return dX."""
        self.dweight[...] = self.sum.reshape(self.dweight.shape)
        return self.border.inside() if self.wants_dx else None

    def _rows(self, count: int) -> Array:
        """Return the buffer for a block's z or dz, (count, K, OW, N)."""
        return self.memory[self.above : self.above + count]

    def _patches(self, rows: Array) -> Array:
        """View rows (count, K, OW, N) as (count, K, OW / PW, PW, N)."""
        if self.line[0] == self.across:
            return rows.swapaxes(2, 3)
        return rows.reshape(*rows.shape[:2], -1, self.across, rows.shape[-1])

    def _columns(self, first: int, last: int) -> Array:
        rows = self.scratch[: last - first + self.taps - 1]
        np.copyto(rows, self.windows[first : last + self.taps - 1])
        return _stacked(rows, last - first, self.taps)

    def _runs(self, first: int, last: int) -> Iterator[InputRows]:
        """Yield the input rows whose last output row is in [first, last); for the last block, all that remain."""
        stop = last if last < self.height else self.height + self.taps - 1
        h = first
        while h < stop:
            inside = self.taps - 1 <= h < self.height
            count = min(stop, self.height) - h if inside else 1
            above = h - self.taps + 1
            source = max(0, above)
            yield InputRows(h, count, source, slice(source - above, min(h + 1, self.height) - above))
            h += count

    def _add_dx(self, run: InputRows, dz: Array) -> None:
        """dX[h] += col2im over the width of sum over a of weight[a]^T dZ[h - a]."""
        weight = self.transposed[run.taps]
        rows = self.scratch[: run.count]
        multiply_at_b(
            "dx",
            weight.reshape(-1, weight[0, 0].size),
            _stacked(dz, run.count, len(weight)),
            out=_matrices(rows, axes=2),
        )
        target = self.dwindows[run.h : run.h + run.count]
        for b in range(self.row[0]):
            np.add(target[:, b], rows[:, b], out=target[:, b])

    def _view(self, padded: Array) -> Array:
        """View (C, HP, WP, N) as rows (HP, KW, C, OW, N)."""
        channel, row, position, example = padded.strides
        strides = (row, position, channel, position, self.line[0] * position, example)
        return as_strided(padded, (padded.shape[1], *self.row), strides)


def _matrix(weight: Array) -> Array:
    return weight.reshape(len(weight), -1)


def _matrices(rows: Array, axes: int = 1) -> Array:
    """View rows (rows, ..., OW, N) as matrices (height, width): the first `axes` axes after the rows are the height."""
    height = 1
    for length in rows.shape[1 : 1 + axes]:
        height *= length
    return rows.reshape(len(rows), height, -1)


def _stacked(rows: Array, count: int, taps: int) -> Array:
    """View rows (H, ..., OW, N) as `count` overlapping matrices (taps * ..., OW N), each one row further down."""
    line = math.prod(rows.shape[-3:])
    height = rows[0].size // line
    return as_strided(rows, (count, taps * height, line), (rows.strides[0], line * rows.itemsize, rows.itemsize))
