"""Column lowering: im2col and one matrix product, for few positions, where other forms spend their time on calls."""

import math
from dataclasses import replace

from lowered_cnn.arrays import Array
from lowered_cnn.fusion.engine import Engine, Plan
from lowered_cnn.gemm import multiply, multiply_a_bt, multiply_at_b
from lowered_cnn.lowering import Columns


class ColumnEngine(Engine):
    """The matrices: weight (K, C KH KW), columns (C KH KW, OH OW N), z (K, OH OW N)."""

    def __init__(self, plan: Plan) -> None:
        site, (filters, height, width), across = plan.site, plan.output, plan.patch[1]
        self.blocks = [(0, height)]
        sweep = replace(plan.sweep, output=(height, width))
        self.columns = Columns(sweep, site.input_shape[0], site.batch, site.workspace, wants_dx=site.wants_dx)
        (self.block,) = self.columns.blocks
        self.weight = site.parameter("weight").reshape(filters, -1)
        self.dweight = site.gradient("weight").reshape(filters, -1)
        self.wants_dx = site.wants_dx
        z = site.workspace.array((filters, height, width // across, across, site.batch))
        self.z, self.rows = z.reshape(filters, -1), z.swapaxes(0, 1)

    @staticmethod
    def fits(plan: Plan) -> bool:
        """Return whether all columns are one block."""
        site, (_, height, width) = plan.site, plan.output
        rows = site.input_shape[0] * math.prod(plan.sweep.window.kernel)
        bound = site.workspace.block_bytes
        return bound is None or rows * height * width * site.batch * site.workspace.dtype.itemsize <= bound

    def read(self, x: Array) -> None:
        """Take the activation (C, H, W, N)."""
        self.columns.read(x)

    def forward(self, first: int, last: int) -> Array:
        """Z = weight @ im2col(X)."""
        multiply("forward", self.weight, self._matrix(self.columns.im2col(self.block)), out=self.z)
        return self.rows

    def start(self) -> None:
        """Do nothing: there is one block, so nothing is added up."""

    def dz(self, count: int) -> Array:
        """Return the buffer for dz."""
        return self.rows

    def backward(self, first: int, last: int) -> None:
        """dweight = dZ columns^T, dX = col2im(weight^T dZ)."""
        columns = self.columns.im2col(self.block)
        multiply_a_bt("dweight", self.z, self._matrix(columns), out=self.dweight)
        if self.wants_dx:
            multiply_at_b("dx", self.weight, self.z, out=self._matrix(columns))
            self.columns.clear()
            self.columns.col2im(self.block, columns)

    def finish(self) -> Array | None:
        """Return dX, if it is needed."""
        return self.columns.dx() if self.wants_dx else None

    def _matrix(self, columns: Array) -> Array:
        return columns.reshape(self.weight.shape[1], -1)
