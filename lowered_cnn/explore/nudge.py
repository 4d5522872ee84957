"""A single weight nudged: what J does then, next to the gradient that the network claims, and a bound on its error."""

import numpy as np

from lowered_cnn.arrays import Images, InputError, whole_number
from lowered_cnn.descriptions import JSON
from lowered_cnn.losses import SoftmaxCrossEntropy
from lowered_cnn.network import Network
from lowered_cnn.verify.differences import derivative, gradient_rounding, smooth_step
from lowered_cnn.verify.probe import Probe, sides

REACH, POINTS = 1.0, 41
"""How far to either side of the weight the page draws J, and through how many values."""


def nudged(network: Network, image: Images, label: int, parameter: str, index: int) -> dict[str, JSON]:
    """Return the gradient of one number of a parameter, and its finite difference with a derived bound, in float64.

    `index` counts in row-major order. `curve` has J at w - 1 ... w + 1, as pairs (what is added to w, J). Raises
    InputError if there is no such number, or if it is a statistic, which has no gradient.
    """
    network.check_scale(image[None])
    floats = image.astype(np.float64) / (255 if image.dtype == np.uint8 else 1)
    probe = Probe(network, SoftmaxCrossEntropy(), floats[None], np.array([label])).in_precision(np.float64)
    if parameter not in probe.learned:
        raise InputError("parameter", f"one of {', '.join(probe.learned)}", repr(parameter)[:80])
    whole_number("index", index, 0, network.parameters[parameter].size - 1)
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
    bound = found.bound + gradient_rounding(float(np.sqrt(np.sum(gradient**2))))
    claimed = float(gradient.reshape(-1)[index])
    return {
        "parameter": parameter,
        "index": index,
        "weight": float(probe.network.parameters[parameter].reshape(-1)[index]),
        "gradient": claimed,
        "difference": found.value,
        "bound": bound,
        "agrees": abs(found.value - claimed) <= bound,
        "step": step,
        "curve": [[t, value(t)] for t in np.linspace(-REACH, REACH, POINTS).tolist()],
    }
