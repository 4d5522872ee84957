"""Product lowering, for prediction: im2col and one matrix product, for any stride, dilation and groups.

The product takes the weight as it is, so none is copied, and few positions suffice to make it fast. A 1 x 1 window
without pooling needs no columns: they are the activation.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from lowered_cnn.arrays import Array
from lowered_cnn.fusion.engine import Plan
from lowered_cnn.fusion.predicted import PredictionEngine, Step
from lowered_cnn.gemm import product
from lowered_cnn.lowering import Border, position_copy, windows


class ProductEngine(PredictionEngine):
    """The matrices, for each of G groups: weight (K, M), columns (M, P N), z (K, P N), for P positions in a block.

    K is filters / G and M is C KH KW / G. The positions are ordered by their place in the patch of the pooling. A block
    may be as large as the weight, which each product reads again.
    """

    def __init__(self, plan: Plan, groups: int, y: Array) -> None:
        site, temporary, (filters, _, width) = plan.site, plan.site.workspace.temporary, plan.output
        self.parameter = site.parameter("weight").reshape(groups, filters // groups, -1)
        self.sweep, self.patch = replace(plan.sweep, output=plan.output[1:]), plan.patch
        self.border = Border(self.sweep, site.input_shape[0], site.batch, site.workspace, wants_dx=False)
        rows, line = groups * self.parameter.shape[-1], width * site.batch
        one_tap = self.sweep.size == self.sweep.padded == self.sweep.output and rows == site.input_shape[0]
        self.pooled = plan.patch != (1, 1)
        self.pointwise = one_tap and not self.pooled
        copied = 0 if self.pointwise else rows
        step = plan.patch[0]
        self.blocks = plan.blocks(step, step * (copied + filters) * line, least=self.parameter.size)
        most = max(last - first for first, last in self.blocks)
        self.memory = temporary((copied * most * line,))
        self.y, self.outputs = y, temporary((filters * most * line if self.pooled else 0,))
        # The scale is applied to the weight or to the outputs, whichever has fewer numbers.
        scales_weight = self.parameter.size < filters * plan.output[1] * line
        self.scaled = temporary(self.parameter.shape if scales_weight else (0,))
        self.weight = self.parameter
        self.windows = self.memory
        self.scale: Array | None = None

    def read(self, x: Array, scale: Array | None) -> Iterator[Step]:
        """Pad the activation, and scale the weight unless the outputs are scaled."""
        yield from self.border.steps(x)
        self.windows = windows(self.border.padded(x), self.sweep)
        self.weight, self.scale = self.parameter, scale
        if scale is not None:
            self.scale = scale.reshape(*self.parameter.shape[:2], 1)
            if self.scaled.size:
                yield partial(np.multiply, self.parameter, self.scale, self.scaled)
                self.weight, self.scale = self.scaled, None

    def forward(self, first: int, last: int) -> Iterator[Step]:
        """Z = scale weight @ columns."""
        columns = self.windows[:, :, :, first:last]
        if not self.pointwise:
            channels, beneath, beside, height, width, batch = columns.shape
            down, across = self.patch
            parts = columns.reshape(channels, beneath, beside, height // down, down, width // across, across, batch)
            parts = parts.transpose(0, 1, 2, 4, 6, 3, 5, 7)
            columns = self.memory[: parts.size].reshape(parts.shape)
            yield position_copy(columns, parts)
        groups, filters, taps = self.weight.shape
        z = self.z(first, last).transpose(2, 1, 0, 3, 4).reshape(groups, filters, -1)
        yield product("forward", self.weight, columns.reshape(groups, taps, -1), out=z)
        if self.scale is not None:
            yield partial(np.multiply, z, self.scale, z)

    def z(self, first: int, last: int) -> Array:
        """View z, in which each filter has the outputs of one place in the patch after those of another."""
        if not self.pooled:
            return self.y[:, None, first:last].transpose(2, 1, 0, 3, 4)
        (filters, _, width, batch), (down, across) = self.y.shape, self.patch
        shape = (filters, down * across, (last - first) // down, width, batch)
        return self.outputs[: math.prod(shape)].reshape(shape).transpose(2, 1, 0, 3, 4)
