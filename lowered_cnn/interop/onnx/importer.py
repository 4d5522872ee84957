"""Imports an ONNX model as a network: constants are folded first, layouts followed, and then nodes become layers."""

import os
from typing import TYPE_CHECKING

import numpy as np

from lowered_cnn.arrays import MOST_AXES, InputError
from lowered_cnn.interop.onnx.assembly import Assembly
from lowered_cnn.interop.onnx.folding import Folder, lengths_of
from lowered_cnn.interop.onnx.graph import Graph, Shapes, needed
from lowered_cnn.interop.onnx.layout import View
from lowered_cnn.interop.onnx.nodes import Node
from lowered_cnn.interop.onnx.operators import structure
from lowered_cnn.interop.onnx.operators.operands import Operand
from lowered_cnn.interop.onnx.package import onnx_package
from lowered_cnn.interop.onnx.patterns import Patterns
from lowered_cnn.network import Network

if TYPE_CHECKING:
    from onnx import ModelProto


def from_onnx(model: "str | os.PathLike[str] | ModelProto", input_shape: Shapes = None) -> Network:
    """Return the model as a network, which can be trained.

    `input_shape`, without the batch, gives the lengths that the model leaves open; for several inputs, it is a mapping
    from their names. The network is a Sequential if the model is a chain, else a Graph, with all inputs packed into one
    if there are several. Raises InputError, which names the node and the operator, for anything unsupported.
    """
    onnx = onnx_package()
    where = str(model) if isinstance(model, str | os.PathLike) else "ONNX model"
    if isinstance(model, str | os.PathLike) and os.path.exists(model) and not os.path.isfile(model):
        raise InputError(where, "an ONNX file", "no file")  # a pipe would be waited for
    try:
        read: ModelProto = onnx.load(model) if isinstance(model, str | os.PathLike) else model
        return _network(Graph(read, where, input_shape))
    except (InputError, OSError):
        raise
    except Exception as error:  # how a damaged model fails depends on the damage
        raise InputError(where, "an ONNX model", f"{type(error).__name__}: {error}") from error


def _network(graph: Graph) -> Network:
    """Return the network, with its parameters."""
    folder = Folder()
    graph.fold(folder)
    nodes, _ = needed(Patterns(graph.known, is_ours=graph.is_ours).replaced(graph.nodes), graph.outputs)
    build = Assembly(graph)
    tensors: dict[str, Operand] = {**graph.known, **{entry.name: build.start(entry) for entry in graph.inputs}}
    for node in nodes:
        operands = [_operand(node, tensors, name) for name in node.inputs]
        results = _results(build, folder, node, operands)
        if any(isinstance(result, View) and len(result.axes) > MOST_AXES for result in results):
            raise node.error(f"results of at most {MOST_AXES} axes", "more")
        tensors.update(zip(node.outputs, results, strict=False))
    outputs = [build.output(tensors.get(name), name) for name in graph.outputs]
    return build.network(outputs)


def _operand(node: Node, tensors: dict[str, Operand], name: str) -> Operand:
    if name and name not in tensors:
        raise node.error("first outputs of earlier nodes as inputs", name)
    return tensors[name] if name else None


def _results(build: Assembly, folder: Folder, node: Node, operands: list[Operand]) -> list[Operand]:
    """Return what a node computes: constants if its inputs are, or if it asks for a shape."""
    if node.operator in ("Shape", "Size") and isinstance(view := operands[0], View):
        lengths = lengths_of(view)
        return [
            lengths[node.get("start", 0) : node.get("end", None)]
            if node.operator == "Shape"
            else np.array(lengths.prod())
        ]
    constants = [operand for operand in operands if not isinstance(operand, View)]
    if len(constants) == len(operands):
        return list(folder.fold(node, constants))
    results = structure(node)(build, node, operands)
    node.finish()
    return list(results)
