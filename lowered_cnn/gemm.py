"""The only place with a matrix product: the affine map, its three gradients, and the ledger that hears each of them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np

from lowered_cnn.arrays import Array


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
    _multiply("forward", weight, x, out)
    if bias is not None:
        np.add(out, bias, out=out)


def weight_gradient(dy: Array, x: Array, out: Array) -> None:
    """dW = dZ X^T (S2, S8): dy (..., M, N), x (..., K, N), out (..., M, K)."""
    _multiply("dweight", dy, x.swapaxes(-1, -2), out)


def bias_gradient(dy: Array, ones: Array, out: Array) -> None:
    """db = dZ 1 (S3, S8): dy (..., M, N), ones (N), out (..., M)."""
    _multiply("dbias", dy, ones[:, None], out[..., None])


def input_gradient(weight: Array, dy: Array, out: Array) -> None:
    """dX = W^T dZ (S4, S8): weight (..., M, K), dy (..., M, N), out (..., K, N)."""
    _multiply("dx", weight.swapaxes(-1, -2), dy, out)


def _multiply(role: str, a: Array, b: Array, out: Array) -> None:
    np.matmul(a, b, out=out)
    heard = _ledger.get()
    if heard is not None:
        heard.append(Product(role, a.shape[-2], a.shape[-1], b.shape[-1], math.prod(out.shape[:-2])))
