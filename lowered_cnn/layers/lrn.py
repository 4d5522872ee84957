"""Local response normalization: each channel is divided by a power of the sum of squares in the channels around it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lowered_cnn.arrays import Array, InputError, Shape, check_finite, whole_number
from lowered_cnn.gemm import multiply
from lowered_cnn.layers.layer import Layer, Lowered, Site


@dataclass(frozen=True)
class LRN(Layer):
    """y = x / (k + alpha / size times the sum of x^2)^beta (Krizhevsky et al., 2012).

    Input (C, *size) or (features). The sum is over the `size` channels around each one, at the same position, as far
    as there are any. The size is odd: PyTorch and ONNX disagree on even ones. Raises InputError unless alpha >= 0 and
    k > 0.
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    kind: ClassVar[str] = "lrn"

    def __post_init__(self) -> None:
        if whole_number("LRN: size", self.size, 1) % 2 == 0:
            raise InputError("LRN: size", "an odd number", self.size)
        for name in ("alpha", "beta", "k"):
            check_finite(f"LRN: {name}", getattr(self, name))
        if not (self.alpha >= 0 and self.k > 0):
            raise InputError("LRN", "alpha of at least 0 and k above 0", f"{self.alpha!r} and {self.k!r}")

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the input's shape."""
        return input_shape

    def lower(self, site: Site) -> Lowered:
        """Return the normalization; sums over channels are products with a band of ones."""
        return _LoweredLRN(self, site)


class _LoweredLRN(Lowered):
    """The matrices: x, y and base (C, M), and band (C, C), with alpha / size around the diagonal: band^T = band."""

    def __init__(self, lrn: LRN, site: Site) -> None:
        new, channels = site.workspace.array, site.input_shape[0]
        self.lrn = lrn
        shape = (*site.input_shape, site.batch)
        self.y = site.workspace.output(shape)
        self.base, self.spare, self.sum = (site.workspace.temporary(shape) for _ in range(3))
        self.matrix = (channels, self.y.size // channels)
        self.x = self.y
        self.band = new((channels, channels))
        distance = np.abs(np.arange(channels)[:, None] - np.arange(channels))
        self.band[distance <= lrn.size // 2] = lrn.alpha / lrn.size

    def forward(self, x: Array) -> Array:
        """Y = X base^-beta, with base = k + band @ X^2."""
        self.x = x
        squares = np.multiply(x, x, out=self.spare).reshape(self.matrix)
        multiply("sum", self.band, squares, out=self.base.reshape(self.matrix))
        np.add(self.base, self.lrn.k, out=self.base)
        return np.multiply(x, self._power(-self.lrn.beta), out=self.y)

    def backward(self, dy: Array) -> Array:
        """dX = base^-beta dY - 2 beta X (band @ (dY Y / base))."""
        np.multiply(dy, self.y, out=self.spare)
        np.divide(self.spare, self.base, out=self.spare)
        multiply("sum", self.band, self.spare.reshape(self.matrix), out=self.sum.reshape(self.matrix))
        np.multiply(self.sum, self.x, out=self.sum)
        np.multiply(self.sum, 2 * self.lrn.beta, out=self.sum)
        np.multiply(dy, self._power(-self.lrn.beta), out=dy)
        return np.subtract(dy, self.sum, out=dy)

    def _power(self, exponent: float) -> Array:
        """Return base^exponent, in the spare buffer."""
        np.log(self.base, out=self.spare)
        np.multiply(self.spare, exponent, out=self.spare)
        return np.exp(self.spare, out=self.spare)
