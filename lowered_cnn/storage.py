"""Networks on disk: one safetensors file with the parameters by name, and the model's description in its header."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import InputError, check_shape
from lowered_cnn.layers import Layer, Sequential
from lowered_cnn.network import Network

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

HEADER = "lowered_cnn"


def save(network: Network, path: str | os.PathLike[str]) -> None:
    """Write the network to `path`; the file appears whole or not at all."""
    import json

    from safetensors.numpy import save as to_bytes

    header = {
        "model": describe(network.model),
        "input_shape": list(network.input_shape),
        "dtype": network.parameters.vector.dtype.name,
    }
    tensors = {name: network.parameters[name] for name in network.parameters}
    write_whole(Path(path), to_bytes(tensors, {HEADER: json.dumps(header)}))


def load(path: str | os.PathLike[str]) -> Network:
    """Return the network that `save` wrote; raises InputError for any other file."""
    import json

    metadata, tensors = read_tensors(path)
    header = metadata.get(HEADER)
    if header is None:
        raise InputError(str(path), f"a {HEADER!r} entry in the file's metadata", "none")
    with _describing(path):
        described = json.loads(header)
        model, input_shape = restore(described["model"]), tuple(described["input_shape"])
        if not isinstance(model, Sequential):
            raise InputError("model", "Sequential", type(model).__name__)
        shapes = {parameter.name: parameter.shape for parameter in model.parameters(input_shape)}
    if set(tensors) != set(shapes):
        raise InputError(str(path), f"tensors {sorted(shapes)}", sorted(tensors))
    for name, shape in shapes.items():  # before anything of that size is allocated
        check_shape(f"{path}: {name}", shape, tensors[name].shape)
    with _describing(path):
        network = Network(model, input_shape, dtype=str(described["dtype"]))
    for name, values in tensors.items():
        network.parameters.assign(name, values, str(path))
    return network


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, str], dict[str, npt.NDArray[Any]]]:
    """Return the metadata and the tensors of a safetensors file; raises InputError for any other file."""
    from safetensors import SafetensorError, safe_open

    if os.path.isdir(path):
        raise InputError(str(path), "a safetensors file", "a folder")
    try:
        with safe_open(path, "numpy") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError) as error:  # a TypeError where NumPy lacks the type of number
        raise InputError(str(path), "a safetensors file", error) from error


def describe(layer: Layer) -> dict[str, JSON]:
    """Return a layer as JSON: its class under "layer", and its fields."""
    fields = {field.name: getattr(layer, field.name) for field in dataclasses.fields(layer)}
    return {"layer": type(layer).__name__, **{name: _to_json(value) for name, value in fields.items()}}


def restore(description: dict[str, JSON]) -> Layer:
    """Return the layer that `describe` was given; a layer of your own is found once its module is imported."""
    kinds = _kinds()
    name = description["layer"]
    if name not in kinds:
        raise InputError("layer", f"one of {', '.join(sorted(kinds))}", name)
    fields = {key: _from_json(value) for key, value in description.items() if key != "layer"}
    layers = cast(tuple[Layer, ...], fields.pop("layers", ()))
    return kinds[str(name)](*layers, **fields)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _describing(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # how a damaged description fails depends on where it is damaged
        got = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(str(path), "the description of a network", got) from error


def _kinds() -> dict[str, Callable[..., Layer]]:
    kinds = Layer.__subclasses__()
    for kind in kinds:
        kinds += kind.__subclasses__()
    return {kind.__name__: kind for kind in kinds if hasattr(kind, "kind")}


def _to_json(value: object) -> JSON:
    if isinstance(value, Layer):
        return describe(value)
    if isinstance(value, tuple | list):
        return [_to_json(entry) for entry in value]
    if isinstance(value, np.generic | np.ndarray):
        return cast(JSON, value.tolist())
    return cast(JSON, value)


def _from_json(value: JSON) -> object:
    if isinstance(value, dict):
        return restore(value)
    if isinstance(value, list):
        return tuple(_from_json(entry) for entry in value)
    return value
