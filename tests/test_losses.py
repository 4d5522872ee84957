"""Losses: values against their formulas, gradients that belong to them, and what they refuse."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import assert_close, normal
from scipy.special import log_softmax
from scipy.special import softmax as scipy_softmax

from lowered_cnn import InputError, MeanSquaredError, SoftmaxCrossEntropy, softmax
from lowered_cnn.arrays import Shape
from lowered_cnn.losses import Loss
from lowered_cnn.verify.differences import relative_error

LABELS = np.array([2, 0, 1, 1, 3])
TARGETS = normal(5, 4, seed=9)

EACH = pytest.mark.parametrize(
    ("loss", "targets"),
    [(SoftmaxCrossEntropy(), LABELS), (MeanSquaredError(), TARGETS), (MeanSquaredError(), LABELS)],
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
