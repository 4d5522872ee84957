"""What a report is about: a trained network, its test images, and what it answers to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lowered_cnn.arrays import Array, Images
from lowered_cnn.data.dataset import Examples, Indices
from lowered_cnn.losses import SoftmaxCrossEntropy, loss_and_gradient, softmax
from lowered_cnn.network import Network, as_batch
from lowered_cnn.report.charts import Records
from lowered_cnn.training.confusion import Confusion, tallied
from lowered_cnn.training.evaluation import chunks


@dataclass(frozen=True, eq=False)
class Subject:
    """A network of classes, its test images and, by name, the settings that it was trained with.

    `records` are the lines of metrics.jsonl, in order, and `shard` is how many examples a worker takes at a time.
    """

    title: str
    network: Network
    test: Examples
    records: Records
    settings: Mapping[str, str]
    shard: int

    @cached_property
    def outputs(self) -> Array:
        """The outputs for all test images (N, classes)."""
        return np.concatenate([self.network.predict(images) for images in chunks(self.test)])

    @cached_property
    def probabilities(self) -> Array:
        """The probability of each class, for all test images (N, classes)."""
        return softmax(self.outputs)

    @cached_property
    def answers(self) -> Indices:
        """The class that each test image is taken for (N,)."""
        answers: Indices = self.outputs.argmax(axis=1)
        return answers

    @cached_property
    def loss(self) -> float:
        """The mean loss of all test images."""
        loss, targets = SoftmaxCrossEntropy(), self.test.targets
        return loss_and_gradient(loss, self.outputs, targets, loss.total(targets))[0]

    @cached_property
    def confusion(self) -> Confusion:
        """The confusion of the classes in all test images."""
        return tallied(self.test.targets, self.answers, tuple(self.test.classes))

    @cached_property
    def certainty(self) -> Array:
        """The probability of each answer (N,)."""
        certainty: Array = self.probabilities.max(axis=1)
        return certainty

    @cached_property
    def mistakes(self) -> Indices:
        """The positions of the wrong answers, the most certain first."""
        wrong = np.flatnonzero(self.answers != self.test.targets)
        return wrong[np.argsort(-self.certainty[wrong], kind="stable")]

    @cached_property
    def hits(self) -> Indices:
        """The positions of the right answers, the least certain first."""
        right = np.flatnonzero(self.answers == self.test.targets)
        return right[np.argsort(self.certainty[right], kind="stable")]

    @property
    def has_images(self) -> bool:
        """Whether the network takes images (C, H, W)."""
        return len(self.network.input_shape) == 3

    def images(self, places: Indices) -> Images:
        """Return the test images at these positions (n, *input shape)."""
        out = np.empty((len(places), *self.test.image_shape), self.test.dtype)
        self.test.gather(places, out)
        return as_batch(out, self.network.input_shape)

    def names(self, place: int) -> tuple[str, str]:
        """Return the class of an image, and what it was taken for."""
        return self.test.classes[self.test.targets[place]], self.test.classes[self.answers[place]]

    def story(self, place: int) -> str:
        """Return in a few words what an image was taken for."""
        (true, answer), certainty = self.names(place), f"{self.certainty[place]:.1%}"
        return f"{true}, {certainty}" if answer == true else f"{true} taken for {answer}, {certainty}"
