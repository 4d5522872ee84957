"""A network under test: a batch, a loss J, and the results of a step."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array
from lowered_cnn.layers import Lowered
from lowered_cnn.layers.container import LoweredContainer
from lowered_cnn.losses import Loss, loss_and_gradient
from lowered_cnn.network import LoweredNetwork, Network
from lowered_cnn.tracing import Passage, Recorder
from lowered_cnn.verify.losses import targets_for
from lowered_cnn.workspace import BLOCK_BYTES

NOISE = (0,)
"""The position of all steps, so that they have the same Dropout."""


@dataclass(frozen=True)
class Outcome:
    """The results of a step: J, the outputs, and all gradients by name (dX under "images")."""

    loss: float
    outputs: Array
    gradients: dict[str, Array]

    def arrays(self) -> dict[str, Array]:
        """Return everything by name."""
        return {"outputs": self.outputs, **self.gradients}


@dataclass(frozen=True)
class Probe:
    """J of a network for a batch of images (N, C, *size), in the network's precision."""

    network: Network
    loss: Loss
    images: Array
    targets: npt.NDArray[np.generic]

    @property
    def examples(self) -> int:
        """The size of the batch."""
        return len(self.images)

    @property
    def learned(self) -> list[str]:
        """The names of the parameters that have a gradient."""
        return [p.name for p in self.network.parameters.parameters if not p.statistic]

    def lower(
        self, *, training: bool = True, fused: bool = False, block_bytes: int | None = BLOCK_BYTES
    ) -> LoweredNetwork:
        """Lower the network for training or inference, with the gradient of its images."""
        return self.network.lower(
            self.examples, training=training, wants_dx=True, seed=1, fused=fused, block_bytes=block_bytes
        )

    def value(self, lowered: LoweredNetwork, images: Array | None = None) -> float:
        """Return J for the images and the parameters as they are."""
        z = lowered.forward(self.images if images is None else images, position=NOISE)
        return loss_and_gradient(self.loss, z, self.targets, self.loss.total(self.targets))[0]

    def results(self, lowered: LoweredNetwork) -> Outcome:
        """Take a step forward and backward."""
        z = lowered.forward(self.images, position=NOISE)
        value, dz = loss_and_gradient(self.loss, z, self.targets, self.loss.total(self.targets))
        outputs = z.copy()
        dx = lowered.backward(dz)
        assert dx is not None
        gradients = {name: lowered.gradients[name].copy() for name in self.learned}
        return Outcome(value, outputs, {**gradients, "images": dx.copy()})

    def passages(self, *, training: bool = True) -> dict[str, Passage]:
        """Take a step, and return what went into and came out of each layer."""
        lowered = self.lower(training=training)
        with lowered.tapped(recorder := Recorder()):
            self.results(lowered)
        return recorder.passages

    def surprised(self) -> "Probe":
        """Return the same with each example labeled as the class that the network finds least likely.

        Where it is sure of the label, J and its gradients are smaller than the rounding errors of their terms.
        """
        outputs = self.lower().forward(self.images, position=NOISE)
        return replace(self, targets=targets_for(self.loss, outputs.argmin(axis=1), outputs.shape[1]))

    def in_precision(self, dtype: npt.DTypeLike) -> "Probe":
        """Return the same with parameters and images rounded to another precision."""
        network = Network(self.network.model, self.network.input_shape, dtype=dtype)
        network.parameters.vector[...] = self.network.parameters.vector
        return replace(self, network=network, images=self.images.astype(dtype))

    @contextmanager
    def moved(self, name: str, step: Array) -> Iterator[None]:
        """Add a step to a parameter inside the `with` block."""
        values = self.network.parameters[name]
        before = values.copy()
        values += step
        try:
            yield
        finally:
            values[...] = before


def sides(lowered: Lowered) -> bytes:
    """Return the side of its kinks that each number was on in the last `forward`, for a layer and those inside it."""
    inside = lowered.stages if isinstance(lowered, LoweredContainer) else []
    return lowered.sides().tobytes() + b"".join(sides(stage.lowered) for stage in inside)
