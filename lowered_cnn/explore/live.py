"""A training in a thread of its own, which the page starts, pauses and stops, and whose steps it looks at."""

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from threading import Condition, Thread

import numpy as np

from lowered_cnn.arrays import Array, InputError
from lowered_cnn.data.dataset import Dataset
from lowered_cnn.descriptions import JSON
from lowered_cnn.explore.snapshots import Snapshots
from lowered_cnn.losses import loss_and_gradient
from lowered_cnn.network import Network
from lowered_cnn.optimizers import SGD, Adam, AdamW, RMSprop
from lowered_cnn.training import Recipe, Record, Training

MOST_RECORDS = 300
"""The most records in one answer."""

MEASURED = 64
"""The number of examples whose gradient is measured."""

UNDER_WAY = ("running", "paused")
AT_REST = ("idle", "finished", "stopped", "failed")


class ConflictError(InputError):
    """What cannot be done while the training is in this state."""


class LiveTraining:
    """The training of a fresh network of the same model, on the same data, by the same recipe.

    Each start may change the epochs and the learning rate; `recipe` is that of the last one. Until there is one,
    `snapshots` has the network alone, and the records are those of its own training.
    """

    def __init__(
        self, network: Network, data: Dataset, dev: Dataset | None, recipe: Recipe, records: Sequence[Record] = ()
    ) -> None:
        self._usual = self.recipe = recipe
        self.snapshots = Snapshots(network, records[-1].step if records else 0)
        self._network, self._data, self._dev = network, data, dev
        self._records, self._norms = list(records), list[tuple[int, dict[str, JSON]]]()
        self._changed = Condition()
        self._state, self._error = "idle", ""
        self._stopping = False
        self._thread: Thread | None = None

    @property
    def has_begun(self) -> bool:
        """Whether one was started."""
        return self._state != "idle"

    @property
    def is_running(self) -> bool:
        """Whether steps are being taken."""
        return self._state == "running"

    def start(self, epochs: int | None = None, learning_rate: float | None = None) -> None:
        """Start a training from scratch; raises ConflictError unless none is under way."""
        recipe = self._usual if epochs is None else replace(self._usual, epochs=epochs)
        if learning_rate is not None:
            optimizer = recipe.optimizer
            assert isinstance(optimizer, SGD | Adam | AdamW | RMSprop)
            recipe = replace(recipe, optimizer=replace(optimizer, learning_rate=learning_rate))
        with self._changed:
            self._check("start", AT_REST)
            network = Network(
                self._network.model,
                self._network.input_shape,
                seed=recipe.seed,
                dtype=self._network.parameters.vector.dtype,
            )
            network.input_range = self._network.input_range
            self.recipe, self.snapshots = recipe, self.snapshots.anew(network)
            self._records, self._norms = [], []
            self._state, self._error, self._stopping = "running", "", False
            self._thread = Thread(target=self._run, args=(network, recipe), name="training")
            self._thread.start()

    def pause(self) -> None:
        """Pause after the current step."""
        with self._changed:
            self._check("pause", ("running",))
            self._state = "paused"

    def resume(self) -> None:
        """Go on after a pause."""
        with self._changed:
            self._check("resume", ("paused",))
            self._state = "running"
            self._changed.notify_all()

    def stop(self) -> None:
        """Stop after the current step, and return once it is taken."""
        with self._changed:
            self._check("stop", UNDER_WAY)
            thread = self._end()
        if thread is not None:
            thread.join()

    def close(self) -> None:
        """Do the same, if a training is under way."""
        with self._changed:
            thread = self._end()
        if thread is not None:
            thread.join()

    def _end(self) -> Thread | None:
        """Ask the training to end, and return the thread that it is in."""
        self._stopping = True
        self._changed.notify_all()
        return self._thread

    def progress(self, after: int) -> dict[str, JSON]:
        """Return the state, and what happened after a step: some hundred records, and the gradients' norms until then.

        The norms before the first step come with `after` 0.
        """
        with self._changed:
            later = [record for record in self._records if record.step > after]
            return self._progress(later[:MOST_RECORDS], after, more=len(later) > MOST_RECORDS)

    def overview(self) -> dict[str, JSON]:
        """Return the same of all steps at once: every record or, if they are many, each second, third, ... of them."""
        with self._changed:
            stride = -(-len(self._records) // MOST_RECORDS) or 1
            return self._progress(self._records[::-stride][::-1], 0, more=False)

    def _progress(self, shown: Sequence[Record], after: int, *, more: bool) -> dict[str, JSON]:
        norms: list[JSON] = [
            {"step": step, "norms": norms}
            for step, norms in self._norms
            if (after < step or after == step == 0) and (not more or step <= shown[-1].step)
        ]
        error: dict[str, JSON] = {"error": self._error} if self._error else {}
        return error | {
            "state": self._state,
            "steps_total": self.recipe.steps(len(self._data)),
            "epochs": self.recipe.epochs,
            "records": [_described(record) for record in shown],
            "norms": norms,
            "more": more,
            "steps": list(self.snapshots.steps),
        }

    def _check(self, action: str, states: Sequence[str]) -> None:
        if self._state not in states:
            raise ConflictError(f"training: {action}", f"one that is {' or '.join(states)}", self._state)

    def _run(self, network: Network, recipe: Recipe) -> None:
        end, error = "failed", ""
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                end = self._train(network, recipe)
        except InputError as refusal:
            error = str(refusal)
        except Exception as fault:  # the page must learn of whatever ends the thread
            logging.getLogger("lowered_cnn").exception("explore: the training failed")
            error = f"training: expected to run to the end, got {type(fault).__name__}: {fault}".replace("\n", " ")
        with self._changed:
            self._state, self._error = end, error

    def _train(self, network: Network, recipe: Recipe) -> str:
        """Take the steps until the end or until it is stopped, and return the state that this leaves."""
        with Training(network, self._data, recipe, dev=self._dev) as training:
            norms = _norms_of(network, self._data if self._dev is None else self._dev, recipe)
            self.snapshots.keep(0, network)
            self._note(None, norms(network))
            for record in training:
                is_due = training.finished or self.snapshots.is_due(record.step)
                if is_due:
                    self.snapshots.keep(record.step, network)
                self._note(record, norms(network) if is_due else None)
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping or self._state == "running")
                    if self._stopping:
                        break
            self.snapshots.keep(training.step, network)
            return "finished" if training.finished else "stopped"

    def _note(self, record: Record | None, norms: dict[str, JSON] | None) -> None:
        with self._changed:
            if record is not None:
                self._records.append(record)
            if norms is not None:
                self._norms.append((0 if record is None else record.step, norms))


def _norms_of(network: Network, data: Dataset, recipe: Recipe) -> Callable[[Network], dict[str, JSON]]:
    """Return what measures the length of each parameter's gradient over a few fixed examples, as at inference."""
    measured = copy.deepcopy(network)
    few = data.take(np.arange(min(MEASURED, len(data))))
    lowered = measured.lower(len(few), training=False, wants_dx=True)
    learned = [p.name for p in measured.parameters.parameters if not p.statistic]

    def norms(trained: Network) -> dict[str, JSON]:
        measured.parameters.vector[...] = trained.parameters.vector
        z = lowered.forward(few.images)
        _, dz = loss_and_gradient(recipe.loss, z, few.targets, recipe.loss.total(few.targets))
        lowered.backward(dz)
        return {name: _length(lowered.gradients[name]) for name in learned}

    return norms


def _length(gradient: Array) -> float:
    return float(np.sqrt(np.sum(np.square(gradient, dtype=np.float64))))


def _described(record: Record) -> dict[str, JSON]:
    described: dict[str, JSON] = asdict(record)
    del described["dev_metrics"]
    return described
