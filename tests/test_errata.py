"""The nine faults of the code that came with the derivation, one test each: none of them may come back."""

import itertools

import numpy as np
import pytest
from running import assert_close, normal, run

from lowered_cnn import AvgPool, Conv2D, MaxPool, SoftmaxCrossEntropy, softmax
from lowered_cnn.arrays import Array, Shape
from lowered_cnn.data.batches import batches
from lowered_cnn.verify import direct
from lowered_cnn.verify.differences import relative_error

UNIT = (1, 1)


def cost(z: Array, labels: Array) -> float:
    """J of S9 as it is written: -1/m sum over examples of log Y^[label]."""
    powers = np.exp(z)
    chosen = powers[np.arange(len(labels)), labels] / powers.sum(axis=1)
    return float(-np.log(chosen).mean())


def test_1_average_pooling_takes_the_mean_over_height_and_width() -> None:
    """Fault: the mean went over the wrong axes (width blocks, then channels): wrong shape or silently wrong values."""
    x = normal(3, 4, 8, 2)
    y = run(AvgPool(2), x).y
    assert y.shape == (3, 2, 4, 2)
    for c, i, j, n in np.ndindex(y.shape):
        assert y[c, i, j, n] == pytest.approx(x[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, n].mean(), rel=1e-14)


def test_2_a_tie_gets_the_gradient_once() -> None:
    """Fault: the mask marked every element close to the maximum: a patch of zeros got the gradient four times."""
    dx = run(MaxPool(2), np.zeros((1, 2, 2, 1)), np.full((1, 1, 1, 1), 3.0)).dx
    assert dx.ravel().tolist() == [3, 0, 0, 0]
    near = np.array([1.0, 1.0 + 1e-12, 1.0, 1.0]).reshape(1, 2, 2, 1)
    assert run(MaxPool(2), near).dx.ravel().tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
def test_3_same_padding_is_right_for_every_kernel(kernel: int) -> None:
    """Fault: right only for odd filters larger than 1; f = 1 gave an empty array, even f the wrong size."""
    size, square = (5, 6), (kernel, kernel)
    slide = direct.Slide(square, UNIT, direct.same_padding(size, square, UNIT, UNIT), UNIT)
    x, weight, dy = normal(2, *size, 3), normal(2, 2, *square), normal(2, *size, 3, seed=1)
    ours = run(Conv2D(2, kernel, padding="same", bias=False), x, dy, weight=weight)
    assert_close(ours.y, direct.forward(x, weight, np.zeros(2), slide))
    assert_close(ours.dx, direct.gradients(dy, x, weight, slide)[0])


def test_4_the_gradient_is_zero_outside_its_range() -> None:
    """Fault: a routine's own border (not zero) had to be cropped away, in a loop over examples and channels.

    With filter and dZ of ones, dX counts the windows over each input: fewer in the corners and at the edges.
    """
    x, ones = np.zeros((1, 4, 5, 1)), np.ones((1, 1, 3, 3))
    same = run(Conv2D(1, 3, padding="same", bias=False), x, weight=ones).dx
    assert same[0, ..., 0].tolist() == np.outer([2, 3, 3, 2], [2, 3, 3, 3, 2]).tolist()
    valid = run(Conv2D(1, 3, bias=False), x, weight=ones).dx
    assert valid[0, ..., 0].tolist() == np.outer([1, 2, 2, 1], [1, 2, 3, 2, 1]).tolist()


def test_5_softmax_survives_large_logits_and_sums_to_1() -> None:
    """Fault: shifted by the mean, not the maximum (NaN for large logits), then 1e-8 added, so rows did not sum to 1."""
    z = np.array([[1000, -1000, -1000], [-1000, -1000, 1000], [0, 0, 0]], np.float32)
    np.testing.assert_array_equal(softmax(z).sum(axis=1), np.ones(3, np.float32))
    np.testing.assert_array_equal(softmax(z)[:2], np.array([[1, 0, 0], [0, 0, 1]], np.float32))
    value, dz = SoftmaxCrossEntropy().value_and_gradient(z, np.array([0, 0, 0]), m=1)
    assert value == pytest.approx(2000 + np.log(3))
    assert np.isfinite(dz).all()
    np.testing.assert_allclose(dz.sum(axis=1), 0, atol=1e-7)


def test_6_the_gradient_check_sees_an_error_of_one_percent() -> None:
    """Fault: the check tolerated a relative error of 10, and averaged signed differences, so that errors cancelled."""
    z, labels = normal(5, 4), np.array([0, 3, 1, 2, 1])
    right = SoftmaxCrossEntropy().value_and_gradient(z, labels, 5)[1]
    one_percent = 1.01 * right
    opposite = right.copy()
    opposite[1, 0] += 0.01 * np.abs(right).mean()
    opposite[3, 2] -= 0.01 * np.abs(right).mean()
    assert relative_error(lambda at: cost(at, labels), z, right) < 1e-9
    assert relative_error(lambda at: cost(at, labels), z, one_percent) > 1e-3
    assert relative_error(lambda at: cost(at, labels), z, opposite) > 1e-4


@pytest.mark.parametrize("size", [(5, 8), (7, 7), (4, 9), (3, 2)])
@pytest.mark.parametrize("layer", [MaxPool(2), AvgPool(2)])
def test_7_pooling_takes_odd_and_oblong_inputs(layer: MaxPool | AvgPool, size: Shape) -> None:
    """Fault: pooling silently needed even, square inputs."""
    x = normal(2, *size, 1)
    ours = run(layer, x)
    best = np.max if isinstance(layer, MaxPool) else np.mean
    for c, i, j, n in np.ndindex(2, size[0] // 2, size[1] // 2, 1):
        assert ours.y[c, i, j, n] == pytest.approx(best(x[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, n]), rel=1e-14)
    assert ours.dx.shape == x.shape


def test_7_every_epoch_visits_every_example_in_a_new_order() -> None:
    """Fault: the last partial batch was dropped, and the data were never reshuffled."""
    epochs = [list(batches(10, 4, seed=0, epoch=epoch)) for epoch in range(3)]
    for epoch in epochs:
        assert [len(batch) for batch in epoch] == [4, 4, 2]
        assert sorted(np.concatenate(epoch)) == list(range(10))
    for one, other in itertools.combinations(epochs, 2):
        assert not np.array_equal(np.concatenate(one), np.concatenate(other))


def test_8_the_mean_over_examples_is_taken_once() -> None:
    """Fault: J has the factor 1/m, dW and db applied it, and dZ did not have it. Ours is applied in the loss alone."""
    z, labels = normal(6, 4), np.array([0, 3, 1, 2, 1, 1])
    value, dz = SoftmaxCrossEntropy().value_and_gradient(z, labels, 6)
    assert value == pytest.approx(cost(z, labels), rel=1e-14)
    assert relative_error(lambda at: cost(at, labels), z, dz) < 1e-9


def test_8_the_gradient_of_a_filter_has_the_same_single_factor() -> None:
    """Fault: as above, seen from the filter's gradient: it is the derivative of J as it is."""
    x, weight, labels = normal(2, 3, 3, 6), normal(4, 2, 3, 3), np.array([0, 3, 1, 2, 1, 1])

    def logits(at: Array) -> Array:
        return run(Conv2D(4, 3, bias=False), x, weight=at).y.reshape(4, 6).T

    _, dz = SoftmaxCrossEntropy().value_and_gradient(logits(weight), labels, 6)
    ours = run(Conv2D(4, 3, bias=False), x, dz.T.reshape(4, 1, 1, 6), weight=weight)
    assert relative_error(lambda at: cost(logits(at), labels), weight, ours.gradients["conv1.weight"]) < 1e-9


def test_9_the_input_gradient_sums_over_all_filters() -> None:
    """Fault: the middle form of the dX equation dropped the filter's index k from W."""
    weight, dy = normal(3, 2, 1, 1), normal(3, 4, 5, 2)
    dx = run(Conv2D(3, 1, bias=False), np.zeros((2, 4, 5, 2)), dy, weight=weight).dx
    for c in range(2):
        assert_close(dx[c], weight[0, c] * dy[0] + weight[1, c] * dy[1] + weight[2, c] * dy[2], 1e-14)
