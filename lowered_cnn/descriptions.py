"""Frozen dataclasses as JSON and back: layers, optimizers, schedules, losses, augmentations and recipes.

A public class of this package is described by its name, one of your own as "module:Class". Classes are looked up among
those already imported, the package's own among its public names; a description never causes another import.
"""

import dataclasses
import math
import sys
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from lowered_cnn.arrays import InputError
from lowered_cnn.layers import Concatenate, Graph, Layer, Sequential
from lowered_cnn.layers.container import LEVELS

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

PACKAGE = __name__.partition(".")[0]

BASES = ("Augmentation", "Input", "Join", "Layer", "Loss", "Node", "Optimizer", "Recipe", "Schedule")
"""What can be described: these classes of the package, and those derived from them."""


def describe(value: object) -> dict[str, JSON]:
    """Return a value as JSON: the name of its class, under "layer" or "class", and its fields, with the same numbers.

    Raises InputError if `restore` would not return the same value, as for a class that is defined in a function, or one
    with state outside its fields.
    """
    import json

    description = _described(value)
    same, got = False, "a different one"
    try:
        same = _described(restore(json.loads(json.dumps(description)))) == description
    except Exception as error:  # what a constructor raises depends on the class
        got = str(error)
    if not same:
        raise InputError(type(value).__name__, "a value that can be restored from its fields", got)
    return description


def restore(description: JSON) -> object:
    """Return the value that `describe` described; raises InputError for anything else."""
    try:
        return _restored(description, 0)
    except InputError:
        raise
    except Exception as error:  # what a constructor raises depends on the class
        raise InputError("description", "a class with its fields", f"{type(error).__name__}: {error}") from error


def _restored(description: JSON, level: int) -> object:
    if level > LEVELS:
        raise InputError("description", f"at most {LEVELS} levels", "more")
    if not isinstance(description, dict) or not {"layer", "class"} & description.keys():
        raise InputError("description", 'a "layer" or a "class" with its fields', repr(description))
    key = "class" if "class" in description else "layer"
    name = str(description[key])
    kind = _found(name)
    if kind is None or issubclass(kind, Layer) != (key == "layer"):
        ours = f"the name of a {key}, or module:Class for your own"
        wanted = f"a {key} in an imported module" if ":" in name else ours
        raise InputError(key, wanted, name)
    fields: dict[str, Any] = {name: _from_json(value, level + 1) for name, value in description.items() if name != key}
    if _has_own_constructor(kind):
        return _assembled(kind, fields)
    if issubclass(kind, Sequential | Concatenate):
        return kind(*fields.pop("layers"), **fields)
    if issubclass(kind, Graph):
        return kind(*fields.pop("nodes"), **fields)
    return kind(**fields)


def _described(value: object) -> dict[str, JSON]:
    kind = type(value)
    if not dataclasses.is_dataclass(kind) and getattr(value, "__dict__", None):
        raise InputError(kind.__name__, "a dataclass, whose fields can be stored", f"attributes {sorted(vars(value))}")
    fields = {field.name: getattr(value, field.name) for field in _fields(kind)}
    described = {name: _to_json(f"{kind.__name__}: {name}", entry) for name, entry in fields.items()}
    return {"layer" if isinstance(value, Layer) else "class": _name(kind), **described}


def _fields(kind: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()


def _has_own_constructor(kind: type) -> bool:
    """Return whether a custom class has a handwritten __init__, whose arguments need not be the fields."""
    owner = next(base for base in kind.__mro__ if "__init__" in vars(base))
    parameters = vars(owner).get("__dataclass_params__")
    return not (parameters and parameters.init) and not _is_ours(owner)


def _assembled(kind: type, fields: dict[str, Any]) -> object:
    """Make a value from its fields without calling its constructor; its own checks still run."""
    value: object = object.__new__(kind)
    for field in _fields(kind):
        object.__setattr__(value, field.name, fields.pop(field.name))
    if fields:
        raise InputError(kind.__name__, f"the fields of {kind.__name__}", sorted(fields))
    getattr(value, "__post_init__", lambda: None)()
    return value


def _name(kind: type) -> str:
    """Return the name to find a class by: a bare one for this package's public classes, else module:Class."""
    names = kind.__name__, f"{kind.__module__}:{kind.__qualname__}"
    for name in names:
        if _found(name) is kind:
            return name
    raise InputError(kind.__name__, "a class that can be found by its name", names[-1])


def _found(name: str) -> type | None:
    """Return this package's public class for a bare name, or the class module:Class if that module is imported."""
    found = _imported(*name.split(":", 1)) if ":" in name else _public(name)
    if not isinstance(found, type) or not any(_is_ours(base) and base.__name__ in BASES for base in found.__mro__):
        return None
    return found if ":" not in name or not _is_ours(found) else None


def _public(name: str) -> object:
    package = sys.modules[PACKAGE]
    return getattr(package, name) if name in package.__all__ else None


def _imported(module: str, path: str) -> object:
    found: object = sys.modules.get(module)
    for part in path.split("."):
        found = vars(found).get(part) if isinstance(found, ModuleType | type) else None  # getattr may import
    return found


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == PACKAGE


def _to_json(where: str, value: object) -> JSON:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, tuple | list):
        return [_to_json(where, entry) for entry in value]
    _check_is_defined(where, value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return _described(value)


def _from_json(value: JSON, level: int) -> object:
    if isinstance(value, dict):
        return _restored(value, level)
    if isinstance(value, list):
        return tuple(_from_json(entry, level) for entry in value)
    _check_is_defined("description", value)
    return value


def _check_is_defined(where: str, value: object) -> None:
    """Raise InputError for NaN, which is not equal to itself."""
    if isinstance(value, float) and math.isnan(value):
        raise InputError(where, "a number", value)
