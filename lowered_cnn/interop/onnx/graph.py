"""The graph of an ONNX model as it stands in the file: inputs, constants, nodes in order, and outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from lowered_cnn.arrays import InputError, Shape
from lowered_cnn.interop.onnx.folding import Folder
from lowered_cnn.interop.onnx.nodes import OWN_DOMAIN, Node, check_distinct, constant, values_of
from lowered_cnn.interop.onnx.package import PRODUCER, onnx_package

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")
"""The types of number that an input may have."""

MOST_NODES = 200_000
"""The most nodes of a model whose functions are written out."""

Shapes = Mapping[str, Sequence[int]] | Sequence[int] | None
"""The shape of the input without the batch, or that of each input by name, where the file leaves lengths open."""


@dataclass(frozen=True)
class Entry:
    """An input: its name, its shape without the batch, and how many examples the model is for (0: any number)."""

    name: str
    shape: Shape
    examples: int


class Graph:
    """The nodes of a model that its outputs need, in order, its constants (`known`), inputs and outputs."""

    def __init__(self, model: "ModelProto", where: str, shapes: Shapes = None) -> None:
        self.where = where
        self.is_ours = model.producer_name == PRODUCER
        opset = operator_set(model, where)
        model = _written_out(model, where)
        check_distinct(f"{where}: initializers", [tensor.name for tensor in model.graph.initializer])
        self.known = {tensor.name: values_of(tensor) for tensor in model.graph.initializer}
        self.given = frozenset(self.known)
        inputs = [entry for entry in model.graph.input if entry.name not in self.known]
        if not inputs:
            raise InputError(f"{where}: inputs", "at least one that is not an initializer", "none")
        check_distinct(f"{where}: inputs", [entry.name for entry in inputs])
        self._same: dict[str, str] = {}
        self._there = {entry.name for entry in inputs}
        nodes = [node for proto in model.graph.node if (node := self._read(Node.of(proto, opset)))]
        self.numbers = sum(values.size for values in self.known.values())
        self.outputs = [self._same.get(entry.name, entry.name) for entry in model.graph.output]
        for name in self.outputs:
            if name not in self._there:
                raise InputError(f"{where}: outputs", "tensors that depend on an input", name)
        self.nodes, used = needed(nodes, self.outputs)
        entries = [entry for entry in inputs if entry.name in used]
        self.inputs = [_entry(entry, where, _given(entry.name, shapes, where)) for entry in entries]
        self.is_double = any(_kind(entry) == "DOUBLE" for entry in entries)

    def fold(self, folder: Folder) -> None:
        """Compute all nodes that depend on constants alone."""
        rest = []
        for node in self.nodes:
            if node.inputs and all(name in self.known or not name for name in node.inputs):
                results = folder.fold(node, [self.known[name] if name else None for name in node.inputs])
                self.known.update(zip(node.outputs, results, strict=False))
            else:
                rest.append(node)
        self.nodes = rest

    def _read(self, node: Node) -> Node | None:
        """Return a node that computes; its inputs must come before it, so the graph has no cycles."""
        node = replace(node, inputs=tuple(self._same.get(name, name) for name in node.inputs))
        for name in node.inputs:
            if name and name not in self._there and name not in self.known:
                raise node.error("inputs that are constant or outputs of earlier nodes", name)
        for output in node.outputs:
            if output in self._there or output in self.known or output in self._same:
                raise node.error("an output name that is not taken", output)
        if node.operator == "Constant":
            self.known[node.outputs[0]] = constant(node)
            return None
        if node.operator == "Identity" or (node.operator == "Concat" and len(node.inputs) == 1):
            self._same[node.outputs[0]] = node.inputs[0]
            return None
        self._there.update(filter(None, node.outputs))
        return node


def needed(nodes: Sequence[Node], outputs: Sequence[str]) -> tuple[list[Node], set[str]]:
    """Return the nodes that outputs depend on, in order, and the names of all tensors that these use."""
    used, kept = set(outputs), list[Node]()
    for node in reversed(nodes):
        if not used.isdisjoint(node.outputs):
            used.update(node.inputs)
            kept.append(node)
    return kept[::-1], used


def operator_set(model: "ModelProto", where: str) -> int:
    """Return the version of ONNX's own operators; raises InputError if they are redefined, or newer than the package's.

    The first models had no entry for it.
    """
    latest: int = onnx_package().defs.onnx_opset_version()
    versions = [entry.version for entry in model.opset_import if entry.domain in OWN_DOMAIN]
    versions = versions if model.opset_import else [1]
    if len(versions) != 1 or not 1 <= versions[0] <= latest:
        wanted = f"one from 1 to {latest}, the latest that the installed onnx package knows"
        raise InputError(f"{where}: operator set", wanted, ", ".join(map(str, versions)) or "none")
    redefined = [function.name for function in model.functions if function.domain in OWN_DOMAIN]
    if redefined:
        raise InputError(f"{where}: functions", "none in the place of ONNX's operators", ", ".join(redefined))
    return int(versions[0])


def _written_out(model: "ModelProto", where: str) -> "ModelProto":
    """Return the model with the nodes of its functions in the place of their calls, by ONNX's own tool."""
    functions = {(function.domain, function.name): function.node for function in model.functions}
    if not any((node.domain, node.op_type) in functions for node in model.graph.node):
        return model
    open_calls = set[tuple[str, str]]()

    @cache
    def size(key: tuple[str, str]) -> int:
        if key in open_calls or len(open_calls) > 100:
            raise InputError(f"{where}: functions", "none that calls itself, and calls at most 100 deep", key[1])
        open_calls.add(key)
        total = sum(
            size(inner) if (inner := (node.domain, node.op_type)) in functions else 1 for node in functions[key]
        )
        open_calls.discard(key)
        return total

    calls = [(node.domain, node.op_type) for node in model.graph.node]
    if sum(size(key) if key in functions else 1 for key in calls) > MOST_NODES:
        raise InputError(f"{where}: functions", f"at most {MOST_NODES} nodes, written out", "more")
    from onnx.inliner import inline_local_functions

    written: ModelProto = inline_local_functions(model)
    return written


def _kind(entry: "ValueInfoProto") -> str:
    return str(onnx_package().TensorProto.DataType.Name(entry.type.tensor_type.elem_type))


def _given(name: str, shapes: Shapes, where: str) -> Sequence[int] | None:
    if not isinstance(shapes, Mapping):
        return shapes
    if name not in shapes:
        raise InputError(f"{where}: input_shape", f"a shape for the input {name}", ", ".join(shapes) or "none")
    return shapes[name]


def _entry(entry: "ValueInfoProto", where: str, given: Sequence[int] | None) -> Entry:
    """Return an input, with the lengths that the caller gives where the file leaves them open."""
    if _kind(entry) not in FLOATS:
        raise InputError(f"{where}: input {entry.name}", f"one of {', '.join(FLOATS)}", f"type {_kind(entry)}")
    lengths = [length.dim_value for length in entry.type.tensor_type.shape.dim]
    if given is None:
        if len(lengths) < 2 or min(lengths[1:]) < 1:
            wanted = "a shape (batch, known lengths), or from_onnx(..., input_shape=...)"
            raise InputError(f"{where}: input {entry.name}", wanted, lengths)
        return Entry(entry.name, tuple(lengths[1:]), lengths[0])
    shape = tuple(given)
    if not shape:
        raise InputError(f"{where}: input_shape", f"at least one length for {entry.name}", shape)
    fits = len(shape) == len(lengths) - 1 and all(
        new == old or old < 1 for new, old in zip(shape, lengths[1:], strict=True)
    )
    if lengths and not fits:
        raise InputError(f"{where}: input_shape", f"lengths for {entry.name}, {lengths[1:]} (0 is open)", shape)
    return Entry(entry.name, shape, lengths[0] if lengths else 0)
