"""Networks on disk: one safetensors file with the parameters by name, and the model's description in its header."""

import dataclasses
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from lowered_cnn import layers
from lowered_cnn.arrays import InputError, check_shape
from lowered_cnn.layers import Concatenate, Layer, Sequential
from lowered_cnn.network import Network, check_network

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

HEADER = "lowered_cnn"


def save(network: Network, path: str | os.PathLike[str]) -> None:
    """Write the network to `path`; the file appears complete or not at all.

    Your own layers are stored as "module:Class". Raises InputError for a class that cannot be found by that name, such
    as one defined in a function.
    """
    import json

    from safetensors.numpy import save as to_bytes

    check_network("save: network", network)
    header = {
        "model": _restorable(network.model),
        "input_shape": list(network.input_shape),
        "dtype": network.parameters.vector.dtype.name,
        "input_range": network.input_range,
    }
    tensors = {name: network.parameters[name] for name in network.parameters}
    write_whole(Path(path), to_bytes(tensors, {HEADER: json.dumps(header)}))


def load(path: str | os.PathLike[str]) -> Network:
    """Return the network that `save` wrote; raises InputError for any other file.

    It imports nothing: the modules of your own layers must have been imported before.
    """
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
        if described.get("input_range") is not None:
            low, high = map(float, described["input_range"])
            network.input_range = (low, high)
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
    """Return a layer as JSON: the name of its class under "layer", and its fields."""
    fields = {field.name: getattr(layer, field.name) for field in dataclasses.fields(layer)}
    return {"layer": _name(type(layer)), **{name: _to_json(value) for name, value in fields.items()}}


def restore(description: dict[str, JSON]) -> Layer:
    """Return the layer that `describe` described; raises InputError if its class is not found."""
    name = str(description["layer"])
    kind = _found(name)
    if kind is None:
        wanted = "a layer in an imported module" if ":" in name else "the name of a layer, or module:Class for your own"
        raise InputError("layer", wanted, name)
    fields: dict[str, Any] = {key: _from_json(value) for key, value in description.items() if key != "layer"}
    if _has_own_constructor(kind):
        return _assembled(kind, fields)
    if issubclass(kind, Sequential | Concatenate):
        return kind(*fields.pop("layers"), **fields)
    return kind(**fields)


def _has_own_constructor(kind: type[Layer]) -> bool:
    """Return whether a custom class has a handwritten __init__, whose arguments need not be the layer's fields."""
    owner = next(base for base in kind.__mro__ if "__init__" in vars(base))
    parameters = vars(owner).get("__dataclass_params__")
    return not (parameters and parameters.init) and owner.__module__.partition(".")[0] != __name__.partition(".")[0]


def _assembled(kind: type[Layer], fields: dict[str, Any]) -> Layer:
    """Make a layer from its fields without calling its constructor; its own checks still run."""
    layer = object.__new__(kind)
    for field in dataclasses.fields(kind):
        object.__setattr__(layer, field.name, fields.pop(field.name))
    if fields:
        raise InputError("layer", f"the fields of {kind.__name__}", sorted(fields))
    getattr(layer, "__post_init__", lambda: None)()
    return layer


def _restorable(model: Sequential) -> dict[str, JSON]:
    """Return the description of a model; raises InputError unless the same model can be restored from it."""
    import json

    description = describe(model)
    try:
        same = describe(restore(json.loads(json.dumps(description)))) == description
    except Exception as error:  # what a layer's own constructor raises depends on the layer
        raise InputError("save: model", "layers that can be restored from their fields", error) from error
    if not same:
        raise InputError("save: model", "layers that can be restored from their fields", "different ones")
    return description


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it appears complete or not at all; a link stays, and its target is written.

    Raises InputError if the path is taken by something other than a file, such as a folder or a device.
    """
    real = Path(os.path.realpath(path))
    if real.exists() and not real.is_file():
        got = f"the folder {path}" if real.is_dir() else path
        raise InputError("output", "a file to write", got)
    part = real.with_name(f".{real.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(real)
    except OSError as error:
        if error.filename is not None:
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def _describing(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # how a damaged description fails depends on where it is damaged
        got = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(str(path), "the description of a network", got) from error


def _name(kind: type[Layer]) -> str:
    """Return the name to find a class by: a bare one for this package's public layers, else module:Class."""
    names = kind.__name__, f"{kind.__module__}:{kind.__qualname__}"
    for name in names:
        if _found(name) is kind:
            return name
    raise InputError("save", "a layer class that can be found by its name", names[-1])


def _found(name: str) -> type[Layer] | None:
    """Return this package's public layer for a bare name, or the layer module:Class if that module is imported."""
    module, path = name.split(":", 1) if ":" in name else (layers.__name__, name)
    found: object = sys.modules.get(module)
    for part in path.split("."):
        found = vars(found).get(part) if isinstance(found, ModuleType | type) else None  # getattr may import
    if not (isinstance(found, type) and issubclass(found, Layer)):
        return None
    ours = found.__module__.partition(".")[0] == __name__.partition(".")[0]
    return found if not ours or name in layers.__all__ else None


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
