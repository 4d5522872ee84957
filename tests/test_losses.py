"""Losses: values against their formulas, gradients that belong to them, and what they refuse."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import assert_close, normal
from scipy.special import log_softmax
from scipy.special import softmax as scipy_softmax

from lowered_cnn import (
    BinaryCrossEntropy,
    Huber,
    InputError,
    MeanAbsoluteError,
    MeanSquaredError,
    SoftmaxCrossEntropy,
    softmax,
)
from lowered_cnn.arrays import Array, Shape, Targets
from lowered_cnn.descriptions import describe, restore
from lowered_cnn.losses import Loss, loss_and_gradient
from lowered_cnn.verify.differences import relative_error

LABELS = np.array([2, 0, 1, 1, 3])
TARGETS = normal(5, 4, seed=9)

EACH = pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (SoftmaxCrossEntropy(), LABELS),
        (MeanSquaredError(), TARGETS),
        (MeanSquaredError(), LABELS),
        (MeanAbsoluteError(), TARGETS),
        (Huber(0.5), TARGETS),
        (BinaryCrossEntropy(2.0), np.abs(TARGETS) % 1),
    ],
)


def test_cross_entropy_is_minus_the_mean_log_probability_of_the_labels() -> None:
    z = normal(5, 4)
    value, _ = SoftmaxCrossEntropy().value_and_gradient(z, LABELS, 5)
    assert value == pytest.approx(-log_softmax(z, axis=1)[range(5), LABELS].mean(), rel=1e-14)


def test_the_gradient_of_cross_entropy_is_prediction_minus_truth() -> None:
    z = normal(5, 4)
    _, dz = SoftmaxCrossEntropy().value_and_gradient(z, LABELS, 5)
    assert_close(dz, (scipy_softmax(z, axis=1) - np.eye(4)[LABELS]) / 5, 1e-14)


def test_mean_squared_error_is_half_the_squared_distance_per_example() -> None:
    z = normal(5, 4)
    value, dz = MeanSquaredError().value_and_gradient(z, TARGETS, 5)
    assert value == pytest.approx(0.5 * np.mean(np.linalg.norm(z - TARGETS, axis=1) ** 2), rel=1e-14)
    assert_close(dz, (z - TARGETS) / 5, 1e-14)


def test_mean_squared_error_of_class_numbers_is_that_of_one_hot_rows() -> None:
    z = normal(5, 4)
    of_labels = MeanSquaredError().value_and_gradient(z, LABELS, 5)
    of_rows = MeanSquaredError().value_and_gradient(z, np.eye(4)[LABELS], 5)
    assert of_labels[0] == of_rows[0]
    np.testing.assert_array_equal(of_labels[1], of_rows[1])


@EACH
def test_gradients_are_derivatives(loss: Loss, targets: npt.NDArray[np.generic]) -> None:
    z = normal(5, 4)
    _, dz = loss.value_and_gradient(z, targets, 5)
    assert relative_error(lambda at: loss.value_and_gradient(at, targets, 5)[0], z, dz) < 1e-9


@EACH
def test_outputs_are_left_alone(loss: Loss, targets: npt.NDArray[np.generic]) -> None:
    z = normal(5, 4)
    loss.value_and_gradient(z, targets, 5)
    np.testing.assert_array_equal(z, normal(5, 4))


@EACH
def test_the_shards_of_a_batch_add_up(loss: Loss, targets: npt.NDArray[np.generic]) -> None:
    z = normal(5, 4)
    value, dz = loss.value_and_gradient(z, targets, 5)
    left = loss.value_and_gradient(z[:2], targets[:2], 5)
    right = loss.value_and_gradient(z[2:], targets[2:], 5)
    assert left[0] + right[0] == pytest.approx(value, rel=1e-14)
    assert_close(np.concatenate([left[1], right[1]]), dz, 1e-15)


@pytest.mark.parametrize("logit", [1e3, 1e30, np.finfo(np.float32).max / 2])
def test_cross_entropy_of_huge_logits_is_finite(logit: float) -> None:
    z = np.array([[logit, -logit], [-logit, logit]], np.float32)
    value, dz = SoftmaxCrossEntropy().value_and_gradient(z, np.array([0, 0]), 2)
    assert value == pytest.approx(logit)
    assert dz.tolist() == [[0, 0], [-0.5, 0.5]]


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=6), st.sampled_from([np.float32, np.float64]))
def test_softmax_is_a_distribution(logits: list[float], dtype: type[np.floating]) -> None:
    z = np.array(logits, dtype)[None]
    probabilities = softmax(z)
    assert probabilities.dtype == dtype
    assert probabilities.min() >= 0
    assert probabilities.sum() == pytest.approx(1, abs=4 * float(np.finfo(dtype).eps))
    np.testing.assert_allclose(probabilities, scipy_softmax(z.astype(float), axis=1), rtol=1e-5, atol=1e-30)


@given(st.integers(-1000, 1000))
def test_softmax_does_not_see_what_is_added_to_all_logits(shift: int) -> None:
    z = np.round(normal(5, 4) * 8) / 8
    np.testing.assert_array_equal(softmax(z + shift), softmax(z))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.array([0, 4]), "loss: labels: expected numbers from 0 to 3, got 0 to 4"),
        (np.array([-1, 0]), "loss: labels: expected numbers from 0 to 3, got -1 to 0"),
        (np.array([0]), "loss: labels: expected 2 class numbers, got int64 of shape (1,)"),
        (np.array([0.0, 1.0]), "loss: labels: expected 2 class numbers, got float64 of shape (2,)"),
    ],
)
@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(), MeanSquaredError()])
def test_labels_that_are_none_are_refused(loss: Loss, targets: npt.NDArray[np.generic], message: str) -> None:
    with pytest.raises(InputError) as caught:
        loss.value_and_gradient(normal(2, 4), targets, 2)
    assert str(caught.value) == message


def test_targets_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        MeanSquaredError().value_and_gradient(normal(2, 4), normal(4, 2), 2)
    assert str(caught.value) == "mean squared error: targets: expected (2, 4), got (4, 2)"


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_mean_squared_error_takes_targets_of_any_rank(shape: Shape) -> None:
    z, targets = normal(*shape), normal(*shape, seed=1)
    value, dz = MeanSquaredError().value_and_gradient(z, targets, 2)
    assert value == pytest.approx(np.sum((z - targets) ** 2) / 4, rel=1e-14)
    np.testing.assert_array_equal(dz, (z - targets) / 2)


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(), MeanSquaredError()])
def test_one_class_number_for_a_whole_map_is_refused(loss: Loss) -> None:
    with pytest.raises(InputError) as caught:
        loss.value_and_gradient(normal(2, 3, 4, 5), np.array([0, 1]), 2)
    assert str(caught.value) == "loss: labels: expected class numbers of shape (2, 4, 5), got int64 of shape (2,)"


def test_softmax_is_over_the_classes_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    for shape in ((4, 3), (3, 3), (2, 3, 4, 5)):
        z = normal(*shape)
        assert_close(softmax(z), torch.softmax(torch.tensor(z), dim=1).numpy(), 1e-15)
    with pytest.raises(InputError) as caught:
        softmax(normal(3))
    assert str(caught.value) == "softmax: expected outputs (N, classes, ...), got (3,)"


# --- as PyTorch has them ---------------------------------------------------------------------------------------------


def against_pytorch(
    loss: Loss, z: Array, targets: Targets, theirs: Callable[[Any, Any], Any], weights: Any = None, rate: float = 1.0
) -> None:
    """Compare value and gradient, whole and as the sum of two shards, with `rate` times those of a PyTorch function."""
    torch = pytest.importorskip("torch")
    leaf = torch.tensor(z, requires_grad=True)
    expected = rate * theirs(leaf, torch.tensor(targets))
    expected.backward()
    m, half = loss.total(targets, weights), len(z) // 2
    parts = [
        loss_and_gradient(loss, z[part], targets[part], m, None if weights is None else weights[part])
        for part in (slice(half), slice(half, None))
    ]
    for value, dz in (
        loss_and_gradient(loss, z, targets, m, weights),
        (sum(part[0] for part in parts), np.concatenate([part[1] for part in parts])),
    ):
        assert value == pytest.approx(expected.item(), rel=1e-12, abs=1e-300)
        np.testing.assert_allclose(dz, leaf.grad.numpy(), rtol=1e-11, atol=1e-14)


SIZES = st.sampled_from([(), (3,), (2, 3), (2, 1, 2)])
FACTORS = st.floats(0.125, 8)


@settings(max_examples=25, deadline=None)
@given(st.data(), SIZES, st.integers(1, 5), st.integers(1, 6), st.sampled_from([0.0, 0.1, 0.6]))
def test_cross_entropy_with_any_options_is_pytorchs(
    data: st.DataObject, size: Shape, classes: int, count: int, smoothing: float
) -> None:
    functional = pytest.importorskip("torch").nn.functional
    torch = pytest.importorskip("torch")
    factors = data.draw(st.none() | st.lists(FACTORS, min_size=classes, max_size=classes))
    ignore = data.draw(st.sampled_from([None, -1, 0, 255]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    z, labels = 5 * rng.standard_normal((count, classes, *size)), rng.integers(classes, size=(count, *size))
    if ignore is not None:
        labels[rng.random(labels.shape) < 0.3] = ignore
        labels.flat[0] = classes - 1 if ignore != classes - 1 else labels.flat[0]
    loss = SoftmaxCrossEntropy(smoothing, factors, ignore)
    if loss.total(labels) == 0:
        value, dz = loss_and_gradient(loss, z, labels, 0)
        assert (value, np.abs(dz).max()) == (0, 0)
        return
    weight = None if factors is None else torch.tensor(factors, dtype=torch.float64)
    options = {"weight": weight, "label_smoothing": smoothing, "ignore_index": -100 if ignore is None else ignore}
    against_pytorch(loss, z, labels, partial(functional.cross_entropy, **options))


@settings(max_examples=25, deadline=None)
@given(st.data(), SIZES, st.integers(1, 5), st.integers(1, 6), st.floats(-6, 6))
def test_losses_of_values_are_pytorchs(
    data: st.DataObject, size: Shape, outputs: int, count: int, exponent: float
) -> None:
    functional = pytest.importorskip("torch").nn.functional
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    scale, delta = 10**exponent, data.draw(st.floats(0.01, 10))
    z = scale * rng.standard_normal((count, outputs, *size))
    y, shares = scale * rng.standard_normal(z.shape), rng.random(z.shape)
    factors = data.draw(FACTORS | st.lists(FACTORS, min_size=outputs, max_size=outputs))
    along = torch.tensor(factors, dtype=torch.float64).reshape(-1, *[1] * len(size))
    against_pytorch(MeanAbsoluteError(), z, y, functional.l1_loss)
    against_pytorch(Huber(delta), z, y, partial(functional.huber_loss, delta=delta))
    against_pytorch(MeanSquaredError(), z, y, functional.mse_loss, rate=z[0].size / 2)
    binary = partial(functional.binary_cross_entropy_with_logits, pos_weight=along)
    against_pytorch(BinaryCrossEntropy(factors), z, shares, binary)


@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(2, 6))
def test_weights_of_examples_make_a_weighted_mean(data: st.DataObject, count: int) -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    weights = np.array(data.draw(st.lists(FACTORS, min_size=count, max_size=count)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    z, y, labels = rng.standard_normal((count, 3)), rng.random((count, 3)), rng.integers(3, size=count)
    counts = torch.tensor(weights)

    def mean(function: Callable[..., Any], z: Any, targets: Any) -> Any:
        each = function(z, targets, reduction="none").reshape(count, -1).mean(axis=1)
        return (counts * each).sum() / counts.sum()

    against_pytorch(MeanAbsoluteError(), z, y, partial(mean, functional.l1_loss), weights)
    against_pytorch(Huber(), z, y, partial(mean, functional.huber_loss), weights)
    against_pytorch(MeanSquaredError(), z, y, partial(mean, functional.mse_loss), weights, rate=1.5)
    against_pytorch(BinaryCrossEntropy(), z, y, partial(mean, functional.binary_cross_entropy_with_logits), weights)
    against_pytorch(SoftmaxCrossEntropy(), z, labels, partial(mean, functional.cross_entropy), weights)


def test_whole_weights_are_repeated_examples() -> None:
    z, labels, times = normal(5, 4), LABELS, np.array([1, 0, 3, 2, 1])
    every = np.repeat(np.arange(5), times)
    for loss in (SoftmaxCrossEntropy(0.1, (1.0, 2.0, 0.5, 3.0)), SoftmaxCrossEntropy(ignore=1), MeanSquaredError()):
        value, dz = loss_and_gradient(loss, z, labels, loss.total(labels, times.astype(float)), times.astype(float))
        repeated, dz_of_each = loss_and_gradient(loss, z[every], labels[every], loss.total(labels[every]))
        assert value == pytest.approx(repeated, rel=1e-13)
        assert_close(dz, np.stack([dz_of_each[every == example].sum(axis=0) for example in range(5)]), 1e-14)


@pytest.mark.parametrize("logit", [1e3, 1e30, np.finfo(np.float32).max / 4])
def test_losses_of_huge_values_are_finite(logit: float) -> None:
    z = np.array([[logit, -logit]], np.float32)
    for loss, slopes in (
        (MeanAbsoluteError(), [1, -1]),
        (Huber(2.0), [2, -2]),
        (BinaryCrossEntropy(), [1, 0]),
    ):
        value, dz = loss.value_and_gradient(z, np.zeros((1, 2)), 1)
        assert np.isfinite(value)
        assert dz.tolist() == [slopes]
        assert dz.dtype == np.float32


def test_the_slope_of_binary_cross_entropy_keeps_its_digits_where_it_is_small() -> None:
    _, dz = BinaryCrossEntropy().value_and_gradient(np.array([[-50.0, 50.0]]), np.array([[0.0, 1.0]]), 1)
    np.testing.assert_allclose(dz, [[np.exp(-50), -np.exp(-50)]], rtol=1e-14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Huber(0), "Huber: delta: expected a finite number above 0, got 0"),
        (lambda: SoftmaxCrossEntropy(class_weights=[1, -1]), "SoftmaxCrossEntropy: class_weights: expected finite"),
        (lambda: SoftmaxCrossEntropy(ignore=cast(Any, 0.5)), "SoftmaxCrossEntropy: ignore: expected a whole number"),
        (lambda: BinaryCrossEntropy(-1), "BinaryCrossEntropy: pos_weight: expected finite numbers of at least 0"),
        (lambda: BinaryCrossEntropy(cast(Any, "2")), "BinaryCrossEntropy: pos_weight: expected finite numbers"),
        (
            lambda: SoftmaxCrossEntropy(class_weights=[1, 2]).value_and_gradient(normal(2, 4), np.array([0, 1]), 2),
            "SoftmaxCrossEntropy: class_weights: expected 4 numbers, one per output, got 2",
        ),
        (
            lambda: BinaryCrossEntropy([1, 2]).value_and_gradient(normal(2, 4), np.zeros((2, 4)), 2),
            "BinaryCrossEntropy: pos_weight: expected a number for each of (4,) outputs, got 2",
        ),
        (
            lambda: BinaryCrossEntropy().value_and_gradient(normal(2, 4), np.full((2, 4), 255), 2),
            "BinaryCrossEntropy: targets: expected numbers from 0 to 1, got 255 to 255",
        ),
        (
            lambda: Huber().value_and_gradient(normal(2, 4), normal(2), 2),
            "Huber: targets: expected (2, 4), got (2,)",
        ),
    ],
)
def test_losses_with_invalid_options_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "loss",
    [SoftmaxCrossEntropy(0.1, [1, np.float64(2.5)], -1), BinaryCrossEntropy([1, 2]), Huber(0.1), MeanAbsoluteError()],
)
def test_losses_are_stored_with_their_options(loss: Loss) -> None:
    assert restore(json.loads(json.dumps(describe(loss)))) == loss
