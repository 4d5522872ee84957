"""Winograd's F(2x2, 3x3) (Lavin and Gray, 2016): a 3x3 convolution as 16 matrix products over half as many numbers.

The outputs are cut into tiles of 2 x 2, each of which sees 4 x 4 inputs d and the 3 x 3 taps g of each channel:

    z = A^T [sum over channels of (G g G^T) * (B^T d B)] A

For each of the 4 x 4 products * by element, the sum over channels is a matrix product, (K x C) (C x tiles).
That takes 16 multiplications a tile where im2col takes 36. B and A hold only 0, 1 and -1: applying them is adding rows.

    B^T = [1  0 -1  0]    A^T = [1  1  1  0]    G = [ 1    0    0 ]
          [0  1  1  0]          [0  1 -1 -1]        [1/2  1/2  1/2]
          [0 -1  1  0]                              [1/2 -1/2  1/2]
          [0  1  0 -1]                              [ 0    0    1 ]
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np

from lowered_cnn.arrays import Array
from lowered_cnn.fusion.engine import Engine, Plan
from lowered_cnn.gemm import affine, input_gradient, weight_gradient

G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])

Four: TypeAlias = Sequence[Array]
"""The four entries along one side of a tile, each for all tiles."""


class WinogradEngine(Engine):
    """The matrices, for each row of tiles and each of 16 entries: weight (K, C), u (C, T N), m (K, T N).

    T is the number of tiles in a row, u = B^T d B, and z = A^T m A.
    """

    def __init__(self, plan: Plan) -> None:
        site, new = plan.site, plan.site.workspace.array
        channels, (filters, _, width) = site.input_shape[0], plan.output
        tiles, batch = width // 2, site.batch
        self.blocks = plan.blocks(plan.step // 2 * 16 * (channels + filters) * tiles * batch)
        most = max(last - first for first, last in self.blocks) // 2
        # G g G^T for all filters and channels at once: a (16 x 9) matrix.
        self.transform = (G[:, None, :, None] * G[None, :, None, :]).reshape(16, 9).astype(site.workspace.dtype)
        self.parameter = site.parameter("weight").reshape(-1, 9).T
        self.weight = new((16, filters, channels))
        self.x = _Split(plan)
        self.v = new((most, 4, *self.x.rows.shape[1:]))
        self.u = new((most, 4, 4, channels, tiles, batch))
        self.m = new((most, 4, 4, filters, tiles, batch))
        self.z = new((2 * most, filters, width, batch))
        self.wants_dx = site.wants_dx
        if site.training:
            self.dweight = site.gradient("weight").reshape(-1, 9).T
            self.parts = new((most, *self.weight.shape))
            self.sum, self.part = (new(self.weight.shape) for _ in range(2))
        if site.wants_dx:
            self.gradient = _Split(plan)
            self.dx = new((*site.input_shape, batch))

    def read(self, x: Array) -> None:
        """Take the activation (C, H, W, N)."""
        for split, plain in self.x.parts(x):
            np.copyto(split, plain)
        affine(self.transform, self.parameter, None, out=self.weight.reshape(16, -1))

    def forward(self, first: int, last: int) -> Array:
        """Z = A^T (weight @ u) A."""
        u, m, z = self._spread(first, last), self.m[: (last - first) // 2], self.z[: last - first]
        affine(self.weight, _matrices(u), None, out=_matrices(m))
        _gather([m[:, :, b] for b in range(4)], [m[:, :, 0], m[:, :, 3]])
        _gather([m[:, a, ::3] for a in range(4)], _corners(z))
        return z

    def start(self) -> None:
        """Set the sums to zero."""
        self.sum.fill(0)
        if self.wants_dx:
            self.gradient.rows.fill(0)

    def dz(self, count: int) -> Array:
        """Return the memory for a block's dz."""
        return self.z[:count]

    def backward(self, first: int, last: int) -> None:
        """dM = A dZ A^T, dweight += dM u^T, and dX += B (weight^T dM) B^T."""
        u, m, z = self._spread(first, last), self.m[: (last - first) // 2], self.z[: last - first]
        _gather_adjoint(_corners(z), [m[:, a, ::3] for a in range(4)])
        columns = [m[:, :, b] for b in range(4)]
        _gather_adjoint(columns[::3], columns)
        weight_gradient(_matrices(m), _matrices(u), out=self.parts[: len(m)])
        self.sum += np.add.reduce(self.parts[: len(m)], axis=0, out=self.part)
        if self.wants_dx:
            input_gradient(self.weight, _matrices(m), out=_matrices(u))
            v = self.v[: len(m)]
            v.fill(0)
            _spread_adjoint([u[:, :, b] for b in range(4)], _columns(v))
            _spread_adjoint([v[:, a] for a in range(4)], self.gradient.four(first, last))

    def finish(self) -> Array | None:
        """Write dweight = G^T sum G, and return dX."""
        input_gradient(self.transform, self.sum.reshape(16, -1), out=self.dweight)
        if not self.wants_dx:
            return None
        for split, plain in self.gradient.parts(self.dx):
            np.copyto(plain, split)
        return self.dx

    def _spread(self, first: int, last: int) -> Array:
        """Return u (rows of tiles, 4, 4, C, T, N) for rows of outputs `first` up to `last`."""
        v, u = (buffer[: (last - first) // 2] for buffer in (self.v, self.u))
        _spread(self.x.four(first, last), [v[:, a] for a in range(4)])
        _spread(_columns(v), [u[:, :, b] for b in range(4)])
        return u


class _Split:
    """What the outputs see of an activation and its border: `rows` (OH + 2, C, 2, T + 1, N), the even columns first.

    A tile's four columns are then runs of memory in which one tile lies beside the other.
    """

    def __init__(self, plan: Plan) -> None:
        site, (_, height, width) = plan.site, plan.output
        self.rows = site.workspace.array((height + 2, site.input_shape[0], 2, width // 2 + 1, site.batch))
        (self.top, _), (self.left, _) = plan.sweep.pads

    def parts(self, x: Array) -> Iterator[tuple[Array, Array]]:
        """Yield the even and the odd columns of the border's inside, and where they are in x (C, H, W, N)."""
        height = min(x.shape[1], len(self.rows) - self.top)
        rows = self.rows[self.top : self.top + height]
        for parity in range(2):
            first = (self.left + parity) % 2
            start = (self.left + first) // 2
            count = min(len(range(first, x.shape[2], 2)), rows.shape[3] - start)
            columns = slice(first, first + 2 * count, 2)
            yield rows[:, :, parity, start : start + count], x[:, :height, columns].swapaxes(0, 1)

    def four(self, first: int, last: int) -> Four:
        """View the four rows that each row of tiles sees, (rows of tiles, C, 2, T + 1, N)."""
        return [self.rows[first + a : last + a : 2] for a in range(4)]


def _spread(d: Four, out: Four) -> None:
    """Multiply by B^T along one side."""
    np.subtract(d[0], d[2], out=out[0])
    np.add(d[1], d[2], out=out[1])
    np.subtract(d[2], d[1], out=out[2])
    np.subtract(d[1], d[3], out=out[3])


def _spread_adjoint(d: Four, out: Four) -> None:
    """Add the product with B along one side to `out`, whose entries may overlap; overwrites d."""
    np.add(out[0], d[0], out=out[0])
    np.subtract(out[3], d[3], out=out[3])
    np.subtract(d[1], d[0], out=d[0])
    np.add(out[2], np.add(d[0], d[2], out=d[0]), out=out[2])
    np.subtract(d[1], d[2], out=d[1])
    np.add(out[1], np.add(d[1], d[3], out=d[1]), out=out[1])


def _gather(m: Four, out: Sequence[Array]) -> None:
    """Multiply by A^T along one side; `out` may be the first and the last of m."""
    np.add(np.add(m[0], m[1], out=out[0]), m[2], out=out[0])
    np.subtract(np.subtract(m[1], m[2], out=m[1]), m[3], out=out[1])


def _gather_adjoint(d: Sequence[Array], out: Four) -> None:
    """Multiply by A along one side; d may be the first and the last of `out`."""
    np.add(d[0], d[1], out=out[1])
    np.subtract(d[0], d[1], out=out[2])
    if out[0] is not d[0]:
        np.copyto(out[0], d[0])
    np.negative(d[1], out=out[3])


def _columns(v: Array) -> Four:
    """View v (rows of tiles, 4, C, 2, T + 1, N) as the four columns that each tile sees, (rows, 4, C, T, N)."""
    return [v[:, :, :, b % 2, b // 2 : v.shape[-2] - 1 + b // 2] for b in range(4)]


def _corners(z: Array) -> Sequence[Array]:
    """View z (OH, K, OW, N) as upper and lower rows of tiles, each (rows of tiles, 2, K, T, N)."""
    rows, filters, width, batch = z.shape
    tiles = z.reshape(rows // 2, 2, filters, width // 2, 2, batch).transpose(1, 0, 4, 2, 3, 5)
    return [tiles[0], tiles[1]]


def _matrices(tiles: Array) -> Array:
    """View (rows of tiles, 4, 4, C, T, N) as (rows of tiles, 16, C, T N)."""
    return tiles.reshape(len(tiles), 16, tiles.shape[3], -1)
