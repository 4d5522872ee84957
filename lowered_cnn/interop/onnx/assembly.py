"""The network that a model becomes: layers and joins are added one by one, in the layouts that they need."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lowered_cnn.arrays import InputError, Shape, check_size
from lowered_cnn.interop.onnx.graph import Entry
from lowered_cnn.interop.onnx.graph import Graph as Model
from lowered_cnn.interop.onnx.layout import BATCH, Factor, View, merged
from lowered_cnn.interop.onnx.naming import name_of
from lowered_cnn.interop.onnx.nodes import Node, Translation, Values
from lowered_cnn.layers import ChannelShuffle, Flatten, Graph, Join, Layer, PixelShuffle, Reshape, Sequential, Transpose
from lowered_cnn.layers import Node as Place
from lowered_cnn.layers.graph import X
from lowered_cnn.layers.reshape import Permutation
from lowered_cnn.network import Network

MOST_REPEATED = 2**28
"""The most parameters of a network beyond those in the file, whose constants may be repeated without end."""

FEW_AXES = 4
"""Up to this many, a permutation is looked for among all orders of the axes."""


@dataclass(frozen=True)
class _Part:
    """A node of the network: its parameters' values, and what two nodes must have in common to share them."""

    layer: Layer | Join
    inputs: tuple[str, ...]
    values: Mapping[str, Values] = field(default_factory=dict)
    key: tuple[object, ...] = ()


class Assembly:
    """The layers and joins so far, by name, and the shapes of what they compute, without the batch."""

    def __init__(self, graph: Model) -> None:
        self.graph = graph
        self.examples = max(entry.examples for entry in graph.inputs)
        self.names = [entry.name for entry in graph.inputs] if len(graph.inputs) > 1 else [X]
        self.shapes = {name: entry.shape for name, entry in zip(self.names, graph.inputs, strict=True)}
        self.parts: dict[str, _Part] = {}
        self.outputs: list[str] = []
        self._counts: dict[str, int] = {}
        self._laid_out: dict[tuple[str, Layer], str] = {}

    def start(self, entry: Entry) -> View:
        """Return an input as a tensor."""
        check_size(f"input {entry.name}", entry.shape)
        return View.of(self.names[self.graph.inputs.index(entry)], entry.shape)

    # Layers and joins.

    def add(self, translation: Translation, source: str, node: Node, key: tuple[object, ...] = ()) -> str:
        """Add the layer of a node, and return its name; nodes of the same constants, and `key`, share parameters."""
        layer = translation.layer
        constants = [name for name in node.inputs[1:] if name] if translation.parameters else []
        name = self._named(layer, name_of(node.given, constants), node.given)
        self.shapes[name] = layer.output_shape(self.shapes[source], name)
        check_size(f"{name}: output", self.shapes[name])
        own = (type(layer), *constants, *key) if constants else ()
        self.parts[name] = _Part(layer, (source,), translation.parameters, own)
        return name

    def join(self, join: Join, sources: Sequence[str], node: Node) -> str:
        """Add a join, and return its name."""
        name = self._named(join, node.given)
        self.shapes[name] = join.output_shape([self.shapes[source] for source in sources], name)
        check_size(f"{name}: output", self.shapes[name])
        self.parts[name] = _Part(join, tuple(sources))
        return name

    def _named(self, layer: Layer | Join, *wanted: str | None) -> str:
        """Return a name that is not taken: one of the wanted, or kind and number."""
        name = next((name for name in wanted if name and name not in self.shapes), None)
        while name is None or name in self.shapes:
            self._counts[layer.kind] = self._counts.get(layer.kind, 0) + 1
            name = f"{layer.kind}{self._counts[layer.kind]}"
        return name

    # Layouts.

    def arranged(self, view: View, groups: Sequence[Sequence[int]]) -> str:
        """Return what a tensor holds, with an axis for each group of ONNX's axes, in this order; the batch aside."""
        axes = [[factor for axis in group for factor in view.axes[axis] if factor is not BATCH] for group in groups]
        factors = [factor for group in axes for factor in group]
        shape = tuple(math.prod(factor.length for factor in group) for group in axes)
        source = view.node
        if factors != list(view.order):
            source = self._permuted(view, [view.order.index(factor) for factor in factors], shape)
        return self.reshaped(source, shape)

    def batch_first(self, view: View, node: Node) -> str:
        """Return what a tensor holds in ONNX's own layout; raises InputError unless its first axis is the batch."""
        if not view.is_batch_first:
            raise node.error("the batch as the first axis of the input, and nowhere else", _listed(view))
        return self.arranged(view, [[axis] for axis in range(1, len(view.axes))])

    def plain(self, view: View) -> View:
        """Return the tensor with each of ONNX's axes as an axis of the node, or none if its length is 1."""
        if not all(_is_run(view, axis) for axis in view.axes):
            groups = [[axis] for axis in range(len(view.axes))]
            source = self.arranged(view, groups)
            factors = tuple(factor for axis in view.axes for factor in axis if factor is not BATCH)
            view = View(source, self.shapes[source], factors, view.axes)
        axes, order = list[tuple[Factor, ...]](), dict[int, Factor]()
        for axis in view.axes:
            own = [factor for factor in axis if factor is not BATCH]
            whole = [Factor(math.prod(factor.length for factor in own))] if own else []
            order.update({view.order.index(own[0]): factor for factor in whole})
            axes.append((*((BATCH,) if BATCH in axis else ()), *whole))
        factors = tuple(order[place] for place in sorted(order))
        shape = tuple(factor.length for factor in factors)
        if tuple(length for length in view.shape if length > 1) != shape:
            source = self.reshaped(view.node, shape or (1,))
            return View(source, self.shapes[source], factors, tuple(axes))
        return View(view.node, view.shape, factors, tuple(axes))

    def axis(self, view: View, axis: int, node: Node) -> int:
        """Return the axis of the node that one of ONNX's axes of a plain view is; raises InputError for the batch."""
        if BATCH in view.axes[axis]:
            raise node.error("an axis other than that of the batch", axis)
        return self.stored_axes(view).index(axis)

    def stored_axes(self, view: View) -> list[int | None]:
        """Return which of ONNX's axes each axis of the node is, for a plain view; None for one of length 1."""
        own = {factor: place for place, axis in enumerate(view.axes) for factor in axis}
        long = iter(view.order)
        return [own[next(long)] if length > 1 else None for length in view.shape]

    def result(self, name: str, places: Sequence[int | None], like: View) -> View:
        """Return a new node as a tensor with as many axes as `like`; the node's axes are these of ONNX, `places`."""
        axes, order = [(BATCH,) if BATCH in axis else () for axis in like.axes], list[Factor]()
        for place, length in zip(places, self.shapes[name], strict=True):
            if length > 1 and place is not None:
                order.append(Factor(length))
                axes[place] = (*axes[place], order[-1])
        return View(name, self.shapes[name], tuple(order), tuple(axes))

    def _permuted(self, view: View, places: Sequence[int], wanted: Shape) -> str:
        seen, order = merged([factor.length for factor in view.order], places)
        for layer in _shuffles(view.shape, seen, order):
            is_same = merged(*layer.permutation(view.shape, "")) == (seen, order)
            if is_same and layer.output_shape(view.shape, "") == wanted:
                return self._layout(layer, view.node)
        return self._layout(Transpose(order), self.reshaped(view.node, seen))

    def reshaped(self, source: str, shape: Shape) -> str:
        """Return the same numbers in another shape."""
        if self.shapes[source] == shape:
            return source
        return self._layout(Flatten() if len(shape) == 1 else Reshape(shape), source)

    def _layout(self, layer: Layer, source: str) -> str:
        """Add a layer that moves numbers, unless it is there already."""
        if (source, layer) not in self._laid_out:
            self._laid_out[source, layer] = name = self._named(layer)
            self.shapes[name] = layer.output_shape(self.shapes[source], name)
            self.parts[name] = _Part(layer, (source,))
        return self._laid_out[source, layer]

    def flat(self, view: View) -> str:
        """Return all numbers of an example in one row, in the order that they have."""
        return self.reshaped(view.node, (math.prod(view.shape),))

    def laid_out(self, view: View, order: Sequence[int], shape: Shape | None) -> str:
        """Return what a tensor holds, with ONNX's axes in this order; as it is, if that is so and it has this shape."""
        factors = [factor for axis in order for factor in view.axes[axis] if factor is not BATCH]
        if view.shape == shape and factors == list(view.order):
            return view.node
        return self.arranged(view, [[axis] for axis in order])

    def output(self, tensor: object, name: str) -> str:
        """Return what an output of the model holds; raises InputError unless its first axis is the batch."""
        if not isinstance(tensor, View) or not tensor.is_batch_first or len(tensor.axes) < 2:
            got = _listed(tensor) if isinstance(tensor, View) else "a constant"
            raise InputError(f"output {name}", "a shape (N, lengths)", got)
        source = self.arranged(tensor, [[axis] for axis in range(1, len(tensor.axes))])
        if source in self.outputs:  # each output has a name of its own
            copy = self._named(layer := Reshape(self.shapes[source]))
            self.shapes[copy], self.parts[copy] = self.shapes[source], _Part(layer, (source,))
            source = copy
        self.outputs.append(source)
        return source

    def is_learned(self, node: Node, count: int) -> bool:
        """Return whether the constants of a sum or product are parameters: initializers of more than one number.

        Models from here have any number as an initializer if it learns.
        """
        return (count > 1 or self.graph.is_ours) and any(name in self.graph.given for name in node.inputs)

    # The network.

    def network(self, outputs: Sequence[str]) -> Network:
        """Return the network of what the outputs need: a Sequential if every layer takes what the last one computes."""
        graph, parts = self.graph, self._needed(outputs)
        nodes, values = self._places(parts)
        if sum(entry.size for entry in values.values()) > MOST_REPEATED + 2 * graph.numbers:
            raise InputError(graph.where, f"at most {MOST_REPEATED:,} parameters beyond those in the file", "more")
        ends = {name: self.shapes[name] for name in self.names} if len(self.names) > 1 else {}
        shape = (sum(map(math.prod, ends.values())),) if ends else self.shapes[X]
        model = _chain(nodes, outputs) if not ends else None
        is_double = graph.is_double or any(entry.dtype == np.float64 for entry in values.values())
        network = Network(
            model or Graph(*nodes, inputs=ends, outputs=outputs), shape, dtype=np.float64 if is_double else np.float32
        )
        for name, entry in values.items():
            network.parameters.assign(name, entry, graph.where)
        return network

    def _needed(self, outputs: Sequence[str]) -> dict[str, _Part]:
        used, kept = set(outputs), dict[str, _Part]()
        for name, part in reversed(self.parts.items()):
            if name in used:
                used.update(part.inputs)
                kept[name] = part
        return dict(reversed(kept.items()))

    def _places(self, parts: Mapping[str, _Part]) -> tuple[list[Place], dict[str, Values]]:
        """Return the nodes of the graph, and the values of the parameters by name."""
        owners, nodes, values = dict[tuple[object, ...], str](), list[Place](), dict[str, Values]()
        for name, part in parts.items():
            specification = part.layer.parameters(self.shapes[part.inputs[0]]) if isinstance(part.layer, Layer) else ()
            key = (*part.key, specification)
            owner = owners.setdefault(key, name) if part.key else name
            nodes.append(Place(name, part.layer, part.inputs, None if owner == name else owner))
            if owner == name:
                values.update({f"{name}.{own}": entry for own, entry in part.values.items()})
        return nodes, values


def _chain(nodes: Sequence[Place], outputs: Sequence[str]) -> Sequential | None:
    """Return nodes as a Sequential, or None if they are no row of layers, or share parameters."""
    names = [node.name for node in nodes]
    layers = [node.layer for node in nodes if isinstance(node.layer, Layer) and node.shares is None]
    in_a_row = all(node.inputs == (before,) for node, before in zip(nodes, [X, *names], strict=False))
    is_chain = in_a_row and len(layers) == len(nodes) and list(outputs) == [X, *names][-1:]
    return Sequential(*layers, given=names) if is_chain else None


def _shuffles(shape: Shape, seen: Shape, order: Shape) -> list[Permutation]:
    """Return the shuffles, and the orders of all axes, that a permutation of a shape may be."""
    groups = [ChannelShuffle(seen[0])] if order == (1, 0, 2) and shape[0] % seen[0] == 0 else []
    factors = [length for length in set(seen) if len(shape) > 1 and shape[0] % length ** (len(shape) - 1) == 0]
    orders = itertools.permutations(range(len(shape))) if len(shape) <= FEW_AXES else []
    return [*groups, *map(PixelShuffle, factors), *map(Transpose, orders)]


def _is_run(view: View, axis: Sequence[Factor]) -> bool:
    """Return whether the factors of an axis stand side by side, and behind the batch."""
    places = [view.order.index(factor) for factor in axis if factor is not BATCH]
    return places == list(range(places[0], places[0] + len(places))) if places else True


def _listed(view: View) -> str:
    return f"({', '.join(map(str, view.lengths))})"
