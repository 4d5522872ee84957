"""A training that is stopped anywhere and goes on: the same bits as one that was never stopped."""

import copy
import dataclasses
import itertools
import math
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainings import DATA, DEV, MODEL, SHAPE, contents, noise, outcome, timeless

from lowered_cnn import (
    SGD,
    Adam,
    AdamW,
    Augmentation,
    BatchNorm,
    Constant,
    Conv2D,
    Cosine,
    Dataset,
    Dense,
    Flatten,
    InputError,
    LeakyReLU,
    MeanSquaredError,
    Network,
    OneCycle,
    Plateau,
    Recipe,
    Record,
    ReLU,
    Residual,
    RMSprop,
    Sequential,
    SoftmaxCrossEntropy,
    StepDecay,
    Training,
    fit,
    load,
    save,
    train,
)
from lowered_cnn.descriptions import describe
from lowered_cnn.optimizers import Optimizer
from lowered_cnn.schedules import Schedule
from lowered_cnn.storage import read_checked, write_checked
from lowered_cnn.training import loop, machine
from lowered_cnn.training.state import Subject
from lowered_cnn.verify.sampled import draw

optimizers = st.one_of(
    st.builds(SGD, st.just(0.05), st.sampled_from([0.0, 0.9]), l2=st.sampled_from([0.0, 1e-3])),
    st.builds(SGD, st.just(0.05), st.just(0.8), st.just(True)),
    st.builds(Adam, st.just(0.01), l2=st.sampled_from([0.0, 1e-3])),
    st.builds(AdamW, st.just(0.01)),
    st.builds(RMSprop, momentum=st.sampled_from([0.0, 0.9]), centered=st.booleans()),
)
schedules = st.sampled_from(
    [Constant(), Cosine(), OneCycle(), StepDecay(at=(0.3, 0.7)), Plateau(0.5, patience=1, min_delta=0.05, least=0.2)]
)
augmentations = st.sampled_from([None, Augmentation(shift=1, elastic=0.5, flip=True), Augmentation(cutout=3)])
recipes = st.builds(
    Recipe,
    epochs=st.integers(1, 4),
    batch_size=st.integers(20, 110),
    optimizer=optimizers,
    schedule=schedules,
    loss=st.sampled_from([SoftmaxCrossEntropy(), MeanSquaredError()]),
    seed=st.integers(0, 5),
    augmentation=augmentations,
    fade=st.sampled_from([0.0, 0.5, 1.0]),
    clip_norm=st.sampled_from([None, 0.05, 10.0]),
    average=st.sampled_from([None, 0.9]),
    patience=st.sampled_from([None, 1, 2]),
    min_delta=st.sampled_from([0.0, 0.02]),
    frozen=st.sampled_from([(), ("conv1", "batch_norm1"), ("batch_norm2", "dense1.bias")]),
    rates=st.sampled_from([(), {"conv*": 0.1, "dense1": 2.0}]),
)


# --- the same bits ---------------------------------------------------------------------------------------------------


@given(recipe=recipes, cuts=st.lists(st.integers(0, 12), max_size=3), dtype=st.sampled_from([np.float32, np.float64]))
@settings(max_examples=60)
def test_a_training_that_is_resumed_anywhere_ends_with_the_same_bits(
    recipe: Recipe, cuts: list[int], dtype: type[np.floating], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("run") / "checkpoint.safetensors"
    whole = Training(Network(MODEL, SHAPE, dtype=dtype), DATA, recipe, dev=DEV)
    expected = outcome(whole, list(whole))
    training, records = Training(Network(MODEL, SHAPE, dtype=dtype), DATA, recipe, dev=DEV), list[Record]()
    for cut in cuts:
        records += itertools.islice(training, cut)
        training.save(path)
        training = Training.resume(path, DATA, dev=DEV)
    assert outcome(training, records + list(training)) == expected


@pytest.mark.parametrize("seed", range(25))
def test_sampled_networks_are_resumed_to_the_bit(seed: int, tmp_path: Path) -> None:
    """Layers of all kinds, in orders that nobody has listed."""
    specimen = draw(seed)
    generator = np.random.default_rng(seed)
    classes = Network(specimen.model, specimen.input_shape).output_shape[0]
    data = noise(30, seed, specimen.input_shape, classes)
    recipe = Recipe(2, 8, Adam(1e-4), Constant(), clip_norm=1.0, average=0.9, seed=seed)
    with np.errstate(all="ignore"):
        whole = Training(Network(specimen.model, specimen.input_shape), data, recipe)
        expected = outcome(whole, list(whole))
        training, records = Training(Network(specimen.model, specimen.input_shape), data, recipe), list[Record]()
        for cut in generator.integers(1, 4, 2):
            records += itertools.islice(training, cut)
            training.save(tmp_path / "checkpoint")
            training = Training.resume(tmp_path / "checkpoint", data)
        assert outcome(training, records + list(training)) == expected


@pytest.mark.slow
@given(recipe=recipes, workers=st.lists(st.integers(1, 4), min_size=2, max_size=4), data=st.data())
@settings(max_examples=15)
def test_the_number_of_workers_may_change_with_every_resumption(
    recipe: Recipe, workers: list[int], data: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("run") / "checkpoint.safetensors"
    whole = Training(Network(MODEL, SHAPE), DATA, recipe, dev=DEV)
    expected = outcome(whole, list(whole))
    training, records = Training(Network(MODEL, SHAPE), DATA, recipe, dev=DEV, workers=workers[0]), list[Record]()
    for number in workers[1:]:
        records += itertools.islice(training, data.draw(st.integers(0, 4)))
        training.save(path)
        training.close()
        training = Training.resume(path, DATA, dev=DEV, workers=number)
    assert outcome(training, records + list(training)) == expected


EVERYTHING = Recipe(
    3, 40, Adam(0.01), Cosine(), augmentation=Augmentation(shift=1), clip_norm=0.1, average=0.9, patience=3
)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_training_that_is_closed_goes_on_when_it_is_iterated_again(workers: int) -> None:
    whole = Training(Network(MODEL, SHAPE), DATA, EVERYTHING, dev=DEV)
    expected = outcome(whole, list(whole))
    training = Training(Network(MODEL, SHAPE), DATA, EVERYTHING, dev=DEV, workers=workers)
    records = [next(training), next(training)]
    training.close()
    for record in training:
        records.append(record)
        break
    training.close()
    assert outcome(training, records + list(training)) == expected


def test_a_state_can_be_restored_as_often_as_one_likes() -> None:
    training = Training(Network(MODEL, SHAPE), DATA, EVERYTHING, dev=DEV)
    next(training)
    state = training.state()
    before = contents(state)
    first = outcome(training, list(training))
    training.restore(state)
    assert training.step == 1
    assert outcome(training, list(training)) == first
    assert contents(state) == before


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda training: pickle.loads(pickle.dumps(training))])
def test_a_copy_of_a_training_goes_on_by_itself(copied: Any, workers: int) -> None:
    recipe = Recipe(2, 40, Adam(0.01), average=0.9)
    whole = Training(Network(MODEL, SHAPE), DATA, recipe)
    expected = outcome(whole, list(whole))
    training = Training(Network(MODEL, SHAPE), DATA, recipe, workers=workers)
    records = [next(training), next(training)]
    for each in (copied(training), training):
        assert outcome(each, records + list(each)) == expected


def test_a_network_without_parameters_is_resumed(tmp_path: Path) -> None:
    training = Training(Network(Flatten(), (1, 1, 3)), noise(shape=(1, 1, 3)), Recipe(2))
    next(training)
    training.save(tmp_path / "checkpoint")
    resumed = Training.resume(tmp_path / "checkpoint", training.data)
    assert list(map(timeless, resumed)) == list(map(timeless, training))


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(np.float64(0.05), np.float64(0.9), l2=np.float64(1e-3)),
        SGD(np.float64(0.05), np.float64(0.9), True),
        Adam(np.float64(0.01), np.float64(0.9), np.float64(0.99), np.float64(1e-8), np.float64(1e-3)),
        AdamW(np.float64(0.01), weight_decay=np.float64(0.01)),
        RMSprop(np.float64(0.01), np.float64(0.9), np.float64(1e-8), np.float64(0.9), True, np.float64(1e-3)),
    ],
)
def test_numbers_from_numpy_are_the_same_numbers_once_resumed(optimizer: Optimizer, tmp_path: Path) -> None:
    model = [Conv2D(4, 3), BatchNorm(np.float64(0.1), np.float64(1e-5)), Residual(LeakyReLU(np.float64(0.1)))]
    schedule = OneCycle(np.float64(0.3), np.float64(0.04))
    recipe = Recipe(2, 40, optimizer, schedule, clip_norm=np.float64(0.5), average=np.float64(0.9))
    network = Network([*model, Flatten(), Dense(3)], SHAPE)
    training = Training(network, DATA, recipe)
    records = [next(training), next(training)]
    training.save(tmp_path / "checkpoint")
    resumed = Training.resume(tmp_path / "checkpoint", DATA)
    expected = outcome(training, records + list(training))
    assert outcome(resumed, records + list(resumed)) == expected


def test_a_learning_rate_that_is_set_stays(tmp_path: Path) -> None:
    training = Training(Network(MODEL, SHAPE), DATA, Recipe(2, 25, SGD(0.5), Cosine()))
    scheduled = next(training).learning_rate
    assert scheduled == 0.5
    assert training.learning_rate == pytest.approx(0.5 * Cosine().factor(1 / 8))
    training.learning_rate = 0.125
    assert next(training).learning_rate == 0.125
    training.save(tmp_path / "checkpoint")
    resumed = Training.resume(tmp_path / "checkpoint", DATA)
    assert [record.learning_rate for record in resumed] == [0.125] * 6
    wrongs: list[Any] = [-1, float("nan"), "fast"]
    for wrong in wrongs:
        with pytest.raises(InputError, match=r"^training: learning_rate: expected a finite number of at least 0, got "):
            training.learning_rate = wrong


@pytest.mark.parametrize("dev", [DEV, None])
def test_a_plateau_is_resumed_and_extended_to_the_bit(dev: Dataset | None, tmp_path: Path) -> None:
    """With a loss that often improves by less than is asked for."""
    recipe = Recipe(8, 50, SGD(0.5, momentum=0.9), Plateau(0.5, patience=1, min_delta=0.2))
    whole = Training(Network(MODEL, SHAPE), DATA, recipe, dev=dev)
    expected = outcome(whole, list(whole))
    losses = [record.epoch_loss if dev is None else record.dev_loss for record in whole.history]
    known = [[loss for loss in losses[:epoch] if loss is not None] for epoch in range(8)]
    rates = [0.5 * recipe.schedule.factor_after(0, before) for before in known]
    assert [record.learning_rate for record in whole.history] == rates
    assert len(set(rates)) > 2
    for cut in range(13):
        short = dataclasses.replace(recipe, epochs=6)
        training = Training(Network(MODEL, SHAPE), DATA, short, dev=dev)
        records = list(itertools.islice(training, cut))
        training.save(tmp_path / "checkpoint")
        resumed = Training.resume(tmp_path / "checkpoint", DATA, dev=dev, epochs=8)
        assert outcome(resumed, records + list(resumed)) == expected


class Mixed(Schedule):
    """Falls with progress and with the number of epochs."""

    def factor(self, progress: float) -> float:
        return 1 - progress

    def factor_after(self, progress: float, losses: Sequence[float]) -> float:
        return self.factor(progress) if losses else 1.0


def test_an_extension_knows_the_losses_so_far(tmp_path: Path) -> None:
    training = Training(Network(MODEL, SHAPE), DATA, Recipe(3, 50, SGD(0.1), Mixed()))
    for name in ("first", "second", "third"):
        training.save(tmp_path / name)
        next(training)
    assert len(list(Training.resume(tmp_path / "second", DATA, epochs=4))) == 7
    with pytest.raises(InputError, match=r"would jump from 0\.0666667 to 0\.075, got 4$"):
        Training.resume(tmp_path / "third", DATA, epochs=4)


# --- where it is, and what it leaves ----------------------------------------------------------------------------------


def test_a_training_tells_where_it_is() -> None:
    training = Training(Network(MODEL, SHAPE), DATA, Recipe(2, 40))
    seen = [(training.step, training.epoch, training.finished)]
    seen += [(training.step, training.epoch, training.finished) for _ in training]
    assert seen == [
        (0, 0, False),
        (1, 1, False),
        (2, 1, False),
        (3, 1, False),
        (4, 2, False),
        (5, 2, False),
        (6, 2, True),
    ]
    assert [record.step for record in training.history] == [3, 6]
    assert next(training, None) is None


def test_fit_returns_the_records_that_a_loop_would_see() -> None:
    network, same = Network(MODEL, SHAPE), Network(MODEL, SHAPE)
    records = fit(network, DATA, EVERYTHING, dev=DEV)
    assert list(map(timeless, records)) == [timeless(record) for record in train(same, DATA, EVERYTHING, dev=DEV)]
    assert network.parameters.vector.tobytes() == same.parameters.vector.tobytes()


def test_patience_ends_training_with_the_best_weights() -> None:
    """A reference by hand: all epochs, the weights of each, and the rule."""
    recipe = Recipe(12, 50, SGD(0.5, momentum=0.9), Constant(), patience=2, min_delta=0.01)
    network = Network(MODEL, SHAPE)
    best, weights, waited, ended = -1.0, network.parameters.vector.copy(), 0, 0
    for record in train(network, DATA, dataclasses.replace(recipe, patience=None), dev=DEV):
        if record.dev_accuracy is not None and waited < 2:
            waited = 0 if record.dev_accuracy > best + 0.01 else waited + 1
            if record.dev_accuracy > best:
                best, weights = record.dev_accuracy, network.parameters.vector.copy()
            ended = record.epoch
    assert 2 < ended < 12
    early = Network(MODEL, SHAPE)
    assert fit(early, DATA, recipe, dev=DEV)[-1].epoch == ended
    assert early.parameters.vector.tobytes() == weights.tobytes()


def test_patience_needs_a_dev_set() -> None:
    with pytest.raises(
        InputError, match=r"^train: dev: expected data to test on, as the recipe has patience, got None$"
    ):
        train(Network(MODEL, SHAPE), DATA, Recipe(patience=1))


# --- a loss that is no number ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_loss_that_is_no_number_stops_before_the_update_and_names_the_layer(workers: int) -> None:
    network = Network(Sequential(Conv2D(4, 3), ReLU(), Flatten(), Dense(5), ReLU(), Dense(3)), SHAPE)
    with np.errstate(all="ignore"), Training(network, DATA, Recipe(2, 50), workers=workers) as training:
        next(training)
        network.parameters["dense1.bias"] = np.float32(np.inf)
        before = network.parameters.vector.copy()
        with pytest.raises(InputError) as caught:
            next(training)
        wanted = (
            r"loss at step 2: expected a finite number (try a lower learning rate), got nan, first in the output of"
        )
        assert str(caught.value) == f"{wanted} dense1"
        assert training.step == 1
        np.testing.assert_array_equal(network.parameters.vector, before)
        with pytest.raises(InputError, match=r"^parameters after step 1: expected finite numbers .*, got nan or inf$"):
            training.save("never")
        network.parameters["dense1.bias"] = 0.0
        assert [record.step for record in training] == [2, 3, 4]


def test_images_that_hold_no_numbers_are_told_apart_from_layers() -> None:
    images = np.random.default_rng(0).random((100, *SHAPE), dtype=np.float32)
    images[70, 0, 3, 3] = np.nan
    with np.errstate(all="ignore"), pytest.raises(InputError, match=r"got nan, first in the images$"):
        fit(Network(Sequential(Flatten(), Dense(3)), SHAPE), Dataset(images, DATA.labels, DATA.classes), Recipe(1, 100))


# --- what cannot go on -----------------------------------------------------------------------------------------------


def changed() -> Iterator[tuple[str, Dataset, Dataset | None]]:
    flipped = DATA.images.copy()
    flipped[-1, 0, -1, -1] ^= 1
    labels = DATA.labels.copy()
    labels[0] = (labels[0] + 1) % 3
    yield "data", Dataset(flipped, DATA.labels, DATA.classes), DEV
    yield "data", Dataset(DATA.images, labels, DATA.classes), DEV
    yield "data", DATA.take(np.arange(99)), DEV
    yield "data", DATA.take(np.arange(100)[::-1]), DEV
    yield "dev", DATA, DATA
    yield "dev", DATA, None


@pytest.mark.parametrize(("what", "data", "dev"), list(changed()))
def test_other_data_are_refused(what: str, data: Dataset, dev: Dataset | None, tmp_path: Path) -> None:
    training = Training(Network(MODEL, SHAPE), DATA, Recipe(1), dev=DEV)
    training.save(tmp_path / "checkpoint")
    with pytest.raises(
        InputError, match=rf"^training: {what}: expected the same inputs, .* as before, \w{{12}}, got (\w{{12}}|None)$"
    ):
        Training.resume(tmp_path / "checkpoint", data, dev=dev)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"optimizer": SGD(0.05)}, "optimizer"),
        ({"epochs": 4}, "epochs"),
        ({"seed": 1}, "seed"),
        ({"clip_norm": 1.0}, "clip_norm"),
    ],
)
def test_a_state_of_another_recipe_is_refused(change: Any, what: str) -> None:
    state = Training(Network(MODEL, SHAPE), DATA, Recipe()).state()
    other = Training(Network(MODEL, SHAPE), DATA, dataclasses.replace(Recipe(), **change))
    with pytest.raises(InputError, match=f"^training: {what}: expected the same as before, "):
        other.restore(state)


def test_a_state_of_another_network_is_refused() -> None:
    state = Training(Network(MODEL, SHAPE), DATA, Recipe()).state()
    for network, what in (
        (Network(Sequential(Flatten(), Dense(3)), SHAPE), "model"),
        (Network(MODEL, SHAPE, dtype=np.float64), "dtype"),
    ):
        with pytest.raises(InputError, match=f"^training: {what}: expected the same as before, "):
            Training(network, DATA, Recipe()).restore(state)


def test_every_part_of_a_subject_is_compared() -> None:
    subject = Subject(MODEL, SHAPE, "float32", Recipe(), "a", "b")
    for field in dataclasses.fields(Subject):
        other: Any = {"recipe": Recipe(seed=7), "model": Sequential(Dense(1)), "input_shape": (2,)}.get(field.name, "c")
        with pytest.raises(InputError):
            dataclasses.replace(subject, **{field.name: other}).check_same(subject)
    subject.check_same(dataclasses.replace(subject))


def test_another_machine_goes_on_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Training(Network(MODEL, SHAPE), DATA, Recipe(1)).save(tmp_path / "checkpoint")
    Training.resume(tmp_path / "checkpoint", DATA)
    assert caplog.messages == []
    monkeypatch.setattr(loop, "machine", lambda: "another")
    assert list(Training.resume(tmp_path / "checkpoint", DATA))
    assert caplog.messages == [f"training: {machine.machine()} until now, another from here, so that bits may differ"]


def test_the_machine_is_the_same_with_and_without_scipy() -> None:
    pytest.importorskip("scipy")
    code = "import numpy{}; from lowered_cnn.training.machine import machine; print(machine())"
    plain, more = (
        subprocess.run([sys.executable, "-c", code.format(others)], check=True, capture_output=True, text=True).stdout
        for others in ("", ", scipy.linalg")
    )
    assert plain == more


def test_a_network_is_no_checkpoint_and_a_checkpoint_no_network(tmp_path: Path) -> None:
    training = Training(Network(MODEL, SHAPE), DATA, Recipe(1))
    training.save(tmp_path / "checkpoint")
    save(training.network, tmp_path / "network")
    with pytest.raises(InputError, match=r"network: expected a checkpoint, got a network$"):
        Training.resume(tmp_path / "network", DATA)
    with pytest.raises(InputError, match=r"checkpoint: expected a network, got a checkpoint, which Training"):
        load(tmp_path / "checkpoint")


RECORD = {
    "step": 1, "epoch": 1, "ends_epoch": True, "loss": 1, "train_accuracy": 0.5, "epoch_loss": None, "dev_loss": None,
    "dev_accuracy": None, "images_per_second": 1e3, "learning_rate": 0.1,
}  # fmt: skip


def rewritten(path: Path, entries: dict[str, Any], vectors: dict[str, Any]) -> Path:
    """Write a checkpoint again with other entries in its header, more vectors, and the checksum that belongs to it."""
    header, tensors = read_checked(path)
    write_checked(path, header | entries, tensors | vectors)
    return path


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({"step": "1"}, "checkpoint: step: expected int, got '1'"),
        ({"step": True}, "checkpoint: step: expected int, got True"),
        ({"step": -1}, "checkpoint: step: expected a whole number of at least 0, got -1"),
        ({"seconds": math.inf}, "checkpoint: seconds: expected a finite number of at least 0, got inf"),
        ({"learning_rate": -0.5}, "checkpoint: learning_rate: expected a finite number of at least 0, got -0.5"),
        ({"learning_rate": "0.1"}, "checkpoint: learning_rate: expected float or NoneType, got '0.1'"),
        ({"machine": None}, "checkpoint: machine: expected str, got None"),
    ],
)
def test_impossible_numbers_in_a_checkpoint_are_told(entries: dict[str, Any], told: str, tmp_path: Path) -> None:
    Training(Network(MODEL, SHAPE), DATA, Recipe(1)).save(tmp_path / "x")
    header, _ = read_checked(tmp_path / "x")
    path = rewritten(tmp_path / "x", {"checkpoint": header["checkpoint"] | entries}, {})
    with pytest.raises(InputError, match=re.escape(told) + "$"):
        Training.resume(path, DATA)


@pytest.mark.parametrize(
    ("entries", "vectors", "told"),
    [
        ({"history": [{**RECORD, "ends_epoch": 1}]}, {}, "history: ends_epoch: expected bool, got 1"),
        ({"history": [{**RECORD, "dev_loss": [0.5]}]}, {}, "history: dev_loss: expected float or NoneType, got [0.5]"),
        ({"dev": 3}, {}, "subject: dev: expected str or NoneType, got 3"),
        ({"input_shape": [1, 8, 8.0]}, {}, "input shape: expected a whole number of at least 1, got 8.0"),
        ({}, {"worst": np.zeros(3)}, "vectors: expected parameters, average, best, got worst"),
        ({"dtype": "float16"}, {}, "subject: dtype: expected float32 or float64, got 'float16'"),
        (
            {"model": describe(Sequential(Conv2D(2, 4000), Flatten(), Dense(3))), "input_shape": [10_000, 4000, 4000]},
            {},
            "optimizer.velocity: expected (320000000011,), got (",
        ),
    ],
)
def test_what_belongs_to_no_checkpoint_is_told(
    entries: dict[str, Any], vectors: dict[str, Any], told: str, tmp_path: Path
) -> None:
    Training(Network(MODEL, SHAPE), DATA, Recipe(1)).save(tmp_path / "x")
    with pytest.raises(InputError, match=re.escape(told)):
        Training.resume(rewritten(tmp_path / "x", entries, vectors), DATA)


def test_a_recipe_that_cannot_be_restored_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    class Local(SoftmaxCrossEntropy):
        pass

    training = Training(Network(MODEL, SHAPE), DATA, Recipe(1, loss=Local()))
    with pytest.raises(InputError, match=r"^Local: expected a class that can be found by its name, got "):
        training.save(tmp_path / "checkpoint")
    assert list(tmp_path.iterdir()) == []


# --- more epochs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", [None, 0.9])
def test_a_constant_rate_can_be_extended_and_ends_as_if_it_had_been_longer_from_the_start(
    average: float | None, tmp_path: Path
) -> None:
    recipe = Recipe(2, 30, Adam(0.01), Constant(), average=average)
    whole = Training(Network(MODEL, SHAPE), DATA, dataclasses.replace(recipe, epochs=4))
    expected = outcome(whole, list(whole))
    short = Training(Network(MODEL, SHAPE), DATA, recipe)
    records = list(short)
    short.save(tmp_path / "checkpoint")
    longer = Training.resume(tmp_path / "checkpoint", DATA, epochs=4)
    assert outcome(longer, records + list(longer)) == expected


def test_a_rate_that_would_jump_is_not_extended(tmp_path: Path) -> None:
    training = Training(Network(MODEL, SHAPE), DATA, Recipe(2, 50, SGD(0.1), Cosine()))
    list(training)
    training.save(tmp_path / "checkpoint")
    with pytest.raises(InputError) as caught:
        Training.resume(tmp_path / "checkpoint", DATA, epochs=4)
    jump = "the learning rate of Cosine() would jump from 0 to 0.05"
    assert str(caught.value) == f"resume: epochs: expected 2, as {jump}, got 4"
    with pytest.raises(InputError, match=r"^resume: epochs: expected a whole number of at least 2, got 1$"):
        Training.resume(tmp_path / "checkpoint", DATA, epochs=1)


# --- a step that failed ----------------------------------------------------------------------------------------------


class FailsOnce(SoftmaxCrossEntropy):
    """A loss that raises in a certain call."""

    calls, fatal = 0, 0

    def value_and_gradient(self, z: Any, targets: Any, m: float, weights: Any = None) -> Any:
        FailsOnce.calls += 1
        if FailsOnce.calls == FailsOnce.fatal:
            raise MemoryError("no more")
        return super().value_and_gradient(z, targets, m)


class Unsteady:
    """Examples that once cannot be read."""

    targets, classes, weights = DATA.targets, DATA.classes, DATA.weights
    image_shape, dtype = DATA.image_shape, DATA.dtype
    reads = -1000  # those that find the range and the digest do not count

    def __len__(self) -> int:
        return len(DATA)

    def gather(self, indices: Any, out: Any) -> None:
        self.reads += 1
        if self.reads == 3:
            raise OSError("not now")
        DATA.gather(indices, out)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_batch_that_cannot_be_read_is_read_again(workers: int) -> None:
    recipe = Recipe(2, 40, Adam(0.01), Constant(), average=0.9)
    whole = Training(Network(MODEL, SHAPE), DATA, recipe)
    expected = outcome(whole, list(whole))
    data = Unsteady()
    training = Training(Network(MODEL, SHAPE), data, recipe, workers=workers)
    data.reads = 0
    records = [next(training), next(training)]
    with pytest.raises(OSError, match=r"^not now$"):
        next(training)
    assert training.state().step == 2
    assert outcome(training, records + list(training)) == expected


@pytest.mark.parametrize("fatal", range(3, 13))
def test_after_a_step_that_failed_only_a_state_from_before_goes_on(fatal: int) -> None:
    """It may have failed in any shard, or in the test at the end of an epoch."""
    recipe = Recipe(2, 40, Adam(0.01), Constant(), average=0.9, loss=FailsOnce())
    FailsOnce.calls = FailsOnce.fatal = 0
    whole = Training(Network(MODEL, SHAPE), DATA, recipe, dev=DEV)
    expected = outcome(whole, list(whole))
    FailsOnce.calls, FailsOnce.fatal = 0, fatal
    training = Training(Network(MODEL, SHAPE), DATA, recipe, dev=DEV)
    records = [next(training)]
    state = training.state()
    with pytest.raises(MemoryError, match=r"^no more$"):
        list(training)
    with pytest.raises(
        InputError, match=r"^training: state: expected a last step that was completed, got one that was"
    ):
        training.state()
    with pytest.raises(InputError, match=r"^training: expected a last step that was completed "):
        next(training)
    training.restore(state)
    assert outcome(training, records + list(training)) == expected
