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

RECENT = 8
"""The last snapshots that were asked for are kept, too: who has asked for one goes on to ask about it."""

MOST_TESTED = 1000
"""The most test images that a network is tested on, so that it can be watched while it is trained."""

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
    """How a network does on `count` of the test images: its accuracy, and its most confident mistakes.

    `hardest` is the number of the image that it classifies correctly with the least confidence.
    """

    count: int
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
        """Return how it does on the test images, on which it is tested once."""
        with self._testing:
            if self._tested is None:
                self._tested = _test(copy.deepcopy(self.network), test)  # whose buffers go with it
            return self._tested


class Snapshots:
    """The snapshots of one training; one thread adds to them, and any may read them.

    When there are too many, the interval between those that are kept is doubled. The first steps and the last stay,
    and those that were asked for last can still be read.
    """

    def __init__(self, network: Network, step: int = 0) -> None:
        self._kept = {step: Snapshot(step, network)}
        self._interval = 1
        self._recent = dict[int, Snapshot]()
        self._asking = Lock()

    def anew(self, network: Network) -> "Snapshots":
        """Return those of a new training; from them, too, the last ones that were asked for here can be read."""
        snapshots = Snapshots(copy.deepcopy(network))
        with self._asking:
            snapshots._recent = dict(self._recent)
        return snapshots

    @property
    def steps(self) -> list[int]:
        """The steps that are kept, in order."""
        return list(self._kept)

    def at(self, step: int | None) -> Snapshot:
        """Return the snapshot of a step, by default the last one; raises InputError if it is not kept."""
        with self._asking:
            known = self._recent | self._kept
            chosen = max(self._kept) if step is None else step
            if chosen not in known:
                raise InputError("step", f"one of {', '.join(map(str, self._kept))}", step)
            self._recent.pop(chosen, None)
            self._recent[chosen] = known[chosen]
            if len(self._recent) > RECENT:
                del self._recent[next(iter(self._recent))]
            return known[chosen]

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
    numbers = np.linspace(0, len(test) - 1, min(len(test), MOST_TESTED)).astype(np.int64)
    labels = test.labels[numbers]
    parts: list[Array] = [softmax(network.predict(images)) for images in chunks(test.take(numbers))]
    probabilities = np.concatenate(parts)
    found, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(found != labels)
    order = wrong[np.argsort(-sure[wrong], kind="stable")][:MOST_MISTAKES]
    mistakes = [Mistake(int(numbers[place]), int(labels[place]), int(found[place])) for place in order]
    hardest = int(numbers[np.where(found == labels, sure, 2).argmin()])
    return Tested(len(numbers), 1 - len(wrong) / len(numbers), hardest, mistakes)
