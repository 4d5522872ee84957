"""A network of your own, FILE.py:NAME: built for a training, and its file imported again for the run."""

import argparse
import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from lowered_cnn.arrays import InputError, Shape
from lowered_cnn.descriptions import JSON, describe
from lowered_cnn.layers import Layer
from lowered_cnn.models import MODELS, model_for


def model_name(text: str) -> str:
    """Return the value of --model: the name of a network, or FILE.py:NAME."""
    if text in MODELS or re.fullmatch(r".+\.py:\w+", text):
        return text
    raise argparse.ArgumentTypeError(f"expected FILE.py:NAME, or one of {', '.join(MODELS)}, got {text!r}")


def build(model: str, classes: int, input_shape: Shape) -> Layer:
    """Return the chosen network; NAME in FILE.py is a layer, or a function that returns one.

    A function is called with the number of classes and, if it needs a second argument, the shape of the images.
    """
    if model in MODELS:
        return model_for(model, classes, input_shape)
    path, name = _path_and_name(model)
    found = vars(_import(path)).get(name)
    if callable(found) and not isinstance(found, Layer):
        with _one_line_errors(path):
            found = found(*(classes, input_shape)[: _argument_count(found)])
    if not isinstance(found, Layer):
        wanted = "a layer, such as Sequential, or a function of the number of classes that returns one"
        raise InputError(model, wanted, "nothing" if found is None else type(found).__name__)
    return found


def settings(model: str, network: Layer) -> dict[str, JSON]:
    """Return what a run records of the chosen network: its name and, if it has layers of its own, their file."""
    if model in MODELS:
        return {"model": model, "model_file": None}
    path, name = _path_and_name(model)
    file: JSON = {"path": str(path), "sha256": sha256(path.read_bytes()).hexdigest()}
    return {"model": f"{path}:{name}", "model_file": file if _has_own(describe(network)) else None}


def import_again(where: str, file: JSON) -> None:
    """Import the file that a run recorded, if any; raises InputError, without importing it, if it has changed."""
    match file:
        case None:
            return
        case {"path": str(path), "sha256": str(digest)}:
            _check_is_file(Path(path))
            if sha256(Path(path).read_bytes()).hexdigest() != digest:
                raise InputError(path, "the file as it was when the training began", "different content")
            _import(Path(path))
        case _:
            raise InputError(f"{where}: model_file", "a path with its sha256, or null", repr(file))


def _path_and_name(model: str) -> tuple[Path, str]:
    path, _, name = model.rpartition(":")
    return Path(path).absolute(), name


def _import(path: Path) -> ModuleType:
    """Import a file as a module of its name, by which its layers are found again, also in worker processes.

    Its folder is appended to sys.path, so that its files hide no other modules.
    """
    _check_is_file(path)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    with _one_line_errors(path):
        spec = find_spec(path.stem)
    if spec is None or not spec.has_location or not os.path.samefile(str(spec.origin), path):
        raise InputError(str(path), "a name that no other module has", path.stem)
    with _one_line_errors(path):
        return importlib.import_module(path.stem)


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(str(path), "the file of a network", "no such file")


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """Turn whatever a file raises into an InputError."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise InputError(str(path), "a file that runs", f"{type(error).__name__}: {error}") from error


def _argument_count(function: object) -> int:
    """Return how many arguments to give a function: two if it needs them, else one."""
    assert callable(function)
    parameters = inspect.signature(function).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return 2 if len(needed) > 1 else 1


def _has_own(description: JSON) -> bool:
    """Return whether a description names a class "module:Class"."""
    if isinstance(description, dict):
        name = description.get("layer", description.get("class"))
        return (isinstance(name, str) and ":" in name) or any(map(_has_own, description.values()))
    return isinstance(description, list) and any(map(_has_own, description))
