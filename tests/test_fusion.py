"""The fast room: fused layers against the same layers one by one, and their convolutions against plain loops."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from running import as_activation, as_images, assert_close, normal

from lowered_cnn import BatchNorm, Conv1D, Conv2D, Dense, Dropout, Flatten, Layer, MaxPool, Network, ReLU, Sequential
from lowered_cnn.arrays import Array, Shape
from lowered_cnn.fusion import fuse
from lowered_cnn.fusion.fused import FusedConv
from lowered_cnn.fusion.patches import LONG_SUM, SHORT_RUN
from lowered_cnn.gemm import multiply, multiply_a_bt, multiply_at_b
from lowered_cnn.models import MODELS
from lowered_cnn.network import LoweredNetwork
from lowered_cnn.verify import direct

BLOCKS = st.sampled_from([1, 3000, 20_000, None])
AFTER: list[tuple[Layer, ...]] = [
    (),
    (ReLU(),),
    (MaxPool(2),),
    (ReLU(), MaxPool(2)),
    (MaxPool(2), ReLU()),
    (ReLU(), MaxPool((3, 2)), ReLU()),
    (MaxPool((1, 3)),),
    (MaxPool((4, 1)), ReLU()),
]


def passes(lowered: LoweredNetwork, images: Array, seed: int = 5) -> tuple[Array, Array, Array]:
    """Return outputs, dX and all parameters' gradients."""
    y = lowered.forward(images, position=(0,)).copy()
    dx = lowered.backward(normal(*y.shape, seed=seed).astype(y.dtype))
    assert dx is not None
    return y, dx.copy(), lowered.gradients.vector.copy()


def assert_fusion_changes_nothing(
    model: Sequential, shape: Shape, batch: int, block_bytes: int | None, dtype: Any = np.float64
) -> None:
    network = Network(model, shape, dtype=dtype)
    network.parameters.vector += 0.1 * normal(network.parameters.vector.size)
    images = normal(batch, *shape)
    plain = passes(network.lower(batch, wants_dx=True, fused=False), images)
    lowered = network.lower(batch, wants_dx=True, block_bytes=block_bytes)
    for fused, expected in zip(passes(lowered, images), plain, strict=True):
        assert_close(fused, expected, 1e-12 if dtype == np.float64 else 2e-5)
    for again, expected in zip(passes(lowered, images), plain, strict=True):
        assert_close(again, expected, 1e-12 if dtype == np.float64 else 2e-5)
    if not len(network.parameters.statistics):  # with them, inference is another function
        inference = network.lower(batch, training=False, block_bytes=block_bytes)
        assert_close(inference.forward(images), plain[0], 1e-12 if dtype == np.float64 else 2e-5)


@given(
    channels=st.integers(1, 3),
    filters=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.one_of(st.just("same"), st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2)),
    after=st.sampled_from(AFTER),
    bias=st.booleans(),
    size=st.tuples(st.integers(7, 10), st.integers(7, 10)),
    batch=st.integers(1, 3),
    block_bytes=BLOCKS,
)
@example(1, 1, (4, 4), ((3, 3), (3, 3)), AFTER[5], False, (7, 7), 1, 1)
def test_rows_give_what_the_layers_give_one_by_one(
    channels: int,
    filters: int,
    kernel: Shape,
    padding: Any,
    after: tuple[Layer, ...],
    bias: bool,
    size: Shape,
    batch: int,
    block_bytes: int | None,
) -> None:
    model = Sequential(Conv2D(filters, kernel, padding=padding, bias=bias), *after)
    assert_fusion_changes_nothing(model, (channels, *size), batch, block_bytes)


@given(
    padding=st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
    after=st.sampled_from(AFTER),
    bias=st.booleans(),
    size=st.tuples(st.integers(6, 11), st.integers(6, 11)),
    block_bytes=BLOCKS,
)
def test_winograds_products_give_what_the_layers_give_one_by_one(
    padding: Any, after: tuple[Layer, ...], bias: bool, size: Shape, block_bytes: int | None
) -> None:
    model = Sequential(Conv2D(17, 3, padding=padding, bias=bias), *after)
    assert_fusion_changes_nothing(model, (16, *size), 2, block_bytes)


@pytest.mark.parametrize("patch", [(1, 3), (2, 2), (3, 2), (1, 1)])
@pytest.mark.parametrize("block_bytes", [1, None])
def test_products_of_whole_rows_give_what_the_layers_give_one_by_one(patch: Shape, block_bytes: int | None) -> None:
    model = Sequential(Conv2D(5, 3), MaxPool(patch), ReLU())
    assert_fusion_changes_nothing(model, (LONG_SUM // 9 + 1, 8, SHORT_RUN + 4), 1, block_bytes)


@pytest.mark.parametrize("batch", [1, 40])
def test_prediction_follows_the_parameters_and_an_activation_elsewhere_in_memory(batch: int) -> None:
    network = Network(Sequential(Conv2D(16, 5), BatchNorm(), ReLU(), Conv2D(16, 3), MaxPool(2)), (1, 12, 12))
    plain, fused = (network.lower(batch, training=False, fused=form) for form in (False, True))
    for seed in range(3):
        network.parameters.vector += 0.1 * np.abs(normal(network.parameters.vector.size, seed=seed))
        x = normal(1, 12, 12, batch, seed=seed).astype(np.float32)
        assert_close(fused.layers.forward(x), plain.layers.forward(x), 2e-5)
        x *= 2
        assert_close(fused.layers.forward(x), plain.layers.forward(x), 2e-5)


@pytest.mark.parametrize("padding", [((9, 0), (4, 1)), ((4, 1), (9, 0)), ((9, 2), (8, 3)), ((0, 9), (0, 9))])
@pytest.mark.parametrize("patch", [(6, 2), (2, 6), (2, 2), (4, 4)])
def test_a_pool_may_drop_all_that_is_not_padding(padding: Any, patch: Shape) -> None:
    model = Sequential(Conv2D(17, 3, padding=padding), MaxPool(patch))
    assert_fusion_changes_nothing(model, (16, 4, 5), 2, None)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", [(0, 0), (3, 3), (4, 7)])
def test_outputs_that_do_not_see_an_infinite_pixel_stay_what_they_are(value: float, place: Shape) -> None:
    network = Network(Sequential(Conv2D(16, 3, padding=1)), (16, 8, 8))
    images = normal(16, 16, 8, 8).astype(np.float32)
    finite = network.predict(images)
    images[0, 3, *place] = value
    with np.errstate(invalid="ignore"):
        fused, plain = network.predict(images), network.lower(16, training=False, fused=False).forward(images)
    seen = ~np.isfinite(fused)
    assert 0 < seen.sum() < seen[0].size
    assert seen.sum() == (~np.isfinite(plain)).sum()
    np.testing.assert_array_equal(fused[~seen], finite[~seen])
    assert np.isnan(fused).any()


def test_winograds_numbers_overflow_later_than_its_bound_says() -> None:
    """Up to 64 C g x: overflow raises in the tests. Beyond, the plain form may still do.

    With fewer than 16 examples, prediction would not use Winograd's form.
    """
    network = Network(Sequential(Conv2D(16, 3, padding=1, bias=False)), (16, 8, 8))
    weight, largest = network.parameters["conv1.weight"], float(np.finfo(np.float32).max)
    for seed in range(20):
        weight[...] = 0.1 * np.sign(normal(*weight.shape, seed=seed))
        signs = np.sign(normal(16, 16, 8, 8, seed=seed))
        network.predict((0.999 * largest / (64 * 16 * 0.1) * signs).astype(np.float32))
    weight[...] = 1e-3
    images = np.resize(np.array([2e38, 2e38, -2e38, -2e38], np.float32), (16, 16, 8, 8))
    assert np.isfinite(network.lower(16, training=False, fused=False).forward(images)).all()
    with pytest.raises(FloatingPointError, match="overflow"):
        network.predict(images)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_fusion_changes_no_value_and_no_gradient_of_the_named_networks(name: str, dtype: Any) -> None:
    assert_fusion_changes_nothing(MODELS[name](), (1, 28, 28), 4, 100_000, dtype)


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "filters"), [(3, 4), (16, 18)])
@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((2, 0), (0, 2))])
def test_both_lowerings_are_the_convolution_of_plain_loops(channels: int, filters: int, padding: Any) -> None:
    network = Network(Sequential(Conv2D(filters, 3, padding=padding)), (channels, 6, 8), dtype=np.float64)
    x, weight = normal(channels, 6, 8, 2), network.parameters["conv1.weight"]
    slide = direct.Slide((3, 3), (1, 1), padding, (1, 1))
    lowered = network.lower(2, wants_dx=True)
    y = as_activation(lowered.forward(as_images(x)))
    assert_close(y, direct.forward(x, weight, network.parameters["conv1.bias"], slide))
    dy = normal(*y.shape)
    dx = lowered.backward(as_images(dy))
    assert dx is not None
    expected = direct.gradients(dy, x, weight, slide)
    for got, wanted in zip(
        (as_activation(dx), lowered.gradients["conv1.weight"], lowered.gradients["conv1.bias"]), expected, strict=True
    ):
        assert_close(got, wanted)


def test_among_equal_maxima_the_first_in_row_major_order_gets_the_gradient() -> None:
    network = Network(Sequential(Conv2D(1, 1, bias=False), MaxPool(2)), (1, 2, 2), dtype=np.float64)
    network.parameters["conv1.weight"][...] = 1
    for mask in range(1, 16):
        x = np.array([(mask >> tap) & 1 for tap in range(4)], np.float64).reshape(1, 1, 2, 2)
        lowered = network.lower(1, wants_dx=True)
        lowered.forward(x)
        dx = lowered.backward(np.ones((1, 1, 1, 1)))
        assert dx is not None
        assert np.flatnonzero(dx).tolist() == [x.argmax()]


def test_relu_at_0_lets_no_gradient_through() -> None:
    network = Network(Sequential(Conv2D(1, 1, bias=False), ReLU()), (1, 1, 3), dtype=np.float64)
    network.parameters["conv1.weight"][...] = 1
    lowered = network.lower(1, wants_dx=True)
    lowered.forward(np.array([-1.0, 0.0, 2.0]).reshape(1, 1, 1, 3))
    dx = lowered.backward(np.ones((1, 1, 1, 3)))
    assert dx is not None
    assert dx.ravel().tolist() == [0, 0, 1]


def test_what_is_fused_and_what_is_left_alone() -> None:
    strided, overlapping = Conv2D(4, 3, stride=2), MaxPool(3, stride=2)
    model = Sequential(
        Conv2D(4, 3), ReLU(), MaxPool(2), ReLU(), ReLU(), strided, ReLU(),
        Sequential(Conv2D(4, 3), overlapping), Dropout(0.5), Conv2D(2, 1, groups=2), Flatten(), Dense(3),
    )  # fmt: skip
    inner = Sequential({"conv1": FusedConv(Conv2D(4, 3), None, False), "max_pool1": overlapping})
    assert fuse(model, fold=False) == Sequential({
        "conv1": FusedConv(Conv2D(4, 3), MaxPool(2), True), "relu3": ReLU(), "conv2": strided, "relu4": ReLU(),
        "sequential1": inner, "dropout1": Dropout(0.5), "conv3": Conv2D(2, 1, groups=2),
        "flatten1": Flatten(), "dense1": Dense(3),
    })  # fmt: skip
    plain = Sequential(Conv1D(3, 2), ReLU())
    assert fuse(plain, fold=False).layers == plain.layers


def test_a_batch_normalization_is_folded_for_inference_only() -> None:
    conv, norm = Conv2D(4, 3, bias=False), BatchNorm()
    model = Sequential(conv, norm, ReLU(), MaxPool(2), Conv2D(2, 1), ReLU(), BatchNorm())
    training, inference = fuse(model, fold=False), fuse(model, fold=True)
    assert training.names == ("conv1", "batch_norm1", "relu1", "max_pool1", "conv2", "batch_norm2")
    assert inference.names == ("conv1", "conv2", "batch_norm2")
    assert inference.layers[0] == FusedConv(conv, MaxPool(2), True, ("batch_norm1", norm))


@pytest.mark.parametrize(("m", "k", "n"), [(16, 150, 640), (20, 25, 3072), (50, 500, 256), (7, 11, 13), (1, 1, 1)])
def test_products_cut_for_small_blocks_are_the_products(m: int, k: int, n: int) -> None:
    a, b, c = normal(2, m, k), normal(2, k, n), normal(2, m, n)
    forward, dweight, dx = np.empty((2, m, n)), np.empty((2, m, k)), np.empty((2, k, n))
    multiply("forward", a, b, out=forward)
    multiply_a_bt("dweight", c, b, out=dweight)
    multiply_at_b("dx", a, c, out=dx)
    assert_close(forward, np.einsum("gmk,gkn->gmn", a, b))
    assert_close(dweight, np.einsum("gmn,gkn->gmk", c, b))
    assert_close(dx, np.einsum("gmk,gmn->gkn", a, c))


def drawn_convolution(seed: int) -> tuple[Conv2D, Shape, int]:
    """Draw a convolution of any kind that prediction has a lowering for, its input shape and a number of examples."""
    generator = np.random.default_rng(seed)
    channels, depthwise = int(generator.integers(1, 20)), bool(generator.random() < 0.5)
    groups = channels if depthwise else int(generator.choice([g for g in (1, 1, 2, 3) if channels % g == 0]))
    lengths = [tuple(int(n) for n in generator.integers(1, most, 2)) for most in (5, 4, 3)]
    padding = tuple(tuple(int(n) for n in generator.integers(0, 3, 2)) for _ in range(2))
    filters = channels if depthwise else groups * int(generator.integers(1, 20))
    conv = Conv2D(filters, lengths[0], lengths[1], padding, lengths[2], groups, bool(generator.random() < 0.5))
    size = tuple(int(n) for n in generator.integers(7, 12, 2))
    return conv, (channels, *size), int(generator.choice([1, 2, 9]))


WITH_ENOUGH_POSITIONS = [
    (Conv2D(17, 3, padding=1), (16, 8, 8), 17),
    (Conv2D(17, 3, padding=((0, 2), (1, 0))), (16, 8, 9), 16),
    (Conv2D(3, (3, 2), padding=1, bias=False), (2, 9, 9), 20),
]
"""Here prediction uses the same lowerings as training: Winograd's twice, and rows."""


@pytest.mark.parametrize("seed", range(80 + 4 * len(WITH_ENOUGH_POSITIONS)))
def test_lowerings_for_prediction_give_what_the_layers_give_one_by_one(seed: int) -> None:
    conv, shape, batch = drawn_convolution(seed) if seed < 80 else WITH_ENOUGH_POSITIONS[(seed - 80) // 4]
    after: list[Layer] = [BatchNorm(), ReLU(), MaxPool((2, 1))]
    network = Network(Sequential(conv, *after[: seed % 4]), shape, dtype=np.float64)
    generator = np.random.default_rng(seed)
    network.parameters.vector[...] = generator.standard_normal(network.parameters.vector.size)
    for parameter in network.parameters.parameters:
        if parameter.name.endswith("running_var"):
            np.abs(network.parameters[parameter.name], out=network.parameters[parameter.name])
    plain = network.lower(batch, training=False, fused=False)
    for block_bytes in (1, 2000, None):
        fused = network.lower(batch, training=False, block_bytes=block_bytes)
        for examples in (normal(batch, *shape), normal(batch, *shape, seed=1)):
            assert_close(fused.forward(examples), plain.forward(examples), 1e-12)
            fused.forward(np.full_like(examples, np.nan))  # must leave nothing behind
