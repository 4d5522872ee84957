"""Winograd's F(2x2, 3x3) for prediction: the equations of `winograd.py` as a list of calls."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from lowered_cnn.arrays import Array
from lowered_cnn.fusion.engine import Plan
from lowered_cnn.fusion.predicted import PredictionEngine, Step
from lowered_cnn.fusion.winograd import GG, B, H, Split, Views
from lowered_cnn.gemm import product
from lowered_cnn.lowering import position_copy


class TileEngine(PredictionEngine):
    """The matrices, for each row of tiles and each of 16 entries: weight (K, C), u (C, T N), m (K, T N).

    T is the number of tiles in a row, u = B^T d B, and z = A^T m A. A tile is one patch, unless nothing is pooled.
    """

    def __init__(self, plan: Plan, y: Array) -> None:
        site, temporary = plan.site, plan.site.workspace.temporary
        channels, (filters, _, width) = site.input_shape[0], plan.output
        tiles, batch = width // 2, site.batch
        self.blocks = plan.blocks(2, (6 * channels * (tiles + 1) + 8 * filters * tiles) * batch)
        most = max(last - first for first, last in self.blocks) // 2
        self.transform = GG.astype(site.workspace.dtype)
        self.parameter = site.parameter("weight").reshape(-1, 9).T
        self.weight = temporary((4, 4, filters, channels))
        self.x = Split(plan)
        self.v = temporary((most, *self.x.rows.shape[1:]))
        self.u = temporary((most, 4, channels, tiles + 1, batch))
        self.m = temporary((most, 4, filters, tiles, batch))
        self.pooled = plan.patch != (1, 1)
        self.y, self.memory = y, temporary((most if self.pooled else 0, 4, filters, tiles, batch))

    def read(self, x: Array, scale: Array | None) -> Iterator[Step]:
        """Split the activation into even and odd columns, and transform the weight times the scale."""
        for margin in self.x.border():
            yield partial(margin.fill, 0)
        for split, plain in self.x.parts(x):
            yield position_copy(split, plain)
        yield product("forward", self.transform, self.parameter, out=self.weight.reshape(16, -1))
        if scale is not None:
            yield partial(np.multiply, self.weight, scale[:, None], self.weight)

    def forward(self, first: int, last: int) -> Iterator[Step]:
        """Z = A^T (weight @ u) A."""
        count = (last - first) // 2
        views = Views(self.v[:count], self.u[:count], self.m[:count], self._rows(first, last))
        upper, lower, half = views.upper, views.lower, views.half
        rows, columns = self.x.four(first, last), views.four
        for a, part in enumerate((upper, lower, half, half)):
            operation, i, j = B[a]
            yield partial(operation, rows[i], rows[j], views.v)
            for (operation, i, j), u in zip(B, views.u, strict=True):
                yield partial(operation, columns[i], columns[j], u)
            yield product("forward", self.weight[a], views.columns, out=views.products)
            yield from _gather(views.m, part)
            if part is half:
                yield partial(np.add, upper, half, upper)
                yield partial(H[a - 2], lower, half, lower)

    def z(self, first: int, last: int) -> Array:
        """View z, which has one output of each tile after the other."""
        if self.pooled:
            return self.memory[: (last - first) // 2]
        return self.y[:, None, first:last].transpose(2, 1, 0, 3, 4)

    def _rows(self, first: int, last: int) -> Array:
        """View z as (rows, 2, K, T, N), with even and odd columns apart."""
        if self.pooled:
            z = self.memory[: (last - first) // 2]
            return z.reshape(last - first, 2, *z.shape[2:])
        filters, _, width, batch = self.y.shape
        z = self.y.reshape(filters, -1, width // 2, 2, batch)[:, first:last]
        return z.transpose(1, 3, 0, 2, 4)


def _gather(m: Sequence[Array], out: Array) -> Iterator[Step]:
    """Multiply the four entries m by A^T, into the two columns of `out`, which may be those of m[0] and m[1]."""
    yield partial(np.add, m[0], m[2], m[0])
    yield partial(np.add, m[0], m[3], out[:, 0])
    yield partial(np.subtract, m[2], m[3], m[2])
    yield partial(np.add, m[1], m[2], out[:, 1])
