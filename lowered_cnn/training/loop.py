"""The training loop: an object that takes a step at a time, prints nothing, and writes no files unless asked to."""

import copy
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from itertools import islice
from types import TracebackType
from typing import Self

import numpy as np

from lowered_cnn.arrays import Array, InputError, is_number, whole_number, with_python_numbers
from lowered_cnn.cores import on_one_core
from lowered_cnn.data.batches import batches
from lowered_cnn.data.dataset import Examples, ExamplesLike, Indices, as_dataset
from lowered_cnn.data.digest import digest
from lowered_cnn.network import Network, check_loss, check_network, image_range
from lowered_cnn.training.board import Capacity
from lowered_cnn.training.checkpoint import read_state, write_state
from lowered_cnn.training.evaluation import Evaluation, check_data, chunks, evaluate
from lowered_cnn.training.gradients import Totals, shard_count
from lowered_cnn.training.interrupts import interrupts_held
from lowered_cnn.training.machine import machine
from lowered_cnn.training.metrics import Metric, check_metrics
from lowered_cnn.training.ranks import Alone, Ranks
from lowered_cnn.training.recipe import Recipe
from lowered_cnn.training.reduction import Rank, most_shards
from lowered_cnn.training.state import Record, State, Subject, losses
from lowered_cnn.training.worker import Step, Task
from lowered_cnn.training.workers import POSIX, Team, team


class Training(Iterator[Record]):
    """A network in training on mini-batches (S10): each `next` takes a step and returns its record.

    `data` and `dev` are data sets or pairs (inputs, targets); `dev` is tested at the end of each epoch, with `metrics`
    as `evaluate` takes them: functions by name of all outputs and targets. The network is trained in place. Between two
    steps it is the caller's to use, and changes to its parameters take effect. The last step, `close`, the end of a
    `with` block and the end of the last reference to it (as after `break` in `for record in train(...)`) end the
    workers, and leave the network as it was after the last whole step; iterating again goes on with the next one. So
    does an exception while the batch is read. After one in the rest of a step, the network may be half updated, and
    only `restore` of an earlier state goes on.

    The examples are reshuffled for each epoch, and a last partial batch is used too. The weights are the same to the
    last bit for any number of `workers`, which are this process and its children, each with one BLAS thread; there are
    never more of them than a batch has shards. Several workers need POSIX (Linux, macOS), and a script that trains
    under `if __name__ == "__main__":`, because each child imports it. With the `engine` that `join_ranks()`
    returns, the processes of an MPI job share the work, each with its own workers, and still with the same bits.

    If the recipe asks for an average of the weights, `average` is the network that has it so far (else None). It is
    what is tested on `dev`, and what `network` holds at the end. Read it, but do not change it. If the recipe has
    patience, the network ends up with the weights of the best score on `dev`. `history` holds the record of each
    epoch's end. The data must not change meanwhile, and one thread at a time may use a training.

    Raises InputError if the data do not fit the network, if the workers cannot start or have no room for the memory
    they share, or if the loss is not a finite number (naming the layer where that began; the step is not taken);
    ChildProcessError if a worker is killed or the system does not start it; and whatever a worker raises.
    """

    def __init__(
        self,
        network: Network,
        data: ExamplesLike,
        recipe: Recipe = Recipe(),
        *,
        dev: ExamplesLike | None = None,
        metrics: Mapping[str, Metric] = {},
        workers: int = 1,
        engine: Ranks = Alone(),
    ) -> None:
        self.data = as_dataset("train: data", data)
        self.dev = None if dev is None else as_dataset("train: dev", dev)
        _check(network, self.data, recipe, self.dev, metrics, workers)
        self.metrics = dict(metrics)
        network.input_range = image_range(self.data.dtype, chunks(self.data))
        network.standardize(lambda: chunks(self.data))
        self.network = network
        self.recipe = recipe = with_python_numbers(recipe)
        self.average = None if recipe.average is None else copy.deepcopy(network)
        self.step, self.history = 0, list[Record]()
        self._workers, self.engine = workers, engine
        self._learning_rate: float | None = None
        self._epoch_loss, self._seconds = 0.0, 0.0
        self._best: Array | None = None
        self._last: Array | None = None  # what the network held before the average or the best took its place
        shape = len(recipe.optimizer.buffers), len(network.parameters.learned)
        self._buffers = np.zeros(shape, network.parameters.vector.dtype)
        self._order: Iterator[Indices] | None = None
        self._in_step = self._stopped = False
        self._team: Team | None = None
        self._ending = ExitStack()

    # --- where it is ---

    @property
    def steps(self) -> int:
        """The number of steps of the whole training, unless patience ends it."""
        return self.recipe.steps(len(self.data))

    @property
    def _steps_per_epoch(self) -> int:
        return self.recipe.steps(len(self.data), 1)

    @property
    def epoch(self) -> int:
        """The epoch of the last step, from 1; before the first step, 0."""
        return -(-self.step // self._steps_per_epoch)

    @property
    def finished(self) -> bool:
        """Whether there are no more steps to take."""
        return self._stopped or self.step >= self.steps or self.recipe.out_of_patience(map(self._score, self.history))

    def _score(self, record: Record) -> float:
        return record.score(self.recipe.monitor)

    @property
    def workers(self) -> int:
        """How many processes of this rank share the work: those asked for, but at most one per shard of a batch."""
        shards = shard_count(self._batch_size, self.recipe.largest_shard)
        return min(self._workers, most_shards(shards, self._rank))

    @property
    def _batch_size(self) -> int:
        return min(self.recipe.batch_size, len(self.data))

    @property
    def learning_rate(self) -> float:
        """The rate of the next step: the schedule's, or the one that was set, which stays until it is set again."""
        if self._learning_rate is not None:
            return self._learning_rate
        return self.recipe.learning_rate(self.step, len(self.data), losses(self.history))

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        if not (is_number(rate) and 0 <= rate < math.inf):
            raise InputError("training: learning_rate", "a finite number of at least 0", repr(rate))
        self._learning_rate = float(rate)

    # --- a step ---

    def __next__(self) -> Record:
        """Take the next step. A Ctrl-C waits for its end; a second one does not."""
        if self._in_step:
            raise InputError("training", "a last step that was completed (restore or resume one)", "one that was not")
        if self.finished:
            raise StopIteration
        with interrupts_held():
            try:
                return self._advance()
            except BaseException:
                self.close()
                raise

    def _advance(self) -> Record:
        workforce = self._workforce()
        start = time.perf_counter()
        step, indices = self._next_batch()
        workforce.read(self.data, indices, step)
        self._in_step = True
        with on_one_core():
            totals = workforce.step(step)
        if not math.isfinite(totals.loss):
            self._in_step = False  # nothing has changed
            raise self._diverged(workforce, step, totals)
        self.step += 1
        self._epoch_loss += totals.loss * step.total / self._total
        if self.average is not None:
            _follow(self.average, self.network, self.recipe.average_decay(self.step))
        self._seconds += time.perf_counter() - start
        record = self._record(step, totals)
        if self.finished:
            self._finish()
        self._in_step = False
        return record

    def _next_batch(self) -> tuple[Step, Indices]:
        """Return the next step, and the positions of its examples."""
        epoch, done = divmod(self.step, self._steps_per_epoch)
        if self._order is None or not done:
            order = batches(len(self.data), self.recipe.batch_size, self.recipe.seed, epoch + 1)
            self._order = islice(order, done, None)
        indices = next(self._order)
        weights = None if self.data.weights is None else self.data.weights[indices]
        total = self.recipe.loss.total(self.data.targets[indices], weights)
        augmentation = self.recipe.augmentation_in(epoch + 1)
        return Step(self.step, epoch + 1, len(indices), total, self.learning_rate, augmentation), indices

    @cached_property
    def _total(self) -> float:
        """`Loss.total` of all examples, by which the sum of an epoch's losses is divided."""
        return self.recipe.loss.total(self.data.targets, self.data.weights) or 1.0

    def _record(self, step: Step, totals: Totals) -> Record:
        epochs, more = divmod(self.step, self._steps_per_epoch)
        record = Record(
            step=self.step,
            epoch=step.epoch,
            ends_epoch=not more,
            loss=totals.loss,
            train_accuracy=totals.correct / totals.answers if totals.answers else None,
            epoch_loss=None,
            dev_loss=None,
            dev_accuracy=None,
            images_per_second=(epochs * len(self.data) + more * self.recipe.batch_size) / self._seconds,
            learning_rate=step.learning_rate,
        )
        return self._end_of_epoch(record) if record.ends_epoch else record

    def _end_of_epoch(self, record: Record) -> Record:
        """Return the record with the figures of the whole epoch; keep it, and the weights if they are the best."""
        record = replace(record, epoch_loss=self._epoch_loss)
        self._epoch_loss = 0.0
        if self.dev is not None:
            tested = self._test(self.dev)
            record = replace(record, dev_loss=tested.loss, dev_accuracy=tested.accuracy, dev_metrics=tested.metrics)
            best = max(map(self._score, self.history), default=-math.inf)
            if self.recipe.patience is not None and self._score(record) > best:
                self._best = (self.average or self.network).parameters.vector.copy()
        self.history.append(record)
        return record

    def _test(self, dev: Examples) -> Evaluation:
        """Test the network, or the average, on rank 0, which sends the others the result."""
        figures = np.zeros(2 + len(self.metrics))
        if self.engine.number == 0:
            network, loss = self.average or self.network, self.recipe.loss
            tested = evaluate(network, dev, loss, workers=self._workers, metrics=self.metrics)
            figures[:] = tested.loss, math.nan if tested.accuracy is None else tested.accuracy, *tested.metrics.values()
        self.engine.broadcast(figures)
        dev_loss, accuracy, *others = figures.tolist()
        metrics = dict(zip(self.metrics, others, strict=True))
        return Evaluation(dev_loss, None if math.isnan(accuracy) else accuracy, metrics)

    def stop(self) -> None:
        """End the training as after its last step: with the average or the best weights, if the recipe has any."""
        if not self.finished:
            self._stopped = True
            self._finish()

    def _finish(self) -> None:
        """Leave the network with the weights that the recipe promises, and end the workers."""
        vector = self.network.parameters.vector
        averaged = None if self.average is None else self.average.parameters.vector
        result = averaged if self._best is None else self._best
        if result is not None:
            self._last = vector.copy()
            vector[...] = result
        self.close()

    def _diverged(self, workforce: Team, step: Step, totals: Totals) -> InputError:
        faults = self.engine.gather(workforce.first_fault(step) or "")
        fault = next(filter(None, faults), None)
        got = f"{totals.loss}, first in {fault}" if fault else str(totals.loss)
        return InputError(f"loss at step {step.number + 1}", "a finite number (try a lower learning rate)", got)

    # --- its workers ---

    @property
    def _rank(self) -> Rank:
        return Rank(self.engine.number, self.engine.count)

    def _workforce(self) -> Team:
        if self._team is None:
            if self.engine.count > 1:
                self.subject.agree(self.engine, self.network.parameters.vector, self.step)
            if self.average is not None and not self.step:  # the caller may have changed the network since
                self.average.parameters.vector[...] = self.network.parameters.vector
            capacity = Capacity.of(self.data, self.workers, self._batch_size)
            task = Task.of(self.recipe, self._rank, self.network)
            assembled = team(self.network, task, capacity, self._buffers, self.engine)
            self._team = self._ending.enter_context(assembled)
            self._buffers = self._team.buffers
        return self._team

    def close(self) -> None:
        """End the workers; the network keeps its weights, and iterating again goes on from here."""
        self._team = self._order = None
        self._ending.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_ending"):
            self.close()

    def __getstate__(self) -> dict[str, object]:
        """Return what a copy has: all but the workers, which it starts for itself."""
        return {**vars(self), "_team": None, "_order": None, "_ending": ExitStack()}

    # --- its state ---

    @cached_property
    def subject(self) -> Subject:
        """What is trained, how, and on what; the data are read once for their digests."""
        return Subject(
            model=self.network.model,
            input_shape=self.network.input_shape,
            dtype=self.network.parameters.vector.dtype.name,
            recipe=self.recipe,
            data=digest(self.data),
            dev=None if self.dev is None else digest(self.dev),
        )

    def state(self) -> State:
        """Return a copy of all that decides how the training goes on."""
        if self._in_step:
            raise InputError("training: state", "a last step that was completed", "one that was not")
        vector = self.network.parameters.vector if self._last is None else self._last
        names = self.recipe.optimizer.buffers
        return State(
            step=self.step,
            parameters=vector.copy(),
            buffers={name: buffer.copy() for name, buffer in zip(names, self._buffers, strict=True)},
            average=None if self.average is None else self.average.parameters.vector.copy(),
            best=None if self._best is None else self._best.copy(),
            learning_rate=self._learning_rate,
            epoch_loss=self._epoch_loss,
            seconds=self._seconds,
            history=tuple(self.history),
            subject=self.subject,
            machine=machine(),
        )

    def restore(self, state: State) -> None:
        """Go on from this state: with the same bits as if training had never stopped, for any number of workers.

        Raises InputError, which names the first difference, for a state of another network, recipe or data. If another
        BLAS or processor computed it, that is logged, since the bits may differ from here on. All ranks must restore,
        and from the same step.
        """
        self.subject.check_same(state.subject)
        self.engine.agree("training: step", str(state.step))
        if state.machine != machine() and self.engine.number == 0:
            import logging

            line = f"training: {state.machine} until now, {machine()} from here, so that bits may differ"
            logging.getLogger("lowered_cnn").warning(line)
        self.close()
        self._in_step = self._stopped = False
        self.network.parameters.vector[...] = state.parameters
        self._buffers = np.zeros_like(self._buffers)  # those of a team that has ended may be shared memory
        for buffer, name in zip(self._buffers, self.recipe.optimizer.buffers, strict=True):
            buffer[...] = state.buffers[name]
        if self.average is not None:
            self.average.parameters.vector[...] = state.average
        self._best = None if state.best is None else state.best.copy()
        self._last = None
        self.step, self.history = state.step, list(state.history)
        self._learning_rate, self._epoch_loss, self._seconds = state.learning_rate, state.epoch_loss, state.seconds
        if self.finished:
            self._finish()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint, from which `resume` goes on; the file appears complete or not at all.

        Only rank 0 writes. Raises InputError if a parameter is not a finite number or the model or recipe cannot be
        restored from its fields, and OSError if the file cannot be written.
        """
        state = self.state()
        if not np.isfinite(state.parameters).all():
            where = f"parameters after step {self.step}"
            raise InputError(where, "finite numbers (try a lower learning rate)", "nan or inf")
        if self.engine.number == 0:
            write_state(state, path)

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        data: ExamplesLike,
        *,
        dev: ExamplesLike | None = None,
        metrics: Mapping[str, Metric] = {},
        workers: int = 1,
        engine: Ranks = Alone(),
        epochs: int | None = None,
    ) -> "Training":
        """Return the training that `save` wrote, with a network of its own; network and recipe are in the file.

        The data must be the same, and so should the `metrics`, which are not in the file. More `epochs` than before
        extend the training, unless the learning rate of its schedule would jump at this step. Raises InputError for any
        other file, data or number of epochs.
        """
        state = read_state(path)
        subject = state.subject
        network = Network(subject.model, subject.input_shape, dtype=subject.dtype)
        if epochs is not None:
            examples = len(as_dataset("train: data", data))
            recipe = subject.recipe.extended(epochs, state.step, examples, losses(state.history))
            state = replace(state, subject=replace(subject, recipe=recipe))
        recipe = state.subject.recipe
        training = cls(network, data, recipe, dev=dev, metrics=metrics, workers=workers, engine=engine)
        training.restore(state)
        return training


def train(
    network: Network,
    data: ExamplesLike,
    recipe: Recipe = Recipe(),
    *,
    dev: ExamplesLike | None = None,
    metrics: Mapping[str, Metric] = {},
    workers: int = 1,
) -> Training:
    """Return the Training of a network in this process: an iterator that takes a step for each record asked of it."""
    return Training(network, data, recipe, dev=dev, metrics=metrics, workers=workers)


def fit(
    network: Network,
    data: ExamplesLike,
    recipe: Recipe = Recipe(),
    *,
    dev: ExamplesLike | None = None,
    metrics: Mapping[str, Metric] = {},
    workers: int = 1,
) -> list[Record]:
    """Train to the end, and return the record of every step."""
    with train(network, data, recipe, dev=dev, metrics=metrics, workers=workers) as training:
        return list(training)


def _follow(average: Network, network: Network, decay: float) -> None:
    """Set average to decay average + (1 - decay) w."""
    vector = average.parameters.vector
    vector += (1 - decay) * (network.parameters.vector - vector)  # what is frozen stays as it is, to the bit


def _check(
    network: Network,
    data: Examples,
    recipe: Recipe,
    dev: Examples | None,
    metrics: Mapping[str, Metric],
    workers: int,
) -> None:
    """Raise InputError unless this network can be trained by this recipe on these data."""
    if whole_number("train: workers", workers, 1) > 1 and not POSIX:
        raise InputError("train: workers", "1 on this system, as several workers need POSIX (Linux, macOS)", workers)
    check_network("train: network", network)
    if not isinstance(recipe, Recipe):
        raise InputError("train: recipe", "a Recipe", repr(recipe))
    for dataset in (data, dev):
        if dataset is not None:
            check_data(network, dataset, recipe.loss)
    if recipe.augmentation is not None and len(network.input_shape) != 3:
        raise InputError("train: augmentation", "a network for images (C, H, W)", network.input_shape)
    if recipe.patience is not None and dev is None:
        raise InputError("train: dev", "data to test on, as the recipe has patience", None)
    check_loss(network, recipe.loss)
    check_metrics("train: metrics", metrics)
    if recipe.monitor not in (None, "dev_accuracy", "dev_loss", *metrics):
        wanted = f"a figure that the recipe monitors, {recipe.monitor}"
        raise InputError("train: metrics", wanted, ", ".join(metrics) or "none")
    if recipe.monitor == "dev_accuracy" and data.targets.dtype.kind not in "iu":
        raise InputError("train: targets", "class numbers, as the recipe monitors dev_accuracy", data.targets.dtype)
    recipe.with_rates(network.parameters.parameters)
