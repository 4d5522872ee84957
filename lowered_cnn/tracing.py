"""What passes through a network, layer by layer: activations and their gradients."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, Images
from lowered_cnn.layers.container import Stage, Tap
from lowered_cnn.losses import Loss, SoftmaxCrossEntropy, loss_and_gradient
from lowered_cnn.network import Network, as_batch, check_loss, check_network


@dataclass(frozen=True)
class Passage:
    """What went into and came out of a layer, in batch-last layout (..., N); dx is None where it is not needed."""

    stage: Stage
    x: Array
    y: Array
    dy: Array | None = None
    dx: Array | None = None


class Recorder(Tap):
    """Keeps copies of what goes into and comes out of each layer, by name, layers in branches included."""

    def __init__(self) -> None:
        self.passages: dict[str, Passage] = {}

    def forward(self, stage: Stage, x: Array, y: Array) -> None:
        """Keep x and y."""
        self.passages[stage.site.name] = Passage(stage, x.copy(), y.copy())

    def backward(self, stage: Stage, dy: Array, dx: Array | None) -> None:
        """Keep dy and dx."""
        seen = self.passages[stage.site.name]
        self.passages[stage.site.name] = Passage(stage, seen.x, seen.y, dy, None if dx is None else dx.copy())


@dataclass(frozen=True)
class Trace:
    """One batch traced through a network: J, the outputs, and the activation of each layer with its gradient.

    `activations["conv1"]`, the output of conv1, and `gradients["conv1"]`, dJ with respect to it, are both (N, *output
    shape of conv1). Under "images" are the images as the network takes them, and their gradient.
    """

    loss: float
    outputs: Array
    activations: dict[str, Array] = field(default_factory=dict)
    gradients: dict[str, Array] = field(default_factory=dict)


def trace(
    network: Network,
    images: Images,
    targets: npt.ArrayLike,
    loss: Loss = SoftmaxCrossEntropy(),
    *,
    training: bool = False,
) -> Trace:
    """Run images forward and backward, without fusing layers, and return every activation and its gradient.

    The layers compute as at inference (no Dropout, BatchNorm's running statistics) or, with `training`, as in training.
    Raises InputError if images, targets and network do not fit.
    """
    check_network("trace: network", network)
    check_loss(network, loss)
    images = as_batch(images, network.input_shape)
    network.check_scale(images)
    lowered = network.lower(len(images), training=training, wants_dx=True, fused=False)
    recorder = Recorder()
    with lowered.tapped(recorder):
        outputs = lowered.forward(images).copy()
        wanted = np.asarray(targets)
        value, dz = loss_and_gradient(loss, outputs, wanted, loss.total(wanted))
        dx = lowered.backward(dz)
    assert dx is not None
    traced = Trace(value, outputs, {"images": _batch_first(lowered.x)}, {"images": dx.copy()})
    for name, seen in recorder.passages.items():
        traced.activations[name] = _batch_first(seen.y)
        if seen.dy is not None:
            traced.gradients[name] = _batch_first(seen.dy)
    return traced


def _batch_first(array: Array) -> Array:
    return np.moveaxis(array, -1, 0).copy()
