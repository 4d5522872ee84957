"""Metrics: figures of outputs beside the loss, as functions."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from lowered_cnn.arrays import Array, InputError, Targets

Metric: TypeAlias = Callable[[Array, Targets], float]
"""A function of all outputs (N, ...) and all targets of a data set."""

RESERVED = ("dev_loss", "dev_accuracy")
"""What a recipe monitors by these names are no metrics."""


def measured(metrics: Mapping[str, Metric], outputs: Array, targets: Targets) -> dict[str, float]:
    """Return what each metric finds; raises InputError, with its name, for anything but a number."""
    found = {}
    for name, metric in metrics.items():
        value = metric(outputs, targets)
        try:
            found[name] = float(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"metrics: {name}", "a function that returns a number", repr(value)) from error
    return found


def right_answers(outputs: Array, targets: Targets, ignore: int | None) -> tuple[int, int]:
    """Return how many largest outputs are those of the class that is asked for, and how many classes are asked for.

    These are the class numbers (N,) for outputs (N, classes), or (N, *size) for maps of outputs (N, classes, *size),
    without those that are `ignore`; other targets ask for none.
    """
    if targets.dtype.kind not in "iu" or outputs.ndim < 2 or targets.shape != (len(outputs), *outputs.shape[2:]):
        return 0, 0
    right = outputs.argmax(axis=1) == targets
    if ignore is None:
        return int(np.count_nonzero(right)), targets.size
    asked = targets != ignore
    return int(np.count_nonzero(right & asked)), int(np.count_nonzero(asked))


def check_metrics(where: str, metrics: Mapping[str, Metric]) -> None:
    """Raise InputError unless metrics are functions, each with its name."""
    if not isinstance(metrics, Mapping) or not all(map(callable, metrics.values())):
        raise InputError(where, 'functions by name, as in {"error": function}', repr(metrics))
    for name in metrics:
        if not isinstance(name, str) or name in RESERVED:
            raise InputError(where, f"names other than {' and '.join(RESERVED)}", repr(name))
