"""PyTorch's names for the parameters: the same numbers in the same shapes, in safetensors files that both can load.

The only map between the names: what a Sequential here calls `conv1.weight`, for its first convolution,
`torch.nn.Sequential` calls `3.weight` if that is its fourth module. Nothing here needs PyTorch.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import InputError, Shape
from lowered_cnn.layers import GlobalAvgPool, GlobalMaxPool, Graph, Layer, Sequential
from lowered_cnn.layers.branches import Branches
from lowered_cnn.layers.layer import qualified
from lowered_cnn.network import Network
from lowered_cnn.storage import read_tensors, write_whole

COUNT = "num_batches_tracked"
"""A count that PyTorch stores with the statistics of a BatchNorm, and uses only if there is no momentum."""


def pytorch_names(model: Layer, input_shape: Sequence[int]) -> dict[str, str]:
    """Return a map from the name of each parameter here to PyTorch's name for it.

    Layers are numbered as the modules of a `torch.nn.Sequential`. A global pooling layer is two modules there:
    AdaptiveAvgPool2d(1) or AdaptiveMaxPool2d(1), and Flatten. A Residual is a module with `body` and `shortcut`, and a
    Concatenate one with `branch1`, `branch2`, ... In a Graph, nodes are modules of their names.
    """
    return dict(_names(model, tuple(input_shape)))


def save_pytorch(network: Network, path: str | os.PathLike[str]) -> None:
    """Write the parameters under PyTorch's names; the file is complete or not written at all.

    Load them with `module.load_state_dict(safetensors.torch.load_file(path))`.
    """
    from safetensors.numpy import save

    names = pytorch_names(network.model, network.input_shape)
    tensors: dict[str, npt.NDArray[Any]] = {theirs: network.parameters[ours] for ours, theirs in names.items()}
    tensors |= {count: np.array(0) for count in _counts(names)}
    write_whole(Path(path), save(tensors))


def load_pytorch(path: str | os.PathLike[str], model: Layer, input_shape: Sequence[int]) -> Network:
    """Return the model with the parameters that `safetensors.torch.save_file(module.state_dict(), path)` wrote.

    Raises InputError if tensors are missing, left over, of the wrong shape or of whole numbers.
    """
    names = pytorch_names(model, input_shape)
    tensors = {name: values for name, values in read_tensors(path)[1].items() if not name.endswith(COUNT)}
    if set(tensors) != set(names.values()):
        raise InputError(str(path), f"tensors {sorted(names.values())}", sorted(tensors))
    for name, values in tensors.items():
        if values.dtype.kind in "biu":
            raise InputError(f"{path}: {name}", "floating-point numbers", values.dtype)
    double = any(values.dtype == np.float64 for values in tensors.values())
    network = Network(model, input_shape, dtype=np.float64 if double else np.float32)
    for ours, theirs in names.items():
        network.parameters.assign(ours, tensors[theirs], str(path))
    return network


def _names(layer: Layer, shape: Shape) -> list[tuple[str, str]]:
    """Return pairs of names for a layer's parameters: ours and PyTorch's."""
    if isinstance(layer, Branches):
        layer = layer.graph
    if isinstance(layer, Graph):
        shapes = layer.shapes(shape)
        return [
            (qualified(node.name, ours), qualified(node.name, theirs))
            for node in layer.nodes
            if isinstance(node.layer, Layer) and node.shares is None
            for ours, theirs in _names(node.layer, shapes[node.inputs[0]])
        ]
    if not isinstance(layer, Sequential):
        return [(parameter.name, parameter.name) for parameter in layer.parameters(shape)]
    found, place = [], 0
    for own, inner, inside in layer.steps(shape):
        found += [(qualified(own, ours), qualified(str(place), theirs)) for ours, theirs in _names(inner, inside)]
        place += 2 if isinstance(inner, GlobalAvgPool | GlobalMaxPool) else 1
    return found


def _counts(names: dict[str, str]) -> list[str]:
    """Return PyTorch's names for the counts of all BatchNorm layers."""
    mean = "running_mean"
    return [theirs.removesuffix(mean) + COUNT for theirs in names.values() if theirs.endswith(mean)]
