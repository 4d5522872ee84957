"""One image traced through a network for the page: every activation, every gradient, and what a step would change."""

import copy
from collections.abc import Mapping

import numpy as np

from lowered_cnn.arrays import Array, Images, Labels
from lowered_cnn.descriptions import JSON
from lowered_cnn.explore.payload import packed
from lowered_cnn.losses import SoftmaxCrossEntropy, softmax
from lowered_cnn.network import LoweredNetwork, Network
from lowered_cnn.tracing import Recorder

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""The learning rates of which the page shows what one step of plain SGD would change."""

IMAGES = "images"
"""The name of the network's input among its activations."""


def traced(network: Network, image: Images, label: int) -> dict[str, JSON]:
    """Return what happens to an image (C, H, W) with this label, forward and backward, computed as at inference.

    Each stage has y, dy, x and dx. An x or dx that is, bit for bit, the y or dy of another stage is only its name.
    Raises InputError for an image on another scale than the training images.
    """
    network.check_scale(image[None])
    loss, labels = SoftmaxCrossEntropy(), np.array([label])
    lowered = network.lower(1, training=False, wants_dx=True, fused=False)
    with lowered.tapped(recorder := Recorder()):
        z = lowered.forward(image[None]).copy()
        value, dz = loss.value_and_gradient(z, labels, 1.0)
        dx = lowered.backward(dz)
    assert dx is not None
    ys, dys = {IMAGES: lowered.x[..., 0].copy()}, {IMAGES: dx[0].copy()}
    stages: dict[str, JSON] = {}
    for name, seen in recorder.passages.items():
        assert seen.dy is not None
        assert seen.dx is not None
        y, dy = seen.y[..., 0], seen.dy[..., 0]
        stages[name] = {
            "x": _named(seen.x[..., 0], ys),
            "y": packed(y),
            "dx": _named(seen.dx[..., 0], dys),
            "dy": packed(dy),
        }
        ys[name], dys[name] = y, dy
    learned = _learned(network, lowered)
    return {
        "label": label,
        "loss": value,
        "outputs": packed(z[0]),
        "probabilities": packed(softmax(z)[0]),
        "doutputs": packed(dz[0]),
        "image": packed(ys[IMAGES]),
        "dimage": packed(dys[IMAGES]),
        "stages": stages,
        "gradients": {name: packed(gradient) for name, gradient in learned.items()},
        "after": [_after(network, image, labels, learned, rate) for rate in RATES],
    }


def gradients(network: Network, image: Images, label: int) -> dict[str, Array]:
    """Return the gradient of each parameter for one image, computed as at inference."""
    lowered = network.lower(1, training=False, wants_dx=True)
    _, dz = SoftmaxCrossEntropy().value_and_gradient(lowered.forward(image[None]), np.array([label]), 1.0)
    lowered.backward(dz)
    return _learned(network, lowered)


def _learned(network: Network, lowered: LoweredNetwork) -> dict[str, Array]:
    return {p.name: lowered.gradients[p.name] for p in network.parameters.parameters if not p.statistic}


def _named(array: Array, others: dict[str, Array]) -> JSON:
    """Return the name of the last array with the same numbers, or the array itself."""
    for name, other in reversed(others.items()):
        if np.array_equal(other, array):
            return name
    return packed(array)


def _after(
    network: Network, image: Images, labels: Labels, learned: Mapping[str, Array], rate: float
) -> dict[str, JSON]:
    """Return what the network says of the image after one step w - rate dw."""
    moved = copy.deepcopy(network)
    for name, gradient in learned.items():
        moved.parameters[name][...] -= rate * gradient
    z = moved.predict(image[None])
    loss, _ = SoftmaxCrossEntropy().value_and_gradient(z, labels, 1.0)
    return {"rate": rate, "loss": loss, "probabilities": packed(softmax(z)[0])}
