"""Training: what it learns, what it records, and that workers, shards and seeds decide what they should and no more."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import accuracy, assert_close, noisy_network

from lowered_cnn import (
    SGD,
    Augmentation,
    BatchNorm,
    Constant,
    Conv1D,
    Conv2D,
    Conv3D,
    Cosine,
    Dataset,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    InputError,
    MeanSquaredError,
    Network,
    Recipe,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Splits,
    evaluate,
    load_mnist,
    train,
)
from lowered_cnn.arrays import Array, Images, Labels, Shape, Targets
from lowered_cnn.losses import Loss
from lowered_cnn.models import lenet5
from lowered_cnn.training.gradients import Batch, ShardGradients, examples_of, shard_count

RECIPE = Recipe(epochs=2, batch_size=72, optimizer=SGD(0.05, momentum=0.9), schedule=Constant())


@pytest.fixture(scope="module")
def mnist() -> Splits:
    """Two thousand digits to train on and a thousand to test on."""
    splits = load_mnist()
    return Splits(splits.train.take(np.arange(2000)), splits.test.take(np.arange(1000)))


@pytest.fixture
def digits(mnist: Splits) -> Dataset:
    """Two hundred digits: with batches of 72 two full ones, and a last one of 56."""
    return mnist.train.take(np.arange(200))


recipe: Any = Recipe
"""As a caller without type checks makes one."""


def trained(data: Dataset, seed: int = 0, network_seed: int = 0) -> Array:
    """Return the weights after two epochs."""
    network = noisy_network(seed=network_seed)
    recipe = Recipe(RECIPE.epochs, RECIPE.batch_size, RECIPE.optimizer, RECIPE.schedule, seed=seed)
    assert len(list(train(network, data, recipe))) == 6
    return network.parameters.vector


# --- seeds and shards ------------------------------------------------------------------------------------------------


def test_weights_follow_from_the_seeds(digits: Dataset) -> None:
    weights = trained(digits, seed=1)
    assert weights.tobytes() == trained(digits, seed=1).tobytes()
    assert not np.array_equal(weights, trained(digits, seed=2))
    assert not np.array_equal(weights, trained(digits, seed=1, network_seed=1))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_shards_add_up_to_the_gradient_of_the_batch(
    digits: Dataset, dtype: type[np.floating], tolerance: float
) -> None:
    network = Network(Sequential(Conv2D(4, 5, 2), ReLU(), Flatten(), Dense(10)), (1, 28, 28), dtype=dtype)
    gradient = np.empty_like(network.parameters.vector)
    shards = ShardGradients(network, SoftmaxCrossEntropy(), shard_size=32, seed=0, gradient=gradient)
    batch = Batch(digits.images, digits.labels, np.arange(len(digits)), step=0, epoch=1, total=len(digits))
    totals = shards.sum(batch, range(7))
    whole = network.lower(len(digits))
    z = whole.forward(digits.images)
    value, dz = SoftmaxCrossEntropy().value_and_gradient(z, digits.labels, len(digits))
    whole.backward(dz)
    assert_close(gradient, whole.gradients.vector, tolerance)
    assert totals.loss == pytest.approx(value, rel=1e-6)
    assert totals.correct == np.count_nonzero(z.argmax(axis=1) == digits.labels)


@given(examples=st.integers(1, 500), shard_size=st.integers(1, 32))
def test_a_batch_is_cut_evenly(examples: int, shard_size: int) -> None:
    count = shard_count(examples, shard_size)
    assert (count - 1) * shard_size < examples <= count * shard_size
    places = np.arange(examples)
    parts = [places[examples_of(range(shard, shard + 1), examples, shard_size)] for shard in range(count)]
    for part, expected in zip(parts, np.array_split(places, count), strict=True):
        np.testing.assert_array_equal(part, expected)


def test_each_step_and_each_shard_has_noise_of_its_own(digits: Dataset) -> None:
    class Listening(Loss):
        def value_and_gradient(self, z: Array, targets: Targets, m: float, weights: Any = None) -> tuple[float, Array]:
            heard.append(z.copy())
            return MeanSquaredError().value_and_gradient(z, targets, m)

    heard: list[Array] = []
    network, same = Network(Sequential(Flatten(), Dropout()), (1, 28, 28)), np.zeros(64, int)
    shards = ShardGradients(network, Listening(), shard_size=32, seed=0, gradient=np.empty(0, np.float32))
    for step in (0, 1, 0):
        shards.sum(Batch(digits.images[same], digits.labels[same], same, step, epoch=1, total=64), range(2))
    assert len({z.tobytes() for z in heard[:4]}) == 4
    np.testing.assert_array_equal(heard[4:], heard[:2])


# --- learning --------------------------------------------------------------------------------------------------------


def test_one_epoch_of_lenet5_on_two_thousand_digits(mnist: Splits) -> None:
    network = Network(lenet5(), (1, 28, 28))
    records = list(train(network, mnist.train, Recipe(epochs=1, batch_size=32), dev=mnist.test))
    losses = [record.loss for record in records]
    assert np.mean(losses[-10:]) < 0.3 * np.mean(losses[:10])
    assert accuracy(network, mnist.test) > 0.85


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(), MeanSquaredError()])
def test_a_few_digits_are_learned_by_heart(mnist: Splits, loss: Loss) -> None:
    few = mnist.train.take(np.arange(20))
    network = Network(Sequential(Flatten(), Dense(50), ReLU(), Dense(10)), (1, 28, 28))
    recipe = Recipe(epochs=100, batch_size=20, optimizer=SGD(0.05, momentum=0.9), schedule=Cosine(), loss=loss)
    assert accuracy(network, few) < 0.5
    *_, last = train(network, few, recipe)
    assert last.train_accuracy == 1
    assert last.loss < 0.02


@pytest.mark.parametrize(
    ("model", "shape", "dtype"),
    [
        (Sequential(Conv1D(4, 5), ReLU(), GlobalAvgPool(), Dense(2)), (1, 40), np.float32),
        (Sequential(Conv3D(4, 3), ReLU(), GlobalAvgPool(), Dense(2)), (1, 6, 6, 6), np.float64),
        (Sequential(Dense(8), ReLU(), Dense(2)), (10,), np.float64),
    ],
)
def test_images_of_any_rank_are_learned(model: Sequential, shape: Shape, dtype: type[np.floating]) -> None:
    """The classes are two levels under noise."""
    labels = np.arange(200) % 2
    noise = np.random.default_rng(0).normal(0, 0.5, (200, *shape))
    images = (labels.reshape(-1, *[1] * len(shape)) + noise).astype(dtype)
    data, dev = Dataset(images, labels, ("one", "other")).split(50, seed=0)
    network = Network(model, shape, dtype=dtype)
    *_, last = train(network, data, Recipe(epochs=8, batch_size=30), dev=dev, workers=2)
    assert last.dev_accuracy == accuracy(network, dev) >= 0.9


def test_grey_images_need_no_channel(digits: Dataset) -> None:
    flat = Dataset(digits.images[:, 0], digits.labels, digits.classes)
    assert flat.image_shape == (28, 28)
    assert trained(flat).tobytes() == trained(digits).tobytes()
    assert evaluate(noisy_network(), flat) == evaluate(noisy_network(), digits)


# --- records ---------------------------------------------------------------------------------------------------------


def test_records_count_steps_and_epochs(digits: Dataset) -> None:
    records = list(train(noisy_network(), digits, RECIPE, dev=digits))
    assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record.epoch for record in records] == [1, 1, 1, 2, 2, 2]
    assert [record.dev_accuracy is not None for record in records] == [False, False, True] * 2
    assert all(record.images_per_second > 0 for record in records)


def test_without_a_dev_set_there_are_no_dev_figures(digits: Dataset) -> None:
    for record in train(noisy_network(), digits, RECIPE):
        assert record.dev_accuracy is None
        assert record.dev_loss is None


def test_the_last_record_of_an_epoch_has_its_loss(digits: Dataset) -> None:
    """Batches of 72, 72 and 56: at a learning rate of almost 0, their mean is the loss over all examples."""
    quiet = Network(Sequential(Flatten(), Dense(10)), (1, 28, 28))
    before = evaluate(quiet, digits)
    records = list(train(quiet, digits, replace(RECIPE, optimizer=SGD(1e-30)), dev=digits))
    assert [record.ends_epoch for record in records] == [False, False, True] * 2
    for record in records:
        known = [record.epoch_loss, record.dev_loss] if record.ends_epoch else []
        assert known == pytest.approx([before.loss] * len(known), rel=1e-6)
        assert (record.epoch_loss is None) == (record.dev_loss is None) == (not record.ends_epoch)
    assert np.mean([record.loss for record in records]) != pytest.approx(before.loss, rel=1e-6)


def test_the_learning_rate_follows_the_schedule(digits: Dataset) -> None:
    recipe = Recipe(2, 72, SGD(0.5), Cosine())
    rates = [record.learning_rate for record in train(noisy_network(), digits, recipe)]
    assert rates == pytest.approx([0.5 * Cosine().factor(step / 6) for step in range(6)])


def test_a_record_tells_how_its_batch_was_before_the_update(digits: Dataset) -> None:
    quiet = Network(Sequential(Flatten(), Dense(10)), (1, 28, 28))
    before = evaluate(quiet, digits)
    first, second = train(quiet, digits, Recipe(2, 200, SGD(0.01), Constant()), dev=digits)
    assert first.loss == pytest.approx(before.loss, rel=1e-5)
    assert first.train_accuracy == before.accuracy
    assert second.train_accuracy == first.dev_accuracy
    after = evaluate(quiet, digits)
    assert (second.dev_loss, second.dev_accuracy) == (after.loss, after.accuracy)


def test_the_last_batch_is_told_by_the_examples_it_has(digits: Dataset) -> None:
    quiet = Network(Sequential(Flatten(), Dense(10)), (1, 28, 28))
    records = list(train(quiet, digits, Recipe(1, 72, SGD(1e-30), Constant())))
    right = [(record.train_accuracy or 0) * size for record, size in zip(records, (72, 72, 56), strict=True)]
    assert sum(right) == pytest.approx(200 * accuracy(quiet, digits))


def test_the_speed_is_that_of_the_training_alone(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Loss):
        def value_and_gradient(self, z: Array, targets: Targets, m: float, weights: Any = None) -> tuple[float, Array]:
            clock[0] += 1000 if m == len(dev) else len(z) / 100
            return SoftmaxCrossEntropy().value_and_gradient(z, targets, m)

    clock, dev = [0.0], digits.take(np.arange(50))
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    records = list(train(noisy_network(), digits, replace(RECIPE, loss=Slow()), dev=dev))
    assert clock[0] == pytest.approx(2 * 1000 + 4)
    assert [record.images_per_second for record in records] == pytest.approx([100] * 6)


def test_evaluation_is_the_mean_loss_and_the_share_of_right_answers(digits: Dataset) -> None:
    network = noisy_network()
    z = network.predict(digits.images).astype(float)
    chosen = z[np.arange(200), digits.labels]
    evaluation = evaluate(network, digits)
    assert evaluation.loss == pytest.approx((np.log(np.exp(z).sum(axis=1)) - chosen).mean(), rel=1e-5)
    assert evaluation.accuracy == (z.argmax(axis=1) == digits.labels).mean()


# --- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("input_shape", "units", "message"),
    [
        ((1, 28, 27), 10, "data: images: expected (1, 28, 27), got (1, 28, 28)"),
        ((1, 28, 28), 9, "network: outputs: expected one for each of 10 classes, got (9,)"),
    ],
)
def test_data_that_do_not_fit_are_refused_at_once(
    digits: Dataset, input_shape: Shape, units: int, message: str
) -> None:
    network = Network(Sequential(Flatten(), Dense(units)), input_shape)
    for use in (lambda: train(network, digits), lambda: evaluate(network, digits)):
        with pytest.raises(InputError) as caught:
            use()
        assert str(caught.value) == message


def test_dev_data_that_do_not_fit_are_refused_at_once(digits: Dataset) -> None:
    narrow = Dataset(digits.images[..., 1:], digits.labels, digits.classes)
    with pytest.raises(InputError, match=r"^data: images: expected \(1, 28, 28\), got \(1, 28, 27\)$"):
        train(noisy_network(), digits, dev=narrow)


def test_outputs_that_are_maps_are_refused(digits: Dataset) -> None:
    with pytest.raises(
        InputError, match=r"^network: outputs: expected one for each of 10 classes, got \(10, 28, 28\)$"
    ):
        train(Network(Sequential(Conv2D(10, 1)), (1, 28, 28)), digits)


def test_no_workers_are_refused(digits: Dataset) -> None:
    with pytest.raises(InputError, match=r"^train: workers: expected a whole number of at least 1, got 0$"):
        train(noisy_network(), digits, workers=0)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_a_pair_of_images_and_labels_is_data(digits: Dataset, dtype: type[np.integer]) -> None:
    pair = (digits.images, digits.labels.astype(dtype))
    network, same = noisy_network(), noisy_network()
    *_, expected = train(network, digits, RECIPE, dev=digits)
    *_, last = train(same, pair, RECIPE, dev=(digits.images, digits.labels.tolist()))
    assert same.parameters.vector.tobytes() == network.parameters.vector.tobytes()
    assert (last.dev_loss, last.dev_accuracy) == (expected.dev_loss, expected.dev_accuracy)
    assert evaluate(same, pair) == evaluate(network, digits)


def test_other_data_are_refused(digits: Dataset) -> None:
    images: Any = digits.images
    three: Any = (images, digits.labels, 3)
    for use, where in (
        (lambda: train(noisy_network(), images), "train: data"),
        (lambda: train(noisy_network(), digits, dev=three), "train: dev"),
        (lambda: evaluate(noisy_network(), images), "evaluate: data"),
    ):
        with pytest.raises(
            InputError,
            match=rf"^{where}: expected a Dataset or other Examples, or a pair \(inputs, targets\), got \w+$",
        ):
            use()


def test_recipes_without_sense_are_refused() -> None:
    with pytest.raises(InputError, match=r"^Recipe: epochs: expected a whole number of at least 1, got 0$"):
        Recipe(epochs=0)
    with pytest.raises(InputError, match=r"^Recipe: batch_size: expected a whole number of at least 1, got -1$"):
        Recipe(batch_size=-1)
    with pytest.raises(InputError, match=r"^Recipe: seed: expected a whole number of at least 0, got -1$"):
        Recipe(seed=-1)


def test_training_leaves_the_data_alone(digits: Dataset) -> None:
    images, labels = digits.images.copy(), digits.labels.copy()
    list(train(noisy_network(), digits, RECIPE))
    np.testing.assert_array_equal(digits.images, images)
    np.testing.assert_array_equal(digits.labels, labels)


# --- clipping and averaging ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_norm", [1e-3, 0.2, 1e3])
def test_a_gradient_is_cut_to_the_length_asked_for(digits: Dataset, clip_norm: float) -> None:
    def step(clip: float | None) -> Array:
        network = Network(Sequential(Flatten(), BatchNorm(), Dense(10)), (1, 28, 28), dtype=np.float64)
        before = network.parameters.learned.copy()
        list(train(network, digits, Recipe(1, len(digits), SGD(1.0), Constant(), clip_norm=clip)))
        return network.parameters.learned - before

    whole, cut = step(None), step(clip_norm)
    length = float(np.linalg.norm(whole))
    assert 0.2 < length < 1e3
    np.testing.assert_allclose(cut, whole * min(1, clip_norm / length), rtol=1e-9, atol=1e-15)


def test_the_average_is_what_a_training_ends_with(digits: Dataset) -> None:
    def weights(average: float | None) -> list[Array]:
        network = Network(Sequential(Flatten(), Dense(10)), (1, 28, 28), dtype=np.float64)
        found = [network.parameters.vector.copy()]
        for _ in train(network, digits, Recipe(2, 100, SGD(0.1), Constant(), average=average)):
            found.append(network.parameters.vector.copy())
        return found

    plain, averaged = weights(None), weights(0.3)
    expected = plain[0]
    for step, parameters in enumerate(plain[1:], 1):
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * parameters
    np.testing.assert_array_equal(averaged[:-1], plain[:-1])
    np.testing.assert_allclose(averaged[-1], expected, rtol=1e-12)


def test_the_average_is_what_is_tested_on_the_dev_split(digits: Dataset) -> None:
    network = Network(Sequential(Flatten(), Dense(10)), (1, 28, 28))
    *_, last = train(network, digits, Recipe(1, 64, SGD(0.1), Constant(), average=0.99), dev=digits)
    assert last.dev_accuracy == evaluate(network, digits).accuracy


def test_the_average_can_be_seen_while_the_network_trains(digits: Dataset) -> None:
    """It starts from the weights that the caller leaves before the first step."""
    network = Network(Sequential(Flatten(), Dense(10)), (1, 28, 28), dtype=np.float64)
    training = train(network, digits, Recipe(2, 100, SGD(0.1), Constant(), average=0.9), dev=digits)
    average = training.average
    assert average is not None
    network.parameters.vector *= 3
    expected = network.parameters.vector.copy()
    for record in training:
        if record.step < 4:  # at the end the network has the average itself
            decay = (1 + record.step) / (10 + record.step)
            expected = decay * expected + (1 - decay) * network.parameters.vector
            np.testing.assert_allclose(average.parameters.vector, expected, rtol=1e-12)
        if record.ends_epoch:
            tested = evaluate(average, digits)
            assert (record.dev_loss, record.dev_accuracy) == (tested.loss, tested.accuracy)
            assert (tested == evaluate(network, digits)) == (record.step == 4)


def test_without_an_average_there_is_none_to_see(digits: Dataset) -> None:
    assert train(noisy_network(), digits).average is None


def test_each_epoch_sees_the_images_in_another_way(digits: Dataset) -> None:
    seen = []

    class Watching(Augmentation):
        def __call__(self, images: Images, examples: Labels, seed: int, epoch: int) -> Array:
            seen.append((epoch, tuple(examples.tolist()), len(images)))
            np.testing.assert_array_equal(images, digits.images[examples])
            return super().__call__(images, examples, seed, epoch)

    network = Network(Sequential(Flatten(), Dense(10)), (1, 28, 28))
    list(train(network, digits, Recipe(2, 64, SGD(0.1), augmentation=Watching(shift=1))))
    for epoch in (1, 2):
        places = [place for when, examples, _ in seen if when == epoch for place in examples]
        assert sorted(places) == list(range(len(digits)))


def test_the_augmentation_fades_out_over_the_last_epochs(digits: Dataset) -> None:
    seen = set()

    class Watching(Augmentation):
        def __call__(self, images: Images, examples: Labels, seed: int, epoch: int) -> Array:
            seen.add((epoch, self.shift, self.cutout, self.flip))
            return super().__call__(images, examples, seed, epoch)

    network = Network(Sequential(Flatten(), Dense(10)), (1, 28, 28))
    recipe = Recipe(5, 64, SGD(0.1), augmentation=Watching(shift=2, cutout=6, flip=True), fade=0.8)
    list(train(network, digits, recipe))
    assert seen == {(1, 2, 6, True), (2, 1.5, 4, True), (3, 1, 3, True), (4, 0.5, 2, True), (5, 0, 0, True)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(fade=1.5), "Recipe: fade: expected a number from 0 to 1, got 1.5"),
        (lambda: Recipe(clip_norm=0), "Recipe: clip_norm: expected a number above 0, got 0"),
        (lambda: Recipe(average=1), "Recipe: average: expected a number between 0 and 1, got 1"),
        (lambda: recipe(clip_norm="1"), "Recipe: clip_norm: expected a number above 0, got '1'"),
        (lambda: recipe(epochs=2.5), "Recipe: epochs: expected a whole number of at least 1, got 2.5"),
        (
            lambda: recipe(optimizer="adam"),
            "Recipe: optimizer: expected an optimizer, such as SGD() or Adam(), got 'adam'",
        ),
        (lambda: recipe(optimizer=None), "Recipe: optimizer: expected an optimizer, such as SGD() or Adam(), got None"),
        (
            lambda: recipe(schedule=0.1),
            "Recipe: schedule: expected a schedule, such as OneCycle() or Constant(), got 0.1",
        ),
        (
            lambda: recipe(loss="mse"),
            "Recipe: loss: expected a loss, such as SoftmaxCrossEntropy() or MeanSquaredError(), got 'mse'",
        ),
        (
            lambda: recipe(augmentation=True),
            "Recipe: augmentation: expected an Augmentation, or None, got True",
        ),
    ],
)
def test_wrong_amounts_are_told(make: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message


def test_signals_are_not_augmented() -> None:
    signals = Dataset(np.zeros((4, 2, 9), np.float32), np.zeros(4, np.int64), ("a",))
    network = Network(Sequential(Flatten(), Dense(1)), (2, 9))
    with pytest.raises(InputError) as caught:
        train(network, signals, Recipe(augmentation=Augmentation(shift=1)))
    assert str(caught.value) == "train: augmentation: expected a network for images (C, H, W), got (2, 9)"
