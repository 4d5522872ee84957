"""An ONNX model as a network: chains of nodes become layers, and what forks and meets again becomes branches."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lowered_cnn.arrays import InputError, Shape
from lowered_cnn.interop.onnx.nodes import Node, Translation, Values, translate
from lowered_cnn.interop.onnx.package import onnx_package
from lowered_cnn.layers import AvgPool, Concatenate, Dense, MaxPool, Residual, Sequential, SiLU
from lowered_cnn.layers.layer import qualified
from lowered_cnn.network import Network

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

GLOBAL_POOLS: Mapping[str, type[AvgPool | MaxPool]] = {"GlobalAveragePool": AvgPool, "GlobalMaxPool": MaxPool}
"""In ONNX these keep the axes of the positions, with a length of 1, until a Flatten."""


def from_onnx(model: "str | os.PathLike[str] | ModelProto") -> Network:
    """Return the model as a network, which can be trained.

    The model has one input, whose lengths but the batch's are known, and one output; between the two are layers one
    after the other, Add of two branches and Concat of several. Raises InputError, which names the node, the operator
    and the attribute, for anything that is not supported.
    """
    onnx = onnx_package()
    if not isinstance(model, str | os.PathLike):
        return Graph(model, "ONNX model").network()
    try:
        read: ModelProto = onnx.load(model)
    except OSError:
        raise
    except Exception as error:  # what protobuf raises for a broken file depends on how it is broken
        raise InputError(str(model), "an ONNX model", error) from error
    return Graph(read, str(model)).network()


class Graph:
    """The nodes by what they put out, and the tensors that are known."""

    def __init__(self, model: "ModelProto", where: str) -> None:
        onnx = onnx_package()
        self.where = where
        opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
        self.graph: GraphProto = model.graph
        self.known: dict[str, Values] = {
            tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in self.graph.initializer
        }
        self.producers: dict[str, Node] = {}
        self.order: dict[str, int] = {}
        for place, proto in enumerate(self.graph.node):
            node = Node.of(proto, opset)
            if node.operator == "Constant":
                self.known[node.outputs[0]] = constant(node)
            elif node.operator == "Identity" and node.inputs[0] in self.known:
                self.known[node.outputs[0]] = self.known[node.inputs[0]]
            else:
                self.producers |= {name: node for name in node.outputs if name}
                self.order |= {name: place + 1 for name in node.outputs if name}

    def network(self) -> Network:
        """Return the network, with its parameters."""
        start, shape = self._input()
        if len(self.graph.output) != 1:
            raise InputError(f"{self.where}: outputs", 1, len(self.graph.output))
        self.order[start] = 0
        chain = self._chain(start, self.graph.output[0].name, shape)
        model, values = _sequential(chain)
        precision = {np.dtype(entry.dtype) for entry in values.values()} or {np.dtype(np.float32)}
        network = Network(model, shape, dtype=np.float64 if np.dtype(np.float64) in precision else np.float32)
        for name, entry in values.items():
            network.parameters.assign(name, entry, self.where)
        return network

    def _input(self) -> tuple[str, Shape]:
        inputs = [entry for entry in self.graph.input if entry.name not in self.known]
        if len(inputs) != 1:
            raise InputError(f"{self.where}: inputs", "1 that is no initializer", [entry.name for entry in inputs])
        lengths = [length.dim_value for length in inputs[0].type.tensor_type.shape.dim]
        if len(lengths) < 2 or 0 in lengths[1:]:
            raise InputError(
                f"{self.where}: input {inputs[0].name}", "a shape (batch, lengths that are known)", lengths
            )
        return inputs[0].name, tuple(lengths[1:])

    def _chain(self, start: str, end: str, shape: Shape) -> list[Translation]:
        """Return the layers from one tensor to another, for a start of this shape."""
        steps: list[tuple[Node, str]] = []
        while end != start:
            node = self.producers.get(end)
            if node is None:
                raise InputError(f"{self.where}: tensor {end}", f"one that depends on {start} alone", "another input")
            before = self._before(node)
            steps.append((node, before))
            end = before
        chain: list[Translation] = []
        last = ""
        for node, before in reversed(steps):
            constants = [self.known.get(name) for name in node.inputs if name != before]
            if node.operator in ("Flatten", "Reshape") and last in GLOBAL_POOLS:
                chain[-1] = translate(self.producers[before], [], shape)  # it takes the positions away as well
            elif node.operator == "Add" and last == "MatMul" and constants[0] is not None:
                chain[-1] = _with_bias(node, chain[-1], constants[0])
            elif node.operator in GLOBAL_POOLS:
                chain.append(Translation(GLOBAL_POOLS[node.operator](shape[1:])))
            else:
                chain += self._translated(node, before, shape)
            shape = chain[-1].layer.output_shape(shape, node.name) if chain else shape
            last = node.operator
        return chain

    def _before(self, node: Node) -> str:
        """Return the tensor that everything behind a node comes from: its input, or where its branches fork."""
        ends = [name for name in node.inputs if name and name not in self.known]
        if not ends:
            raise InputError(f"node {node.name} ({node.operator})", "an input that is not constant", "none")
        if len(ends) == 1:
            return ends[0]
        common = set.intersection(*(self._ancestors(name) for name in ends))
        if not common:
            raise InputError(f"node {node.name} ({node.operator})", "branches of one tensor", ", ".join(ends))
        return max(common, key=self.order.__getitem__)

    def _ancestors(self, name: str) -> set[str]:
        found, rest = {name}, [name]
        while rest:
            node = self.producers.get(rest.pop())
            more = {before for before in (node.inputs if node else ()) if before and before not in self.known} - found
            found |= more
            rest += more
        return found

    def _translated(self, node: Node, before: str, shape: Shape) -> list[Translation]:
        ends = [name for name in node.inputs if name and name not in self.known]
        if node.operator == "Identity":
            return []
        if len(ends) > 1:
            return [self._branches(node, ends, before, shape)]
        if node.operator == "Add":
            raise InputError(f"node {node.name} (Add)", "two branches, or the bias of a MatMul", "a constant")
        if node.inputs[0] != before:
            raise InputError(
                f"node {node.name} ({node.operator})", "a first input that is not constant", node.inputs[0]
            )
        return [translate(node, [self.known.get(name) for name in node.inputs[1:]], shape)]

    def _branches(self, node: Node, ends: list[str], fork: str, shape: Shape) -> Translation:
        if node.operator == "Mul" and self._is_silu(ends, fork):
            return Translation(SiLU())
        chains = [self._chain(fork, end, shape) for end in ends]
        if node.operator == "Add" and len(ends) == len(node.inputs) == 2:
            return _joined(Residual, ("body", "shortcut"), chains)
        if node.operator == "Concat" and len(ends) == len(node.inputs):
            if node.get("axis", 1) not in (1, -len(shape)):
                raise node.wrong("axis", "1 (channels)", node.get("axis", 1))
            return _joined(Concatenate, [f"branch{number}" for number in range(1, len(ends) + 1)], chains)
        raise InputError(f"node {node.name}", "Add or Concat, where branches meet", node.operator)

    def _is_silu(self, ends: list[str], fork: str) -> bool:
        gates = [self.producers.get(end) for end in ends if end != fork]
        return len(gates) == 1 and gates[0] is not None and (gates[0].operator, gates[0].inputs) == ("Sigmoid", (fork,))


def _sequential(chain: Sequence[Translation]) -> tuple[Sequential, dict[str, Values]]:
    """Return a chain as one layer, and its parameters by name."""
    model = Sequential(*(step.layer for step in chain))
    parts = zip(model.names, chain, strict=True)
    return model, {qualified(own, name): values for own, step in parts for name, values in step.parameters.items()}


def _joined(
    kind: type[Residual | Concatenate], names: Sequence[str], chains: Sequence[Sequence[Translation]]
) -> Translation:
    """Return chains as the branches of one layer."""
    branches = [_sequential(chain) for chain in chains]
    parts = zip(names, branches, strict=True)
    parameters = {qualified(own, name): entry for own, (_, values) in parts for name, entry in values.items()}
    return Translation(kind(*(model for model, _ in branches)), parameters)


def _with_bias(node: Node, product: Translation, bias: Values) -> Translation:
    weight = product.parameters["weight"]
    try:
        bias = np.broadcast_to(bias, (1, len(weight)))[0]
    except ValueError as error:
        raise node.wrong("B", f"shape ({len(weight)},)", bias.shape) from error
    return Translation(Dense(len(weight)), {"weight": weight, "bias": bias})


def constant(node: Node) -> Values:
    """Return the value of a Constant."""
    for name, value in node.attributes.items():
        if name == "value":
            values: Values = onnx_package().numpy_helper.to_array(value)
            return values
        if name in ("value_float", "value_floats"):
            return np.array(value, np.float32)
        if name in ("value_int", "value_ints"):
            return np.array(value, np.int64)
    raise node.wrong("value", "a tensor, or numbers", ", ".join(node.attributes))
