"""The only place with a matrix product: the affine map, its three gradients, and the ledger that hears each of them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache

import numpy as np

from lowered_cnn.arrays import Array

SMALL = 1_000_000
"""Up to so many multiplications, OpenBLAS multiplies at once; beyond, it packs both factors first (for AVX-512)."""

FEW = 1200
"""Up to so many results, it does so for a product with a transposed second factor too."""


@dataclass(frozen=True)
class Product:
    """One matrix product (M x K) (K x N), done `count` times."""

    role: str
    m: int
    k: int
    n: int
    count: int

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.m * self.k * self.n * self.count


_ledger: ContextVar[list[Product] | None] = ContextVar("ledger", default=None)


@contextmanager
def listen() -> Iterator[list[Product]]:
    """Write down every matrix product that is done inside the `with` block."""
    heard: list[Product] = []
    token = _ledger.set(heard)
    try:
        yield heard
    finally:
        _ledger.reset(token)


def affine(weight: Array, x: Array, bias: Array | None, out: Array) -> None:
    """Z = W X + b (S1, S8): weight (..., M, K), x (..., K, N), bias (..., M, 1), out (..., M, N)."""
    _hear("forward", weight, x)
    _multiply_in_columns(weight, x, out)
    if bias is not None:
        np.add(out, bias, out=out)


def weight_gradient(dy: Array, x: Array, out: Array) -> None:
    """dW = dZ X^T (S2, S8): dy (..., M, N), x (..., K, N), out (..., M, K)."""
    _hear("dweight", dy, x.swapaxes(-1, -2))
    _multiply_in_rows(dy, x.swapaxes(-1, -2), out)


def bias_gradient(dy: Array, ones: Array, out: Array) -> None:
    """db = dZ 1 (S3, S8): dy (..., M, N), ones (N), out (..., M)."""
    _hear("dbias", dy, ones[:, None])
    np.matmul(dy, ones[:, None], out=out[..., None])


def row_sums(x: Array, ones: Array, out: Array) -> None:
    """Sum each row, X 1: x (M, N), ones (N), out (M)."""
    _hear("sum", x, ones[:, None])
    np.matmul(x, ones, out=out)


def input_gradient(weight: Array, dy: Array, out: Array) -> None:
    """dX = W^T dZ (S4, S8): weight (..., M, K), dy (..., M, N), out (..., K, N)."""
    _hear("dx", weight.swapaxes(-1, -2), dy)
    _multiply_in_columns(weight.swapaxes(-1, -2), dy, out)


def _hear(role: str, a: Array, b: Array) -> None:
    heard = _ledger.get()
    if heard is not None:
        count = math.prod(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
        heard.append(Product(role, a.shape[-2], a.shape[-1], b.shape[-1], count))


def _multiply_in_columns(a: Array, b: Array, out: Array) -> None:
    """Multiply a by runs of b's columns that are short enough for a small product, if there are such runs."""
    (m, k), n = a.shape[-2:], b.shape[-1]
    if k == 1:  # nothing is summed (depthwise convolution, average pooling): ten times as fast as BLAS
        np.multiply(a, b, out=out)
        return
    run = _largest_part(n, SMALL // (m * k), 32)
    if run < n:
        a, b, out = a[..., None, :, :], _columns(b, run), _columns(out, run)
    np.matmul(a, b, out=out)


def _multiply_in_rows(a: Array, b: Array, out: Array) -> None:
    """Multiply runs of a's rows, few enough for a small product with the transposed b, if there are such runs."""
    (m, k), n = a.shape[-2:], b.shape[-1]
    run = _largest_part(m, min(FEW, SMALL // k) // n, 8)
    if run < m:
        a, b, out = _rows(a, run), b[..., None, :, :], _rows(out, run)
    np.matmul(a, b, out=out)


@cache
def _largest_part(length: int, most: int, unit: int) -> int:
    """Return the largest divisor of `length` up to `most` that is a multiple of `unit`; `length` if there is none."""
    return max((part for part in range(unit, min(most, length) + 1, unit) if length % part == 0), default=length)


def _columns(matrices: Array, run: int) -> Array:
    """View matrices (..., K, N) as runs of columns, (..., N / run, K, run)."""
    return matrices.reshape(*matrices.shape[:-1], -1, run).swapaxes(-2, -3)


def _rows(matrices: Array, run: int) -> Array:
    """View matrices (..., M, N) as runs of rows, (..., M / run, run, N)."""
    return matrices.reshape(*matrices.shape[:-2], -1, run, matrices.shape[-1])
