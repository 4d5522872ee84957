"""The arithmetic of the machine: besides its state, what the bits of a training depend on."""

from collections.abc import Iterator
from functools import cache

import numpy as np

from lowered_cnn import gemm
from lowered_cnn.arrays import Array
from lowered_cnn.cores import on_one_core
from lowered_cnn.kernels import blas, instructions

PRODUCTS = ((6, 25, 4608), (16, 150, 640), (84, 120, 32), (10, 84, 17), (64, 576, 1152), (128, 1000, 32))
"""M, K and N of products as a step has them: filters, taps and pixels of all examples, and those of dense layers."""


@cache
def machine() -> str:
    """Return the versions and instruction sets in use: "openblas 0.3.30 SkylakeX, NumPy 2.3.5 with AVX512_SKX"."""
    libraries = ", ".join(map(str, blas())) or "unknown BLAS"
    return f"{libraries}, NumPy {np.__version__} with {instructions() or 'its baseline'}"


def probe() -> str:
    """Return a digest of products, sums and functions of fixed numbers; it differs where machines round differently."""
    import hashlib

    digest = hashlib.sha256()
    with on_one_core():
        for dtype in (np.float32, np.float64):
            for m, k, n in PRODUCTS:
                for result in _results(m, k, n, np.dtype(dtype)):
                    digest.update(result.tobytes())
    return digest.hexdigest()


def _results(m: int, k: int, n: int, dtype: np.dtype[np.floating]) -> Iterator[Array]:
    rng = np.random.default_rng([m, k, n])
    a, b, c = (rng.random(shape).astype(dtype) - dtype.type(0.5) for shape in ((m, k), (k, n), (m, n)))
    z, da, db = np.empty_like(c), np.empty_like(a), np.empty_like(b)
    gemm.multiply("forward", a, b, z)
    gemm.multiply_a_bt("dweight", c, b, da)
    gemm.multiply_at_b("dx", a, c, db)
    yield from (z, da, db, c.sum(axis=0), c.sum(axis=1))
    yield from (function(c + 1) for function in (np.exp, np.log, np.sqrt, np.tanh))
