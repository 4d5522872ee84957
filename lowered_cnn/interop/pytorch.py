"""PyTorch's names for the parameters: the same numbers in the same shapes, in safetensors files that both can load.

The names differ: what a Sequential here calls `conv1.weight`, for its first convolution,
`torch.nn.Sequential` calls `3.weight` if that is its fourth module. Nothing here needs PyTorch.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import InputError, Shape, check_shape
from lowered_cnn.layers import GlobalAvgPool, GlobalMaxPool, Graph, Layer, Sequential
from lowered_cnn.layers.branches import Branches
from lowered_cnn.layers.layer import qualified
from lowered_cnn.network import Network
from lowered_cnn.parameters import Parameter
from lowered_cnn.storage import Tensors, read_tensors, write_whole

COUNT = "num_batches_tracked"
"""A count that PyTorch stores with the statistics of a BatchNorm, and uses only if there is no momentum."""


def pytorch_names(model: Layer, input_shape: Sequence[int]) -> dict[str, str]:
    """Return a map from the name of each parameter here to PyTorch's name for it.

    Layers are numbered as the modules of a `torch.nn.Sequential`, unless they were given names. A global pooling layer
    is two modules there: AdaptiveAvgPool2d(1) or AdaptiveMaxPool2d(1), and Flatten. A Residual is a module with `body`
    and `shortcut`, and a Concatenate one with `branch1`, `branch2`, ... In a Graph, nodes are modules of their names.
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


def load_pytorch(
    source: str | os.PathLike[str] | Mapping[str, npt.ArrayLike],
    model: Layer | Sequence[Layer],
    input_shape: Sequence[int],
    names: Mapping[str, str] | Literal["order"] | None = None,
) -> Network:
    """Return the model with PyTorch's parameters: a file's, or those of a mapping of arrays, such as a state_dict.

    The file is one that `safetensors.torch.save_file(module.state_dict(), path)` wrote. By default, its names are those
    of a `torch.nn.Sequential`, as `pytorch_names` returns them. For any other module, `names` is a map from our names
    to PyTorch's, or "order": the arrays of a mapping are taken as they come, which is right if the module defines its
    layers in the order in which the model has them. A file does not keep that order, since safetensors sorts tensors.

    Raises InputError, which names the first tensor that is missing, left over, of the wrong shape or not of
    floating-point numbers.
    """
    model = model if isinstance(model, Sequential | Graph) else Sequential(model)  # as a network makes it
    where, tensors = ("tensors", _arrays(source)) if isinstance(source, Mapping) else (str(source), _read(source))
    usual = pytorch_names(model, input_shape)
    if names == "order":
        if not isinstance(source, Mapping):
            wanted = "a map, as a safetensors file does not keep the order (a mapping of arrays does)"
            raise InputError("load_pytorch: names", wanted, repr(names))
        names = dict(zip(usual, tensors, strict=False))
    names = usual if names is None else names
    if not (isinstance(names, Mapping) and names.keys() <= usual.keys()):
        raise InputError("load_pytorch: names", f'a map from {_some(usual)}, or "order"', repr(names))
    _check_fit(where, model.parameters(tuple(input_shape)), names, tensors)
    double = any(values.dtype == np.float64 for values in tensors.values())
    network = Network(model, input_shape, dtype=np.float64 if double else np.float32)
    for ours in usual:
        network.parameters.assign(ours, tensors[names[ours]], where)
    return network


def _read(path: str | os.PathLike[str]) -> Tensors:
    return {name: values for name, values in read_tensors(path)[1].items() if not name.endswith(COUNT)}


def _arrays(mapping: Mapping[str, npt.ArrayLike]) -> Tensors:
    """Return PyTorch's tensors, or whatever else NumPy makes arrays of, as arrays."""
    arrays = {}
    for name, values in mapping.items():
        try:
            arrays[name] = np.asarray(values)
        except Exception as error:  # how a tensor refuses to be an array depends on why
            raise InputError(f"tensors: {name}", "an array", f"{type(error).__name__}: {error}") from error
    return {name: values for name, values in arrays.items() if not name.endswith(COUNT)}


def _check_fit(where: str, parameters: Sequence[Parameter], names: Mapping[str, str], tensors: Tensors) -> None:
    """Raise InputError unless each of our parameters has a tensor of PyTorch's that fits, and none is left over."""
    for ours in parameters:
        theirs = names.get(ours.name)
        if theirs is None or theirs not in tensors:
            got = f"only {_some(tensors)}" if tensors else "none"
            raise InputError(where, f"{theirs or 'a tensor'} for {ours.name}", got)
        if tensors[theirs].dtype.kind != "f":
            raise InputError(f"{where}: {theirs}", "floating-point numbers", tensors[theirs].dtype)
        check_shape(f"{where}: {theirs} for {ours.name}", ours.shape, tensors[theirs].shape)
    if left := tensors.keys() - set(names.values()):
        raise InputError(where, f"{len(parameters)} tensors, as the network has", f"{_some(sorted(left))} besides")


def _some(names: Collection[str]) -> str:
    """Return the first of some names as text, and how many there are."""
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(islice(names, 3))}, ... ({len(names)} names)"


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
        module = str(place) if layer.given is None else own
        found += [(qualified(own, ours), qualified(module, theirs)) for ours, theirs in _names(inner, inside)]
        place += 2 if isinstance(inner, GlobalAvgPool | GlobalMaxPool) else 1
    return found


def _counts(names: dict[str, str]) -> list[str]:
    """Return PyTorch's names for the counts of all BatchNorm layers."""
    mean = "running_mean"
    return [theirs.removesuffix(mean) + COUNT for theirs in names.values() if theirs.endswith(mean)]
