"""Standardization: measured once on the training images, the same for any workers, and kept with the network."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import assert_close, normal, run

from lowered_cnn import (
    Concat,
    Conv2D,
    Dataset,
    Dense,
    Flatten,
    Graph,
    InputError,
    Network,
    Node,
    Recipe,
    Sequential,
    Standardize,
    Training,
    fit,
    load,
    save,
)
from lowered_cnn.arrays import Images
from lowered_cnn.layers.standardize import moments

MODEL = Sequential(Standardize(), Conv2D(3, 2), Flatten(), Dense(2))
SHAPE = (2, 4, 5)


def colours(count: int = 100, seed: int = 0) -> Dataset:
    images = (normal(count, *SHAPE, seed=seed) * [[[3]], [[0.1]]] + [[[7]], [[-20]]]).astype(np.float32)
    return Dataset(images, np.arange(count) % 2, ("even", "odd"))


def statistics(network: Network) -> tuple[list[float], list[float]]:
    p = network.parameters
    return p["standardize1.mean"].tolist(), p["standardize1.deviation"].tolist()


@given(st.integers(1, 200), st.integers(1, 3), st.sampled_from([0.0, 1.0, -1e5]), st.booleans(), st.data())
def test_the_moments_are_those_of_all_images(
    count: int, channels: int, mean: float, is_bytes: bool, data: st.DataObject
) -> None:
    images: Images = (normal(count, channels, 2, 3) + mean).astype(np.float32)
    if is_bytes:
        images = (40 * images).astype(np.uint8, casting="unsafe") if mean >= 0 else np.full_like(images, 9, np.uint8)
    cuts = sorted(data.draw(st.lists(st.integers(1, count), max_size=3)))
    found = moments(np.split(images, cuts))
    whole = images.astype(np.float64) / (255 if is_bytes else 1)
    deviation = whole.std(axis=(0, 2, 3))
    np.testing.assert_allclose(found[0], whole.mean(axis=(0, 2, 3)), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(
        found[1], np.where(whole.max(axis=(0, 2, 3)) > whole.min(axis=(0, 2, 3)), deviation, 1), rtol=1e-9
    )


def test_it_is_measured_before_the_first_step_and_never_again() -> None:
    data, network = colours(), Network(MODEL, SHAPE)
    first = Training(network, data, Recipe(epochs=1))
    before = statistics(network)
    np.testing.assert_allclose(before[0], data.images.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(before[1], data.images.std(axis=(0, 2, 3), dtype=np.float64), rtol=1e-5)
    list(first)
    fit(network, (data.images + 1, data.labels), Recipe(epochs=1))
    assert statistics(network) == before


def test_bytes_count_as_0_to_1() -> None:
    images = np.full((4, 1, 2, 2), 51, np.uint8)
    images[2:] = 102
    network = Network([Standardize(), Flatten(), Dense(2)], (1, 2, 2))
    fit(network, (images[:, 0], [0, 0, 1, 1]), Recipe(epochs=1))
    np.testing.assert_allclose(statistics(network), [[0.3], [0.1]], rtol=1e-6)


def test_numbers_of_your_own_are_left_alone() -> None:
    network = Network(MODEL, SHAPE)
    network.parameters["standardize1.mean"] = [0.5, 0.25]
    fit(network, colours(), Recipe(epochs=1))
    assert statistics(network) == ([0.5, 0.25], [1, 1])


def test_behind_other_layers_it_is_left_alone() -> None:
    network = Network([Conv2D(2, 1), Standardize(), Flatten(), Dense(2)], SHAPE)
    fit(network, colours(), Recipe(epochs=1))
    assert statistics(network) == ([0, 0], [1, 1])


def test_in_a_graph_each_input_has_its_own_numbers() -> None:
    model = Graph(
        Node("maps", Standardize(), "image"),
        Node("flat", Flatten(), "maps"),
        Node("behind", Standardize(), "flat"),
        Node("features", Standardize(), "measured"),
        Node("again", Standardize(), "other", shares="features"),
        Node("all", Concat(), ("behind", "features", "again")),
        Node("classes", Dense(2), "all"),
        inputs={"image": SHAPE, "measured": (3,), "other": (3,)},
    )
    parts = {"image": colours().images, "measured": 5 + normal(100, 3), "other": normal(100, 3, seed=1)}
    network = Network(model, (40 + 3 + 3,))
    fit(network, (model.pack(parts), colours().labels), Recipe(epochs=1))
    for name, x, axes in ("maps", parts["image"], (0, 2, 3)), ("features", parts["measured"], (0,)):
        assert_close(network.parameters[f"{name}.mean"], x.mean(axis=axes, dtype=np.float64), 1e-5)
        assert_close(network.parameters[f"{name}.deviation"], x.std(axis=axes, dtype=np.float64), 1e-5)
    assert not network.parameters["behind.mean"].any()


def test_any_workers_and_a_resumed_training_have_the_same_bits(tmp_path: Path) -> None:
    data, whole = colours(), Network(MODEL, SHAPE)
    fit(whole, data, Recipe(epochs=2, average=0.9))
    shared = Network(MODEL, SHAPE)
    training = Training(shared, data, Recipe(epochs=2, average=0.9), workers=2)
    next(training)
    training.save(tmp_path / "checkpoint")
    list(training)
    resumed = Training.resume(tmp_path / "checkpoint", data)
    list(resumed)
    for network in (shared, resumed.network):
        np.testing.assert_array_equal(network.parameters.vector, whole.parameters.vector)
    save(whole, tmp_path / "network")
    assert statistics(load(tmp_path / "network")) == statistics(whole)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e200])
def test_numbers_that_are_not_finite_are_refused(wrong: float) -> None:
    images = np.ones((5, 1, 2, 2))
    images[3, 0, 1, 1] = wrong
    message = "Standardize: images: expected finite numbers, got nan, inf or numbers too large to square"
    with pytest.raises(InputError, match=re.escape(message)):
        Training(Network([Standardize(), Flatten(), Dense(2)], (1, 2, 2)), (images, [0, 1, 0, 1, 0]))


def test_standardized_inputs_are_pytorchs(torch: Any) -> None:
    x, dy, mean, deviation = normal(3, 4, 5, 6), normal(3, 4, 5, 6, seed=1), normal(3), np.array([0.5, 2, 9])
    ours = run(Standardize(), x, dy, mean=mean, deviation=deviation)
    theirs = torch.tensor(x, requires_grad=True)
    y = (theirs - torch.tensor(mean)[:, None, None, None]) / torch.tensor(deviation)[:, None, None, None]
    y.backward(torch.tensor(dy))
    assert_close(ours.y, y.detach().numpy(), 1e-14)
    assert_close(ours.dx, theirs.grad.numpy(), 1e-14)
    for name in ("mean", "deviation"):
        assert not np.any(ours.gradients[f"standardize1.{name}"])


@pytest.mark.parametrize("shape", [SHAPE, (3,)])
def test_onnx_computes_the_same(shape: tuple[int, ...]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from lowered_cnn.interop.onnx import from_onnx, to_onnx

    network = Network([Standardize(), Flatten(), Dense(2)], shape, seed=2)
    images = (5 + 3 * normal(9, *shape)).astype(np.float32)
    network.standardize(lambda: [images])
    model = to_onnx(network)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert_close(session.run(None, {"images": images})[0], network.predict(images), 1e-6)
    assert_close(from_onnx(model).predict(images), network.predict(images), 1e-6)
