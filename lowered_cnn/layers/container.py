"""Layers made of layers."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, cast

import numpy as np

from lowered_cnn.arrays import Array, InputError, Shape, check_shape, check_size
from lowered_cnn.layers.layer import Layer, Lowered, Site, qualified
from lowered_cnn.parameters import Parameter

LEVELS = 100
"""How deep layers may be nested in layers: far from Python's recursion limit, in every direction."""


@dataclass(frozen=True, init=False)
class Sequential(Layer):
    """Layers one after the other: `Sequential(Conv2D(32, 3), ReLU(), Flatten(), Dense(10))`.

    They are named by kind and number, in order: conv1, relu1, flatten1, dense1.
    """

    layers: tuple[Layer, ...]

    kind: ClassVar[str] = "sequential"

    def __init__(self, *layers: Layer | Sequence[Layer]) -> None:
        object.__setattr__(self, "layers", _given("Sequential", layers))

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each layer."""
        counts, names = Counter[str](), []
        for layer in self.layers:
            counts[layer.kind] += 1
            names.append(f"{layer.kind}{counts[layer.kind]}")
        return tuple(names)

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
            replace(parameter, name=qualified(own, parameter.name))
            for own, layer, shape in self.steps(input_shape)
            for parameter in layer.parameters(shape)
        )

    def lower(self, site: Site) -> "LoweredSequential":
        """Lower every layer; those before the first one with parameters need no dx."""
        stages: list[Stage] = []
        wants_dx = site.wants_dx
        for own, layer, shape in self.steps(site.input_shape, site.name):
            child = site.child(own, shape, wants_dx=wants_dx)
            stage = Stage.of(layer, child)
            stages += stage.lowered.stages if isinstance(stage.lowered, LoweredSequential) else [stage]
            wants_dx = wants_dx or (site.wants_gradients and bool(layer.parameters(shape)))
        return LoweredSequential(stages)


class Tap:
    """Observes stages in both directions; a subclass overrides what it needs, and only reads the arrays."""

    def forward(self, stage: "Stage", x: Array, y: Array) -> None:
        """Observe what went into a layer and what came out of it."""

    def backward(self, stage: "Stage", dy: Array, dx: Array | None) -> None:
        """Observe the gradients of what came out of a layer and of what went into it."""


@dataclass(frozen=True)
class Stage:
    """A layer in its place: its site, description and lowered form, the bytes of its buffers, and its taps.

    Enforces the contract of `Lowered`: a custom layer may return strided arrays or arrays of another precision.
    """

    site: Site
    layer: Layer
    lowered: Lowered
    bytes: int
    y_shape: Shape
    taps: list[Tap] = field(default_factory=list)

    @classmethod
    def of(cls, layer: Layer, site: Site) -> "Stage":
        """Lower a layer in its place."""
        before, y_shape = site.workspace.bytes, (*layer.output_shape(site.input_shape, site.name), site.batch)
        lowered = layer.lower(site)
        if not isinstance(lowered, Lowered):
            raise InputError(f"{site.name}: lower", "a Lowered", type(lowered).__name__)
        return cls(site, layer, lowered, site.workspace.bytes - before, y_shape)

    def forward(self, x: Array) -> Array:
        """Return the layer's y, after showing it to the taps."""
        y = self._conforming("y", self.lowered.forward(x), self.y_shape)
        for tap in self.taps:
            tap.forward(self, x, y)
        return y

    def backward(self, dy: Array) -> Array | None:
        """Return the layer's dx, after showing it to the taps; the layer may overwrite dy."""
        heard = dy.copy() if self.taps else dy
        dx = self.lowered.backward(dy)
        if dx is not None or self.site.wants_dx:
            dx = self._conforming("dx", dx, (*self.site.input_shape, self.site.batch))
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


class LoweredSequential(Lowered):
    """Runs the stages in order, and backward in reverse as far as gradients are needed."""

    def __init__(self, stages: list[Stage]) -> None:
        self.stages = stages

    def forward(self, x: Array) -> Array:
        """Y = f_n(... f_1(X))."""
        for stage in self.stages:
            x = stage.forward(x)
        return x

    def backward(self, dy: Array) -> Array | None:
        """Apply the chain rule from the last layer to the first one that has parameters."""
        for stage in reversed(self.stages):
            dx = stage.backward(dy)
            if dx is None:
                return None
            dy = dx
        return dy


def _given(where: str, layers: Sequence[Layer | Sequence[Layer]]) -> tuple[Layer, ...]:
    """Return the layers, which are given one by one or in one list; raises InputError for anything else."""
    if len(layers) == 1 and isinstance(layers[0], list | tuple):
        layers = layers[0]
    for layer in layers:
        if not isinstance(layer, Layer) or not hasattr(layer, "kind"):
            raise InputError(where, "layers, such as ReLU() or Dense(10)", repr(layer))
    return cast(tuple[Layer, ...], tuple(layers))


def _sequential(layer: Layer | Sequence[Layer]) -> Sequential:
    """Return a branch as a Sequential, so that each layer in it has its own name."""
    return layer if isinstance(layer, Sequential) else Sequential(layer)


class Branches(Layer):
    """Layers in parallel, which all take the same input."""

    @property
    @abstractmethod
    def branches(self) -> tuple[tuple[str, Layer], ...]:
        """Each branch with its name."""

    @abstractmethod
    def mapped(self, change: Callable[[Layer], Layer]) -> Layer:
        """Return the same with each branch changed."""

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return the parameters of all branches, named as in `body.conv1.weight`."""
        return tuple(
            replace(parameter, name=qualified(name, parameter.name))
            for name, branch in self.branches
            for parameter in branch.parameters(input_shape)
        )

    def shapes(self, input_shape: Shape, name: str) -> list[Shape]:
        """Return the output shape of each branch."""
        return [branch.output_shape(input_shape, qualified(name, own)) for own, branch in self.branches]


class LoweredBranches(Lowered):
    """The lowered branches, and the sum of their dX."""

    def __init__(self, layer: Branches, site: Site) -> None:
        self.stages: list[Stage] = []
        for name, branch in layer.branches:
            self.stages.append(Stage.of(branch, site.child(name, site.input_shape, wants_dx=site.wants_dx)))
        self.y = site.workspace.array((*layer.output_shape(site.input_shape, site.name), site.batch))
        self.dx = site.workspace.array((*site.input_shape, site.batch)) if site.wants_dx else None

    def sum_of_backward(self, dys: list[Array]) -> Array | None:
        """dX = sum over the branches of the dX that each returns for its dY."""
        if self.dx is not None:
            self.dx.fill(0)
        for stage, dy in zip(self.stages, dys, strict=True):
            dx = stage.backward(dy)
            if self.dx is not None and dx is not None:
                np.add(self.dx, dx, out=self.dx)
        return self.dx


@dataclass(frozen=True)
class Residual(Branches):
    """y = body(x) + shortcut(x) (He et al., 2016); without a shortcut, y = body(x) + x.

    Raises InputError if their output shapes differ.
    """

    body: Layer
    shortcut: Layer = Sequential()

    kind: ClassVar[str] = "residual"

    def __post_init__(self) -> None:
        for name, branch in self.branches:
            object.__setattr__(self, name, _sequential(branch))

    @property
    def branches(self) -> tuple[tuple[str, Layer], ...]:
        """The body and the shortcut."""
        return ("body", self.body), ("shortcut", self.shortcut)

    def mapped(self, change: Callable[[Layer], Layer]) -> Layer:
        """Return the same with body and shortcut changed."""
        return Residual(change(self.body), change(self.shortcut))

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the shape of the body's output."""
        body, shortcut = self.shapes(input_shape, name)
        check_shape(f"{name}: shortcut", body, shortcut)
        return body

    def lower(self, site: Site) -> Lowered:
        """Return both branches with a buffer for their sum."""
        return _LoweredResidual(self, site)


class _LoweredResidual(LoweredBranches):
    def __init__(self, residual: Residual, site: Site) -> None:
        super().__init__(residual, site)
        self.copy = site.workspace.array(self.y.shape if site.wants_gradients else (0,))

    def forward(self, x: Array) -> Array:
        """Y = body(X) + shortcut(X)."""
        body, shortcut = self.stages
        return np.add(body.forward(x), shortcut.forward(x), out=self.y)

    def backward(self, dy: Array) -> Array | None:
        """Both branches get dY; the body may overwrite it, so the shortcut gets a copy."""
        np.copyto(self.copy, dy)
        return self.sum_of_backward([dy, self.copy])


@dataclass(frozen=True, init=False)
class Concatenate(Branches):
    """The outputs of all branches, concatenated along the channels: `Concatenate(Conv2D(8, 1), Conv2D(8, 3))`.

    Raises InputError if they differ in anything but the number of channels.
    """

    layers: tuple[Layer, ...]

    kind: ClassVar[str] = "concatenate"

    def __init__(self, *layers: Layer | Sequence[Layer]) -> None:
        if not layers:
            raise InputError("Concatenate", "at least one branch", "none")
        object.__setattr__(self, "layers", tuple(map(_sequential, _given("Concatenate", layers))))

    @property
    def branches(self) -> tuple[tuple[str, Layer], ...]:
        """branch1, branch2, ..."""
        return tuple((f"branch{number}", layer) for number, layer in enumerate(self.layers, 1))

    def mapped(self, change: Callable[[Layer], Layer]) -> Layer:
        """Return the same with each branch changed."""
        return Concatenate(*map(change, self.layers))

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return (sum of the channels, *size)."""
        shapes = self.shapes(input_shape, name)
        for (own, _), shape in zip(self.branches, shapes, strict=True):
            check_shape(f"{qualified(name, own)}: size", shapes[0][1:], shape[1:])
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def lower(self, site: Site) -> Lowered:
        """Return the branches with a buffer for all outputs."""
        return _LoweredConcatenate(self, site)


class _LoweredConcatenate(LoweredBranches):
    def __init__(self, layer: Concatenate, site: Site) -> None:
        super().__init__(layer, site)
        counts = [shape[0] for shape in layer.shapes(site.input_shape, site.name)]
        self.parts = [slice(sum(counts[:place]), sum(counts[: place + 1])) for place in range(len(counts))]

    def forward(self, x: Array) -> Array:
        """Y is the outputs, concatenated."""
        for stage, part in zip(self.stages, self.parts, strict=True):
            np.copyto(self.y[part], stage.forward(x))
        return self.y

    def backward(self, dy: Array) -> Array | None:
        """Each branch gets its part of dY."""
        return self.sum_of_backward([dy[part] for part in self.parts])


def check_nesting(model: Sequential) -> None:
    """Raise InputError if layers are nested in layers more than `LEVELS` deep."""
    inside: Sequence[Layer] = [model]
    for _ in range(LEVELS):
        layers = [inner for layer in inside for inner in _inner(layer)]
        inside = list({id(layer): layer for layer in layers}.values())  # one that stands in many places counts once
    if inside:
        raise InputError("network: layers", f"nested at most {LEVELS} deep", "more")


def _inner(layer: Layer) -> Sequence[Layer]:
    if isinstance(layer, Branches):
        return [branch for _, branch in layer.branches]
    return layer.layers if isinstance(layer, Sequential) else ()


def stages_of(lowered: Lowered) -> Iterator[Stage]:
    """Yield the stage of every layer; those inside branches come before the layer that has the branches."""
    if isinstance(lowered, LoweredSequential | LoweredBranches):
        for stage in lowered.stages:
            yield from stages_of(stage.lowered)
            if not isinstance(stage.lowered, LoweredSequential):
                yield stage
