"""The graph of an ONNX model: which tensor comes from which, and in how many branches of a network each would be."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lowered_cnn.arrays import InputError, Shape
from lowered_cnn.interop.onnx.nodes import Node, Values, constant
from lowered_cnn.interop.onnx.package import onnx_package

if TYPE_CHECKING:
    from onnx import ModelProto

GLOBAL_POOLS = ("GlobalAveragePool", "GlobalMaxPool")
"""In ONNX these keep the axes of the positions, with a length of 1, until a Flatten."""

COPIES = 64
"""In at most so many branches a node without parameters is repeated."""

LEVELS = 32
"""At most so many branches are inside each other."""


@dataclass(frozen=True)
class Tensor:
    """What a node computes from one tensor before it, the `fork`; between the two is one layer.

    The fork is the last tensor that everything in this one comes from (its immediate dominator): the node's input, or
    where the branches part that meet in the node. From the graph's input it is `depth` layers to this tensor. `merged`
    is the output of the node before, if that node and this one are one layer.
    """

    node: Node
    fork: str
    depth: int
    merged: str | None


class Graph:
    """The tensors of a model, in the order of its nodes: those that are known, and those computed from the input."""

    def __init__(self, model: "ModelProto", where: str) -> None:
        onnx = onnx_package()
        self.where = where
        self.known: dict[str, Values] = {
            tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self.tensors: dict[str, Tensor] = {}
        self._same: dict[str, str] = {}
        inputs = [entry for entry in model.graph.input if entry.name not in self.known]
        if len(inputs) != 1:
            raise InputError(f"{where}: inputs", "1 that is no initializer", [entry.name for entry in inputs])
        if len(model.graph.output) != 1:
            raise InputError(f"{where}: outputs", 1, len(model.graph.output))
        self.start, kind = inputs[0].name, inputs[0].type.tensor_type
        self.is_double = kind.elem_type == onnx.TensorProto.DOUBLE
        lengths = [length.dim_value for length in kind.shape.dim]
        if len(lengths) < 2 or min(lengths[1:]) < 1:
            raise InputError(f"{where}: input {self.start}", "a shape (batch, lengths that are known)", lengths)
        self.input_shape: Shape = tuple(lengths[1:])
        opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
        for proto in model.graph.node:
            self._read(Node.of(proto, opset))
        self.end = self._same.get(model.graph.output[0].name, model.graph.output[0].name)
        if self.end != self.start and self.end not in self.tensors:
            raise InputError(f"{where}: output", f"a tensor that depends on {self.start}", self.end)

    def ends(self, node: Node) -> list[str]:
        """Return the inputs of a node that are not known."""
        return [name for name in node.inputs if name and name not in self.known]

    def path(self, start: str, end: str) -> list[str]:
        """Return the tensors behind one up to another that comes from it: the layers of a chain."""
        path = []
        while end != start:
            path.append(end)
            end = self.tensors[end].fork
        return path[::-1]

    def has_branches(self, node: Node) -> bool:
        """Tell whether branches meet in a node."""
        return len(self.ends(node)) > 1 and not self.is_silu(node)

    def is_silu(self, node: Node) -> bool:
        """Tell whether a node is the Mul of a tensor and its Sigmoid."""
        ends = self.ends(node)
        gates = [self.tensors[end].node for end in ends if end in self.tensors]
        gated = any(gate.operator == "Sigmoid" and gate.inputs[0] in ends for gate in gates)
        return node.operator == "Mul" and len(ends) == 2 and gated

    def copies(self) -> Counter[str]:
        """Return how often each tensor is computed in a network, whose branches share nothing.

        Raises InputError, which names the node, where that is so often that the network would have no end.
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
                    raise self.tensors[inside].node.error(f"at most {LEVELS} branches inside each other", "more")
        return copies

    def _read(self, node: Node) -> None:
        """Add what a node puts out. Only what stands before it may be its inputs, so that nothing goes in circles."""
        node = replace(node, inputs=tuple(self._same.get(name, name) for name in node.inputs))
        for name in node.inputs:
            if name and not self._is_there(name):
                raise node.error("inputs that are known or first outputs of nodes before", name)
        output = node.outputs[0] if node.outputs else ""
        if self._is_there(output):
            raise node.error("an output that no other node has", output)
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
        """Return the output of the node before with which this one is one layer, if there is one."""
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


def crowded(node: Node) -> InputError:
    """Return the error for a node that would be in more than one branch, or, without parameters, in too many."""
    return node.error(f"a place in one branch, or without parameters in at most {COPIES}", "more")
