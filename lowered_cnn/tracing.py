"""What goes through a network, layer by layer: activations, and their gradients."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, Images
from lowered_cnn.layers.container import Stage, Tap
from lowered_cnn.losses import Loss, SoftmaxCrossEntropy
from lowered_cnn.network import Network, as_batch, check_loss


@dataclass(frozen=True)
class Passage:
    """What a layer was given and gave, in the engine's layout (..., N); dx is None where nobody needs it."""

    stage: Stage
    x: Array
    y: Array
    dy: Array | None = None
    dx: Array | None = None


class Recorder(Tap):
    """Keeps a copy of what goes in and out of each layer, by its name, those in branches included."""

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
    """One batch on its way: J and the outputs, what each layer gives, and dJ of it.

    `activations["conv1"]` is (N, *output shape of conv1), and so is `gradients["conv1"]`; `activations["images"]` are
    the images as numbers, and `gradients["images"]` is dJ of them.
    """

    loss: float
    outputs: Array
    activations: dict[str, Array] = field(default_factory=dict)
    gradients: dict[str, Array] = field(default_factory=dict)


def trace(
    network: Network,
    images: Images,
    targets: npt.NDArray[np.generic],
    loss: Loss = SoftmaxCrossEntropy(),
    *,
    training: bool = False,
) -> Trace:
    """Run images forward and backward, each layer by itself, and return what goes through all of them.

    That is done as at inference, without Dropout and with the running statistics of BatchNorm, or as in `training`.
    Raises InputError where images, targets and network do not fit.
    """
    check_loss(network, loss)
    images = as_batch(images, network.input_shape)
    network.check_scale(images)
    lowered = network.lower(len(images), training=training, wants_dx=True, fused=False)
    recorder = Recorder()
    with lowered.tapped(recorder):
        outputs = lowered.forward(images).copy()
        value, dz = loss.value_and_gradient(outputs, targets, len(images))
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
