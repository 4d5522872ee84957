"""Winograd's F(2x2, 3x3) (Lavin and Gray, 2016): a 3x3 convolution as 16 products with 4/9 of the multiplications.

The outputs are cut into tiles of 2 x 2. Each tile depends on 4 x 4 inputs d and the 3 x 3 taps g of each channel:

    z = A^T [sum over channels of (G g G^T) * (B^T d B)] A

Here * is elementwise. For each of its 4 x 4 entries, the sum over channels is a matrix product, (K x C) (C x tiles).
That takes 16 multiplications per tile where im2col takes 36. B and A hold only 0, 1 and -1: applying them adds rows.
The rows of B^T and G and the columns of A^T belong to the interpolation points 0, infinity, 1 and -1.

    B^T = [-1  0  1  0]    A^T = [1  0  1  1]    G = [-1    0    0 ]
          [ 0 -1  0  1]          [0  1  1 -1]        [ 0    0    1 ]
          [ 0  1  1  0]                              [1/2  1/2  1/2]
          [ 0 -1  1  0]                              [1/2 -1/2  1/2]

The intermediate numbers are larger than in the plain form. For inputs up to x and taps up to g they stay within 4 x
before the products and 64 C g x after them, where the plain sums stay within 9 C g x. So numbers near the largest of
their type overflow here first. An infinite input makes most outputs that depend on it NaN rather than infinite, as
infinities of both signs meet; other outputs are not affected. There is no guard: looking for such numbers would cost a
pass over the activation.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np

from lowered_cnn.arrays import Array
from lowered_cnn.fusion.engine import Engine, Plan
from lowered_cnn.gemm import multiply, multiply_a_bt, multiply_at_b

G = np.array([[-1, 0, 0], [0, 0, 1], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5]])

GG = (G[:, None, :, None] * G[None, :, None, :]).reshape(16, 9)
"""G g G^T for all filters and channels at once: the Kronecker product of G with itself, a (16 x 9) matrix."""

Row: TypeAlias = tuple[np.ufunc, int, int]
"""A row with two entries, 1 and 1 or 1 and -1: np.add or np.subtract, and the numbers of the entries it takes."""

B: tuple[Row, ...] = (np.subtract, 2, 0), (np.subtract, 3, 1), (np.add, 2, 1), (np.subtract, 2, 1)
"""The rows of B^T."""

H = np.add, np.subtract
"""The right half of A^T, [1 1; 1 -1]: the sum and the difference of two entries. The left half is the identity."""


class WinogradEngine(Engine):
    """The matrices, for each row of tiles and each of 16 entries: weight (K, C), u (C, T N), m (K, T N).

    T is the number of tiles in a row, u = B^T d B, and z = A^T m A. The four rows of entries are computed one after
    the other, so that u and m stay in cache. In memory u has one tile more than T, so that shifted sums are contiguous.
    """

    def __init__(self, plan: Plan) -> None:
        site, new, temporary = plan.site, plan.site.workspace.array, plan.site.workspace.temporary
        channels, (filters, _, width) = site.input_shape[0], plan.output
        tiles, batch = width // 2, site.batch
        step = math.lcm(plan.patch[0], 2)
        self.blocks = plan.blocks(step, step // 2 * (6 * channels * (tiles + 1) + 8 * filters * tiles) * batch)
        counts = {(last - first) // 2 for first, last in self.blocks}
        most = max(counts)
        self.transform = GG.astype(site.workspace.dtype)
        self.parameter = site.parameter("weight").reshape(-1, 9).T
        self.weight = temporary((4, 4, filters, channels))
        self.x = Split(plan)
        v = temporary((most, *self.x.rows.shape[1:]))
        u = temporary((most, 4, channels, tiles + 1, batch))
        m = temporary((most, 4, filters, tiles, batch))
        # Each row of outputs in the order in which it is read: even and odd columns apart, or interleaved.
        across = plan.patch[1]
        if across == 2:
            z = temporary((2 * most, 2, filters, tiles, batch))
            self.z = z.transpose(0, 2, 3, 1, 4)
        else:
            self.z = temporary((2 * most, filters, width // across, across, batch))
            z = self.z.reshape(2 * most, filters, tiles, 2, batch).transpose(0, 3, 1, 2, 4)
        self.views = {n: Views(v[:n], u[:n], m[:n], z[: 2 * n]) for n in counts}
        self.wants_dx = site.wants_dx
        self.dweight = site.gradient("weight").reshape(-1, 9).T
        self.parts = new((most, *self.weight.shape[1:]))
        self.sum, self.part = new(self.weight.shape), new(self.weight.shape[1:])
        if site.wants_dx:
            self.gradient = Split(plan)
            self.dx = new((*site.input_shape, batch))

    def read(self, x: Array) -> None:
        """Take the activation (C, H, W, N), and transform the weight."""
        for split, plain in self.x.parts(x):
            np.copyto(split, plain)
        multiply("forward", self.transform, self.parameter, out=self.weight.reshape(16, -1))

    def forward(self, first: int, last: int) -> Array:
        """Z = A^T (weight @ u) A."""
        views = self.views[(last - first) // 2]
        upper, lower, half = views.upper, views.lower, views.half
        for a, part in enumerate((upper, lower, half, half)):
            self._spread(first, last, a)
            multiply("forward", self.weight[a], views.columns, out=views.products)
            _gather(views.m, part)
            if part is half:
                np.add(upper, half, out=upper)
                H[a - 2](lower, half, out=lower)
        return self.z[: last - first]

    def start(self) -> None:
        """Set the sums to zero."""
        self.sum.fill(0)
        if self.wants_dx:
            self.gradient.rows[:2].fill(0)

    def dz(self, count: int) -> Array:
        """Return the buffer for a block's dz."""
        return self.z[:count]

    def backward(self, first: int, last: int) -> None:
        """dM = A dZ A^T, dweight += dM u^T, and dX += B (weight^T dM) B^T."""
        views = self.views[(last - first) // 2]
        upper, lower, m = views.upper, views.lower, views.m
        parts = self.parts[: len(views.products)]
        for a in range(4):
            if a < 2:
                np.copyto(views.half, (upper, lower)[a])
            else:
                H[a - 2](upper, lower, out=views.half)
            np.add(m[0], m[1], out=m[2])
            np.subtract(m[0], m[1], out=m[3])
            self._spread(first, last, a)
            multiply_a_bt("dweight", views.products, views.columns, out=parts)
            self.sum[a] += np.add.reduce(parts, axis=0, out=self.part)
            if self.wants_dx:
                multiply_at_b("dx", self.weight[a], views.products, out=views.columns)
                self._add_dx(first, last, a)

    def finish(self) -> Array | None:
        """Write dweight = G^T sum G, and return dX."""
        multiply_at_b("dweight", self.transform, self.sum.reshape(16, -1), out=self.dweight)
        if not self.wants_dx:
            return None
        # Whoever received dX may have overwritten it, so the zeros are written in every step.
        for rest in self.gradient.unseen(self.dx):
            rest.fill(0)
        for split, plain in self.gradient.parts(self.dx):
            np.copyto(plain, split)
        return self.dx

    def _spread(self, first: int, last: int, a: int) -> None:
        """Write row `a` of u = B^T d B."""
        views = self.views[(last - first) // 2]
        rows, columns = self.x.four(first, last), views.four
        operation, i, j = B[a]
        operation(rows[i], rows[j], out=views.v)
        for (operation, i, j), u in zip(B, views.u, strict=True):
            operation(columns[i], columns[j], out=u)

    def _add_dx(self, first: int, last: int, a: int) -> None:
        """Add row `a` of B du B^T to dX: the adjoint of `_spread`."""
        views = self.views[(last - first) // 2]
        u, four = views.u, views.four
        for rest in views.beyond:
            rest.fill(0)
        # The last two rows of B^T take the same two columns, which are thus written before the others are added.
        np.add(u[2], u[3], out=four[2])
        np.subtract(u[2], u[3], out=four[1])
        _add_adjoint(B[0], u[0], four)
        _add_adjoint(B[1], u[1], four)
        # Nothing has been added yet to the rows of dX that the first two rows of B^T take first.
        _add_adjoint(B[a], views.v, self.gradient.four(first, last), new=a < 2)


class Views:
    """Views of the buffers for a block of R rows of tiles.

    v (R, 2, C, T + 1, N), u (R, 4, C, T + 1, N), m (R, 4, K, T, N), z (2 R, 2, K, T, N).
    """

    def __init__(self, v: Array, u: Array, m: Array, z: Array) -> None:
        count, batch = len(v), v.shape[-1]
        self.v = v
        # The four columns that each tile sees, and the four entries of u: contiguous, without the last extra tile.
        even, odd = v.reshape(count, 2, -1).swapaxes(0, 1)
        self.four = [even[:, :-batch], odd[:, :-batch], even[:, batch:], odd[:, batch:]]
        self.u = list(u.reshape(count, 4, -1).swapaxes(0, 1)[..., :-batch])
        self.columns = u.reshape(*u.shape[:3], -1)[..., :-batch]
        # Set to zero for the sums over shifted tiles: u after the last tile, and the two ends of v that they leave out.
        self.beyond = u[..., -1, :], even[:, :batch], odd[:, -batch:]
        self.products = m.reshape(*m.shape[:3], -1)
        self.m = list(m.swapaxes(0, 1))
        self.half = m[:, :2]
        self.upper, self.lower = z[::2], z[1::2]


class Split:
    """The part of a padded activation that the outputs see: `rows` (OH + 2, 2, C, T + 1, N), the even columns first.

    Each of the four columns that a tile sees is then contiguous over the tiles.
    """

    def __init__(self, plan: Plan) -> None:
        site, (_, height, width) = plan.site, plan.output
        self.rows = site.workspace.temporary((height + 2, 2, site.input_shape[0], width // 2 + 1, site.batch))
        (self.top, _), (self.left, _) = plan.sweep.pads
        # How many rows and columns of x are seen, not counting those seen only by outputs that the pooling drops.
        ends = zip(plan.sweep.size, (height + 2, width + 2), (self.top, self.left), strict=True)
        self.seen = [max(0, min(length, end - before)) for length, end, before in ends]

    def parts(self, x: Array) -> Iterator[tuple[Array, Array]]:
        """Yield the even and the odd columns inside the border, each with its counterpart in x (C, H, W, N)."""
        height, width = self.seen
        rows = self.rows[self.top : self.top + height]
        for parity in range(2):
            first = (self.left + parity) % 2
            start = (self.left + first) // 2
            columns = x[:, :height, first:width:2]
            yield rows[:, parity, :, start : start + columns.shape[2]], columns.swapaxes(0, 1)

    def border(self) -> Sequence[Array]:
        """View what surrounds x in `rows`: the columns in pairs, so that some of x may be among them."""
        height, width = self.seen
        before, after = -(-self.left // 2), (self.left + width) // 2
        columns = self.rows[..., :before, :], self.rows[..., after:, :]
        return self.rows[: self.top], self.rows[self.top + height :], *columns

    def unseen(self, x: Array) -> tuple[Array, Array]:
        """Return the parts of x (C, H, W, N) that no output sees: rows at the bottom and columns on the right."""
        height, width = self.seen
        return x[:, height:], x[:, :height, width:]

    def four(self, first: int, last: int) -> Sequence[Array]:
        """View the four rows that each row of tiles sees, (rows of tiles, 2, C, T + 1, N)."""
        return [self.rows[first + a : last + a : 2] for a in range(4)]


def _add_adjoint(row: Row, d: Array, out: Sequence[Array], *, new: bool = False) -> None:
    """Add d times one row of B^T to the two entries `out` that it takes; if `new`, the first one is taken for zero."""
    operation, i, j = row
    if new:
        np.copyto(out[i], d)
    else:
        np.add(out[i], d, out=out[i])
    operation(out[j], d, out=out[j])


def _gather(m: Sequence[Array], out: Array) -> None:
    """Multiply the four entries m by A^T, into the two columns of `out`, which may be those of m[0] and m[1]."""
    np.add(m[0], m[2], out=m[0])
    np.add(m[0], m[3], out=out[:, 0])
    np.subtract(m[2], m[3], out=m[2])
    np.add(m[1], m[2], out=out[:, 1])
