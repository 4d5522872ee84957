"""Layers made of layers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from lowered_cnn.arrays import Array, Shape
from lowered_cnn.layers.layer import Layer, Lowered, Site, qualified
from lowered_cnn.parameters import Parameter


@dataclass(frozen=True, init=False)
class Sequential(Layer):
    """Layers one after the other: `Sequential(Conv2D(32, 3), ReLU(), Flatten(), Dense(10))`.

    They are named by kind and number, in order: conv1, relu1, flatten1, dense1.
    """

    layers: tuple[Layer, ...]

    kind: ClassVar[str] = "sequential"

    def __init__(self, *layers: Layer) -> None:
        object.__setattr__(self, "layers", layers)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each layer."""
        kinds = [layer.kind for layer in self.layers]
        return tuple(f"{kind}{kinds[: place + 1].count(kind)}" for place, kind in enumerate(kinds))

    def steps(self, input_shape: Shape, name: str = "") -> Iterator[tuple[str, Layer, Shape]]:
        """Yield each layer with its own name and the shape of its input."""
        for own, layer in zip(self.names, self.layers, strict=True):
            yield own, layer, input_shape
            input_shape = layer.output_shape(input_shape, qualified(name, own))

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the shape that the last layer gives."""
        for own, layer, shape in self.steps(input_shape, name):
            input_shape = layer.output_shape(shape, qualified(name, own))
        return input_shape

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return the parameters of all layers, as `conv1.weight`."""
        return tuple(
            replace(parameter, name=qualified(own, parameter.name))
            for own, layer, shape in self.steps(input_shape)
            for parameter in layer.parameters(shape)
        )

    def lower(self, site: Site) -> "LoweredSequential":
        """Lower every layer; those before the first one with parameters need no dx."""
        stages: list[Stage] = []
        wants_dx = site.wants_dx
        for own, layer, shape in self.steps(site.input_shape, site.name):
            child, before = site.child(own, shape, wants_dx=wants_dx), site.workspace.bytes
            lowered = layer.lower(child)
            if isinstance(lowered, LoweredSequential):
                stages += lowered.stages
            else:
                stages.append(Stage(child, layer, lowered, site.workspace.bytes - before))
            wants_dx = wants_dx or (site.training and bool(layer.parameters(shape)))
        return LoweredSequential(stages)


@dataclass(frozen=True)
class Stage:
    """A layer in its place: where it was lowered, the description, what runs, and the bytes it asked for."""

    site: Site
    layer: Layer
    lowered: Lowered
    bytes: int


class LoweredSequential(Lowered):
    """Runs the stages in order, and backward in reverse, as far as gradients are wanted."""

    def __init__(self, stages: list[Stage]) -> None:
        self.stages = stages

    def forward(self, x: Array) -> Array:
        """Y = f_n(... f_1(X))."""
        for stage in self.stages:
            x = stage.lowered.forward(x)
        return x

    def backward(self, dy: Array) -> Array | None:
        """Apply the chain rule from the last layer to the first one that has parameters."""
        for stage in reversed(self.stages):
            dx = stage.lowered.backward(dy)
            if dx is None:
                return None
            dy = dx
        return dy
