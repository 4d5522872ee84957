"""The state of a training: all that decides how it goes on, as a handful of flat arrays and numbers."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from lowered_cnn.arrays import Array, InputError, Shape
from lowered_cnn.layers import Graph, Sequential
from lowered_cnn.training.machine import probe
from lowered_cnn.training.ranks import Ranks
from lowered_cnn.training.recipe import Recipe


@dataclass(frozen=True)
class Record:
    """One step: the loss (without L2) and accuracy of its batch before the update, and the update's learning rate.

    `step` and `epoch` count from 1. `ends_epoch` marks the last step of an epoch. Only its record has an `epoch_loss`,
    the mean over the epoch's examples, and, with a dev set, `dev_loss`, `dev_accuracy` and the `dev_metrics` that were
    asked for. Accuracies are None where targets are not class numbers. `images_per_second` is the mean since training
    began, evaluation excluded.
    """

    step: int
    epoch: int
    ends_epoch: bool
    loss: float
    train_accuracy: float | None
    epoch_loss: float | None
    dev_loss: float | None
    dev_accuracy: float | None
    images_per_second: float
    learning_rate: float
    dev_metrics: dict[str, float] = field(default_factory=dict)

    def score(self, monitor: str | None) -> float:
        """Return how good the network is on the dev set by this figure: by default the accuracy, if any, else the loss.

        Higher is better, so the loss is negated. NaN is the worst score, and so is a figure that is missing.
        """
        loss = None if self.dev_loss is None else -self.dev_loss
        figures = {"dev_accuracy": self.dev_accuracy, "dev_loss": loss, **self.dev_metrics}
        score = figures.get(monitor or ("dev_loss" if self.dev_accuracy is None else "dev_accuracy"))
        return -math.inf if score is None or math.isnan(score) else score


def losses(history: Iterable[Record]) -> list[float]:
    """Return the loss of each epoch: on the dev set or, without one, the mean over its examples."""
    found = (record.epoch_loss if record.dev_loss is None else record.dev_loss for record in history)
    return [loss for loss in found if loss is not None]


@dataclass(frozen=True)
class Subject:
    """What is trained, how, and on what: a training goes on only from a state of the same subject."""

    model: Sequential | Graph
    input_shape: Shape
    dtype: str
    recipe: Recipe
    data: str
    """The digest of the training inputs, their targets, classes and weights."""
    dev: str | None
    """That of the dev set."""

    def check_same(self, other: "Subject") -> None:
        """Raise InputError, which names the first difference, unless the other subject is the same."""
        for owner, theirs in ((self.recipe, other.recipe), (self, other)):
            for name in (each.name for each in fields(owner)):
                ours, before = getattr(owner, name), getattr(theirs, name)
                if ours != before:
                    what = "same inputs, targets and classes" if name in ("data", "dev") else "same"
                    raise InputError(f"training: {name}", f"the {what} as before, {_short(before)}", _short(ours))

    def agree(self, ranks: Ranks, parameters: Array, step: int) -> None:
        """Raise InputError, on all ranks, unless they train the same from the same weights, and round alike."""
        from hashlib import sha256

        weights = sha256(parameters.tobytes()).hexdigest()
        for where, digest in (
            ("data", self.data),
            ("dev", str(self.dev)),
            ("recipe", repr(self.recipe)),
            ("network", f"{self.model} {self.input_shape} {self.dtype}"),
            ("weights", f"{weights} after step {step}"),
            ("arithmetic", probe()),
        ):
            ranks.agree(f"train: {where}", digest)


def _short(value: object) -> str:
    """Return a value as text; of a digest, only its first characters."""
    return value[:12] if isinstance(value, str) else repr(value)


@dataclass(frozen=True, eq=False)
class State:
    """The state of a training after `step` steps, as `Training.state` returns it."""

    step: int
    parameters: Array
    """The flat vector, statistics included."""
    buffers: dict[str, Array]
    """The optimizer's."""
    average: Array | None
    """The averaged parameters, if the recipe averages."""
    best: Array | None
    """Those with the best score on the dev set so far, if the recipe has patience."""
    learning_rate: float | None
    """The one that the caller has set, if any, instead of the schedule's."""
    epoch_loss: float
    """The part of the epoch's mean loss that its steps so far contribute."""
    seconds: float
    """How long all steps so far have taken."""
    history: tuple[Record, ...]
    """The record of the end of each epoch."""
    subject: Subject
    machine: str
    """The BLAS and instruction sets that computed it, on which the bits depend."""
