"""Snapshots: the networks of some of a training's steps, few enough for memory and dense enough for a slider."""

import copy
from dataclasses import dataclass
from threading import Lock

import numpy as np

from lowered_cnn.arrays import Array, InputError
from lowered_cnn.data.dataset import Dataset
from lowered_cnn.losses import softmax
from lowered_cnn.network import Network
from lowered_cnn.training.evaluation import chunks

MOST = 40
"""The most snapshots that are kept."""

FIRST = 4
"""All steps up to this one are kept: most of what a network learns, it learns in its first steps."""

MOST_MISTAKES = 60
"""How many mistakes the page offers."""


@dataclass(frozen=True)
class Mistake:
    """A test image that is not classified as its label: its number, and the two classes."""

    number: int
    label: int
    predicted: int


@dataclass(frozen=True)
class Tested:
    """How a network does on the test images: its accuracy, and some of its mistakes, the most confident ones first.

    `hardest` is the number of the image that it classifies correctly with the least confidence.
    """

    accuracy: float
    hardest: int
    mistakes: list[Mistake]


class Snapshot:
    """A network as it was after a step, which nothing changes any more."""

    def __init__(self, step: int, network: Network) -> None:
        self.step, self.network = step, network
        self._tested: Tested | None = None
        self._testing = Lock()

    def tested(self, test: Dataset) -> Tested:
        """Return how it does on the test images, which it is shown once."""
        with self._testing:
            if self._tested is None:
                self._tested = _test(copy.deepcopy(self.network), test)  # whose buffers go with it
            return self._tested


class Snapshots:
    """The snapshots of one training; one thread adds to them, and any may read them.

    When there are too many, the interval between those that are kept is doubled. The first steps and the last stay.
    """

    def __init__(self, network: Network, step: int = 0) -> None:
        self._kept = {step: Snapshot(step, network)}
        self._interval = 1

    @property
    def steps(self) -> list[int]:
        """The steps that are kept, in order."""
        return list(self._kept)

    def at(self, step: int | None) -> Snapshot:
        """Return the snapshot of a step, by default the last one; raises InputError if it is not kept."""
        kept = self._kept
        if step is None:
            return kept[max(kept)]
        if step not in kept:
            raise InputError("step", f"one of {', '.join(map(str, kept))}", step)
        return kept[step]

    def is_due(self, step: int) -> bool:
        """Return whether a snapshot of this step would be kept even if it is not the last."""
        return step <= FIRST or step % self._interval == 0

    def keep(self, step: int, network: Network) -> None:
        """Keep a copy of the network as the last snapshot."""
        kept = {each: snapshot for each, snapshot in self._kept.items() if self.is_due(each)}
        kept[step] = Snapshot(step, copy.deepcopy(network))
        if len(kept) > MOST:
            self._interval *= 2
            kept = {each: snapshot for each, snapshot in kept.items() if self.is_due(each) or each == step}
        self._kept = kept


def _test(network: Network, test: Dataset) -> Tested:
    parts: list[Array] = [softmax(network.predict(images)) for images in chunks(test)]
    probabilities = np.concatenate(parts)
    found, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(found != test.labels)
    order = wrong[np.argsort(-sure[wrong], kind="stable")][:MOST_MISTAKES].tolist()
    mistakes = [Mistake(number, int(test.labels[number]), int(found[number])) for number in order]
    hardest = int(np.where(found == test.labels, sure, 2).argmin())
    return Tested(1 - len(wrong) / len(test), hardest, mistakes)
