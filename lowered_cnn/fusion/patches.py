"""Row lowering for prediction: the outputs are ordered by their place in the patch of the pooling.

The columns of a row of outputs are views of rows one above the other, as in training. Each row holds the positions
that are first in their patches, then those that are second, and so on. The maxima then run over all of a block at once.
"""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import as_strided

from lowered_cnn.arrays import Array
from lowered_cnn.fusion.engine import Plan
from lowered_cnn.fusion.predicted import PredictionEngine, Step
from lowered_cnn.gemm import product
from lowered_cnn.lowering import Border, position_copy

SHORT_RUN, LONG_SUM = 16, 256
"""Products with fewer results in a row, each a sum of at least so many numbers, are slow."""


class PatchEngine(PredictionEngine):
    """The matrices, for each row and place in it: weight (K, KH KW C), columns (KH KW C, OW / PW N), z (K, OW / PW N).

    Where those would be too small, a row is one matrix: columns (KH KW C, OW N), z (K, OW N).
    """

    def __init__(self, plan: Plan, y: Array) -> None:
        site, temporary = plan.site, plan.site.workspace.temporary
        channels, (filters, _, width), (down, across) = site.input_shape[0], plan.output, plan.patch
        self.patch, (self.taps, beside) = plan.patch, plan.sweep.window.kernel
        self.row = (beside, channels, across, width // across, site.batch)
        line = width * site.batch
        copied = beside * channels * line
        self.blocks = plan.blocks(down, down * (copied + filters * line), fixed=(self.taps - 1) * copied)
        most = max(last - first for first, last in self.blocks)
        self.rows = temporary((most + self.taps - 1, *self.row))
        self.border = Border(plan.sweep, channels, site.batch, site.workspace, wants_dx=False)
        # The weight in the order of the columns, (K, KH, KW, C).
        self.parameter = site.parameter("weight").transpose(0, 2, 3, 1)
        self.weight = temporary(self.parameter.shape)
        self.y, self.memory = y, temporary((filters * most * line if plan.patch != (1, 1) else 0,))
        self.windows = self.rows
        # With short runs and long sums, whole rows gain more in the products than they lose in the maxima.
        split = width // across * site.batch
        self.whole = split < SHORT_RUN <= line and self.weight[0].size >= LONG_SUM

    def read(self, x: Array, scale: Array | None) -> Iterator[Step]:
        """Pad the activation, and order the weight times the scale."""
        yield from self.border.steps(x)
        padded = self.border.padded(x)
        channel, row, place, example = padded.strides
        strides = (row, place, channel, place, place * self.patch[1], example)
        self.windows = as_strided(padded, (padded.shape[1], *self.row), strides)
        if scale is None:
            yield partial(np.copyto, self.weight, self.parameter)
        else:
            yield partial(np.multiply, self.parameter, scale[:, None, None, None], self.weight)

    def forward(self, first: int, last: int) -> Iterator[Step]:
        """Z = weight @ columns, for each row and place; or for whole rows, and then the maximum along the height."""
        rows = self.rows[: last - first + self.taps - 1]
        yield position_copy(rows, self.windows[first : last + self.taps - 1])
        z = self._z(first, last)
        down, count, places, _, run = z.shape
        height, item = self.weight[0].size, rows.itemsize
        columns = as_strided(
            rows,
            (down, count, places, height, run),
            (rows.strides[0], down * rows.strides[0], run * item, places * run * item, item),
        )
        yield product("forward", self.weight.reshape(-1, height), columns, out=z)
        if self.whole:
            for a in range(1, down):
                yield partial(np.maximum, z[0], z[a], out=z[0])

    def z(self, first: int, last: int) -> Array:
        """View z, which has the outputs of one place in the patch after those of another."""
        z, (*_, width, batch) = self._z(first, last), self.y.shape
        if self.whole:
            return z[0, :, 0].reshape(z.shape[1], -1, self.patch[1], width, batch).swapaxes(1, 2)
        return z.transpose(1, 0, 2, 3, 4).reshape(z.shape[1], -1, len(self.weight), width, batch)

    def _z(self, first: int, last: int) -> Array:
        """View the products, (PH, rows / PH, PW, K, OW / PW N), or (PH, rows / PH, 1, K, OW N) of whole rows."""
        (filters, _, width, batch), (down, across) = self.y.shape, self.patch
        if self.patch == (1, 1):
            return self.y[:, first:last].reshape(1, 1, filters, last - first, -1).transpose(0, 3, 1, 2, 4)
        places, run = (1, across * width * batch) if self.whole else (across, width * batch)
        shape = (down, places, filters, (last - first) // down, run)
        return self.memory[: math.prod(shape)].reshape(shape).transpose(0, 3, 1, 2, 4)
