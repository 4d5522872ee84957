"""One image traced through a network for the page: every activation, every gradient, and what a step would change."""

import copy
from collections.abc import Mapping

import numpy as np

from lowered_cnn.arrays import Array, Images
from lowered_cnn.descriptions import JSON
from lowered_cnn.explore.payload import packed
from lowered_cnn.losses import SoftmaxCrossEntropy, softmax
from lowered_cnn.network import Network
from lowered_cnn.tracing import Recorder

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""The learning rates of which the page shows what one step of plain SGD would change."""

IMAGES = "images"
"""The name of the network's input among its activations."""


def traced(network: Network, image: Images, label: int) -> dict[str, JSON]:
    """Return what happens to an image (C, H, W) with this label, forward and backward, computed as at inference.

    Each stage has y, dy, x and dx. An x or dx that is, bit for bit, the y or dy of another stage is only its name.
    """
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
        assert seen.dy is not None and seen.dx is not None
        y, dy = seen.y[..., 0], seen.dy[..., 0]
        stages[name] = {
            "x": _named(seen.x[..., 0], ys),
            "y": packed(y),
            "dx": _named(seen.dx[..., 0], dys),
            "dy": packed(dy),
        }
        ys[name], dys[name] = y, dy
    gradients = {p.name: lowered.gradients[p.name] for p in network.parameters.parameters if not p.statistic}
    return {
        "label": label,
        "loss": value,
        "outputs": packed(z[0]),
        "probabilities": packed(softmax(z)[0]),
        "doutputs": packed(dz[0]),
        "image": packed(ys[IMAGES]),
        "dimage": packed(dys[IMAGES]),
        "stages": stages,
        "gradients": {name: packed(gradient) for name, gradient in gradients.items()},
        "after": [_after(network, image, labels, gradients, rate) for rate in RATES],
    }


def _named(array: Array, others: Mapping[str, Array]) -> JSON:
    """Return the name of the last array with the same numbers, or the array itself."""
    for name, other in reversed(others.items()):
        if np.array_equal(other, array):
            return name
    return packed(array)


def _after(
    network: Network,
    image: Images,
    labels: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]",
    gradients: Mapping[str, Array],
    rate: float,
) -> dict[str, JSON]:
    """Return what the network says of the image after one step w - rate dw."""
    moved = copy.deepcopy(network)
    for name, gradient in gradients.items():
        moved.parameters[name][...] -= rate * gradient
    z = moved.predict(image[None])
    loss, _ = SoftmaxCrossEntropy().value_and_gradient(z, labels, 1.0)
    return {"rate": rate, "loss": loss, "probabilities": packed(softmax(z)[0])}
