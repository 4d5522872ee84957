"""The graph of an ONNX model: which tensor comes from which, and how many branches would contain each of them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lowered_cnn.arrays import InputError, Shape
from lowered_cnn.interop.onnx.nodes import OWN_DOMAIN, Node, check_distinct, constant, values_of
from lowered_cnn.interop.onnx.package import onnx_package

if TYPE_CHECKING:
    from onnx import ModelProto

GLOBAL_POOLS = ("GlobalAveragePool", "GlobalMaxPool")
"""In ONNX these keep the spatial axes, with a length of 1, until a Flatten."""

FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")
"""The types of number that an input may have."""

COPIES = 64
"""The most branches that a node without parameters is repeated in."""

LEVELS = 32
"""How deep branches may be nested."""


@dataclass(frozen=True)
class Tensor:
    """What a node computes from an earlier tensor, the `fork`; between the two is one layer.

    The fork is the last tensor that everything in this one comes from (its immediate dominator): the node's input, or,
    if branches meet in the node, the tensor where they part. `depth` counts the layers from the graph's input to this
    tensor. `merged` is the output of the preceding node if that node and this one form one layer.
    """

    node: Node
    fork: str
    depth: int
    merged: str | None


class Graph:
    """The tensors of a model, in the order of its nodes: the constants (`known`), and those computed from the input."""

    def __init__(self, model: "ModelProto", where: str) -> None:
        onnx = onnx_package()
        self.where = where
        check_distinct(f"{where}: initializers", [tensor.name for tensor in model.graph.initializer])
        self.known = {tensor.name: values_of(tensor) for tensor in model.graph.initializer}
        self.tensors: dict[str, Tensor] = {}
        self._same: dict[str, str] = {}
        inputs = [entry for entry in model.graph.input if entry.name not in self.known]
        if len(inputs) != 1:
            raise InputError(f"{where}: inputs", "one that is not an initializer", [entry.name for entry in inputs])
        if len(model.graph.output) != 1:
            raise InputError(f"{where}: outputs", 1, len(model.graph.output))
        self.start, kind = inputs[0].name, inputs[0].type.tensor_type
        if kind.elem_type not in [getattr(onnx.TensorProto, name) for name in FLOATS]:
            raise InputError(f"{where}: input {self.start}", f"one of {', '.join(FLOATS)}", f"type {kind.elem_type}")
        self.is_double = kind.elem_type == onnx.TensorProto.DOUBLE
        lengths = [length.dim_value for length in kind.shape.dim]
        if len(lengths) < 2 or min(lengths[1:]) < 1:
            raise InputError(f"{where}: input {self.start}", "a shape (batch, known lengths)", lengths)
        self.input_shape: Shape = tuple(lengths[1:])
        opset = operator_set(model, where)
        for proto in model.graph.node:
            self._read(Node.of(proto, opset))
        self.end = self._same.get(model.graph.output[0].name, model.graph.output[0].name)
        if self.end != self.start and self.end not in self.tensors:
            raise InputError(f"{where}: output", f"a tensor that depends on {self.start}", self.end)

    def ends(self, node: Node) -> list[str]:
        """Return the inputs of a node that are not constant."""
        return [name for name in node.inputs if name and name not in self.known]

    def path(self, start: str, end: str) -> list[str]:
        """Return the tensors after `start` up to `end`, which comes from it: one for each layer of a chain."""
        path = []
        while end != start:
            path.append(end)
            end = self.tensors[end].fork
        return path[::-1]

    def has_branches(self, node: Node) -> bool:
        """Return whether branches meet in a node."""
        return len(self.ends(node)) > 1 and not self.is_silu(node)

    def is_silu(self, node: Node) -> bool:
        """Return whether a node is the Mul of a tensor and its Sigmoid."""
        ends = self.ends(node)
        gates = [self.tensors[end].node for end in ends if end in self.tensors]
        gated = any(gate.operator == "Sigmoid" and gate.inputs[0] in ends for gate in gates)
        return node.operator == "Mul" and len(ends) == 2 and gated

    def copies(self) -> Counter[str]:
        """Return how often each tensor is computed in a network, whose branches share nothing.

        Raises InputError, which names the node, if a tensor would be repeated too often or branches nested too deep.
        """
        copies, levels = Counter(self.path(self.start, self.end)), Counter[str]()
        for name, tensor in reversed(self.tensors.items()):
            meet = copies[name] > 0 and self.has_branches(tensor.node)
            ends = self.ends(tensor.node) if meet else []
            inner: Iterable[str] = (inside for end in ends for inside in self.path(tensor.fork, end))
            for inside in [tensor.merged] if tensor.merged else inner:
                copies[inside] += copies[name]
                levels[inside] = max(levels[inside], levels[name] + meet)
                if copies[inside] > COPIES:
                    raise crowded(self.tensors[inside].node)
                if levels[inside] > LEVELS:
                    raise self.tensors[inside].node.error(f"branches nested at most {LEVELS} deep", "more")
        return copies

    def _read(self, node: Node) -> None:
        """Add the output of a node. Its inputs must come before it, so the graph has no cycles."""
        node = replace(node, inputs=tuple(self._same.get(name, name) for name in node.inputs))
        for name in node.inputs:
            if name and not self._is_there(name):
                raise node.error("inputs that are constant or first outputs of earlier nodes", name)
        output = node.outputs[0] if node.outputs else ""
        if self._is_there(output):
            raise node.error("an output name that is not taken", output)
        if node.operator == "Constant":
            self.known[output] = constant(node)
        elif node.operator == "Identity" or (node.operator == "Concat" and len(node.inputs) == 1):
            self._same[output] = node.inputs[0]
        else:
            merged = self._merged(node)
            fork = self.tensors[merged].fork if merged else self._fork(node)
            self.tensors[output] = Tensor(node, fork, self._depth(fork) + 1, merged)

    def _is_there(self, name: str) -> bool:
        return name == self.start or any(name in names for names in (self.known, self.tensors, self._same))

    def _merged(self, node: Node) -> str | None:
        """Return the output of the preceding node if the two form one layer, else None."""
        ends = self.ends(node)
        if len(ends) != 1 or ends[0] not in self.tensors:
            return None
        before = self.tensors[ends[0]].node.operator
        flattens = node.operator in ("Flatten", "Reshape") and before in GLOBAL_POOLS
        adds_bias = node.operator == "Add" and before == "MatMul"
        return ends[0] if flattens or adds_bias else None

    def _fork(self, node: Node) -> str:
        """Return the last tensor that all inputs of a node come from."""
        ends = self.ends(node)
        if not ends:
            raise node.error("an input that is not constant", "none")
        fork = ends[0]
        for end in ends[1:]:
            while fork != end:
                if self._depth(fork) >= self._depth(end):
                    fork = self.tensors[fork].fork
                else:
                    end = self.tensors[end].fork
        return fork

    def _depth(self, name: str) -> int:
        return 0 if name == self.start else self.tensors[name].depth


def operator_set(model: "ModelProto", where: str) -> int:
    """Return the version of ONNX's own operators; raises InputError if they are redefined, or newer than the package's.

    The first models had no entry for it.
    """
    latest: int = onnx_package().defs.onnx_opset_version()
    versions = [entry.version for entry in model.opset_import if entry.domain in OWN_DOMAIN] or [1]
    if len(versions) > 1 or not 1 <= versions[0] <= latest:
        wanted = f"one from 1 to {latest}, the latest that the installed onnx package knows"
        raise InputError(f"{where}: operator set", wanted, ", ".join(map(str, versions)))
    redefined = [function.name for function in model.functions if function.domain in OWN_DOMAIN]
    if redefined:
        raise InputError(f"{where}: functions", "none in the place of ONNX's operators", ", ".join(redefined))
    return int(versions[0])


def crowded(node: Node) -> InputError:
    """Return the error for a node that would be in more than one branch or, without parameters, in too many."""
    return node.error(f"a place in one branch, or in at most {COPIES} without parameters", "more")
