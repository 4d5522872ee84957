"""Targets of every kind: values, vectors and maps are trained on, stored, shared and evaluated as class numbers are."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from trainings import contents, timeless

from lowered_cnn import (
    SGD,
    Adam,
    BinaryCrossEntropy,
    Constant,
    Conv2D,
    Dataset,
    Dense,
    Flatten,
    Huber,
    InputError,
    MeanAbsoluteError,
    MeanSquaredError,
    Network,
    Recipe,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    SoftmaxCrossEntropy,
    Training,
    evaluate,
    fit,
    train,
)
from lowered_cnn.arrays import Array, Targets
from lowered_cnn.data import digest
from lowered_cnn.losses import Loss

SHAPE = (1, 6, 5)
COUNT = 90
RNG = np.random.default_rng(0)
INPUTS = RNG.random((COUNT, *SHAPE), np.float32)
MEANS = INPUTS.mean(axis=(1, 2, 3), dtype=np.float64)

HEAD: dict[str, Sequential] = {
    "one": Sequential(Flatten(), Dense(8), ReLU(), Dense(1)),
    "four": Sequential(Flatten(), Dense(8), ReLU(), Dense(4)),
    "map": Sequential(Conv2D(4, 3, padding="same"), ReLU(), Conv2D(1, 1)),
    "classes": Sequential(Conv2D(4, 3, padding="same"), ReLU(), Conv2D(3, 1)),
}

BANDS = np.digitize(INPUTS[:, 0], [1 / 3, 2 / 3]).astype(np.uint8)
IGNORED = np.where(RNG.random(BANDS.shape) < 0.3, 255, BANDS).astype(np.uint8)
WEIGHTS = RNG.random(COUNT) * (RNG.random(COUNT) < 0.8)

KINDS: dict[str, tuple[str, Targets, Loss]] = {
    "values": ("one", MEANS, MeanSquaredError()),
    "columns": ("one", MEANS[:, None].astype(np.float32), Huber(0.1)),
    "vectors": ("four", INPUTS[:, 0, 0, :4].astype(np.float64), MeanAbsoluteError()),
    "many labels": ("four", (INPUTS[:, 0, 1, :4] > 0.5).astype(np.uint8), BinaryCrossEntropy((1.0, 2.0, 0.5, 3.0))),
    "class numbers": ("four", np.argmax(INPUTS[:, 0, 0, :4], axis=1), SoftmaxCrossEntropy(0.1, (1.0, 0.5, 2.0, 1.0))),
    "autoencoder": ("map", INPUTS, MeanSquaredError()),
    "segmentation": ("classes", BANDS, SoftmaxCrossEntropy()),
    "segmentation in part": ("classes", IGNORED, SoftmaxCrossEntropy(class_weights=(1.0, 2.0, 0.5), ignore=255)),
}
EACH = pytest.mark.parametrize("kind", KINDS)


def case(kind: str, weights: Any = WEIGHTS) -> tuple[Network, Dataset, Recipe]:
    """Return a new network, its data, and a recipe whose batches have several shards and whose last one is short."""
    head, targets, loss = KINDS[kind]
    recipe = Recipe(3, 40, Adam(0.01), Constant(), loss)
    return Network(HEAD[head], SHAPE), Dataset(INPUTS, targets, weights=weights), recipe


def outcome(training: Training) -> tuple[Any, ...]:
    records = [timeless(record) for record in training]
    return records, training.network.parameters.vector.tobytes(), contents(training.state())


@EACH
def test_targets_of_every_kind_are_learned(kind: str) -> None:
    network, data, recipe = case(kind)
    before = evaluate(network, data, recipe.loss).loss
    records = fit(network, data, replace(recipe, epochs=20), dev=data)
    after = evaluate(network, data, recipe.loss)
    assert after.loss < 0.9 * before
    assert (records[-1].dev_loss, records[-1].dev_accuracy) == (after.loss, after.accuracy)
    has_classes = isinstance(recipe.loss, SoftmaxCrossEntropy)
    assert all((record.train_accuracy is not None) == has_classes for record in records)


@EACH
def test_a_batch_of_shards_has_the_gradient_of_the_whole(kind: str) -> None:
    """One step of plain descent, by a batch of three shards, and by hand."""
    network, data, recipe = case(kind)
    network = Network(network.model, SHAPE, dtype=np.float64)
    lowered = network.lower(COUNT)
    z = lowered.forward(data.inputs)
    total = recipe.loss.total(data.targets, data.weights)
    value, dz = recipe.loss.value_and_gradient(z, data.targets, total, data.weights)
    lowered.backward(dz)
    expected = network.parameters.vector - 0.5 * lowered.gradients.vector
    (record,) = fit(network, data, replace(recipe, epochs=1, batch_size=COUNT, optimizer=SGD(0.5)))
    assert record.loss == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(network.parameters.vector, expected, rtol=1e-9, atol=1e-12)


@EACH
@pytest.mark.slow
def test_the_bits_are_the_same_for_any_number_of_workers(kind: str) -> None:
    network, data, recipe = case(kind)
    expected = outcome(train(network, data, recipe, dev=data))
    for workers in (2, 3):
        network, data, recipe = case(kind)
        assert outcome(train(network, data, recipe, dev=data, workers=workers)) == expected


@EACH
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_a_resumed_training_is_the_same(kind: str, weights: Any, tmp_path: Path) -> None:
    network, data, recipe = case(kind, weights)
    recipe = replace(recipe, patience=2, average=0.5)
    metrics = {"largest": lambda outputs, targets: float(outputs.max())}
    expected = outcome(train(network, data, recipe, dev=data, metrics=metrics))
    network, data, recipe = case(kind, weights)
    training = train(network, data, replace(recipe, patience=2, average=0.5), dev=data, metrics=metrics)
    first = [timeless(next(training)) for _ in range(4)]
    training.save(tmp_path / "checkpoint")
    resumed = Training.resume(tmp_path / "checkpoint", data, dev=data, metrics=metrics)
    records, *others = outcome(resumed)
    assert (first + records, *others) == expected


@EACH
def test_mapped_targets_are_trained_on_as_those_in_memory(kind: str, tmp_path: Path) -> None:
    network, data, recipe = case(kind)
    np.save(tmp_path / "targets.npy", np.asfortranarray(data.targets))
    mapped = Dataset(INPUTS, np.load(tmp_path / "targets.npy", mmap_mode="r"), weights=WEIGHTS)
    assert digest(mapped) == digest(data)
    expected, found = Network(network.model, SHAPE), Network(network.model, SHAPE)
    fit(expected, data, recipe)
    fit(found, mapped, recipe)
    assert found.parameters.vector.tobytes() == expected.parameters.vector.tobytes()


@EACH
def test_views_have_the_targets_and_weights_of_their_examples(kind: str) -> None:
    _, data, _ = case(kind)
    chosen = np.array([4, 80, 4, 7])
    part = data.take(chosen)
    np.testing.assert_array_equal(part.targets, data.targets[chosen], strict=True)
    assert part.weights is not None
    np.testing.assert_array_equal(part.weights, WEIGHTS[chosen])
    assert digest(part) == digest(Dataset(INPUTS[chosen], data.targets[chosen], data.classes or None, WEIGHTS[chosen]))


def test_whatever_differs_in_targets_or_weights_changes_the_digest() -> None:
    others = [Dataset(INPUTS, targets) for _, targets, _ in KINDS.values()]
    others += [
        Dataset(INPUTS, BANDS, ("a", "b", "c")),
        Dataset(INPUTS, BANDS.view(np.int8)),
        Dataset(INPUTS, BANDS.reshape(COUNT, 5, 6)),
        Dataset(INPUTS, BANDS, weights=WEIGHTS),
        Dataset(INPUTS, BANDS, weights=WEIGHTS + 1),
    ]
    assert len({digest(data) for data in others}) == len(others)


def test_labels_are_class_numbers_only() -> None:
    with pytest.raises(InputError) as caught:
        _ = Dataset(INPUTS, MEANS).labels
    assert str(caught.value) == f"labels: expected targets that are class numbers (N,), got float64 of shape ({COUNT},)"


def test_the_loss_of_an_epoch_is_the_weighted_mean() -> None:
    network, data, recipe = case("segmentation in part")
    network = Network(network.model, SHAPE, dtype=np.float64)
    before = evaluate(network, data, recipe.loss)
    *_, last = fit(network, data, replace(recipe, epochs=1, optimizer=Adam(1e-30)))
    assert last.epoch_loss == pytest.approx(before.loss, rel=1e-12)


def test_examples_without_weight_change_nothing() -> None:
    """A batch in which nothing counts has no loss, and no gradient."""
    network = Network(HEAD["one"], SHAPE)
    before = network.parameters.vector.copy()
    weights = np.zeros(COUNT)
    weights[-1] = 1
    data = Dataset(INPUTS, MEANS, weights=weights)
    recipe = Recipe(1, 45, Adam(0.01), Constant(), Huber())
    records = fit(network, data, recipe)
    assert 0 in [record.loss for record in records]
    assert not np.array_equal(network.parameters.vector, before)


# --- accuracy and metrics --------------------------------------------------------------------------------------------


def test_the_accuracy_of_maps_is_that_of_the_positions_that_count() -> None:
    network, data, recipe = case("segmentation in part")
    answers = network.predict(INPUTS).argmax(axis=1)
    expected = (answers == BANDS)[IGNORED != 255].mean()
    assert evaluate(network, data, recipe.loss).accuracy == pytest.approx(expected)
    (record,) = fit(network, data, replace(recipe, epochs=1, batch_size=COUNT))
    assert record.train_accuracy == pytest.approx(expected)


def error(outputs: Array, targets: Targets) -> float:
    return float(np.abs(outputs[:, 0] - targets).max())


def test_metrics_are_recorded_at_the_end_of_each_epoch() -> None:
    network, data, recipe = case("values")
    records = fit(network, data, recipe, dev=data, metrics={"error": error})
    assert [list(record.dev_metrics) for record in records] == [[], [], ["error"]] * 3
    assert records[-1].dev_metrics["error"] == error(network.predict(INPUTS), MEANS)
    assert evaluate(network, data, recipe.loss, metrics={"error": error}).metrics == records[-1].dev_metrics


@pytest.mark.parametrize("monitor", [None, "dev_loss", "luck"])
def test_patience_keeps_the_weights_with_the_best_score(monitor: str | None) -> None:
    network, data, recipe = case("values")
    weights: list[Array] = []
    luck = iter([3, 5, float("nan"), 1, 4])

    def watched(outputs: Array, targets: Targets) -> float:
        weights.append(network.parameters.vector.copy())
        return next(luck, 0)

    recipe = replace(recipe, epochs=12, optimizer=Adam(0.3), patience=3, monitor=monitor)
    records = fit(network, data, recipe, dev=data, metrics={"luck": watched})
    losses = [record.dev_loss for record in records if record.ends_epoch]
    best = 1 if monitor == "luck" else losses.index(min(losses, key=lambda loss: loss or 0))
    assert len(losses) == min(12, best + 4)
    np.testing.assert_array_equal(network.parameters.vector, weights[best])


# --- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "targets", "loss", "message"),
    [
        ("four", MEANS, MeanSquaredError(), "network: outputs: expected (1,), as for targets (90,), got (4,)"),
        ("map", INPUTS[:, 0], Huber(), "network: outputs: expected (6, 5), as for targets (90, 6, 5), got (1, 6, 5)"),
        (
            "one",
            MEANS,
            SoftmaxCrossEntropy(),
            "loss: expected one for values, such as MeanSquaredError(), or targets that are class numbers, "
            "got SoftmaxCrossEntropy() for float64 of shape (90,)",
        ),
    ],
)
def test_targets_that_do_not_fit_are_refused_at_once(head: str, targets: Any, loss: Loss, message: str) -> None:
    network = Network(HEAD[head], SHAPE)
    for use in (
        lambda: train(network, (INPUTS, targets), Recipe(loss=loss)),
        lambda: evaluate(network, (INPUTS, targets), loss),
    ):
        with pytest.raises(InputError) as caught:
            use()
        assert str(caught.value) == message


def test_classes_of_values_are_refused() -> None:
    with pytest.raises(InputError, match=r"^targets: expected class numbers, as there are classes, got float64 of"):
        Dataset(INPUTS, MEANS, ("a", "b"))


@pytest.mark.parametrize(
    "weights",
    [
        np.ones(3),
        -np.ones(COUNT),
        np.zeros(COUNT),
        np.full(COUNT, np.nan),
        np.where(np.arange(COUNT), 1, np.inf),
        np.full(COUNT, 1e307),
        np.ones(COUNT, np.complex128),
        ["a"] * COUNT,
    ],
)
def test_invalid_weights_are_refused(weights: Any) -> None:
    with pytest.raises(InputError, match=r"^weights: expected "):
        Dataset(INPUTS, MEANS, weights=weights)


class Weightless(Loss):
    """The mean squared error as a loss of one's own, which takes no weights."""

    def value_and_gradient(  # type: ignore[override]
        self, z: Array, targets: Targets, m: float
    ) -> tuple[float, Array]:
        return MeanSquaredError().value_and_gradient(z, targets, m)


def test_a_loss_without_weights_is_for_examples_without() -> None:
    network = Network(HEAD["one"], SHAPE)
    data, weighted = (Dataset(INPUTS, MEANS, weights=weights) for weights in (None, WEIGHTS))
    assert evaluate(network, data, Weightless()) == evaluate(network, data, MeanSquaredError())
    message = r"^data: weights: expected none, as Weightless\.value_and_gradient takes none, got 90 weights$"
    for use in (
        lambda: train(network, weighted, Recipe(loss=Weightless())),
        lambda: evaluate(network, weighted, Weightless()),
    ):
        with pytest.raises(InputError, match=message):
            use()


@pytest.mark.parametrize("value", [None, "small", np.ones(3), 1j])
def test_a_metric_that_is_no_number_is_named(value: Any) -> None:
    network, data, recipe = case("values")
    for use in (
        lambda: evaluate(network, data, recipe.loss, metrics={"error": lambda *_: value}),
        lambda: fit(network, data, recipe, dev=data, metrics={"error": lambda *_: value}),
    ):
        with pytest.raises(InputError, match=r"^metrics: error: expected a function that returns a number, got "):
            use()


def test_metrics_and_what_monitors_them_are_checked() -> None:
    network, data, recipe = case("values")
    wrong: Any = {"error": "mean"}
    with pytest.raises(InputError, match=r"^train: metrics: expected functions by name"):
        train(network, data, recipe, dev=data, metrics=wrong)
    for taken in "dev_loss", "dev_accuracy", 1:
        with pytest.raises(InputError, match=rf"^train: metrics: expected names other than .*, got {taken!r}$"):
            train(network, data, recipe, dev=data, metrics={cast(str, taken): error})
    with pytest.raises(InputError, match=r"^train: metrics: expected .* recipe monitors, error, got none$"):
        train(network, data, replace(recipe, monitor="error", patience=1), dev=data)
    with pytest.raises(
        InputError, match=r"^train: targets: expected class numbers, .* monitors dev_accuracy, got float"
    ):
        train(network, data, replace(recipe, monitor="dev_accuracy", patience=1), dev=data)
    with pytest.raises(InputError, match=r"^Recipe: monitor: expected dev_accuracy, .*, got 3$"):
        replace(recipe, monitor=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^Recipe: min_delta: expected a finite number of at least 0, got -1$"):
        replace(recipe, min_delta=-1)


# --- activations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "loss", "targets"),
    [
        (Sigmoid(), BinaryCrossEntropy(), KINDS["many labels"][1]),
        (Softmax(), SoftmaxCrossEntropy(), KINDS["class numbers"][1]),
    ],
)
def test_a_network_that_ends_in_an_activation_of_the_loss_is_tested_but_not_trained(
    activation: Any, loss: Loss, targets: Any
) -> None:
    with_it = Network(Sequential(*HEAD["four"].layers, activation), SHAPE)
    without = Network(HEAD["four"], SHAPE)
    without.parameters.vector[...] = with_it.parameters.vector
    assert evaluate(with_it, (INPUTS, targets), loss).loss == pytest.approx(
        evaluate(without, (INPUTS, targets), loss).loss, rel=1e-5
    )
    name = type(activation).__name__
    with pytest.raises(InputError, match=rf"^loss: expected a network without {name}\(\) at its end, as "):
        train(with_it, (INPUTS, targets), Recipe(loss=loss))


def test_metrics_that_are_not_numbers_are_refused_in_a_checkpoint(tmp_path: Path) -> None:
    from lowered_cnn.training.checkpoint import _record

    network, data, recipe = case("values")
    fit_records = fit(network, data, recipe, dev=data, metrics={"error": error})
    entries = json.loads(json.dumps(vars(fit_records[-1])))
    assert _record(entries) == fit_records[-1]
    cases: list[Any] = [[], {"error": "small"}, {"error": None}, {"error": True}]
    for wrong in cases:
        with pytest.raises(InputError, match=r"^history: dev_metrics: expected numbers by name"):
            _record({**entries, "dev_metrics": wrong})
