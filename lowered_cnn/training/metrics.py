"""Metrics: functions of a network's outputs and targets that are reported beside the loss."""

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
    """Return how many answers are right, and how many there are.

    An answer is the class with the largest output: of outputs (N, classes), one for each class number (N,); of maps
    (N, classes, *size), one for each of (N, *size). Those whose class number is `ignore` do not count, and targets of
    other kinds have no answers.
    """
    if targets.dtype.kind not in "iu" or outputs.ndim < 2 or targets.shape != (len(outputs), *outputs.shape[2:]):
        return 0, 0
    right = outputs.argmax(axis=1) == targets
    if ignore is None:
        return int(np.count_nonzero(right)), targets.size
    counted = targets != ignore
    return int(np.count_nonzero(right & counted)), int(np.count_nonzero(counted))


def check_metrics(where: str, metrics: Mapping[str, Metric]) -> None:
    """Raise InputError unless metrics are functions by name."""
    if not isinstance(metrics, Mapping) or not all(map(callable, metrics.values())):
        raise InputError(where, 'functions by name, as in {"error": function}', repr(metrics))
    for name in metrics:
        if not isinstance(name, str) or name in RESERVED:
            raise InputError(where, f"names other than {' and '.join(RESERVED)}", repr(name))
