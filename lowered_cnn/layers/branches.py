"""Short forms of graphs: layers in parallel, which all take the same input, and the join of their outputs."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lowered_cnn.arrays import InputError, Shape, check_shape
from lowered_cnn.layers.container import Container, Sequential, as_layers, parameters_of
from lowered_cnn.layers.graph import Graph, Node, X
from lowered_cnn.layers.join import Add, Concat, Join
from lowered_cnn.layers.layer import Layer, Lowered, Site, qualified
from lowered_cnn.parameters import Parameter

IDENTITY = Sequential()


class Branches(Container):
    """Layers in parallel, and the join of their outputs."""

    join: ClassVar[Join]

    @property
    @abstractmethod
    def branches(self) -> tuple[tuple[str, Layer], ...]:
        """Each branch with its name."""

    @property
    def inside(self) -> tuple[Layer, ...]:
        """The branches."""
        return tuple(branch for _, branch in self.branches)

    @property
    def graph(self) -> Graph:
        """The same as a graph."""
        names = tuple(name for name, _ in self.branches)
        return Graph(*(Node(name, branch, X) for name, branch in self.branches), Node("join", self.join, names))

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return the parameters of all branches, named as in `body.conv1.weight`."""
        return tuple(p for name, branch in self.branches for p in parameters_of(name, branch, input_shape))

    def shapes(self, input_shape: Shape, name: str) -> list[Shape]:
        """Return the output shape of each branch."""
        return [branch.output_shape(input_shape, qualified(name, own)) for own, branch in self.branches]

    def lower(self, site: Site) -> Lowered:
        """Return the graph, lowered."""
        return self.graph.lower(site)


@dataclass(frozen=True)
class Residual(Branches):
    """y = body(x) + shortcut(x) (He et al., 2016); without a shortcut, y = body(x) + x.

    Raises InputError if their output shapes differ.
    """

    body: Layer
    shortcut: Layer = IDENTITY

    kind: ClassVar[str] = "residual"
    join: ClassVar[Join] = Add()

    def __post_init__(self) -> None:
        for name, branch in self.branches:
            object.__setattr__(self, name, _sequential(branch))

    @property
    def branches(self) -> tuple[tuple[str, Layer], ...]:
        """The body and the shortcut."""
        return ("body", self.body), ("shortcut", self.shortcut)

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the shape of the body's output."""
        body, shortcut = self.shapes(input_shape, name)
        check_shape(f"{name}: shortcut", body, shortcut)
        return body


@dataclass(frozen=True, init=False)
class Concatenate(Branches):
    """The outputs of all branches, concatenated along the channels: `Concatenate(Conv2D(8, 1), Conv2D(8, 3))`.

    Raises InputError if they differ in anything but the number of channels.
    """

    layers: tuple[Layer, ...]

    kind: ClassVar[str] = "concatenate"
    join: ClassVar[Join] = Concat()

    def __init__(self, *layers: Layer | Sequence[Layer]) -> None:
        if not layers:
            raise InputError("Concatenate", "at least one branch", "none")
        object.__setattr__(self, "layers", tuple(map(_sequential, as_layers("Concatenate", layers))))

    @property
    def branches(self) -> tuple[tuple[str, Layer], ...]:
        """branch1, branch2, ..."""
        return tuple((f"branch{number}", layer) for number, layer in enumerate(self.layers, 1))

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return (sum of the channels, *size)."""
        shapes = self.shapes(input_shape, name)
        for (own, _), shape in zip(self.branches, shapes, strict=True):
            check_shape(f"{qualified(name, own)}: size", shapes[0][1:], shape[1:])
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _sequential(layer: Layer | Sequence[Layer]) -> Sequential:
    """Return a branch as a Sequential, so that each layer in it has its own name."""
    return layer if isinstance(layer, Sequential) else Sequential(layer)
