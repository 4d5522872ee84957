"""What a fused layer needs from a convolution: its outputs and its gradients, one block of rows at a time."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise

from lowered_cnn.arrays import Array, InputError, Shape
from lowered_cnn.layers import Site
from lowered_cnn.window import Sweep


@dataclass(frozen=True)
class Plan:
    """The convolution to lower: its outputs, cropped to `output` (K, OH, OW), are pooled by `patch` (PH, PW)."""

    site: Site
    sweep: Sweep
    output: Shape
    patch: Shape

    def __post_init__(self) -> None:
        # The engines use strided views: outputs beyond the convolution's would read outside the buffers.
        if any(length > most for length, most in zip(self.output[1:], self.sweep.output, strict=True)):
            raise InputError(f"{self.site.name}: fused", f"outputs up to {self.sweep.output}", self.output[1:])

    def blocks(self, step: int, numbers: int, fixed: int = 0, least: int = 0) -> list[tuple[int, int]]:
        """Cut the rows into blocks of bounded size: `step` rows take `numbers` numbers, each block `fixed` more.

        A block may have `least` numbers even if that is more than the bound.
        """
        workspace, steps = self.site.workspace, self.output[1] // step
        most = steps
        if workspace.block_bytes is not None:
            bound = max(workspace.block_bytes // workspace.dtype.itemsize, least)
            most = max(1, (bound - fixed) // numbers)
        count = -(-steps // most)
        return list(pairwise(steps * part // count * step for part in range(count + 1)))


class Engine(ABC):
    """Computes a convolution's outputs z, without bias, and its gradients, for one of the `blocks` of rows at a time.

    z is viewed as (rows, K, OW / PW, PW, N); how it lies in memory is up to the engine.
    """

    blocks: list[tuple[int, int]]

    @abstractmethod
    def read(self, x: Array) -> None:
        """Take the activation (C, H, W, N), which must not change until the backward pass is done."""

    @abstractmethod
    def forward(self, first: int, last: int) -> Array:
        """Return z for one block; the next call overwrites it."""

    @abstractmethod
    def start(self) -> None:
        """Begin the backward pass: set the sums over blocks to zero."""

    @abstractmethod
    def dz(self, count: int) -> Array:
        """Return the buffer (count, K, OW / PW, PW, N) for the gradient of a block's outputs."""

    @abstractmethod
    def backward(self, first: int, last: int) -> None:
        """Add the contribution of this block's dz to dweight and dX."""

    @abstractmethod
    def finish(self) -> Array | None:
        """Write dweight, and return dX (C, H, W, N), or None if it is not needed."""
