"""What a fused layer asks of a convolution: its outputs, and their gradients, a block of rows at a time."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise

from lowered_cnn.arrays import Array, InputError, Shape
from lowered_cnn.layers import Site
from lowered_cnn.window import Sweep


@dataclass(frozen=True)
class Plan:
    """The convolution to lower: its first outputs, `output` (K, OH, OW), in patches of `patch` rows and columns."""

    site: Site
    sweep: Sweep
    output: Shape
    patch: Shape

    def __post_init__(self) -> None:
        # The engines view memory by its strides: outputs beyond the convolution's would be outside of it.
        if any(length > most for length, most in zip(self.output[1:], self.sweep.output, strict=True)):
            raise InputError(f"{self.site.name}: fused", f"outputs up to {self.sweep.output}", self.output[1:])

    def blocks(self, step: int, numbers: int, fixed: int = 0) -> list[tuple[int, int]]:
        """Cut the rows of outputs into blocks, if `step` rows take so many numbers and each block some fixed ones."""
        workspace, steps = self.site.workspace, self.output[1] // step
        most = steps
        if workspace.block_bytes is not None:
            most = max(1, (workspace.block_bytes // workspace.dtype.itemsize - fixed) // numbers)
        count = -(-steps // most)
        return list(pairwise(steps * part // count * step for part in range(count + 1)))


class Engine(ABC):
    """A convolution's outputs z, without bias, for the `blocks` of rows, which are taken in order.

    They are viewed as (rows, K, OW / PW, PW, N), and in memory as it suits the engine.
    """

    blocks: list[tuple[int, int]]

    @abstractmethod
    def read(self, x: Array) -> None:
        """Take the activation (C, H, W, N); it must not change until the backward pass is done."""

    @abstractmethod
    def forward(self, first: int, last: int) -> Array:
        """Return z for one block; the next call overwrites it."""

    @abstractmethod
    def start(self) -> None:
        """Begin the backward pass: set what is summed over the blocks to zero."""

    @abstractmethod
    def dz(self, count: int) -> Array:
        """Return the memory (count, K, OW / PW, PW, N) for the gradient of a block's outputs."""

    @abstractmethod
    def backward(self, first: int, last: int) -> None:
        """Add what this block's dz contributes to dweight and dX."""

    @abstractmethod
    def finish(self) -> Array | None:
        """Write dweight, and return dX (C, H, W, N), or None if nobody wants it."""
