"""Networks: names, seeds, the public door, what is lowered for whom, and PyTorch as a witness."""

import copy
import gc
import pickle
import tracemalloc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from running import assert_close, normal

from lowered_cnn import (
    AvgPool,
    Conv1D,
    Conv2D,
    Conv3D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    InputError,
    Layer,
    MaxPool,
    Network,
    Pad,
    ReLU,
    Residual,
    Sequential,
    SoftmaxCrossEntropy,
    load,
    save,
    trace,
)
from lowered_cnn.arrays import Array, Images, Shape
from lowered_cnn.gemm import listen
from lowered_cnn.layers.container import LEVELS
from lowered_cnn.network import LoweredNetwork

IMAGE = (2, 9, 8)
LABELS = np.array([0, 3, 2, 3, 1])


def small() -> Sequential:
    return Sequential(
        Conv2D(4, 3, padding="same"), ReLU(), MaxPool(2),
        Sequential(Conv2D(6, (2, 3), bias=False), ReLU()), AvgPool(2, 1),
        Flatten(), Dropout(0.5), Dense(7), ReLU(), Dense(4),
    )  # fmt: skip


def gradient(lowered: LoweredNetwork, images: Images, labels: npt.NDArray[np.int64]) -> Array | None:
    """Run one step without its update; return what backward returns."""
    z = lowered.forward(images, position=(0,))
    return lowered.backward(SoftmaxCrossEntropy().value_and_gradient(z, labels, len(labels))[1])


# --- parameters ------------------------------------------------------------------------------------------------------


def test_parameters_are_named_by_kind_and_number_and_have_pytorchs_shapes() -> None:
    parameters = Network(small(), IMAGE).parameters
    assert {name: parameters[name].shape for name in parameters} == {
        "conv1.weight": (4, 2, 3, 3),
        "conv1.bias": (4,),
        "sequential1.conv1.weight": (6, 4, 2, 3),
        "dense1.weight": (7, 12),
        "dense1.bias": (7,),
        "dense2.weight": (4, 7),
        "dense2.bias": (4,),
    }


def test_parameters_are_views_of_one_vector_in_order() -> None:
    parameters = Network(small(), IMAGE).parameters
    np.testing.assert_array_equal(np.concatenate([parameters[name].ravel() for name in parameters]), parameters.vector)
    parameters.vector[...] = 7
    assert all((parameters[name] == 7).all() for name in parameters)


def test_a_change_of_the_vector_reaches_a_lowered_network() -> None:
    network = Network(small(), IMAGE)
    lowered = network.lower(1, training=False)
    network.parameters.vector[...] = 0
    network.parameters["dense2.bias"][...] = [1, 2, 3, 4]
    assert lowered.forward(np.ones((1, *IMAGE)))[0].tolist() == [1, 2, 3, 4]


def test_other_memory_for_the_parameters_reaches_what_is_lowered_next() -> None:
    network, x = Network(small(), IMAGE), np.ones((1, *IMAGE))
    before = network.predict(x)
    network.gradient(x, [0], SoftmaxCrossEntropy())
    network.keep_parameters_in(np.zeros_like(network.parameters.vector))
    assert before.any()
    assert not network.predict(x).any()
    assert network.gradient(x, [0], SoftmaxCrossEntropy()).loss == pytest.approx(np.log(4))


def test_the_seed_decides_all_values() -> None:
    first, again, other = (Network(small(), IMAGE, seed=seed).parameters for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.vector, again.vector)
    assert not np.isin(other["conv1.weight"], first.vector).any()


def test_two_layers_of_one_shape_start_with_different_values() -> None:
    parameters = Network(Sequential(Dense(6), Dense(6)), (6,)).parameters
    assert not np.isin(parameters["dense1.weight"], parameters["dense2.weight"]).any()


def test_weights_have_the_spread_of_he_and_biases_are_0() -> None:
    parameters = Network(Sequential(Conv2D(300, 5), Flatten(), Dense(10)), (3, 5, 5)).parameters
    assert parameters["conv1.weight"].std() == pytest.approx((2 / 75) ** 0.5, rel=0.02)
    assert parameters["dense1.weight"].std() == pytest.approx((2 / 300) ** 0.5, rel=0.05)
    assert not parameters["conv1.bias"].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_kept_throughout(dtype: type[np.floating]) -> None:
    network = Network(small(), IMAGE, dtype=dtype)
    lowered = network.lower(5, wants_dx=True)
    dx = gradient(lowered, normal(5, *IMAGE), LABELS)
    assert dx is not None
    outputs = lowered.forward(normal(5, *IMAGE))
    assert {a.dtype for a in (network.parameters.vector, lowered.gradients.vector, outputs, dx)} == {np.dtype(dtype)}
    assert network.predict(normal(5, *IMAGE)).dtype == dtype


# --- lowering --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "products"),
    [
        (Sequential(Conv2D(2, 3), Flatten(), Dense(4)), ["dx", "dweight", "dbias", "dweight", "dbias"]),
        (Sequential(Flatten(), Dense(4)), ["dweight", "dbias"]),
        (Sequential(ReLU(), MaxPool(2), Sequential(Flatten()), Dense(4)), ["dweight", "dbias"]),
    ],
)
def test_the_first_layer_with_parameters_computes_no_dx(model: Sequential, products: list[str]) -> None:
    lowered = Network(model, IMAGE).lower(5, block_bytes=None)
    dz = np.ones_like(lowered.forward(normal(5, *IMAGE)))
    with listen() as heard:
        assert lowered.backward(dz) is None
    assert sorted(product.role for product in heard) == sorted(products)


def test_a_step_leaves_no_trace_in_the_next_one() -> None:
    network, images = Network(small(), IMAGE), normal(5, *IMAGE)
    fresh, used = network.lower(5, wants_dx=True), network.lower(5, wants_dx=True)
    gradient(used, 3 * images[::-1], LABELS[::-1])
    np.testing.assert_array_equal(gradient(used, images, LABELS), gradient(fresh, images, LABELS))
    np.testing.assert_array_equal(used.gradients.vector, fresh.gradients.vector)


def test_inference_is_training_without_the_noise() -> None:
    network, images = Network(small(), IMAGE), normal(5, *IMAGE)
    inference = network.lower(5, training=False).forward(images)
    quiet = Sequential(*(layer for layer in small().layers if not isinstance(layer, Dropout)))
    training = Network(quiet, IMAGE)
    training.parameters.vector[...] = network.parameters.vector
    assert_close(training.lower(5).forward(images), inference, 1e-5)
    assert not np.array_equal(network.lower(5).forward(images), inference)


def test_inference_keeps_no_gradients() -> None:
    network = Network(Sequential(Conv2D(4, 3), MaxPool(2)), (2, 6, 8))
    lowered = network.lower(5, training=False, block_bytes=None, fused=False)
    x, columns, z, rows, y = 2 * 6 * 8, 2 * 9 * 4 * 6, 4 * 4 * 6, 4 * 2 * 6, 4 * 2 * 3
    assert lowered.workspace.bytes == 4 * 5 * (x + columns + z + rows + y)
    assert lowered.gradients.vector.size == 0


@pytest.mark.parametrize("block_bytes", [10_000, None])
def test_a_step_allocates_nothing_but_numpys_own_small_buffers(block_bytes: int | None) -> None:
    """NumPy converts 8192 numbers at a time where types differ; the smallest of the large activations has 200 000."""
    model = Sequential(Conv2D(8, 3), ReLU(), MaxPool(2), Conv2D(8, 3), ReLU(), AvgPool(2), Flatten(), Dense(4))
    lowered = Network(model, (3, 30, 30)).lower(32, block_bytes=block_bytes)
    images, labels = normal(32, 3, 30, 30).astype(np.float32), np.arange(32) % 4
    gradient(lowered, images, labels)
    tracemalloc.start()
    gradient(lowered, images, labels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150_000


def test_the_workspace_counts_the_bytes_that_are_allocated() -> None:
    network = Network(Sequential(Conv2D(8, 3), ReLU(), MaxPool(2), Flatten(), Dense(4)), (3, 30, 30))
    tracemalloc.start()
    lowered = network.lower(32)
    current, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert current == pytest.approx(lowered.workspace.bytes, rel=0.15)


def test_dropout_zeroes_its_share_and_keeps_the_mean() -> None:
    rate = 0.3
    lowered = Network(Sequential(Dropout(rate)), (50, 20)).lower(100, wants_dx=True)
    y = lowered.forward(np.ones((100, 50, 20), np.float32))
    assert (y == 0).mean() == pytest.approx(rate, abs=0.01)
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)
    np.testing.assert_array_equal(lowered.backward(np.ones_like(y)), y)


def test_dropout_draws_anew_at_each_position_and_for_each_layer() -> None:
    network = Network(Sequential(Dropout(), Dropout()), (200,))
    lowered, masks = network.lower(5, seed=3), []
    for position in [(0, 0), (0, 1), (1, 0), (0, 0)]:
        masks.append(lowered.forward(np.ones((5, 200)), position=position).copy() != 0)
    assert np.array_equal(masks[0], masks[3])
    assert all(0.6 < (masks[i] == masks[j]).mean() < 0.65 for i, j in [(0, 1), (0, 2), (1, 2)])
    assert 0.2 < masks[0].mean() < 0.3, "two layers that drew the same would keep half, not a quarter"


# --- the public door -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 130])
def test_predict_takes_any_number_of_images(count: int) -> None:
    network = Network(small(), IMAGE, dtype=np.float64)
    images = normal(count, *IMAGE)
    outputs = network.predict(images)
    assert outputs.shape == (count, 4)
    for image, output in zip(images, outputs, strict=True):
        assert_close(network.predict(image[None])[0], output, 1e-12)


def test_predict_takes_grey_images_without_their_channel() -> None:
    network = Network(Sequential(Conv2D(2, 3), Flatten(), Dense(3)), (1, 5, 6))
    images = normal(4, 5, 6)
    np.testing.assert_array_equal(network.predict(images), network.predict(images[:, None]))


def test_predict_takes_bytes_as_numbers_from_0_to_1() -> None:
    network = Network(small(), IMAGE, dtype=np.float64)
    levels = np.random.default_rng(0).integers(0, 256, (3, *IMAGE), np.uint8)
    assert_close(network.predict(levels), network.predict(levels / 255), 1e-12)
    assert_close(network.predict(levels.astype(float)), network.predict(255 * (levels / 255)), 1e-12)


def test_predict_leaves_its_input_and_its_last_answer_alone() -> None:
    network = Network(small(), IMAGE)
    images = normal(3, *IMAGE)
    before = images.copy()
    first = network.predict(images)
    kept = first.copy()
    network.predict(2 * images)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("shape", [(3, 2, 9, 7), (3, 9, 8), (2, 9, 8), (3, 8, 9, 2), (3,)])
def test_predict_refuses_other_shapes(shape: Shape) -> None:
    with pytest.raises(InputError) as caught:
        Network(small(), IMAGE).predict(np.zeros(shape))
    assert str(caught.value) == f"network: images: expected (2, 9, 8), got {shape[1:]}"


# --- wrong shapes, told with the layer's name ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "input_shape", "message"),
    [
        ([Conv2D(2, 3)], (8, 8), "conv1: input: expected shape (C, H, W), got (8, 8)"),
        ([Conv1D(2, 3)], (1, 8, 8), "conv1: input: expected shape (C, W), got (1, 8, 8)"),
        ([Conv3D(2, 3)], (1, 8, 8), "conv1: input: expected shape (C, D, H, W), got (1, 8, 8)"),
        (
            [Conv2D(2, 3), ReLU(), Conv2D(2, (5, 3))],
            (1, 6, 9),
            "conv2: expected an input of at least (5, 3) under a window of (5, 3), got (4, 7)",
        ),
        (
            [Conv2D(2, 3, dilation=2, padding=1)],
            (1, 2, 9),
            "conv1: expected an input of at least (3, 3) under a window of (5, 5), got (2, 9)",
        ),
        ([Conv2D(4, 3, groups=2)], (3, 8, 8), "conv1: expected channels to be a multiple of groups (2), got 3"),
        ([ReLU(), Dense(3)], (1, 4), "dense1: input: expected shape (features), as Flatten() gives, got (1, 4)"),
        (
            [Sequential(ReLU(), Sequential(Dense(3), Conv2D(2, 3)))],
            (4,),
            "sequential1.sequential1.conv1: input: expected shape (C, H, W), got (3,)",
        ),
        (
            [MaxPool(2), MaxPool(3)],
            (1, 5, 8),
            "max_pool2: expected an input of at least (3, 3) under a window of (3, 3), got (2, 4)",
        ),
        ([Flatten(), GlobalAvgPool()], (1, 4, 4), "global_avg_pool1: input: expected shape (C, *size), got (16,)"),
        ([], (0, 4), "network: input shape: expected a whole number of at least 1, got 0"),
        ([], (), "network: input shape: expected at least one length, got ()"),
        ([], 4, "network: input shape: expected at least one length, got 4"),
    ],
)
def test_layers_that_do_not_fit_are_named(model: list[Layer], input_shape: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Network(Sequential(*model), input_shape)
    assert str(caught.value) == message


def test_other_dtypes_are_refused() -> None:
    for dtype, told in ((np.float16, "float16"), ("junk", "'junk'"), ({"a": 1}, "{'a': 1}")):
        with pytest.raises(InputError) as caught:
            Network(small(), IMAGE, dtype=dtype)  # type: ignore[arg-type]
        assert str(caught.value) == f"network: dtype: expected float32 or float64, got {told}"


@pytest.mark.parametrize("rate", [-0.1, 1, "a", None])
def test_dropout_of_everything_is_refused(rate: Any) -> None:
    with pytest.raises(InputError) as caught:
        Dropout(rate)
    assert str(caught.value) == f"Dropout: expected a rate from 0 up to, but not including, 1, got {rate!r}"


def test_a_dense_layer_without_units_is_refused() -> None:
    with pytest.raises(InputError, match=r"^Dense: units: expected a whole number of at least 1, got 0$"):
        Dense(0)


# --- PyTorch ---------------------------------------------------------------------------------------------------------


def test_logits_and_gradients_are_those_of_pytorch(torch: Any) -> None:
    nn = torch.nn
    model = Sequential(
        Conv2D(4, 3, padding=1), ReLU(), MaxPool(3, 2, padding=1),
        Conv2D(6, (2, 3), stride=(2, 1), groups=2, bias=False), ReLU(), AvgPool(2, 1),
        Flatten(), Dense(7), ReLU(), Dense(4),
    )  # fmt: skip
    ours = Network(model, IMAGE, dtype=np.float64)
    theirs = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1),
        nn.Conv2d(4, 6, (2, 3), stride=(2, 1), groups=2, bias=False), nn.ReLU(), nn.AvgPool2d(2, 1),
        nn.Flatten(), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 4),
    ).double()  # fmt: skip
    ours.parameters.vector[...] = 0.3 * normal(ours.parameters.vector.size)
    with torch.no_grad():
        for name, parameter in zip(ours.parameters, theirs.parameters(), strict=True):
            parameter.copy_(torch.tensor(ours.parameters[name]))
    images = normal(5, *IMAGE)
    x = torch.tensor(images, requires_grad=True)
    logits = theirs(x)
    nn.functional.cross_entropy(logits, torch.tensor(LABELS)).backward()

    lowered = ours.lower(5, wants_dx=True)
    assert_close(ours.predict(images), logits.detach().numpy())
    dx = gradient(lowered, images, LABELS)
    assert dx is not None
    assert_close(dx, x.grad.numpy())
    for name, parameter in zip(ours.parameters, theirs.parameters(), strict=True):
        assert_close(lowered.gradients[name], parameter.grad.numpy())


def test_a_lowered_network_takes_exactly_its_batch() -> None:
    """A batch of 1 would broadcast into one of 4 without a word."""
    lowered = Network(Sequential(Dense(2)), (3,)).lower(4)
    with pytest.raises(InputError, match=r"^network: images: expected \(4, 3\), got \(1, 3\)$"):
        lowered.forward(np.zeros((1, 3)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: Network(Sequential(Dense(2)), (3,), seed=-1),
            "network: seed: expected a whole number of at least 0, got -1",
        ),
        (
            lambda: Network(Sequential(Dense(2)), (3,)).lower(0),
            "network: batch: expected a whole number of at least 1, got 0",
        ),
        (
            lambda: Network(Sequential(Dense(2)), (3,)).predict(np.zeros((1, 3), complex)),
            "network: images: expected uint8 (0 to 255) or floats, got complex128",
        ),
        (
            lambda: Network(Sequential(Dense(2)), (3,)).predict(cast(Any, [[1.0, 2.0, 3.0]])),
            "network: images: expected a NumPy array, got list",
        ),
    ],
)
def test_numbers_without_sense_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == message


def test_an_error_is_told_in_one_line() -> None:
    assert str(InputError("here", "a number", np.zeros((2, 2)))) == "here: expected a number, got [[0. 0.]  [0. 0.]]"


def test_errors_survive_pickling() -> None:
    """So that one raised in another process arrives."""
    error = InputError("conv1: input", (1, 28, 28), (3, 32, 32))
    assert str(pickle.loads(pickle.dumps(error))) == "conv1: input: expected (1, 28, 28), got (3, 32, 32)"


def test_a_copy_is_a_network_of_its_own() -> None:
    network, images = Network(Sequential(Dense(2)), (3,)), normal(5, 3)
    before = network.predict(images)
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        np.testing.assert_array_equal(copied.predict(images), before)
        copied.parameters.vector[:] = 0
        assert not copied.predict(images).any()
    np.testing.assert_array_equal(network.predict(images), before)


def test_threads_may_predict_at_once() -> None:
    network = Network(Sequential(Conv2D(8, 3), ReLU(), Flatten(), Dense(4)), (1, 20, 20))
    batches = [normal(50, 1, 20, 20, seed=seed) for seed in range(4)]
    expected = [network.predict(images) for images in batches]
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: [network.predict(images) for images in batches], range(20)):
            assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_what_no_memory_could_hold_is_refused_where_it_stands() -> None:
    model = Sequential(ReLU(), Sequential(Pad(10**9)))
    with pytest.raises(
        InputError, match=r"^sequential1.pad1: output: expected at most 32 axes and 1e\+14 numbers, got"
    ):
        Network(model, (1, 3, 3))
    with pytest.raises(InputError, match=r"^conv1: padded input: expected at most 32 axes"):
        Network(Conv2D(1, 10**9, padding=10**9 // 2), (1, 3, 3))
    with pytest.raises(InputError, match=r"^network: conv1.weight: expected at most 32 axes"):
        Network(Conv2D(10**14, 1), (2, 1, 1))
    with pytest.raises(InputError, match=r"^network: input shape: expected at most 32 axes and 1e\+14 numbers, got 33"):
        Network(ReLU(), (1,) * 33)


def nested(levels: int) -> Layer:
    layer: Layer = Dense(3)
    for _ in range(levels // 2):  # a residual layer makes its body a Sequential
        layer = Residual(layer)
    return layer


def test_a_network_as_deep_as_allowed_runs_and_a_deeper_one_is_refused(tmp_path: Path) -> None:
    network = Network(nested(LEVELS - 2), (3,))
    network.gradient(normal(2, 3), np.array([0, 1]))
    save(network, tmp_path / "deep")
    np.testing.assert_array_equal(load(tmp_path / "deep").predict(normal(2, 3)), network.predict(normal(2, 3)))
    with pytest.raises(InputError, match=f"^network: layers: expected nested at most {LEVELS} deep, got more$"):
        Network(nested(LEVELS), (3,))
    with pytest.raises(InputError, match="nested at most"):
        Network(nested(10**5), (3,))


def predict_many(network: Network) -> None:
    network.predict(normal(150, 1, 8, 8), workers=2)


def refuse(network: Network) -> None:
    with pytest.raises(InputError):
        network.predict(normal(2, 5, 5))


USES: dict[str, Callable[[Network], object]] = {
    "nothing": lambda network: None,
    "a prediction": predict_many,
    "a gradient": lambda network: network.gradient(normal(3, 1, 8, 8), np.arange(3)),
    "lowered forms": lambda network: [network.lower(2).layers, network.lower(2, training=False, wants_dx=True)],
    "a refusal": refuse,
    "a trace": lambda network: trace(network, normal(2, 1, 8, 8), np.arange(2)),
    "a copy": lambda network: copy.deepcopy(network).predict(normal(2, 1, 8, 8)),
}


@pytest.mark.parametrize("use", USES)
def test_a_deleted_network_is_gone_at_once(use: str) -> None:
    model = [Conv2D(4, 3), ReLU(), MaxPool(2), Residual(Conv2D(4, 3, padding=1)), Dropout(), Flatten(), Dense(4)]
    network = Network(model, (1, 8, 8))
    USES[use](network)
    gone = weakref.ref(network), weakref.ref(network.parameters)
    gc.collect()
    gc.disable()
    try:
        del network
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()


def test_weights_do_not_depend_on_how_many_numbers_are_drawn_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Network(small(), IMAGE, seed=3).parameters.vector
    monkeypatch.setattr("lowered_cnn.parameters.DRAWN", 7)
    np.testing.assert_array_equal(Network(small(), IMAGE, seed=3).parameters.vector, expected)
