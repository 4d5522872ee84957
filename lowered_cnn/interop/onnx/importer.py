"""Imports an ONNX model as a network: chains of nodes become layers, paths that fork and rejoin become branches."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lowered_cnn.arrays import InputError, Shape
from lowered_cnn.interop.onnx.graph import GLOBAL_POOLS, Graph, Tensor, crowded
from lowered_cnn.interop.onnx.nodes import Node, Translation, Values, translate
from lowered_cnn.interop.onnx.package import onnx_package
from lowered_cnn.layers import AvgPool, Concatenate, Dense, MaxPool, Residual, Sequential, SiLU
from lowered_cnn.layers.layer import qualified
from lowered_cnn.network import Network

if TYPE_CHECKING:
    from onnx import ModelProto


def from_onnx(model: "str | os.PathLike[str] | ModelProto") -> Network:
    """Return the model as a network, which can be trained.

    The model has one input, of known shape except for the batch, and one output. Between them are layers in a row, Add
    of two branches and Concat of several. Raises InputError, which names the node, the operator and the attribute, for
    anything unsupported, and for a node with parameters that would have to be in more than one branch.
    """
    onnx = onnx_package()
    where = str(model) if isinstance(model, str | os.PathLike) else "ONNX model"
    if isinstance(model, str | os.PathLike) and os.path.exists(model) and not os.path.isfile(model):
        raise InputError(where, "an ONNX file", "no file")  # a pipe would be waited for
    try:
        read: ModelProto = onnx.load(model) if isinstance(model, str | os.PathLike) else model
        return _Reader(Graph(read, where)).network()
    except (InputError, OSError):
        raise
    except Exception as error:  # how a damaged model fails depends on the damage
        raise InputError(where, "an ONNX model", f"{type(error).__name__}: {error}") from error


class _Reader:
    """The layers between the tensors of a graph and their forks, and the shapes of the tensors."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.layers: dict[str, Translation] = {}
        self.shapes = {graph.start: graph.input_shape}

    def network(self) -> Network:
        """Return the network, with its parameters."""
        graph, copies = self.graph, self.graph.copies()
        for name, tensor in graph.tensors.items():
            if copies[name]:
                shape = self.shapes[tensor.fork]
                self.layers[name] = self._layer(tensor, shape)
                if self.layers[name].parameters and copies[name] > 1:
                    raise crowded(tensor.node)
                self.shapes[name] = self.layers[name].layer.output_shape(shape, tensor.node.name)
        model, values = _sequential(self._chain(graph.start, graph.end))
        is_double = graph.is_double or any(entry.dtype == np.float64 for entry in values.values())
        network = Network(model, graph.input_shape, dtype=np.float64 if is_double else np.float32)
        for name, entry in values.items():
            network.parameters.assign(name, entry, graph.where)
        return network

    def _chain(self, start: str, end: str) -> list[Translation]:
        return [self.layers[name] for name in self.graph.path(start, end)]

    def _layer(self, tensor: Tensor, shape: Shape) -> Translation:
        """Return the layer between a fork of this shape and the tensor."""
        node, known = tensor.node, self.graph.known
        constants = [known.get(name) for name in node.inputs[1:]]
        if tensor.merged and node.operator == "Add":
            bias = next(known[name] for name in node.inputs if name in known)
            return _with_bias(node, self.layers[tensor.merged], bias)
        if tensor.merged:
            translate(node, constants, self.shapes[tensor.merged])  # raises unless it only flattens
            return translate(self.graph.tensors[tensor.merged].node, [], shape)
        if node.operator in GLOBAL_POOLS:
            return Translation((AvgPool if node.operator == "GlobalAveragePool" else MaxPool)(shape[1:]))
        if self.graph.is_silu(node):
            return Translation(SiLU())
        if self.graph.has_branches(node) or node.operator in ("Add", "Concat"):
            return self._branches(tensor, shape)
        if node.inputs[0] in known:
            raise node.error("a first input that is not constant", node.inputs[0])
        return translate(node, constants, shape)

    def _branches(self, tensor: Tensor, shape: Shape) -> Translation:
        node, ends = tensor.node, self.graph.ends(tensor.node)
        if node.operator not in ("Add", "Concat"):
            raise InputError(f"node {node.name}", "Add or Concat, where branches meet", node.operator)
        if len(ends) < len(node.inputs):
            wanted = "two branches, or a MatMul and its bias" if node.operator == "Add" else "branches only"
            raise node.error(wanted, "a constant")
        chains = [self._chain(tensor.fork, end) for end in ends]
        if node.operator == "Add":
            return _joined(Residual, ("body", "shortcut"), chains)
        if node.get("axis", 1) not in (1, -len(shape)):
            raise node.wrong("axis", "1 (channels)", node.get("axis", 1))
        return _joined(Concatenate, [f"branch{number}" for number in range(1, len(ends) + 1)], chains)


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
