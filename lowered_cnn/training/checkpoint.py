"""Checkpoints: the state of a training in one safetensors file, whole or absent, and checked when it is read."""

import os
from dataclasses import asdict
from typing import Any

from lowered_cnn.arrays import Array, InputError, check_shape
from lowered_cnn.descriptions import JSON, describe, restore
from lowered_cnn.layers import Sequential
from lowered_cnn.parameters import ParameterVector
from lowered_cnn.storage import read_checked, write_checked
from lowered_cnn.training.recipe import Recipe
from lowered_cnn.training.state import Record, State, Subject

PLAIN = ("step", "learning_rate", "epoch_loss", "seconds", "machine")
"""The fields of a state that the header holds as they are."""


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
    vectors = {"parameters": state.parameters, "average": state.average, "best": state.best}
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
            history=tuple(Record(**record) for record in header["history"]),
            subject=subject,
            **header["checkpoint"],
        )
    except Exception as error:  # how a file that this version does not understand fails depends on the file
        raise InputError(str(path), "a checkpoint of this version", f"{type(error).__name__}: {error}") from error


def _subject(header: dict[str, Any]) -> Subject:
    model, recipe = restore(header["model"]), restore(header["recipe"])
    if not (isinstance(model, Sequential) and isinstance(recipe, Recipe)):
        raise InputError("checkpoint", "a model and a recipe", f"{model!r} and {recipe!r}")
    return Subject(
        model=model,
        input_shape=tuple(header["input_shape"]),
        dtype=header["dtype"],
        recipe=recipe,
        data=header["data"],
        dev=header["dev"],
    )


def _check_vectors(subject: Subject, buffers: dict[str, Array], others: dict[str, Array]) -> None:
    """Raise InputError unless every vector has the length and type of the network's."""
    laid_out = ParameterVector.zeros(subject.model.parameters(subject.input_shape), subject.dtype)
    for name, vector in buffers.items():
        check_shape(f"optimizer.{name}", laid_out.learned.shape, vector.shape)
    for name, vector in others.items():
        check_shape(name, laid_out.vector.shape, vector.shape)
    if any(vector.dtype != laid_out.vector.dtype for vector in (*buffers.values(), *others.values())):
        raise InputError("vectors", subject.dtype, "others")
