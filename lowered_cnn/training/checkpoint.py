"""Checkpoints: the state of a training in one safetensors file, whole or absent, and checked when it is read."""

import math
import os
from dataclasses import asdict, fields
from typing import Any, get_args, get_type_hints

from lowered_cnn.arrays import Array, InputError, check_shape, whole_number
from lowered_cnn.descriptions import JSON, describe, restore
from lowered_cnn.layers import Graph, Sequential
from lowered_cnn.network import as_input_shape
from lowered_cnn.storage import read_checked, write_checked
from lowered_cnn.training.recipe import Recipe
from lowered_cnn.training.state import Record, State, Subject

PLAIN = ("step", "learning_rate", "epoch_loss", "seconds", "machine")
"""The fields of a state that the header holds as they are."""

VECTORS = ("parameters", "average", "best")
"""Those that are tensors, the last two of which may be missing; so are the optimizer's buffers."""


def write_state(state: State, path: str | os.PathLike[str]) -> None:
    """Write a state; raises InputError for a model or recipe that cannot be restored from its fields, and OSError."""
    subject = state.subject
    header: dict[str, JSON] = {
        "checkpoint": {name: getattr(state, name) for name in PLAIN},
        "history": [asdict(record) for record in state.history],
        "model": describe(subject.model),
        "input_shape": list(subject.input_shape),
        "dtype": subject.dtype,
        "recipe": describe(subject.recipe),
        "data": subject.data,
        "dev": subject.dev,
    }
    vectors = {name: getattr(state, name) for name in VECTORS}
    tensors = {name: vector for name, vector in vectors.items() if vector is not None}
    write_checked(path, header, tensors | {f"optimizer.{name}": buffer for name, buffer in state.buffers.items()})


def read_state(path: str | os.PathLike[str]) -> State:
    """Return the state that `write_state` wrote; raises InputError for any other file, and for a damaged one."""
    header, tensors = read_checked(path)
    if "checkpoint" not in header:
        raise InputError(str(path), "a checkpoint", "a network")
    try:
        subject = _subject(header)
        buffers = {name: tensors.pop(f"optimizer.{name}") for name in subject.recipe.optimizer.buffers}
        _check_vectors(subject, buffers, tensors)
        return State(
            parameters=tensors["parameters"],
            buffers=buffers,
            average=tensors.get("average"),
            best=tensors.get("best"),
            history=tuple(_record(record) for record in header["history"]),
            subject=subject,
            **_numbers(header["checkpoint"]),
        )
    except Exception as error:  # how a file that this version does not understand fails depends on the file
        raise InputError(str(path), "a checkpoint that can be restored", f"{type(error).__name__}: {error}") from error


def _record(entries: dict[str, Any]) -> Record:
    metrics = entries.get("dev_metrics", {})
    if not isinstance(metrics, dict) or not all(type(figure) in (int, float) for figure in metrics.values()):
        raise InputError("history: dev_metrics", "numbers by name", repr(metrics))
    _check_kinds("history", Record, {name: entry for name, entry in entries.items() if name != "dev_metrics"})
    return Record(**entries)


def _numbers(entries: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a state that are in the header, if they are possible."""
    _check_kinds("checkpoint", State, entries)
    whole_number("checkpoint: step", entries["step"], 0)
    for name in ("seconds", "learning_rate"):
        if entries[name] is not None and not 0 <= entries[name] < math.inf:
            raise InputError(f"checkpoint: {name}", "a finite number of at least 0", entries[name])
    return entries


def _subject(header: dict[str, Any]) -> Subject:
    model, recipe = restore(header["model"]), restore(header["recipe"])
    if not (isinstance(model, Sequential | Graph) and isinstance(recipe, Recipe)):
        raise InputError("checkpoint", "a model and a recipe", f"{model!r} and {recipe!r}")
    others = {field.name: header[field.name] for field in fields(Subject) if field.name in ("dtype", "data", "dev")}
    _check_kinds("subject", Subject, others)
    if others["dtype"] not in ("float32", "float64"):
        raise InputError("subject: dtype", "float32 or float64", repr(others["dtype"]))
    return Subject(model=model, input_shape=as_input_shape(header["input_shape"]), recipe=recipe, **others)


def _check_kinds(where: str, kind: type, entries: dict[str, JSON]) -> None:
    """Raise InputError unless each entry is of the type of its field; a whole number will do for a float."""
    hints = get_type_hints(kind)
    for name, entry in entries.items():
        kinds = get_args(hints[name]) or (hints[name],)
        if type(entry) not in kinds and not (type(entry) is int and float in kinds):
            raise InputError(f"{where}: {name}", " or ".join(kind.__name__ for kind in kinds), repr(entry))


def _check_vectors(subject: Subject, buffers: dict[str, Array], others: dict[str, Array]) -> None:
    """Raise InputError unless every vector has the length and type of the network's; nothing is allocated for that."""
    parameters = subject.model.parameters(subject.input_shape)
    whole = sum(math.prod(p.shape) for p in parameters)
    learned = sum(math.prod(p.shape) for p in parameters if not p.statistic)
    if unknown := sorted(others.keys() - set(VECTORS)):
        raise InputError("vectors", ", ".join(VECTORS), ", ".join(unknown))
    for name, vector in buffers.items():
        check_shape(f"optimizer.{name}", (learned,), vector.shape)
    for name, vector in others.items():
        check_shape(name, (whole,), vector.shape)
    if {vector.dtype.name for vector in (*buffers.values(), *others.values())} != {subject.dtype}:
        raise InputError("vectors", subject.dtype, "others")
