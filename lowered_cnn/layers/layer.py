"""What every layer is: a description that knows shapes and parameters, and a lowered form that computes."""

import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import numpy as np

from lowered_cnn.arrays import Array, Shape
from lowered_cnn.parameters import Parameter, ParameterVector
from lowered_cnn.workspace import Workspace


class Lowered(ABC):
    """What runs: all buffers are allocated, so `forward` and `backward` only compute.

    Activations are (C, H, W, N) or (features, N): the batch is the innermost axis.
    """

    @abstractmethod
    def forward(self, x: Array) -> Array:
        """Return y. It stays valid until the next `forward`; so must x until `backward` is done."""

    @abstractmethod
    def backward(self, dy: Array) -> Array | None:
        """Write the parameters' gradients and return dx, or None where nobody needs it. May overwrite `dy`."""


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

    `input_shape` is without the batch. Inference is a lowering with `training` False, which keeps no gradients.
    """

    name: str
    input_shape: Shape
    batch: int
    training: bool
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
    """
    return _is_stock(type(layer))


@cache
def _is_stock(kind: type[Layer]) -> bool:
    package = __name__.partition(".")[0]
    own = [base for base in kind.__mro__ if base.__module__.partition(".")[0] == package]
    before = kind.__mro__[: kind.__mro__.index(own[0])]
    overridden = {name for base in before for name in vars(base)} & set(dir(own[0]))
    return all(name.startswith("__") or name == "kind" for name in overridden - set(dir(ABC)))


def qualified(outer: str, inner: str) -> str:
    """Join the name of a layer and the name of something inside it."""
    return f"{outer}.{inner}" if outer else inner
