"""A graph: layers and joins in any order without cycles, with each layer and each weight there once."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import starmap
from typing import ClassVar

import numpy as np

from lowered_cnn.arrays import Array, Images, InputError, Shape, check_images, check_shape, check_size, whole_number
from lowered_cnn.layers.container import (
    Container,
    LoweredContainer,
    Sequential,
    Stage,
    check_is_among,
    check_names,
    parameters_of,
)
from lowered_cnn.layers.join import Join, JoinSite, LoweredJoin
from lowered_cnn.layers.layer import Layer, Site, qualified
from lowered_cnn.parameters import Parameter, ParameterVector
from lowered_cnn.workspace import Slot, Workspace

X = "x"
"""The name of the input of a graph that has only one."""


@dataclass(frozen=True)
class Input:
    """One of several inputs of a graph: its name and shape, without the batch."""

    name: str
    shape: Shape

    def __post_init__(self) -> None:
        where = f"input {self.name}: shape"
        if not isinstance(self.shape, Iterable):
            raise InputError(where, "a tuple of lengths", repr(self.shape))
        object.__setattr__(self, "shape", tuple(whole_number(where, length, 1) for length in self.shape))


@dataclass(frozen=True, init=False)
class Node:
    """A layer or a join in a graph, with its name and the names of what it takes.

    `inputs` names inputs of the graph and earlier nodes: one for a layer, any number for a join. A layer that `shares`
    uses the parameters of the earlier node of that name.
    """

    name: str
    layer: Layer | Join
    inputs: tuple[str, ...]
    shares: str | None

    def __init__(self, name: str, layer: Layer | Join, inputs: str | Sequence[str], shares: str | None = None) -> None:
        taken = (inputs,) if isinstance(inputs, str) else tuple(inputs)
        if not isinstance(layer, Layer | Join):
            raise InputError(f"node {name}: layer", "a layer or a join, such as ReLU() or Add()", repr(layer))
        if not taken or (isinstance(layer, Layer) and len(taken) > 1):
            wanted = "one" if isinstance(layer, Layer) else "at least one"
            raise InputError(f"node {name}: inputs", wanted, len(taken))
        if shares is not None and not isinstance(layer, Layer):
            raise InputError(f"node {name}: shares", "None for a join, which has no parameters", shares)
        vars(self).update(name=name, layer=layer, inputs=taken, shares=shares)


@dataclass(frozen=True, init=False)
class Graph(Container):
    """Nodes that take the outputs of earlier ones: any directed acyclic graph.

    `Graph(Node("a", Conv2D(8, 3, padding="same"), "x"), Node("b", Sigmoid(), "a"), Node("c", Multiply(), ("a", "b")))`

    The input is called "x", and the output is that of the last node, unless there are several: then `inputs` gives
    their names and shapes, and `outputs` names nodes. A network sees several as one, with all their numbers one after
    the other; `pack` and `unpack` convert. Parameters are named after their node.

    Raises InputError for a node that takes what is not there, and for one that no output needs.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]

    kind: ClassVar[str] = "graph"

    def __init__(
        self, *nodes: Node, inputs: Mapping[str, Shape] | Iterable[Input] = (), outputs: str | Sequence[str] = ()
    ) -> None:
        if not nodes or not all(isinstance(node, Node) for node in nodes):
            raise InputError("Graph", 'nodes, such as Node("conv1", Conv2D(8, 3), "x")', list(nodes))
        entries = tuple(starmap(Input, inputs.items()) if isinstance(inputs, Mapping) else inputs)
        if not all(isinstance(entry, Input) for entry in entries):
            raise InputError("Graph: inputs", 'shapes by name, such as {"image": (3, 32, 32)}', repr(inputs))
        named = (outputs,) if isinstance(outputs, str) else tuple(outputs)
        object.__setattr__(self, "nodes", nodes)
        object.__setattr__(self, "inputs", entries)
        object.__setattr__(self, "outputs", named or (nodes[-1].name,))
        self._check()

    def _check(self) -> None:
        check_names("Graph: names", [*self.sources, *(node.name for node in self.nodes)])
        there, owners = set(self.sources), set[str]()
        for node in self.nodes:
            for name in node.inputs:
                if name not in there:
                    raise InputError(f"node {node.name}: inputs", "inputs of the graph or earlier nodes", name)
            if node.shares is not None and node.shares not in owners:
                raise InputError(f"node {node.name}: shares", "an earlier node that shares nothing", node.shares)
            there.add(node.name)
            owners |= {node.name} if node.shares is None and isinstance(node.layer, Layer) else set()
        for name in self.outputs:
            if name not in there:
                raise InputError("Graph: outputs", "names of nodes", name)
        for name in there - self.uses.keys():
            raise InputError("Graph: nodes", "each needed for an output", f"{name}, which is not")

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return tuple(entry.name for entry in self.inputs) or (X,)

    @cached_property
    def uses(self) -> Counter[str]:
        """How often each input and node is taken, by nodes and as an output of the graph."""
        return Counter([*self.outputs, *(name for node in self.nodes for name in node.inputs)])

    @property
    def inside(self) -> tuple[Layer, ...]:
        """The layers in it."""
        return tuple(node.layer for node in self.nodes if isinstance(node.layer, Layer))

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each node."""
        return tuple(node.name for node in self.nodes)

    @property
    def is_packed(self) -> bool:
        """Whether named inputs, or several outputs, are packed into one array."""
        return len(self.inputs) > 0 or len(self.outputs) > 1

    def shapes(self, input_shape: Shape, name: str = "") -> dict[str, Shape]:
        """Return the shape of each input and of each node's output."""
        if self.inputs:
            check_shape(
                f"{name or 'graph'}: inputs", (sum(math.prod(entry.shape) for entry in self.inputs),), input_shape
            )
        shapes = {entry.name: entry.shape for entry in self.inputs} or {X: input_shape}
        for node in self.nodes:
            own, taken = qualified(name, node.name), [shapes[each] for each in node.inputs]
            if isinstance(node.layer, Join):
                shapes[node.name] = node.layer.output_shape(taken, own)
            else:
                shapes[node.name] = node.layer.output_shape(taken[0], own)
            check_size(f"{own}: output", shapes[node.name])
        return shapes

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the shape of the output; of several, (count of all their numbers)."""
        shapes = self.shapes(input_shape, name)
        if len(self.outputs) == 1:
            return shapes[self.outputs[0]]
        return (sum(math.prod(shapes[output]) for output in self.outputs),)

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return the parameters of all nodes that share none, named as in `conv1.weight`."""
        shapes, owned = self.shapes(input_shape), dict[str, tuple[Parameter, ...]]()
        for node in self.nodes:
            if isinstance(node.layer, Layer):
                found = node.layer.parameters(shapes[node.inputs[0]])
                if node.shares is None:
                    owned[node.name] = found
                elif found != owned[node.shares]:
                    wanted = f"the parameters of {node.shares}, {_listed(owned[node.shares])}"
                    raise InputError(f"node {node.name}: shares", wanted, _listed(found))
        return tuple(
            replace(parameter, name=qualified(name, parameter.name))
            for name, parameters in owned.items()
            for parameter in parameters
        )

    def pack(self, inputs: Mapping[str, Images]) -> Images:
        """Return several inputs, each (N, *shape) and under its name, as one array (N, count of all their numbers).

        Beside floats, bytes become numbers from 0 to 1, which is what they count as by themselves.
        """
        if set(inputs) != set(self.sources):
            raise InputError("pack", f"inputs {', '.join(self.sources)}", ", ".join(inputs))
        for name, images in inputs.items():
            check_images(f"pack: {name}", images)
        count = len(inputs[self.sources[0]])
        for entry in self.inputs:
            check_shape(f"pack: {entry.name}", (count, *entry.shape), inputs[entry.name].shape)
        parts: list[Images] = [inputs[name].reshape(count, -1) for name in self.sources]
        if any(part.dtype != np.uint8 for part in parts):
            dtype = np.result_type(np.float32, *parts)
            parts = [np.multiply(part, 1 / 255, dtype=dtype) if part.dtype == np.uint8 else part for part in parts]
        return np.concatenate(parts, axis=1)

    def source(self, name: str, images: Images) -> Images:
        """Return one of the inputs (N, *shape) that are packed in these."""
        if not self.inputs:
            return images
        parts = _parts(entry.shape for entry in self.inputs)
        place = self.sources.index(name)
        return images[:, parts[place]].reshape(len(images), *self.inputs[place].shape)

    def unpack(self, outputs: Array, input_shape: Shape) -> dict[str, Array]:
        """Return the outputs (N, count of all numbers) of a network with this input shape, each under its name."""
        shapes = self.shapes(input_shape)
        parts = _parts(shapes[name] for name in self.outputs)
        return {
            name: outputs[:, part].reshape(len(outputs), *shapes[name])
            for name, part in zip(self.outputs, parts, strict=True)
        }

    def split(self, at: str) -> tuple["Graph | Sequential", "Graph"]:
        """Return two graphs: the second is the node called `at` and all that depend on it, the first all others.

        The second takes the output of the first. Raises InputError if it needs more than one tensor.
        """
        check_is_among("split: at", at, self.names)
        after = {at}
        for node in self.nodes:
            if not after.isdisjoint(node.inputs):
                after.add(node.name)
        before = [node for node in self.nodes if node.name not in after]
        if not before:
            return Sequential(), self
        rest = [node for node in self.nodes if node.name in after]
        taken = {name for node in rest for name in node.inputs} | set(self.outputs)
        shared = {node.shares for node in rest if node.shares is not None}
        cut = sorted((taken | shared) - after)
        if len(cut) > 1 or shared - after:
            raise InputError(f"split: {at}", "one tensor, and no parameters, that both parts need", ", ".join(cut))
        head = [_with_input(node, cut[0], X) for node in rest]
        outputs = [X if name == cut[0] else name for name in self.outputs]
        return Graph(*before, inputs=self.inputs, outputs=cut), Graph(*head, outputs=outputs)

    def followed_by(self, name: str, layer: Layer) -> "Graph":
        """Return the same nodes and, after the first output, a new one of this name."""
        return Graph(*self.nodes, Node(name, layer, self.outputs[0]), inputs=self.inputs)

    def lower(self, site: Site) -> "LoweredGraph":
        """Lower every node, in order."""
        return LoweredGraph(self, site)


@dataclass
class _Step:
    """An input or a lowered node: the steps it takes, by number, and what runs; then y, and the sum of the dY so far.

    `slots` is the memory that y is in, and `readers` counts the nodes that take it and are not yet lowered.
    """

    inputs: tuple[int, ...]
    run: Stage | LoweredJoin | None
    wants_gradients: bool
    slots: tuple[Slot, ...]
    readers: int
    y: Array = field(default_factory=lambda: np.empty(0))
    dy: Array | None = None


class LoweredGraph(LoweredContainer):
    """Runs the nodes in order, and backward in reverse; where branches part, the dX that they return are added up."""

    def __init__(self, graph: Graph, site: Site) -> None:
        self.shapes = graph.shapes(site.input_shape, site.name)
        self.stages: list[Stage] = []
        self.shared: dict[str, list[ParameterVector]] = {}
        places = {name: place for place, name in enumerate(self.shapes)}
        self.uses = graph.uses
        self.steps: list[_Step] = []
        for name in graph.sources:
            site.workspace.hold(site.slots)
            self.steps.append(_Step((), None, site.wants_dx, site.slots, graph.uses[name]))
        for node in graph.nodes:
            inputs = tuple(places[name] for name in node.inputs)
            if isinstance(node.layer, Layer):
                step = self._layer(node, node.layer, inputs, site)
            else:
                step = self._join(node, node.layer, inputs, site)
            self.steps.append(step)
            self._read(inputs, site.workspace)
        self.gradients = site.gradients
        self.outputs = [places[name] for name in graph.outputs]
        self.input_parts = _parts([self.shapes[name] for name in graph.sources]) if graph.inputs else []
        self.output_parts = _parts([self.shapes[name] for name in graph.outputs]) if len(graph.outputs) > 1 else []
        new, batch = site.workspace.array, site.batch
        self.dx = new((*site.input_shape, batch) if self.input_parts and site.wants_dx else (0,))
        if self.output_parts:
            with site.workspace.lowering() as taken:
                self.y = site.workspace.output((*graph.output_shape(site.input_shape, site.name), batch))
            self.slots = tuple(taken.outputs)
            self._read(self.outputs, site.workspace)
        else:
            self.slots = self.steps[self.outputs[0]].slots

    def _read(self, places: Sequence[int], workspace: Workspace) -> None:
        """Count a reader of these nodes as lowered; release the memory of nodes without further readers."""
        for place in places:
            step = self.steps[place]
            step.readers -= 1
            if not step.readers:
                workspace.release(step.slots)

    def _layer(self, node: Node, layer: Layer, inputs: tuple[int, ...], site: Site) -> _Step:
        wants_dx = self.steps[inputs[0]].wants_gradients
        slots = self.steps[inputs[0]].slots
        child = site.child(node.name, self.shapes[node.inputs[0]], wants_dx=wants_dx, slots=slots)
        if node.shares is not None:
            child = replace(child, owner=qualified(site.owner, node.shares))
            if site.wants_gradients:
                owned = parameters_of(child.owner, layer, child.input_shape)
                apart = ParameterVector.zeros(owned, site.workspace.dtype)
                self.shared.setdefault(node.shares, []).append(apart)
                child = replace(child, gradients=apart)
        stage = Stage.of(layer, child)
        self.stages.append(stage)
        return _Step(inputs, stage, stage.site.wants_gradients, stage.slots, self.uses[node.name])

    def _join(self, node: Node, join: Join, inputs: tuple[int, ...], site: Site) -> _Step:
        shapes = tuple(self.shapes[name] for name in node.inputs)
        wants_dx = tuple(self.steps[place].wants_gradients for place in inputs)
        at = JoinSite(qualified(site.name, node.name), shapes, site.batch, wants_dx, site.workspace)
        with site.workspace.lowering() as taken:
            run = join.lower(at)
        slots = site.workspace.slots_of_y(taken, tuple(slot for place in inputs for slot in self.steps[place].slots))
        return _Step(inputs, run, any(wants_dx), slots, self.uses[node.name])

    def forward(self, x: Array) -> Array:
        """Y of each node, in order."""
        for step, entry in zip(self.steps, self._unpacked(x), strict=False):
            step.y = entry
        for step in self.steps:
            if isinstance(step.run, Stage):
                step.y = step.run.forward(self.steps[step.inputs[0]].y)
            elif step.run is not None:
                step.y = step.run.forward([self.steps[place].y for place in step.inputs])
        if not self.output_parts:
            return self.steps[self.outputs[0]].y
        for part, place in zip(self.output_parts, self.outputs, strict=True):
            np.copyto(self.y[part], self.steps[place].y.reshape(-1, self.y.shape[-1]))
        return self.y

    def backward(self, dy: Array) -> Array | None:
        """The chain rule, from the last node to the first: dY of a node is the sum of the dX of those that take it."""
        for step in self.steps:
            step.dy = None
        for place, part in zip(self.outputs, self.output_parts or [slice(None)], strict=True):
            self._add(place, dy[part].reshape(self.steps[place].y.shape))
        for step in reversed(self.steps):
            if step.dy is None or step.run is None:
                continue
            dxs = [step.run.backward(step.dy)] if isinstance(step.run, Stage) else step.run.backward(step.dy)
            for place, dx in zip(step.inputs, dxs, strict=True):
                if dx is not None:
                    self._add(place, dx)
        self._add_shared()
        return self._packed_dx()

    def _add(self, place: int, dx: Array) -> None:
        """Add to the dY of a node that wants one; the first array to arrive is the node's own from then on."""
        step = self.steps[place]
        if step.wants_gradients:
            step.dy = dx if step.dy is None else np.add(step.dy, dx, out=step.dy)

    def _add_shared(self) -> None:
        """Add up the gradients of all uses of shared parameters; of statistics, take the mean."""
        for uses in self.shared.values():
            for parameter in uses[0].parameters:
                total = self.gradients[parameter.name]
                for apart in uses:
                    total += apart[parameter.name]
                if parameter.statistic:
                    total /= 1 + len(uses)

    def _unpacked(self, x: Array) -> Iterator[Array]:
        if not self.input_parts:
            yield x
        for part, shape in zip(self.input_parts, self.shapes.values(), strict=False):
            yield x[part].reshape(*shape, x.shape[-1])

    def _packed_dx(self) -> Array | None:
        if not self.input_parts:
            return self.steps[0].dy
        if not self.dx.size:
            return None
        for part, step in zip(self.input_parts, self.steps, strict=False):
            assert step.dy is not None
            np.copyto(self.dx[part], step.dy.reshape(-1, self.dx.shape[-1]))
        return self.dx


def _with_input(node: Node, before: str, now: str) -> Node:
    return replace(node, inputs=tuple(now if name == before else name for name in node.inputs))


def _parts(shapes: Iterable[Shape]) -> list[slice]:
    """Return where arrays of these shapes, without the batch, lie when they are packed into one."""
    start, parts = 0, []
    for shape in shapes:
        parts.append(slice(start, start + math.prod(shape)))
        start = parts[-1].stop
    return parts


def _listed(parameters: Sequence[Parameter]) -> str:
    return ", ".join(f"{parameter.name} {parameter.shape}" for parameter in parameters) or "none"
