"""What the page explores: a network, the images it is shown, and a training whose steps can be looked at."""

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from threading import Lock

import numpy as np

from lowered_cnn.arrays import Array, Bytes, Images, InputError, whole_number
from lowered_cnn.data import fit_image, mnist_style
from lowered_cnn.data.dataset import Dataset
from lowered_cnn.descriptions import JSON
from lowered_cnn.explore.costs import costs
from lowered_cnn.explore.description import described, weights
from lowered_cnn.explore.live import LiveTraining
from lowered_cnn.explore.nudge import nudged
from lowered_cnn.explore.payload import packed
from lowered_cnn.explore.traced import traced
from lowered_cnn.layers.container import stages_of
from lowered_cnn.losses import SoftmaxCrossEntropy, softmax
from lowered_cnn.network import Network, check_loss

MOST_NUMBERS = 8_000_000
"""The most numbers in a trace: what a browser holds and draws without trouble."""


@dataclass(eq=False)
class Exploration:
    """A network with its classes, test images to show it, and its `training`.

    `is_framed` tells whether drawings are framed as MNIST's digits are, `is_fresh` whether the network is untrained and
    the page should train it. Raises InputError for a network that the page cannot show.
    """

    name: str
    network: Network
    test: Dataset
    training: LiveTraining
    is_framed: bool
    is_fresh: bool = False

    def __post_init__(self) -> None:
        shape, classes = self.network.input_shape, self.test.classes
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise InputError("explore: network", "one for images (C, H, W), grey or in colour", f"inputs {shape}")
        if not classes or self.network.output_shape != (len(classes),):
            got = f"{self.network.output_shape} for {len(classes)} classes"
            raise InputError("explore: network", "an output for each class of its data", got)
        check_loss(self.network, SoftmaxCrossEntropy())
        if (numbers := _numbers_in_trace(self.network)) > MOST_NUMBERS:
            wanted = f"one whose activations and gradients are at most {MOST_NUMBERS:,} numbers"
            raise InputError("explore: network", wanted, f"{numbers:,}")
        self._measuring, self._costs = Lock(), dict[str, JSON]()

    @cached_property
    def _described(self) -> dict[str, JSON]:
        return described(self.network, self.test.classes)

    def description(self, step: int | None = None) -> dict[str, JSON]:
        """Return what the page needs before it has seen an image, of the network as it was after a step."""
        snapshots = self.training.snapshots
        snapshot = snapshots.at(step)
        tested = snapshot.tested(self.test)
        return {
            "name": self.name,
            **self._described,
            "weights": weights(snapshot.network),
            "framed": self.is_framed,
            "test": {
                "count": len(self.test),
                "tested": tested.count,
                "accuracy": tested.accuracy,
                "hardest": tested.hardest,
                "mistakes": [asdict(mistake) for mistake in tested.mistakes],
            },
            "steps": list(snapshots.steps),
            "step": snapshot.step,
            "autostart": self.is_fresh and not self.training.has_begun,
            "saved": False,
        }

    def example(self, number: int) -> dict[str, JSON]:
        """Return a test image with its label."""
        whole_number("number", number, 0, len(self.test) - 1)
        return {"number": number, "label": int(self.test.labels[number]), "image": packed(self.test_image(number))}

    def test_image(self, number: int) -> Images:
        """Return a test image as the network takes it."""
        return self.test.take(np.array([number])).images.reshape(self.network.input_shape)

    def fitted(self, drawn: Bytes) -> Bytes:
        """Return a drawing or photograph as the network takes it."""
        if self.is_framed:
            return mnist_style(drawn, "drawing")
        return fit_image(drawn, self.network.input_shape, "drawing")

    def predict(self, image: Images, step: int | None = None) -> dict[str, JSON]:
        """Return an image with the probability of each class."""
        return {"image": packed(image), "probabilities": packed(self.probabilities(image, step))}

    def probabilities(self, image: Images, step: int | None = None) -> Array:
        """Return the probability of each class."""
        probabilities: Array = softmax(self.training.snapshots.at(step).network.predict(image[None]))[0]
        return probabilities

    def trace(self, image: Images, label: int, step: int | None = None) -> dict[str, JSON]:
        """Return what happens to an image with this label, forward and backward."""
        return traced(self.training.snapshots.at(step).network, image, self._label(label))

    def nudge(self, image: Images, label: int, parameter: str, index: int, step: int | None = None) -> dict[str, JSON]:
        """Return what J does when one number of a parameter is nudged."""
        return nudged(self.training.snapshots.at(step).network, image, self._label(label), parameter, index)

    def ledger(self) -> dict[str, JSON]:
        """Return what a training step costs; its times are measured once, when no training takes the cores."""
        with self._measuring:
            if not self._costs.get("peak"):
                self._costs = costs(self.network, self.training.recipe, timed=not self.training.is_running)
            return self._costs

    def _label(self, label: int) -> int:
        return whole_number("label", label, 0, len(self.test.classes) - 1)


def _numbers_in_trace(network: Network) -> int:
    """Return how many numbers a trace has at most: x, y and their gradients at each layer, and all parameters."""
    lowered = network.lower(1, training=False, wants_dx=True, fused=False)
    sizes = (math.prod(stage.site.input_shape) + math.prod(stage.y_shape) for stage in stages_of(lowered.layers))
    return 2 * sum(sizes) + len(network.parameters.vector)
