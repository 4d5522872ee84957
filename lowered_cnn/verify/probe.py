"""A network under examination: a batch, a loss J, and what went in and came out of each layer in the middle of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array
from lowered_cnn.layers import ELU, GlobalMaxPool, LeakyReLU, Lowered, MaxPool, ReLU
from lowered_cnn.layers.container import Stage, places
from lowered_cnn.losses import Loss
from lowered_cnn.network import LoweredNetwork, Network
from lowered_cnn.workspace import BLOCK_BYTES


@dataclass(frozen=True)
class Watched(Lowered):
    """A layer in its place; what goes in and comes out of it is kept."""

    stage: Stage
    seen: dict[str, Array] = field(default_factory=dict)

    def forward(self, x: Array) -> Array:
        """Y is that of the layer."""
        y = self.stage.lowered.forward(x)
        self.seen.update(x=x.copy(), y=y.copy())
        return y

    def backward(self, dy: Array) -> Array | None:
        """dX is that of the layer."""
        self.seen["dy"] = dy.copy()
        return self.stage.lowered.backward(dy)


@dataclass(frozen=True)
class Results:
    """What a step gives: J, the outputs, and all gradients by name (dX is that of the images)."""

    loss: float
    outputs: Array
    gradients: dict[str, Array]

    def arrays(self) -> dict[str, Array]:
        """Return everything by name."""
        return {"outputs": self.outputs, **self.gradients}


@dataclass(frozen=True)
class Probe:
    """J of a network for a batch of images (N, C, *size) in float64."""

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

    def lower(self, *, fused: bool = False, block_bytes: int | None = BLOCK_BYTES) -> LoweredNetwork:
        """Lower the network for training, and for the gradient of its images."""
        return self.network.lower(self.examples, wants_dx=True, seed=1, fused=fused, block_bytes=block_bytes)

    def value(self, lowered: LoweredNetwork, images: Array | None = None) -> float:
        """Return J for the images and the parameters as they are."""
        z = lowered.forward(self.images if images is None else images)
        return self.loss.value_and_gradient(z, self.targets, self.examples)[0]

    def results(self, lowered: LoweredNetwork) -> Results:
        """Take a step forward and backward."""
        z = lowered.forward(self.images)
        value, dz = self.loss.value_and_gradient(z, self.targets, self.examples)
        outputs = z.copy()
        dx = lowered.backward(dz)
        assert dx is not None
        gradients = {name: lowered.gradients[name].copy() for name in self.learned}
        return Results(value, outputs, {**gradients, "images": np.moveaxis(dx, -1, 0).copy()})

    def surprised(self) -> "Probe":
        """Return the same with the class for each example that the network holds for the least likely.

        Where it is sure of the right one, J and its gradients are smaller than the rounding of what they are made of.
        """
        return replace(self, targets=self.lower().forward(self.images).argmin(axis=0))

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


def watch(lowered: LoweredNetwork) -> list[Watched]:
    """Keep what goes in and out of every layer, those in branches included."""
    watched = []
    for stages, place in list(places(lowered.layers)):
        watched.append(Watched(stages[place]))
        stages[place] = replace(stages[place], lowered=watched[-1])
    return watched


def branch(lowered: Lowered) -> bytes:
    """Say which side of its kink each number of each watched layer is on: what is positive, what is the largest."""
    sides = b""
    for stages, place in places(lowered):
        watched = stages[place].lowered
        assert isinstance(watched, Watched)
        sides += side(watched.stage, watched.seen["x"]) + branch(watched.stage.lowered)
    return sides


def side(stage: Stage, x: Array) -> bytes:
    """Say on which side of the kinks of one layer its input lies."""
    if isinstance(stage.layer, ReLU | LeakyReLU | ELU):
        return np.packbits(x > 0).tobytes()
    if isinstance(stage.layer, MaxPool | GlobalMaxPool):
        y = stage.lowered.forward(x)
        routes = stage.lowered.backward(np.ones_like(y))
        return b"" if routes is None else routes.astype(np.int16).tobytes()
    return b""
