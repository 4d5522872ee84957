"""Product lowering, for prediction: im2col and one matrix product, for any stride, dilation and groups.

The product takes the weight as it is, so none is copied, and few positions suffice to make it fast. A 1 x 1 window
needs no columns: they are the activation.
"""

import math
from dataclasses import replace

import numpy as np

from lowered_cnn.arrays import Array
from lowered_cnn.fusion.engine import Engine, Plan
from lowered_cnn.gemm import multiply
from lowered_cnn.lowering import Border, copy_positions, windows


class ProductEngine(Engine):
    """The matrices, for each of G groups: weight (K, M), columns (M, P N), z (K, P N), for P positions in a block.

    K is filters / G and M is C KH KW / G. A block is at least as large as the weight, which each product reads again.
    """

    def __init__(self, plan: Plan, groups: int) -> None:
        site, temporary, (filters, _, width) = plan.site, plan.site.workspace.temporary, plan.output
        self.parameter = site.parameter("weight").reshape(groups, filters // groups, -1)
        self.sweep = replace(plan.sweep, output=plan.output[1:])
        self.border = Border(self.sweep, site.input_shape[0], site.batch, site.workspace, wants_dx=False)
        rows, line = groups * self.parameter.shape[-1], width * site.batch
        self.pointwise = self.sweep.size == self.sweep.padded == self.sweep.output and rows == site.input_shape[0]
        copied = 0 if self.pointwise else rows
        step = plan.patch[0]
        self.blocks = plan.blocks(step, step * (copied + filters) * line, least=self.parameter.size)
        most = max(last - first for first, last in self.blocks)
        self.columns = temporary((copied * most * line,))
        self.z = temporary((filters * most * line,))
        self.patched = (width // plan.patch[1], plan.patch[1], site.batch)
        self.filters = filters
        # The scale is applied to the weight or to the outputs, whichever has fewer numbers.
        scales_weight = self.parameter.size < filters * plan.output[1] * line
        self.scaled = temporary(self.parameter.shape if scales_weight else (0,))
        self.weight = self.windows = self.scaled
        self.scale: Array | None = None

    def read(self, x: Array, scale: Array | None) -> None:
        """Take the activation (C, H, W, N)."""
        self.windows = x[:, None, None] if self.pointwise else windows(self.border.around(x), self.sweep)
        self.weight, self.scale = self.parameter, scale
        if scale is not None:
            scale = scale.reshape(*self.parameter.shape[:2], 1)
            if self.scaled.size:
                self.weight, self.scale = np.multiply(self.parameter, scale, out=self.scaled), None
            else:
                self.scale = scale

    def forward(self, first: int, last: int) -> Array:
        """Z = scale weight @ columns."""
        part = self.windows[:, :, :, first:last]
        if not self.pointwise:
            columns = self.columns[: part.size].reshape(part.shape)
            copy_positions(columns, part)
            part = columns
        groups, filters, taps = self.weight.shape
        length = (last - first) * math.prod(self.patched)
        z = self.z[: self.filters * length].reshape(groups, filters, length)
        multiply("forward", self.weight, part.reshape(groups, taps, length), out=z)
        if self.scale is not None:
            np.multiply(z, self.scale, out=z)
        return z.reshape(self.filters, last - first, *self.patched).swapaxes(0, 1)
