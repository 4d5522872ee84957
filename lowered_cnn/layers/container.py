"""Layers made of layers, and the first of them: layers one after the other."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, cast

import numpy as np

from lowered_cnn.arrays import Array, InputError, Shape, check_shape, check_size
from lowered_cnn.layers.layer import Layer, Lowered, Site, qualified
from lowered_cnn.parameters import Parameter
from lowered_cnn.workspace import Slot

LEVELS = 100
"""How deep layers may be nested in layers: far from Python's recursion limit, in every direction."""


class Container(Layer):
    """A layer made of layers, each of which has a name in it."""

    @property
    @abstractmethod
    def inside(self) -> tuple[Layer, ...]:
        """The layers in it."""


class LoweredContainer(Lowered):
    """Runs `stages`, its lowered layers; `slots` is the memory that y is in, held for whoever reads y."""

    stages: list["Stage"]
    slots: tuple[Slot, ...]


@dataclass(frozen=True, init=False)
class Sequential(Container):
    """Layers one after the other: `Sequential(Conv2D(32, 3), ReLU(), Flatten(), Dense(10))`.

    They are named by kind and number, in order: conv1, relu1, flatten1, dense1. Names of your own come with a mapping,
    `Sequential({"stem": Conv2D(32, 3), "head": GlobalAvgPool()})`, or are `given`, one for each layer.
    """

    layers: tuple[Layer, ...]
    given: tuple[str, ...] | None = field(default=None, repr=False)

    kind: ClassVar[str] = "sequential"

    def __init__(
        self, *layers: Layer | Sequence[Layer] | Mapping[str, Layer], given: Sequence[str] | None = None
    ) -> None:
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            given, layers = tuple(layers[0]), tuple(layers[0].values())
        object.__setattr__(self, "layers", as_layers("Sequential", layers))
        names = None if given is None or tuple(given) == numbered(self.layers) else tuple(given)
        object.__setattr__(self, "given", names)
        if names is not None:
            check_names("Sequential: names", names)
            if len(names) != len(self.layers):
                raise InputError("Sequential: names", f"{len(self.layers)}, one for each layer", len(names))

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each layer."""
        return numbered(self.layers) if self.given is None else self.given

    @property
    def inside(self) -> tuple[Layer, ...]:
        """The layers in it."""
        return self.layers

    def steps(self, input_shape: Shape, name: str = "") -> Iterator[tuple[str, Layer, Shape]]:
        """Yield each layer with its own name and the shape of its input."""
        for own, layer in zip(self.names, self.layers, strict=True):
            yield own, layer, input_shape
            input_shape = layer.output_shape(input_shape, qualified(name, own))

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the shape of the last layer's output."""
        for own, layer in zip(self.names, self.layers, strict=True):
            input_shape = layer.output_shape(input_shape, qualified(name, own))
            check_size(f"{qualified(name, own)}: output", input_shape)
        return input_shape

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return the parameters of all layers, named as in `conv1.weight`."""
        return tuple(
            parameter for own, layer, shape in self.steps(input_shape) for parameter in parameters_of(own, layer, shape)
        )

    def split(self, at: str) -> tuple["Sequential", "Sequential"]:
        """Return the layers before the one called `at`, and those from it on, with their names."""
        check_is_among("split: at", at, self.names)
        place = self.names.index(at)
        parts = slice(None, place), slice(place, None)
        before, after = (Sequential(self.layers[part], given=self.names[part]) for part in parts)
        return before, after

    def followed_by(self, name: str, layer: Layer) -> "Sequential":
        """Return the same layers and, after them, a new one of this name."""
        return Sequential((*self.layers, layer), given=(*self.names, name))

    def lower(self, site: Site) -> "LoweredSequential":
        """Lower every layer; those before the first one that learns need no dx, and those before it no gradients."""
        stages: list[Stage] = []
        wants_dx, slots = site.wants_dx, site.slots
        site.workspace.hold(slots)
        for own, layer, shape in self.steps(site.input_shape, site.name):
            stage = Stage.of(layer, site.child(own, shape, wants_dx=wants_dx, slots=slots))
            stages += stage.lowered.stages if isinstance(stage.lowered, LoweredSequential) else [stage]
            site.workspace.release(slots)
            wants_dx, slots = stage.site.wants_gradients, stage.slots
        return LoweredSequential(stages, slots)


class Tap:
    """Observes stages in both directions; a subclass overrides what it needs, and only reads the arrays."""

    def start(self, stage: "Stage") -> None:
        """Observe that a layer is about to run, in either direction."""

    def forward(self, stage: "Stage", x: Array, y: Array) -> None:
        """Observe what went into a layer and what came out of it."""

    def backward(self, stage: "Stage", dy: Array, dx: Array | None) -> None:
        """Observe the gradients of what came out of a layer and of what went into it."""


@dataclass(frozen=True)
class Stage:
    """A lowered layer in its place: its site, description and lowered form, the bytes of its buffers, and its taps.

    It enforces the contract of `Lowered`: a custom layer may return strided arrays or arrays of another precision.
    `slots` is the memory that y is in.
    """

    site: Site
    layer: Layer
    lowered: Lowered
    bytes: int
    y_shape: Shape
    slots: tuple[Slot, ...]
    taps: list[Tap] = field(default_factory=list)

    @classmethod
    def of(cls, layer: Layer, site: Site) -> "Stage":
        """Lower a layer in its place.

        It wants gradients if what comes before it does, or if it learns. If all its parameters are frozen, it computes
        as at inference, so that the statistics of a BatchNorm are frozen too.
        """
        learned = [f"{site.owner}.{p.name}" for p in layer.parameters(site.input_shape) if not p.statistic]
        learns = not site.frozen.issuperset(learned)
        site = replace(site, wants_gradients=site.wants_gradients and (site.wants_dx or learns))
        if learned and not learns and not isinstance(layer, Container):
            site = replace(site, training=False)
        before, y_shape = site.workspace.bytes, (*layer.output_shape(site.input_shape, site.name), site.batch)
        with site.workspace.lowering() as taken:
            lowered = layer.lower(site)
        if not isinstance(lowered, Lowered):
            raise InputError(f"{site.name}: lower", "a Lowered", type(lowered).__name__)
        slots = lowered.slots if isinstance(lowered, LoweredContainer) else site.workspace.slots_of_y(taken, site.slots)
        return cls(site, layer, lowered, site.workspace.bytes - before, y_shape, slots)

    def forward(self, x: Array) -> Array:
        """Return the layer's y, after showing it to the taps."""
        for tap in self.taps:
            tap.start(self)
        y = self._conforming("y", self.lowered.forward(x), self.y_shape)
        for tap in self.taps:
            tap.forward(self, x, y)
        return y

    def backward(self, dy: Array) -> Array | None:
        """Return the layer's dx if it is wanted, after showing it to the taps; the layer may overwrite dy."""
        heard = dy.copy() if self.taps else dy
        for tap in self.taps:
            tap.start(self)
        dx = self.lowered.backward(dy)
        wants_dx, shape = self.site.wants_dx, (*self.site.input_shape, self.site.batch)
        dx = self._conforming("dx", dx, shape) if wants_dx else None  # nothing before the layer may be able to use it
        for tap in self.taps:
            tap.backward(self, heard, dx)
        return dx

    def _conforming(self, what: str, array: Array | None, shape: Shape) -> Array:
        """Return the array if it meets the contract, else a copy that does; raises InputError if none can."""
        dtype, where = self.site.workspace.dtype, f"{self.site.name}: {what}"
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            raise InputError(where, "an array of floats", getattr(array, "dtype", type(array).__name__))
        if array.shape == shape and array.dtype == dtype and array.flags.carray:
            return array
        check_shape(where, shape, array.shape)
        return np.array(array, dtype, order="C")


class LoweredSequential(LoweredContainer):
    """Runs the stages in order, and backward in reverse as far as gradients are needed."""

    def __init__(self, stages: list[Stage], slots: tuple[Slot, ...]) -> None:
        self.stages, self.slots = stages, slots

    def forward(self, x: Array) -> Array:
        """Y = f_n(... f_1(X))."""
        for stage in self.stages:
            x = stage.forward(x)
        return x

    def backward(self, dy: Array) -> Array | None:
        """Apply the chain rule from the last layer to the first one that learns."""
        for stage in reversed(self.stages):
            dx = stage.backward(dy) if stage.site.wants_gradients else None
            if dx is None:
                return None
            dy = dx
        return dy


def as_layers(where: str, layers: Sequence[object]) -> tuple[Layer, ...]:
    """Return the layers, which are given one by one or in one list; raises InputError for anything else."""
    if len(layers) == 1 and isinstance(layers[0], list | tuple):
        layers = layers[0]
    for layer in layers:
        if not isinstance(layer, Layer) or not hasattr(layer, "kind"):
            raise InputError(where, "layers, such as ReLU() or Dense(10)", repr(layer))
    return cast(tuple[Layer, ...], tuple(layers))


def numbered(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Return the names of layers by kind and number: conv1, relu1, conv2, ..."""
    counts, names = Counter[str](), []
    for layer in layers:
        counts[layer.kind] += 1
        names.append(f"{layer.kind}{counts[layer.kind]}")
    return tuple(names)


def check_names(where: str, names: Sequence[object]) -> None:
    """Raise InputError unless these are strings, all different and none of them empty."""
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise InputError(where, "a different string for each, none of them empty", list(names))


def check_is_among(where: str, name: object, names: Sequence[str]) -> None:
    """Raise InputError unless this is one of the names of layers."""
    if name not in names:
        raise InputError(where, f"one of {', '.join(names)}", repr(name))


def parameters_of(name: str, layer: Layer, input_shape: Shape) -> tuple[Parameter, ...]:
    """Return the parameters of a layer of this name."""
    return tuple(replace(p, name=qualified(name, p.name)) for p in layer.parameters(input_shape))


def check_nesting(model: Layer) -> None:
    """Raise InputError if layers are nested in layers more than `LEVELS` deep."""
    inside: Sequence[Layer] = [model]
    for _ in range(LEVELS):
        layers = [inner for layer in inside if isinstance(layer, Container) for inner in layer.inside]
        inside = list({id(layer): layer for layer in layers}.values())  # each layer once
    if inside:
        raise InputError("network: layers", f"nested at most {LEVELS} deep", "more")


def stages_of(lowered: Lowered) -> Iterator[Stage]:
    """Yield the stage of every layer; those inside branches come before the layer that has the branches."""
    if isinstance(lowered, LoweredContainer):
        for stage in lowered.stages:
            yield from stages_of(stage.lowered)
            if not isinstance(stage.lowered, LoweredSequential):
                yield stage
