"""The only place with matrix products: A B, A^T B and A B^T, each with a role, which the ledger records."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal, TypeAlias, get_args

import numpy as np

from lowered_cnn.arrays import Array

SMALL = 1_000_000
"""Up to this many multiplications, OpenBLAS multiplies directly; beyond, it packs both factors first (on AVX-512)."""

FEW = 1200
"""With a transposed second factor, it multiplies directly only up to this many results, too."""


Role: TypeAlias = Literal["forward", "sum", "dweight", "dbias", "dx"]
"""What a product is for: an output, a sum inside a normalization, the gradient of a weight, a bias or an input."""

ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Product:
    """One matrix product (M x K) (K x N), computed `count` times."""

    role: Role
    m: int
    k: int
    n: int
    count: int

    @property
    def flops(self) -> int:
        """The number of multiplications and additions."""
        return 2 * self.m * self.k * self.n * self.count


_ledger: ContextVar[list[Product] | None] = ContextVar("ledger", default=None)


@contextmanager
def listen() -> Iterator[list[Product]]:
    """Record every matrix product computed inside the `with` block."""
    heard: list[Product] = []
    token = _ledger.set(heard)
    try:
        yield heard
    finally:
        _ledger.reset(token)


def multiply(role: Role, a: Array, b: Array, out: Array) -> None:
    """C = A B: a (..., M, K), b (..., K, N), out (..., M, N)."""
    _hear(role, a, b)
    _in_columns(a, b, out)()


def product(role: Role, a: Array, b: Array, out: Array) -> Callable[[], None]:
    """Return `multiply` as a function of no arguments, for arrays that stay where they are."""
    known, compute = _product(role, a, b), _in_columns(a, b, out)

    def run() -> None:
        heard = _ledger.get()
        if heard is not None:
            heard.append(known)
        compute()

    return run


def multiply_at_b(role: Role, a: Array, b: Array, out: Array) -> None:
    """C = A^T B: a (..., K, M), b (..., K, N), out (..., M, N)."""
    _hear(role, a.swapaxes(-1, -2), b)
    _in_columns(a.swapaxes(-1, -2), b, out)()


def multiply_a_bt(role: Role, a: Array, b: Array, out: Array) -> None:
    """C = A B^T: a (..., M, K), b (..., N, K), out (..., M, N)."""
    _hear(role, a, b.swapaxes(-1, -2))
    _multiply_in_rows(a, b.swapaxes(-1, -2), out)


def row_sums(role: Role, a: Array, ones: Array, out: Array) -> None:
    """C = A 1, the sum of each row: a (..., M, K), ones (K), out (..., M)."""
    _hear(role, a, ones[:, None])
    np.matmul(a, ones, out=out)


def row_dots(role: Role, a: Array, b: Array, out: Array) -> None:
    """C[m] = A[m] B[m]^T, the dot product of matching rows: a, b (..., M, K), out (..., M)."""
    _hear(role, a, b[..., 0, :, None])
    np.matmul(a[..., None, :], b[..., None], out=out[..., None, None])


def affine(weight: Array, x: Array, bias: Array | None, out: Array) -> None:
    """Z = W X + b (S1, S8): weight (..., M, K), x (..., K, N), bias (..., M, 1), out (..., M, N)."""
    multiply("forward", weight, x, out)
    if bias is not None:
        np.add(out, bias, out=out)


def _hear(role: Role, a: Array, b: Array) -> None:
    heard = _ledger.get()
    if heard is not None:
        heard.append(_product(role, a, b))


def _product(role: Role, a: Array, b: Array) -> Product:
    count = math.prod(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
    return Product(role, a.shape[-2], a.shape[-1], b.shape[-1], count)


def _in_columns(a: Array, b: Array, out: Array) -> Callable[[], object]:
    """Return the product of a and runs of b's columns, each short enough for a small product, if N divides so."""
    (m, k), n = a.shape[-2:], b.shape[-1]
    run = _largest_part(n, SMALL // (m * k), 32)
    if run < n and k > 1:
        a, b, out = a[..., None, :, :], _columns(b, run), _columns(out, run)
    return partial(_function(k), a, b, out)


def _multiply_in_rows(a: Array, b: Array, out: Array) -> None:
    """Multiply runs of a's rows, each short enough for a small product, by the transposed b, if M divides so."""
    (m, k), n = a.shape[-2:], b.shape[-1]
    run = _largest_part(m, min(FEW, SMALL // k) // n, 8)
    if run < m and k > 1:
        a, b, out = _rows(a, run), b[..., None, :, :], _rows(out, run)
    _function(k)(a, b, out)


def _function(k: int) -> Callable[..., object]:
    """Return what multiplies matrices with K = k: without a sum, BLAS takes several times as long as `np.multiply`."""
    return np.multiply if k == 1 else np.matmul


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
