"""The one place that allocates buffers, so that a network's memory is known before its first step."""

import math

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, Shape

BLOCK_BYTES = 2 * 1024 * 1024
"""Most bytes in a block of columns: few enough for a core's share of the L3 cache, enough to call NumPy seldom."""


class Workspace:
    """The buffers of one lowered network; `bytes` is their total size.

    `block_bytes` limits a block of columns. None turns blocking off: a convolution is then one im2col and one GEMM.
    """

    def __init__(self, dtype: npt.DTypeLike, block_bytes: int | None = BLOCK_BYTES) -> None:
        self.dtype = np.dtype(dtype)
        self.block_bytes = block_bytes
        self.bytes = 0
        self._scratch = np.empty(0, self.dtype)
        self._ones = np.empty(0, self.dtype)

    def array(self, shape: Shape, value: float = 0.0, dtype: npt.DTypeLike | None = None) -> Array:
        """Return a buffer for the caller alone, filled with `value`; its dtype is the network's unless given."""
        buffer: Array = np.full(shape, value, self.dtype if dtype is None else dtype)
        self.bytes += buffer.nbytes
        return buffer

    def mask(self, shape: Shape) -> npt.NDArray[np.bool_]:
        """Return a boolean buffer for the caller alone."""
        buffer = np.zeros(shape, np.bool_)
        self.bytes += buffer.nbytes
        return buffer

    def scratch(self, shape: Shape) -> Array:
        """Return a buffer shared by all layers: its contents last only until another layer runs."""
        count = math.prod(shape)
        if count > self._scratch.size:
            self._scratch = self.array((max(count, (self.block_bytes or 0) // self.dtype.itemsize),))
        return self._scratch[:count].reshape(shape)

    def ones(self, count: int) -> Array:
        """Return a vector of ones: the right-hand side that turns a sum over positions into a matrix product."""
        if count > self._ones.size:
            self._ones = self.array((count,), 1.0)
        return self._ones[:count]
