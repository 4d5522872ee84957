"""Batch normalization: beside PyTorch, folded, its statistics over shards and workers; and means far from 0."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from running import as_images, assert_close, disturbed, normal, run

from lowered_cnn import (
    SGD,
    BatchNorm,
    Constant,
    Conv1D,
    Conv2D,
    Dataset,
    Dense,
    Flatten,
    InputError,
    Layer,
    LayerNorm,
    MaxPool,
    Network,
    Recipe,
    ReLU,
    Sequential,
    load,
    save,
    train,
)
from lowered_cnn.arrays import Array, Shape

LAYERS = Sequential(
    Conv2D(6, 3, padding=1, bias=False), BatchNorm(), ReLU(), MaxPool(2),
    Conv2D(17, 3, padding=1), BatchNorm(momentum=0.3), Conv2D(16, 3, 2), BatchNorm(epsilon=0.1), ReLU(),
    Flatten(), Dense(5, bias=False), BatchNorm(), Dense(3),
)  # fmt: skip


@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (4, 7, 3), (2, 3, 2, 2, 4), (5, 8)])
def test_it_is_pytorchs(shape: Shape, torch: Any) -> None:
    x, dy = normal(*shape), normal(*shape, seed=1)
    weight, bias = normal(shape[0], seed=2), normal(shape[0], seed=3)
    ours = run(BatchNorm(), x, dy, weight=weight, bias=bias)
    kinds = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d, 5: torch.nn.BatchNorm3d}
    theirs = kinds[len(shape)](shape[0], dtype=torch.float64)
    theirs.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)}, strict=False)
    images = torch.tensor(as_images(x).copy(), requires_grad=True)
    y = theirs(images)
    y.backward(torch.tensor(as_images(dy).copy()))
    assert_close(as_images(ours.y), y.detach().numpy(), 1e-12)
    assert_close(as_images(ours.dx), images.grad.numpy(), 1e-12)
    assert_close(ours.gradients["batch_norm1.weight"], theirs.weight.grad.numpy(), 1e-12)
    assert_close(ours.gradients["batch_norm1.bias"], theirs.bias.grad.numpy(), 1e-12)
    # By how much the statistics are off, times the examples: subtracted, it leaves those of PyTorch.
    examples = shape[-1]
    assert_close(-ours.gradients["batch_norm1.running_mean"] / examples, theirs.running_mean.numpy(), 1e-12)
    assert_close(1 - ours.gradients["batch_norm1.running_var"] / examples, theirs.running_var.numpy(), 1e-12)


def test_a_channel_has_mean_0_and_variance_1() -> None:
    y = run(BatchNorm(epsilon=1e-12), 3 + 2 * normal(4, 5, 6, 7)).y
    np.testing.assert_allclose(y.mean(axis=(1, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=(1, 2, 3)), 1, rtol=1e-9)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (LAYERS, (1, 14, 14)),
        (Sequential(Conv1D(4, 3, 2, groups=2), BatchNorm(), Flatten(), Dense(2)), (2, 9)),
        (Sequential(Conv2D(16, 3), BatchNorm(), BatchNorm(), ReLU(), Conv2D(4, 2)), (16, 6, 8)),
    ],
)
def test_folding_changes_nothing(layer: Sequential, shape: Shape) -> None:
    network, images = disturbed(layer, shape, np.float64), normal(4, *shape)
    plain = network.lower(4, training=False, fused=False)
    folded = network.lower(4, training=False)
    assert_close(folded.forward(images), plain.forward(images), 1e-12)
    network.parameters.vector *= 1.1  # what was lowered follows the parameters
    assert_close(folded.forward(images), plain.forward(images), 1e-12)
    training, readable = network.lower(4), network.lower(4, fused=False)
    assert_close(training.forward(images), readable.forward(images), 1e-12)


def test_inference_is_the_equation() -> None:
    network = disturbed(Sequential(BatchNorm(epsilon=0.5)), (3, 2, 2), np.float64)
    p, images = network.parameters, normal(2, 3, 2, 2)
    weight, bias, mean, variance = (
        p[f"batch_norm1.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
    )
    expected = [weight[c] * (images[:, c] - mean[c]) / np.sqrt(variance[c] + 0.5) + bias[c] for c in range(3)]
    assert_close(network.predict(images), np.stack(expected, axis=1), 1e-13)


def data(count: int) -> Dataset:
    images = (2 + 3 * normal(count, 2, 4, 4)).astype(np.float32)
    return Dataset(images, np.arange(count) % 2, ("even", "odd"))


MODEL = Sequential(BatchNorm(momentum=0.25), Flatten(), Dense(2))


@pytest.mark.parametrize("sizes", [(15, 14), (44, 43, 43)])
def test_the_statistics_are_the_mean_over_the_shards_of_a_batch(sizes: tuple[int, ...]) -> None:
    """Each shard counts as its examples do; the first step's order is that of epoch 1."""
    batch = data(sum(sizes))
    network = Network(MODEL, (2, 4, 4))
    list(train(network, batch, Recipe(1, len(batch), SGD(learning_rate=1e-3, l2=0.5), Constant())))
    order = np.random.default_rng([0, 1]).permutation(len(batch))
    parts = [batch.images[part] for part in np.split(order, np.cumsum(sizes)[:-1])]
    mean = np.average([part.mean(axis=(0, 2, 3)) for part in parts], axis=0, weights=sizes)
    variance = np.average([part.var(axis=(0, 2, 3), ddof=1) for part in parts], axis=0, weights=sizes)
    np.testing.assert_allclose(network.parameters["batch_norm1.running_mean"], 0.25 * mean, rtol=1e-5)
    np.testing.assert_allclose(network.parameters["batch_norm1.running_var"], 0.75 + 0.25 * variance, rtol=1e-5)


def test_the_running_statistics_come_to_be_those_of_the_data() -> None:
    everything = data(64)
    network = Network(MODEL, (2, 4, 4))
    list(train(network, everything, Recipe(40, 64, SGD(1e-3), Constant())))
    mean, variance = everything.images.mean(axis=(0, 2, 3)), everything.images.var(axis=(0, 2, 3))
    np.testing.assert_allclose(network.parameters["batch_norm1.running_mean"], mean, rtol=0.05)
    np.testing.assert_allclose(network.parameters["batch_norm1.running_var"], variance, rtol=0.1)


def test_no_optimizer_touches_the_statistics() -> None:
    network = Network(MODEL, (2, 4, 4))
    assert len(network.parameters.learned) == len(network.parameters.decays()) == 4 + 66
    assert network.parameters.statistics.tolist() == [0, 0, 1, 1]
    assert list(network.parameters)[-2:] == ["batch_norm1.running_mean", "batch_norm1.running_var"]
    assert network.parameters.decays()[:4].tolist() == [0, 0, 0, 0]


def test_it_is_saved_with_its_statistics(tmp_path: Any) -> None:
    network = disturbed(LAYERS, (1, 14, 14), np.float64)
    save(network, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.parameters.vector, network.parameters.vector)
    assert again.model == LAYERS


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BatchNorm(momentum=0), "BatchNorm: momentum: expected a number above 0 and at most 1, got 0"),
        (lambda: BatchNorm(epsilon=-1), "BatchNorm: epsilon: expected a number above 0, got -1"),
    ],
)
def test_what_makes_no_sense_is_told(make: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message


def test_a_shard_of_one_number_a_channel_is_its_bias_and_leaves_the_variance() -> None:
    ours = run(BatchNorm(), normal(3, 1), weight=normal(3), bias=np.array([1.0, 2, 3]))
    assert ours.y.ravel().tolist() == [1, 2, 3]
    assert ours.dx.ravel().tolist() == [0, 0, 0]
    assert ours.gradients["batch_norm1.running_var"].tolist() == [0, 0, 0]
    np.testing.assert_allclose(ours.gradients["batch_norm1.running_mean"], -0.1 * normal(3, 1).ravel())


def test_one_example_of_several_positions_is_enough() -> None:
    layer: Layer = BatchNorm()
    ours: Array = run(layer, normal(2, 3, 3, 1)).y
    assert np.isfinite(ours).all()


# --- means far from 0 ------------------------------------------------------------------------------------------------


def far_from_zero(mean: float, shape: Shape) -> Array:
    return (normal(*shape) + mean).astype(np.float32)


def normalized(x: Array, axes: int | tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return x with mean 0 and variance 1, in float64."""
    wide = x.astype(np.float64)
    deviation = np.sqrt(wide.var(axis=axes, keepdims=True) + 1e-5)
    z: npt.NDArray[np.float64] = (wide - wide.mean(axis=axes, keepdims=True)) / deviation
    return z


means = pytest.mark.parametrize("mean", [0.0, 1.0, 100.0, 1e3, 1e4, -1e5])
shapes = pytest.mark.parametrize("shape", [(64, 10, 10, 32), (16, 26, 26, 16), (7, 3, 3, 4), (32, 40)])


@means
@shapes
def test_batch_normalization_far_from_zero_is_as_exact_as_near(mean: float, shape: Shape) -> None:
    x = far_from_zero(mean, shape)
    axes = tuple(range(1, len(shape)))
    exact = normalized(x, axes)
    ours = run(BatchNorm(momentum=1.0), x)
    assert np.abs(ours.y - exact).max() <= 1e-6
    measured = -ours.gradients["batch_norm1.running_mean"] / shape[-1]
    np.testing.assert_allclose(measured, x.mean(axis=axes, dtype=np.float64), rtol=2.5e-7, atol=1e-7)
    measured = 1 - ours.gradients["batch_norm1.running_var"] / shape[-1]
    np.testing.assert_allclose(measured, x.var(axis=axes, dtype=np.float64, ddof=1), rtol=1e-6)


@means
@shapes
def test_layer_normalization_far_from_zero_is_as_exact_as_near(mean: float, shape: Shape) -> None:
    x = far_from_zero(mean, shape)
    assert np.abs(run(LayerNorm(), x).y - normalized(x, 0)).max() <= 1e-6


@pytest.mark.parametrize("mean", [0.0, 1.0, 100.0, 1e3, 1e4])
def test_normalizations_are_as_exact_as_pytorchs(mean: float) -> None:
    """Near 0 both are within a unit or two in the last place of the largest number, 4."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = far_from_zero(mean, (64, 10, 10, 32))
    batch = torch.nn.BatchNorm2d(64)(torch.tensor(as_images(x).copy())).detach().numpy()
    layer = torch.nn.functional.layer_norm(torch.tensor(np.moveaxis(x, 0, -1).copy()), (64,)).numpy()
    for ours, theirs, exact in (
        (run(BatchNorm(), x).y, np.moveaxis(batch, 0, -1), normalized(x, (1, 2, 3))),
        (run(LayerNorm(), x).y, np.moveaxis(layer, -1, 0), normalized(x, 0)),
    ):
        error, other = (np.abs(y - exact).max() for y in (ours, theirs))
        assert error <= max(other / 10 if mean >= 100 else other, 8 * 2.0**-23)


def test_a_channel_of_one_number_is_its_bias() -> None:
    for number in (0.0, 1e-30, 0.1, 12345.678, 1e15):
        x = np.full((3, 9, 9, 5), number, np.float32)
        assert np.abs(run(BatchNorm(), x).y).max() <= 1e-30 * number
        assert np.abs(run(LayerNorm(), x).y).max() <= 1e-30 * number
