"""What the page explores: a network, the images it is shown, and the steps of its training that were kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lowered_cnn.arrays import Images, InputError
from lowered_cnn.data.dataset import Examples
from lowered_cnn.descriptions import JSON
from lowered_cnn.explore.description import described, weights
from lowered_cnn.explore.payload import packed
from lowered_cnn.losses import softmax
from lowered_cnn.network import Network

MOST_MISTAKES = 60
"""How many mistakes the page offers, the most confident ones first."""


@dataclass
class Exploration:
    """A network with its classes, and test images to show it; `framed` tells whether drawings are framed as MNIST is."""

    name: str
    network: Network
    classes: Sequence[str]
    test: Examples
    framed: bool

    def description(self) -> dict[str, JSON]:
        """Return what the page needs before it has seen an image."""
        return {
            "name": self.name,
            **described(self.network, self.classes),
            "weights": weights(self.network),
            "framed": self.framed,
            "test": {"count": len(self.test), "mistakes": self.mistakes},
        }

    @cached_property
    def mistakes(self) -> list[JSON]:
        """The test images that are classified wrongly: their numbers, labels and predictions."""
        probabilities = softmax(self.network.predict(self.images(np.arange(len(self.test)))))
        found, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
        wrong = np.flatnonzero(found != self.test.targets)
        order = wrong[np.argsort(-sure[wrong], kind="stable")][:MOST_MISTAKES].tolist()
        return [{"number": n, "label": int(self.test.targets[n]), "predicted": int(found[n])} for n in order]

    def images(self, numbers: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]") -> Images:
        """Return test images as the network takes them, (N, C, H, W)."""
        out = np.empty((len(numbers), *self.test.image_shape), self.test.dtype)
        self.test.gather(numbers, out)
        return out.reshape(-1, *self.network.input_shape)

    def example(self, number: int) -> dict[str, JSON]:
        """Return a test image with its label."""
        if not 0 <= number < len(self.test):
            raise InputError("example", f"a number below {len(self.test)}", number)
        image = self.images(np.array([number]))[0]
        return {"number": number, "label": int(self.test.targets[number]), "image": packed(image)}
