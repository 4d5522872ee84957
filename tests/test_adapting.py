"""Networks made from others: split in two, with another head, for inputs of another size."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from trainings import noise

from lowered_cnn import (
    Adam,
    BatchNorm,
    Concatenate,
    Constant,
    Conv2D,
    Dataset,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Graph,
    InputError,
    Layer,
    MaxPool,
    Network,
    Node,
    Recipe,
    ReLU,
    Residual,
    Sequential,
    Softmax,
    fit,
    load,
    models,
    save,
)
from lowered_cnn.layers.join import Add
from lowered_cnn.verify.sampled import draw

BODY = (Conv2D(4, 3), BatchNorm(), ReLU(), Residual(Conv2D(4, 3, padding="same")), MaxPool(2), Flatten())


Model: TypeAlias = Sequential | Graph


def settled(model: Model, shape: tuple[int, ...]) -> Network:
    """Return a network with statistics that are not those it starts with."""
    network = Network(model, shape, seed=3, dtype=np.float64)
    statistics = network.parameters.statistics
    statistics[...] = np.random.default_rng(0).uniform(0.5, 1.5, statistics.shape)
    network.input_range = 0.0, 1.0
    return network


def as_graph(model: Sequential) -> Graph:
    """Return a Sequential as a graph, whose nodes have its names."""
    before = ("x", *model.names)
    return Graph(
        *(
            Node(name, layer, before[place])
            for place, (name, layer) in enumerate(zip(model.names, model.layers, strict=True))
        )
    )


# --- split -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(25))
def test_the_parts_of_a_network_compute_what_it_computes(seed: int) -> None:
    specimen = draw(seed)
    assert isinstance(specimen.model, Sequential)
    images = np.random.default_rng(seed).random((5, *specimen.input_shape))
    for model in specimen.model, as_graph(specimen.model):
        network = settled(model, specimen.input_shape)
        for at in model.names:
            trunk, head = network.split(at)
            assert {*trunk.parameters, *head.parameters} == set(network.parameters)
            assert len(trunk.parameters) + len(head.parameters) == len(network.parameters)
            assert head.model.names[0] == at
            with np.errstate(all="ignore"):
                assert_allclose(head.predict(trunk.predict(images)), network.predict(images), 1e-9, 1e-11)


def test_a_head_trained_on_features_is_that_of_a_frozen_trunk() -> None:
    """In the end, what it has learned is copied back."""
    network, data = settled(Sequential(*BODY, Dense(5), ReLU(), Dense(3)), (1, 8, 8)), noise()
    recipe = Recipe(3, 20, Adam(0.01, l2=0.01), Constant())
    trunk, head = network.split("dense1")
    fit(head, Dataset(trunk.predict(data.images), data.labels), recipe)
    whole = settled(network.model, network.input_shape)
    fit(
        whole,
        data,
        Recipe(3, 20, Adam(0.01, l2=0.01), Constant(), frozen=("conv1", "batch_norm1", "residual1")),
    )
    report = network.parameters.copy_from(head.parameters)
    assert set(report.copied) == {"dense1.weight", "dense1.bias", "dense2.weight", "dense2.bias"}
    assert_allclose(network.parameters.vector, whole.parameters.vector, 1e-6, 1e-9)


def test_a_graph_is_split_where_one_tensor_is_needed() -> None:
    a, b = Node("a", Dense(4), "x"), Node("b", Dense(4), "a")
    joined = Graph(a, b, Node("sum", Add(), ("a", "b")), Node("end", Dense(3), "sum"))
    network = settled(joined, (6,))
    images = np.random.default_rng(0).random((5, 6))
    for at in "a", "b", "end":
        trunk, head = network.split(at)
        assert_allclose(head.predict(trunk.predict(images)), network.predict(images), 1e-12)
    assert network.split("b")[1].model.names == ("b", "sum", "end")
    with pytest.raises(
        InputError, match="split: sum: expected one tensor, and no parameters, that both parts need, got a, b"
    ):
        network.split("sum")
    for owner, needed in ("b", "b"), ("a", "a, b"):
        shared = Graph(a, b, Node("c", Dense(4), "b", shares=owner))
        message = f"split: c: expected one tensor, and no parameters, that both parts need, got {needed}$"
        with pytest.raises(InputError, match=message):
            settled(shared, (4,)).split("c")
    outputs = Graph(a, b, Node("c", Dense(2), "a"), outputs=("b", "c"))
    with pytest.raises(InputError, match=r"split: c: expected one tensor, .* got a, b"):
        settled(outputs, (6,)).split("c")


def test_a_graph_is_split_at_one_of_its_outputs() -> None:
    graph = Graph(Node("a", Dense(2), "x"), Node("b", Dense(3), "a"), outputs=("a", "b"))
    network, images = settled(graph, (4,)), np.random.default_rng(0).random((5, 4))
    trunk, head = network.split("b")
    assert_allclose(head.predict(trunk.predict(images)), network.predict(images), 1e-12)
    assert network.with_head(Dense(7), at="b").output_shape == (7,)


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    network = settled(Sequential({"stem": Flatten(), "fc": Dense(3)}), (1, 4, 4))
    for call in network.split, lambda at: network.with_head(Dense(3), at):
        with pytest.raises(InputError, match="split: at: expected one of stem, fc, got 'dense1'"):
            call("dense1")


# --- with_head -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [lambda model: model, as_graph])
def test_a_new_head_leaves_the_rest_as_it_was(form: Callable[[Sequential], Model], tmp_path: Path) -> None:
    model = form(Sequential(*BODY, Dense(5), ReLU(), Dense(10), Softmax()))
    network = settled(model, (1, 8, 8))
    changed = network.with_head(Dense(3))
    assert changed.output_shape == (3,)
    assert changed.model.names == model.names[:-1]
    assert list(changed.parameters) == list(network.parameters)
    for name, values in changed.parameters.items():
        if not name.startswith("dense2"):
            assert_array_equal(values, network.parameters[name])
    assert changed.input_range == network.input_range
    save(changed, tmp_path / "network")
    assert load(tmp_path / "network").model == changed.model


def test_a_head_of_several_layers_takes_the_place_of_one() -> None:
    network = settled(Sequential(*BODY, Dense(5), ReLU(), Dense(10)), (1, 8, 8))
    changed = network.with_head([Dense(7), ReLU(), Dropout(0.2), Dense(2)], at="dense1")
    assert changed.model.names[-2:] == ("flatten1", "dense1")
    assert [name for name in changed.parameters if "dense" in name] == [
        "dense1.dense1.weight", "dense1.dense1.bias", "dense1.dense2.weight", "dense1.dense2.bias",
    ]  # fmt: skip


def test_a_new_head_of_the_same_size_starts_anew() -> None:
    network = settled(Sequential(*BODY, Dense(3)), (1, 8, 8))
    one, other = network.with_head(Dense(3), seed=1), network.with_head(Dense(3), seed=2)
    weights = [n.parameters["dense1.weight"] for n in (network, one, other)]
    assert len({values.tobytes() for values in weights}) == 3


def test_what_follows_the_last_layer_with_parameters_is_replaced_too() -> None:
    network = settled(Sequential(*BODY[:3], Conv2D(10, 1), GlobalAvgPool(), Softmax()), (1, 8, 8))
    assert network.with_head([Conv2D(3, 1), GlobalAvgPool()]).output_shape == (3,)
    with pytest.raises(InputError, match="conv2: input: expected shape"):
        network.with_head(Dense(3))


@pytest.mark.parametrize(
    ("layers", "input_shape"),
    [
        ([Flatten(), Dense(7), Softmax()], (1, 8, 8)),
        ([Conv2D(7, 1), ReLU(), GlobalAvgPool()], (1, 8, 8)),
        ([Conv2D(4, 3), ReLU(), Conv2D(7, 3), Flatten()], (1, 8, 8)),
    ],
)
def test_a_head_for_so_many_classes_fits_features_and_maps(layers: list[Layer], input_shape: tuple[int, ...]) -> None:
    network = settled(Sequential(*layers), input_shape)
    changed = network.with_head(3)
    assert changed.output_shape == (3,)
    assert changed.predict(np.zeros((2, *input_shape))).shape == (2, 3)
    with pytest.raises(InputError, match="with_head: outputs: expected a whole number of at least 1, got 0"):
        network.with_head(0)


def test_without_parameters_there_is_no_default_head() -> None:
    with pytest.raises(
        InputError, match="with_head: at: expected a layer's name, as no layer has parameters, got None"
    ):
        settled(Sequential(Flatten(), ReLU()), (1, 4, 4)).with_head(Dense(3))


# --- for_inputs ------------------------------------------------------------------------------------------------------


def test_a_fully_convolutional_network_takes_inputs_of_any_size() -> None:
    parts = Concatenate(Conv2D(3, 3, padding="same"), Conv2D(2, 1))
    network = settled(Sequential(*BODY[:4], parts, GlobalAvgPool(), Dense(3)), (1, 8, 8))
    larger = network.for_inputs((1, 20, 13))
    assert (larger.input_shape, larger.output_shape) == ((1, 20, 13), (3,))
    assert_array_equal(larger.parameters.vector, network.parameters.vector)
    images = np.random.default_rng(0).random((2, 1, 8, 8))
    assert_array_equal(larger.for_inputs((1, 8, 8)).predict(images), network.predict(images))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 40, 40), r"for_inputs: dense1.weight: expected \(128, 432\), got \(128, 1200\)"),
        ((3, 28, 28), r"for_inputs: conv1.weight: expected \(8, 1, 5, 5\), got \(8, 3, 5, 5\)"),
        ((1, 4, 4), "conv1: "),
        ((28, 28), "conv1: "),
    ],
)
def test_what_does_not_fit_other_inputs_is_named(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Network(models.compact(), (1, 28, 28)).for_inputs(shape)
