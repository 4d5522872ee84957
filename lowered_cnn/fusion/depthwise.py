"""Depthwise convolution, in which each filter sees one channel, for prediction.

Its products are cheap, so making the columns is what takes time. Here each tap is a copy of one run of memory for all
rows, shifted by a number of positions: a row of z gets as many columns as the padded x has, and those beyond its width
mean nothing. With a stride, x is first split into phases, x[:, p::SH, q::SW], in which taps move by one.
"""

import itertools
import math

import numpy as np

from lowered_cnn.arrays import Array, Shape
from lowered_cnn.fusion.engine import Plan
from lowered_cnn.gemm import multiply
from lowered_cnn.lowering import copy_positions


class Depthwise:
    """The matrices, for each channel and a block of R rows: weight (1, KH KW), columns (KH KW, R line), z (1, R line).

    A line is a row of a phase, all examples; the phases are (P, C, R + above, line), of a few channels at a time.
    """

    def __init__(self, plan: Plan) -> None:
        site, temporary, (channels, _, width) = plan.site, plan.site.workspace.temporary, plan.output
        self.sweep = plan.sweep
        window = self.sweep.window
        # For each tap and axis: how far it moves in its phase, and which phase that is.
        moves = [
            [divmod(t * d, s) for t, d, s in zip(tap, window.dilation, window.stride, strict=True)]
            for tap in itertools.product(*map(range, window.kernel))
        ]
        self.phases = sorted({(p, q) for (_, p), (_, q) in moves})
        self.above, beside = (max(move[axis][0] for move in moves) for axis in range(2))
        self.line: Shape = (width + beside, site.batch)
        line = math.prod(self.line)
        self.taps = [(self.phases.index((p, q)), i * line + j * site.batch) for (i, p), (j, q) in moves]
        self.beyond = beside * site.batch
        numbers = len(self.phases) + len(moves) + 1
        cut = plan.blocks(1, numbers * line, len(self.phases) * self.above * line)
        most = max(last - first for first, last in cut)
        step = channels
        if site.workspace.block_bytes is not None:
            channel_bytes = (numbers * most + len(self.phases) * self.above) * line * site.workspace.dtype.itemsize
            step = max(1, site.workspace.block_bytes // channel_bytes)
        self.blocks = [(slice(c, c + step), *rows) for c in range(0, channels, step) for rows in cut]
        step = min(step, channels)
        self.memory = temporary((len(self.phases) * step * (most + self.above) * line,))
        self.columns = temporary((len(moves) * step * most * line,))
        self.z = temporary((step * most * line,))
        self.zeros = site.workspace.array((most * line,))

    def forward(self, x: Array, weight: Array, bias: Array | None, relu: bool, y: Array) -> None:
        """Write weight @ columns + bias, or its maximum with 0: weight (C, 1, KH KW), bias (C), y (C, OH, OW, N)."""
        for block, first, last in self.blocks:
            target = y[block, first:last]
            z = _front(self.z, (len(target), 1, (last - first) * math.prod(self.line)))
            meant = z[..., : z.shape[-1] - self.beyond]
            multiply("forward", weight[block], self._columns(x[block], first, last), out=meant)
            if bias is not None:
                np.add(meant, bias[block, None, None], out=meant)
            if relu:
                np.maximum(meant, self.zeros[: meant.shape[-1]], out=meant)
            np.copyto(target, z.reshape(*target.shape[:2], *self.line)[:, :, : target.shape[2]])

    def _columns(self, x: Array, first: int, last: int) -> Array:
        """Return the columns (C, KH KW, R line) but for the last ones, which mean nothing."""
        channels, count, line = len(x), last - first, math.prod(self.line)
        phases = _front(self.memory, (len(self.phases), channels, count + self.above, *self.line))
        for phase, offsets in zip(phases, self.phases, strict=True):
            self._split(x, first, phase, offsets)
        phases = phases.reshape(len(phases), channels, -1)
        length = count * line - self.beyond
        columns = _front(self.columns, (channels, len(self.taps), length))
        for tap, (phase, shift) in enumerate(self.taps):
            np.copyto(columns[:, tap], phases[phase][:, shift : shift + length])
        return columns

    def _split(self, x: Array, first: int, phase: Array, offsets: Shape) -> None:
        """Write a phase of the padded x (C, H, W, N), from the row that output row `first` starts with."""
        sweep, inside, source = self.sweep, [slice(None)], [slice(None)]
        starts, lengths = (first * sweep.window.stride[0], 0), phase.shape[1:3]
        for start, length, offset, stride, (before, _), size in zip(
            starts, lengths, offsets, sweep.window.stride, sweep.pads, sweep.size, strict=True
        ):
            at = start + offset - before  # position i of the phase is position at + i * stride of x
            low, high = max(0, -(at // stride)), min(length, (size - 1 - at) // stride + 1)
            inside.append(slice(low, max(low, high)))
            source.append(slice(at + low * stride, max(0, at + high * stride), stride))
        if phase[*inside].size < phase.size:
            phase.fill(0)
        copy_positions(phase[*inside], x[*source])


def _front(memory: Array, shape: Shape) -> Array:
    return memory[: math.prod(shape)].reshape(shape)
