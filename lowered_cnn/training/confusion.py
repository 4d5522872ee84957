"""Confusion: which class a network takes the examples of each class for, and how good it is at each of them."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import InputError, Labels
from lowered_cnn.data.dataset import ExamplesLike, are_labels, as_dataset, described
from lowered_cnn.losses import SoftmaxCrossEntropy
from lowered_cnn.network import Network, check_network
from lowered_cnn.training.evaluation import check_data, chunks

Counts: TypeAlias = npt.NDArray[np.int64]
"""Numbers of examples: (classes,), or (classes, classes)."""

Shares: TypeAlias = npt.NDArray[np.float64]
"""A share for each class (classes,); NaN where there is nothing to take a share of."""

NEVER = "never: no image was taken for this class"
"""The line below a table in which a class has no precision."""


@dataclass(frozen=True, eq=False)
class Confusion:
    """How many examples of each class (row) were taken for each class (column): counts (classes, classes)."""

    counts: Counts
    classes: tuple[str, ...]

    @property
    def support(self) -> Counts:
        """The number of examples of each class."""
        examples: Counts = self.counts.sum(axis=1)
        return examples

    @property
    def predicted(self) -> Counts:
        """How often each class was the answer."""
        answers: Counts = self.counts.sum(axis=0)
        return answers

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return float(self.counts.trace() / self.counts.sum())

    @property
    def precision(self) -> Shares:
        """Of the answers that name a class, the share that is right; NaN for a class that no answer names."""
        return _share(self.counts.diagonal(), self.predicted)

    @property
    def recall(self) -> Shares:
        """Of the examples of a class, the share that is recognized; NaN for a class without examples."""
        return _share(self.counts.diagonal(), self.support)

    @property
    def f1(self) -> Shares:
        """2 right / (examples + answers), the harmonic mean of precision and recall; NaN if there are neither."""
        return _share(2 * self.counts.diagonal(), self.support + self.predicted)

    def mistakes(self) -> list[tuple[int, int, int]]:
        """Return (class, what it was taken for, how often) for all mistakes, the most frequent first."""
        wrong = self.counts - np.diag(self.counts.diagonal())
        found = [(int(true), int(answer), int(wrong[true, answer])) for true, answer in np.argwhere(wrong)]
        return sorted(found, key=lambda mistake: -mistake[2])

    def json(self) -> list[dict[str, str | int | float | None]]:
        """Return the table's rows for JSON; a share that does not exist is None."""
        columns = self.precision.tolist(), self.recall.tolist(), self.f1.tolist(), self.support.tolist()
        return [
            {
                "class": name,
                "precision": _or_none(precision),
                "recall": _or_none(recall),
                "f1": _or_none(f1),
                "images": images,
            }
            for name, precision, recall, f1, images in zip(self.classes, *columns, strict=True)
        ]

    def cells(self) -> list[tuple[str, ...]]:
        """Return the table as text, its header first."""
        lines: list[tuple[str, ...]] = [("class", "precision", "recall", "F1", "images")]
        for name, precision, recall, f1, images in zip(
            self.classes, self.precision, self.recall, self.f1, self.support, strict=True
        ):
            lines.append((name, _percent(precision, "never"), _percent(recall), _percent(f1), f"{images:,}"))
        return lines

    def __str__(self) -> str:
        lines = self.cells()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
        return "\n".join(table + [NEVER] * (not self.predicted.all()))


def confusion(network: Network, data: ExamplesLike, *, workers: int | None = None) -> Confusion:
    """Return how a network classifies all examples, run on `workers` threads (default: one per core).

    `data` is a data set or a pair (inputs, targets). Raises InputError unless its targets are class numbers (N,), and
    the network has an output for each class. Outputs beyond the classes that have names are called by their numbers.
    """
    check_network("confusion: network", network)
    data = as_dataset("confusion: data", data)
    if not are_labels(data.targets):
        raise InputError("confusion: targets", "class numbers (N,)", described(data.targets))
    check_data(network, data, SoftmaxCrossEntropy())
    answers = np.concatenate([network.predict(images, workers=workers).argmax(axis=1) for images in chunks(data)])
    names = (*data.classes, *map(str, range(len(data.classes), network.output_shape[0])))
    return tallied(data.targets, answers, names)


def tallied(labels: Labels, answers: Labels, classes: tuple[str, ...]) -> Confusion:
    """Return the confusion of these answers (N,) to examples of these classes (N,)."""
    count = len(classes)
    return Confusion(np.bincount(labels * count + answers, minlength=count**2).reshape(count, count), classes)


def _share(part: Counts, whole: Counts) -> Shares:
    shares: Shares = np.full(len(part), np.nan)
    return np.divide(part, whole, out=shares, where=whole > 0)


def _or_none(share: float) -> float | None:
    return None if np.isnan(share) else share


def _percent(share: float, otherwise: str = "-") -> str:
    return otherwise if np.isnan(share) else f"{share:.2%}"
