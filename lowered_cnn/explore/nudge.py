"""A single weight nudged: what J does then, next to the gradient that the network claims and the bound on the difference."""

import numpy as np

from lowered_cnn.arrays import Images, InputError, whole_number
from lowered_cnn.descriptions import JSON
from lowered_cnn.losses import SoftmaxCrossEntropy
from lowered_cnn.network import Network
from lowered_cnn.verify.differences import UNIT_ROUNDOFF, derivative, smooth_step
from lowered_cnn.verify.probe import Probe, sides

POINTS = 41
"""Values of J on the curve that the page draws."""


def nudged(
    network: Network, image: Images, label: int, parameter: str, index: int, reach: float = 1.0
) -> dict[str, JSON]:
    """Return the gradient of one number of a parameter, and its finite difference with a derived bound, in float64.

    `index` counts in row-major order. `curve` has J at w - reach ... w + reach. Raises InputError if there is no such
    number, or if it is a statistic, which has no gradient.
    """
    learned = [p.name for p in network.parameters.parameters if not p.statistic]
    if parameter not in learned:
        raise InputError("nudge: parameter", f"one of {', '.join(learned)}", repr(parameter)[:80])
    whole_number("nudge: index", index, 0, network.parameters[parameter].size - 1)
    probe = Probe(network, SoftmaxCrossEntropy(), _floats(image)[None], np.array([label])).in_precision(np.float64)
    lowered = probe.lower(training=False)
    gradient = probe.results(lowered).gradients[parameter]
    direction = np.zeros(gradient.shape)
    direction.reshape(-1)[index] = 1.0

    def value(t: float) -> float:
        with probe.moved(parameter, t * direction):
            return probe.value(lowered)

    def branch(t: float) -> bytes:
        value(t)
        return sides(lowered.layers)

    step = smooth_step(branch)
    found = derivative(value, step)
    bound = found.bound + 64 * UNIT_ROUNDOFF * float(np.sqrt(np.sum(gradient**2)))
    claimed = float(gradient.reshape(-1)[index])
    ts = np.linspace(-reach, reach, POINTS)
    return {
        "parameter": parameter,
        "index": index,
        "weight": float(probe.network.parameters[parameter].reshape(-1)[index]),
        "gradient": claimed,
        "difference": found.value,
        "bound": bound,
        "agrees": abs(found.value - claimed) <= bound,
        "step": step,
        "curve": [[float(t), value(float(t))] for t in ts],
    }


def _floats(image: Images) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    return image / 255 if image.dtype == np.uint8 else image.astype(np.float64)
