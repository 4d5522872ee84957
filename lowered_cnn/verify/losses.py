"""The checks of a loss: its value by Python's own math, its gradient, and that its shards add up."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from lowered_cnn.arrays import Array, Labels, Targets, Weights
from lowered_cnn.losses import (
    BinaryCrossEntropy,
    ElementwiseLoss,
    Huber,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    SoftmaxCrossEntropy,
    loss_and_gradient,
)
from lowered_cnn.verify.certificate import Check, worst
from lowered_cnn.verify.differences import UNIT_ROUNDOFF, derivative, gradient_rounding, unit_directions

LARGE = 1000.0
"""A scale at which the exponentials of outputs overflow."""


def targets_for(loss: Loss, labels: Labels, classes: int) -> Targets:
    """Return class numbers in the form that a loss takes: as they are, or as rows of 0 and 1."""
    return np.eye(classes)[labels] if isinstance(loss, ElementwiseLoss) else labels


def loss_checks(loss: Loss, z: Array, targets: Targets, weights: Weights | None = None) -> Iterator[Check]:
    """Check J(Z) and dJ/dZ for outputs (N, ...): forward, dx, and the sum over two shards."""
    name, m = type(loss).__name__, loss.total(targets, weights)
    value, dz = loss_and_gradient(loss, z.copy(), targets, m, weights)
    rounding = (z.size + 8) * UNIT_ROUNDOFF
    for scale in (1.0, LARGE):
        expected = _value(loss, scale * z, targets, weights)
        scaled, _ = loss_and_gradient(loss, scale * z, targets, m, weights)
        if expected is not None:
            bound = 4 * rounding * (abs(expected) + scale * float(np.abs(z).max()))
            yield Check(name, name, "forward", abs(scaled - expected), bound)
    size = float(np.sqrt(np.sum(dz**2)))
    checks = []
    for direction in unit_directions(z.shape, 3):
        found = derivative(partial(_along, loss, z, targets, weights, direction))
        error = abs(found.value - float(np.sum(dz * direction)))
        bound = found.bound + gradient_rounding(size)
        checks.append(Check(name, name, "dx", error, bound, sharp=bound < 1e-4 * size))
    yield worst(checks)
    half = len(z) // 2
    parts = [
        loss_and_gradient(loss, z[part].copy(), targets[part], m, None if weights is None else weights[part])
        for part in (slice(half), slice(half, None))
    ]
    apart = abs(sum(part[0] for part in parts) - value)
    apart += float(np.abs(np.concatenate([part[1] for part in parts]) - dz).max())
    yield Check(name, name, "shards", apart, rounding * (abs(value) + float(np.abs(dz).max())))


def _along(loss: Loss, z: Array, targets: Targets, weights: Weights | None, direction: Array, t: float) -> float:
    return loss_and_gradient(loss, z + t * direction, targets, loss.total(targets, weights), weights)[0]


def _value(loss: Loss, z: Array, targets: Targets, weights: Weights | None) -> float | None:
    """J by its definition: the sum of all terms, divided by the sum of what each counts; None for a custom loss."""
    counts, pairs = np.ones(len(z)) if weights is None else weights, list[tuple[float, float]]()
    match loss:
        case SoftmaxCrossEntropy():
            logits = np.moveaxis(z, 1, -1).reshape(-1, z.shape[1]).tolist()
            each = np.repeat(counts, len(logits) // len(z)).tolist()
            pairs += map(partial(_cross_entropy, loss), logits, targets.ravel().tolist(), each)
        case MeanSquaredError():
            wanted = np.eye(z.shape[1])[targets] if targets.ndim == 1 else targets
            halves = [[(a - b) ** 2 / 2 for a, b in zip(*rows, strict=True)] for rows in zip(z, wanted, strict=True)]
            pairs += ((count * math.fsum(row), count) for row, count in zip(halves, counts.tolist(), strict=True))
        case MeanAbsoluteError() | Huber() | BinaryCrossEntropy():
            factor = loss.pos_weight if isinstance(loss, BinaryCrossEntropy) else 1.0
            numbers = zip(
                *(np.broadcast_to(each, z.shape).ravel().tolist() for each in (z, targets, factor)), strict=True
            )
            each = np.repeat(counts, z.size // len(z)).tolist()
            pairs += ((count * _term(loss, *number), count) for number, count in zip(numbers, each, strict=True))
        case _:
            return None
    terms, divisors = zip(*pairs, strict=True)
    return math.fsum(terms) / math.fsum(divisors)


def _cross_entropy(loss: SoftmaxCrossEntropy, logits: list[float], label: int, count: float) -> tuple[float, float]:
    """Return - sum of Y log Y^ at one position, and what that counts."""
    if label == loss.ignore:
        return 0.0, 0.0
    factors, e = loss.class_weights or [1.0] * len(logits), loss.label_smoothing
    y = [factor * (e / len(logits) + (1 - e) * (k == label)) for k, factor in enumerate(factors)]
    most = max(logits)
    total = math.log(math.fsum(math.exp(logit - most) for logit in logits))
    terms = [each * (total + most - logit) for each, logit in zip(y, logits, strict=True)]
    return count * math.fsum(terms), count * factors[label]


def _term(loss: Loss, z: float, y: float, factor: float) -> float:
    """Return the loss of one number."""
    match loss:
        case MeanAbsoluteError():
            return abs(z - y)
        case Huber(delta=delta):
            size = abs(z - y)
            return size**2 / 2 if size <= delta else delta * (size - delta / 2)
        case _:
            return factor * y * _log_one_plus_exp(-z) + (1 - y) * _log_one_plus_exp(z)


def _log_one_plus_exp(z: float) -> float:
    return z + math.log1p(math.exp(-z)) if z > 0 else math.log1p(math.exp(z))
