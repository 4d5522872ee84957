"""The board: the arrays that all workers of a training see, in memory that may be shared between processes."""

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, Images, Labels, Shape, Targets, Weights
from lowered_cnn.data.dataset import Examples
from lowered_cnn.network import Network

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Capacity:
    """What a board has room for: how many workers and examples, and the types and shapes of the examples' parts."""

    workers: int
    examples: int
    pixels: np.dtype[np.uint8 | np.floating]
    target_shape: Shape
    target_dtype: np.dtype[np.generic]
    has_weights: bool

    @classmethod
    def of(cls, data: Examples, workers: int, examples: int) -> "Capacity":
        """Return the room for that many workers, and for batches of that many examples from a data set."""
        targets = data.targets
        return cls(workers, examples, data.dtype, targets.shape[1:], targets.dtype, data.weights is not None)


class Zeros(Protocol):
    """A function that makes arrays of zeros: `np.zeros`, or one that takes them from shared memory."""

    def __call__(self, shape: Shape, dtype: "np.dtype[Scalar]", /) -> npt.NDArray[Scalar]:
        """Return an array of zeros."""


@dataclass(frozen=True)
class Board:
    """The arrays that all workers see."""

    parameters: Array
    """The flat vector."""
    buffers: Array
    """The optimizer's state: its buffers, each laid out like the learned parameters, below one another."""
    gradients: Array
    """One vector per worker; after a step the first one holds the gradient of the batch."""
    images: Images
    """The batch, in an array (N, C, *size) that fits the largest batch."""
    targets: Targets
    """Its targets (N, ...)."""
    weights: Weights
    """How much its examples count (N,), or an empty array if all count the same."""
    examples: Labels
    """Their positions in the data set (N,)."""
    totals: npt.NDArray[np.float64]
    """The loss of each worker, its number of correct answers, and its number of answers."""
    arrivals: npt.NDArray[np.int64]
    """How many barriers each worker has reached."""

    @classmethod
    def of(cls, network: Network, buffers: int, capacity: Capacity, zeros: Zeros) -> "Board":
        """Make the arrays for a network and an optimizer with that many buffers."""
        parameters = network.parameters
        size, dtype = len(parameters.vector), parameters.vector.dtype
        return cls(
            zeros((size,), dtype),
            zeros((buffers, len(parameters.learned)), dtype),
            zeros((capacity.workers, size), dtype),
            zeros((capacity.examples, *network.input_shape), capacity.pixels),
            zeros((capacity.examples, *capacity.target_shape), capacity.target_dtype),
            zeros((capacity.examples if capacity.has_weights else 0,), np.dtype(np.float64)),
            zeros((capacity.examples,), np.dtype(np.int64)),
            zeros((capacity.workers, 3), np.dtype(np.float64)),
            zeros((capacity.workers,), np.dtype(np.int64)),
        )
