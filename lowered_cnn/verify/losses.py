"""The checks of a loss: its value by Python's own math, its gradient, and that its shards add up."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array
from lowered_cnn.losses import Loss, MeanSquaredError, SoftmaxCrossEntropy
from lowered_cnn.verify.certificate import Check, worst
from lowered_cnn.verify.differences import UNIT_ROUNDOFF, derivative, unit_directions

LARGE = 1000.0
"""A scale at which the exponentials of outputs overflow."""


def loss_checks(loss: Loss, z: Array, targets: npt.NDArray[np.generic]) -> Iterator[Check]:
    """Check J(Z) and dJ/dZ for outputs (N, features): forward, dx, and the sum over two shards."""
    name, m = type(loss).__name__, len(z)
    value, dz = loss.value_and_gradient(z.copy(), targets, m)
    rounding = (z.size + 8) * UNIT_ROUNDOFF
    for scale in (1.0, LARGE):
        expected, scaled = _value(loss, scale * z, targets), loss.value_and_gradient(scale * z, targets, m)[0]
        if expected is not None:
            bound = 4 * rounding * (abs(expected) + scale * float(np.abs(z).max()))
            yield Check(name, name, "forward", abs(scaled - expected), bound)
    size = float(np.sqrt(np.sum(dz**2)))
    checks = []
    for direction in unit_directions(z.shape, 3):
        found = derivative(partial(_along, loss, z, targets, direction))
        error = abs(found.value - float(np.sum(dz * direction)))
        bound = found.bound + 64 * UNIT_ROUNDOFF * size
        checks.append(Check(name, name, "dx", error, bound, sharp=bound < 1e-4 * size))
    yield worst(checks)
    half = m // 2
    parts = [loss.value_and_gradient(z[part].copy(), targets[part], m) for part in (slice(half), slice(half, m))]
    apart = abs(sum(part[0] for part in parts) - value)
    apart += float(np.abs(np.concatenate([part[1] for part in parts]) - dz).max())
    yield Check(name, name, "shards", apart, rounding * (abs(value) + float(np.abs(dz).max())))


def _along(loss: Loss, z: Array, targets: npt.NDArray[np.generic], direction: Array, t: float) -> float:
    return loss.value_and_gradient(z + t * direction, targets, len(z))[0]


def _value(loss: Loss, z: Array, targets: npt.NDArray[np.generic]) -> float | None:
    """J by its definition: -1/m sum of Y log Y^ (S9), or 1/(2 m) sum of (Z - Y)^2; None for a custom loss."""
    wanted = np.eye(z.shape[1])[targets] if targets.ndim == 1 else targets
    terms: list[float] = []
    match loss:
        case SoftmaxCrossEntropy(label_smoothing=e):
            for y, logits in zip(wanted.tolist(), z.tolist(), strict=True):
                most = max(logits)
                total = math.log(math.fsum(math.exp(logit - most) for logit in logits))
                spread = [(1 - e) * each + e / len(logits) for each in y]
                terms += [each * (total + most - logit) for each, logit in zip(spread, logits, strict=True)]
        case MeanSquaredError():
            for y, outputs in zip(wanted.tolist(), z.tolist(), strict=True):
                terms += [(output - each) ** 2 / 2 for each, output in zip(y, outputs, strict=True)]
        case _:
            return None
    return math.fsum(terms) / len(wanted)
