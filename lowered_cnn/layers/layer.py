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
from lowered_cnn.workspace import Slot, Workspace


class Lowered(ABC):
    """The form of a layer that runs: all buffers are allocated, so `forward` and `backward` only compute.

    The contract, which a network enforces for its inputs and between its layers:

    - x, y, dy and dx are (C, *size, N) or (features, N), in batch-last layout. They are C-contiguous, and have the
      dtype of the parameters.
    - Whoever receives x or y only reads it. x stays valid until `backward` is done, y until the next `forward`. At
      inference, both are valid only until the layers that take them have run: a layer that gets y from
      `workspace.output` shares its memory with layers further on, and one that does not may return a view of x.
    - dy belongs to `backward`, which may overwrite or return it. In the same way dx belongs to the layer before, so a
      buffer returned as dx must be rewritten completely each time.
    """

    @abstractmethod
    def forward(self, x: Array) -> Array:
        """Return y."""

    @abstractmethod
    def backward(self, dy: Array) -> Array | None:
        """Write the parameters' gradients and return dx, or None if it is not needed."""

    def sides(self) -> npt.NDArray[np.generic]:
        """Return the side of the layer's kinks that each number of the last `forward` was on; empty if it is smooth.

        Finite differences are taken only where these do not change. A ReLU, for example, returns x > 0.
        """
        return np.empty(0)


class Noise:
    """Random numbers that depend only on the seed, the position in training and the layer's name."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.position: tuple[int, ...] = ()

    def generator(self, name: str) -> "np.random.Generator":
        """Return the generator of the layer called `name` at this position (step and shard)."""
        return np.random.default_rng([self.seed, *self.position, zlib.crc32(name.encode())])


@dataclass(frozen=True)
class Site:
    """What a layer is lowered for: its input, the gradients that are wanted, and where to find parameters and buffers.

    `input_shape` excludes the batch. `training` matters to layers that compute something else at inference, such as
    Dropout and BatchNorm. `backward` is called only if `wants_gradients`, and must return dx if `wants_dx`. A layer
    finds its parameters under the name of their `owner`, which is its own unless it shares those of another layer.
    Parameters that are `frozen` do not learn. `container` is the site of the container it is in. `slots` is the memory
    that x is in, if layers share it.
    """

    name: str
    owner: str
    input_shape: Shape
    batch: int
    training: bool
    wants_gradients: bool
    wants_dx: bool
    parameters: ParameterVector
    gradients: ParameterVector
    workspace: Workspace
    noise: Noise
    frozen: frozenset[str] = frozenset()
    container: "Site | None" = None
    slots: tuple[Slot, ...] = ()

    def parameter(self, name: str) -> Array:
        """Return the values of this layer's parameter `name`."""
        return self.parameters[f"{self.owner}.{name}"]

    def gradient(self, name: str) -> Array:
        """Return the array into which this layer writes the gradient of its parameter `name`."""
        return self.gradients[f"{self.owner}.{name}"]

    def sibling(self, name: str) -> "Site":
        """Return the site of the layer `name` in the same container: only its parameters are valid."""
        assert self.container is not None
        return self.container.child(name, self.input_shape, wants_dx=False)

    def child(self, name: str, input_shape: Shape, *, wants_dx: bool, slots: tuple[Slot, ...] = ()) -> "Site":
        """Return the site of a layer inside this one."""
        inner, owner = qualified(self.name, name), qualified(self.owner, name)
        return replace(
            self, name=inner, owner=owner, input_shape=input_shape, wants_dx=wants_dx, container=self, slots=slots
        )


@dataclass(frozen=True)
class Layer(ABC):
    """A description: a frozen dataclass without arrays. Networks name a layer after its `kind`: conv1."""

    kind: ClassVar[str]

    @abstractmethod
    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return y's shape for x's shape, both without the batch; raises InputError, with `name`, if x does not fit."""

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return the layer's parameters for inputs of this shape."""
        return ()

    @abstractmethod
    def lower(self, site: Site) -> Lowered:
        """Allocate all buffers and return the layer's lowered form."""


def is_stock(layer: Layer) -> bool:
    """Return whether a layer behaves like the class of this package that it is, or is derived from.

    It does if it overrides nothing but `kind` and special methods such as the constructor. Code that knows the
    package's layers (fusion, ONNX, the certificate's references) may then replace it.
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
