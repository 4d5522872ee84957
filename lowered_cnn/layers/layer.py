"""What every layer is: a description that knows shapes and parameters, and a lowered form that computes."""

import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, Shape
from lowered_cnn.parameters import Parameter, ParameterVector
from lowered_cnn.workspace import Workspace


class Lowered(ABC):
    """What runs: all buffers are allocated, so `forward` and `backward` only compute.

    The contract, which a network holds at its door and between its layers:

    - x, y, dy and dx are (C, *size, N) or (features, N), the batch innermost. They are C-contiguous, and have the
      dtype of the parameters.
    - x and y are only read by whoever is given them. x stays as it is until `backward` is done, y until the next
      `forward`.
    - dy belongs to `backward`, which may overwrite it, or return it. The same goes for dx and the layer before: a
      buffer that is handed out as dx has to be written anew each time, and as a whole.
    """

    @abstractmethod
    def forward(self, x: Array) -> Array:
        """Return y."""

    @abstractmethod
    def backward(self, dy: Array) -> Array | None:
        """Write the parameters' gradients and return dx, or None where nobody needs it."""

    def sides(self) -> npt.NDArray[np.generic]:
        """Return on which side of its kinks each number of the last `forward` was; a smooth layer has none.

        Finite differences are taken where these numbers do not change: a rectifier returns x > 0, say.
        """
        return np.empty(0)


class Noise:
    """Random numbers that depend on the seed, the position in training and the layer's name, and on nothing else."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.position: tuple[int, ...] = ()

    def generator(self, name: str) -> "np.random.Generator":
        """Return the generator of the layer called `name` at this position (step and shard)."""
        return np.random.default_rng([self.seed, *self.position, zlib.crc32(name.encode())])


@dataclass(frozen=True)
class Site:
    """Where a layer is lowered: what comes in, who wants gradients, where parameters and buffers are found.

    `input_shape` is without the batch. `training` decides what the layer computes, as it is for Dropout and BatchNorm;
    only if it `wants_gradients` will there be a `backward`, with the gradient of x if it `wants_dx`.
    """

    name: str
    input_shape: Shape
    batch: int
    training: bool
    wants_gradients: bool
    wants_dx: bool
    parameters: ParameterVector
    gradients: ParameterVector
    workspace: Workspace
    noise: Noise

    def parameter(self, name: str) -> Array:
        """Return the values of this layer's parameter `name`."""
        return self.parameters[f"{self.name}.{name}"]

    def gradient(self, name: str) -> Array:
        """Return the array into which this layer writes the gradient of its parameter `name`."""
        return self.gradients[f"{self.name}.{name}"]

    def sibling(self, name: str) -> "Site":
        """Return the site of the layer `name` in the same container: only its parameters are of use."""
        return replace(self, name=qualified(self.name.rpartition(".")[0], name))

    def child(self, name: str, input_shape: Shape, *, wants_dx: bool) -> "Site":
        """Return the site of a layer inside this one."""
        return replace(self, name=qualified(self.name, name), input_shape=input_shape, wants_dx=wants_dx)


@dataclass(frozen=True)
class Layer(ABC):
    """A description: a frozen dataclass, without arrays. The network names a layer by its `kind`: conv1."""

    kind: ClassVar[str]

    @abstractmethod
    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the shape of y for that of x, both without the batch; raises InputError, with the layer's name."""

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return what the layer owns when it is given inputs of this shape."""
        return ()

    @abstractmethod
    def lower(self, site: Site) -> Lowered:
        """Allocate all buffers and return the layer's lowered form."""


def is_stock(layer: Layer) -> bool:
    """Tell whether a layer behaves as the class of this package that it is, or is derived from.

    It does if nothing of that class is overridden but its constructor, its other special methods, and `kind`.
    What knows the package's layers (fusion, ONNX, the certificate's references) may then stand in for it.
    """
    return _is_stock(type(layer))


@cache
def _is_stock(kind: type[Layer]) -> bool:
    ours = next(base for base in kind.__mro__ if base.__module__.startswith("lowered_cnn."))
    names = {name for name in dir(ours) if not name.startswith("__")} - {"kind", "_abc_impl"}
    return all(getattr(kind, name) is getattr(ours, name) for name in names)


def qualified(outer: str, inner: str) -> str:
    """Join the name of a layer and the name of something inside it."""
    return f"{outer}.{inner}" if outer else inner
