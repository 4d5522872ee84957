"""Freezing and rates by name: what is frozen keeps its bits, the rest learns as before, and costs no more."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from trainings import noise

from lowered_cnn import (
    SGD,
    Adam,
    AdamW,
    BatchNorm,
    Constant,
    Conv2D,
    Dataset,
    Dense,
    Dropout,
    Flatten,
    Graph,
    InputError,
    LayerNorm,
    Network,
    Node,
    Optimizer,
    Recipe,
    ReLU,
    Residual,
    RMSprop,
    Sequential,
    SoftmaxCrossEntropy,
    Training,
    fit,
)
from lowered_cnn.arrays import Array
from lowered_cnn.gemm import listen
from lowered_cnn.optimizers import LoweredOptimizer
from lowered_cnn.parameters import Parameter, matches, with_rates
from lowered_cnn.verify.sampled import draw
from lowered_cnn.verify.specimens import CLASSES

SEEDS = range(40)


@dataclass(frozen=True)
class Creeping(Optimizer):
    """A user's own, which knows nothing of rates: it moves whatever it is given."""

    learning_rate: float = 0.01

    def lower(self, values: Array, buffers: Any, decays: Array, rates: Any) -> LoweredOptimizer:
        return LoweredCreeping(values)


class LoweredCreeping(LoweredOptimizer):
    def __init__(self, values: Array) -> None:
        self.values = values

    def step(self, gradient: Array, learning_rate: float, number: int) -> None:
        self.values += learning_rate


OPTIMIZERS: list[Optimizer] = [
    SGD(0.05, 0.9, l2=0.1),
    SGD(0.05, 0.8, nesterov=True),
    Adam(0.01, l2=0.1),
    AdamW(0.01, weight_decay=0.5),
    RMSprop(0.001, momentum=0.5),
    Creeping(),
]
recipe: Any = Recipe
"""As a caller without type checks makes one."""


def bits(values: Array) -> bytes:
    return np.ascontiguousarray(values).tobytes()


def sampled(seed: int, dtype: type[np.floating] = np.float32) -> tuple[Network, Dataset, np.random.Generator]:
    """Draw a network with statistics that are not those it starts with, and data for it."""
    specimen, rng = draw(seed), np.random.default_rng(seed)
    network = Network(specimen.model, specimen.input_shape, dtype=dtype)
    network.parameters.statistics[...] = rng.uniform(0.5, 1.5, network.parameters.statistics.shape)
    return network, noise(40, seed, specimen.input_shape, CLASSES), rng


def some(network: Network, rng: np.random.Generator) -> tuple[str, ...]:
    """Draw patterns: names of layers and of single parameters, but never of the last layer."""
    names = [p.name for p in network.parameters.parameters]
    last = [p.name for p in network.parameters.parameters if not p.statistic][-1].rpartition(".")[0]
    choices = sorted({part for name in names for part in (name, name.partition(".")[0]) if not matches(last, part)})
    return tuple(choice for choice in choices if rng.random() < 0.5 and not choice.startswith(last))


def frozen_names(network: Network, patterns: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name for name in network.parameters if any(matches(pattern, name) for pattern in patterns))


# --- what a pattern fits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "fitting"),
    [
        ("conv1", "conv1.weight conv1.bias"),
        ("conv1.weight", "conv1.weight"),
        ("conv*", "conv1.weight conv1.bias conv10.weight"),
        ("body", "body.conv1.weight body.norm1.weight"),
        ("body.norm?", "body.norm1.weight"),
        ("*.weight", "conv1.weight conv10.weight body.conv1.weight body.norm1.weight"),
        ("*", "conv1.weight conv1.bias conv10.weight body.conv1.weight body.norm1.weight"),
        ("onv1", ""),
        ("conv1.", ""),
        ("", ""),
    ],
)
def test_a_pattern_matches_a_parameter_or_what_contains_it(pattern: str, fitting: str) -> None:
    names = ["conv1.weight", "conv1.bias", "conv10.weight", "body.conv1.weight", "body.norm1.weight"]
    assert [name for name in names if matches(pattern, name)] == fitting.split()


def test_of_several_rates_the_last_counts_and_multiplies_the_layers_own() -> None:
    owned = [Parameter("a.weight", (1,), rate=3.0), Parameter("b.weight", (1,)), Parameter("c.weight", (1,))]
    found = with_rates(owned, ("c",), (("*", 0.1), ("a", 2.0)))
    assert [p.rate for p in found] == [6.0, 0.1, 0.0]


# --- what is frozen --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_frozen_keeps_its_bits_under_every_recipe(seed: int) -> None:
    network, data, rng = sampled(seed)
    patterns, before = some(network, rng), network.parameters.vector.copy()
    optimizer = OPTIMIZERS[seed % len(OPTIMIZERS)]
    average, clip = ((None, 0.9)[seed // 2 % 2], (None, 0.05)[seed // 3 % 2])
    with np.errstate(all="ignore"):
        fit(network, data, Recipe(1, 16, optimizer, Constant(), average=average, clip_norm=clip, frozen=patterns))
    frozen, start = frozen_names(network, patterns), type(network.parameters)(network.parameters.parameters, before)
    learned = [p.name for p in network.parameters.parameters if not p.statistic]
    for name in network.parameters:
        layer = name.rpartition(".")[0]
        stands_still = name not in learned and all(n in frozen for n in learned if n.rpartition(".")[0] == layer)
        if name in frozen or stands_still:
            assert bits(network.parameters[name]) == bits(start[name]), name
    assert bits(network.parameters[learned[-1]]) != bits(start[learned[-1]])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_rest_learns_as_if_nothing_were_frozen(seed: int) -> None:
    """One step of a network in which no BatchNorm is frozen: its statistics would be others than the batch's.

    By gradient descent, since Adam would divide the rounding error of a gradient that is 0 by itself.
    """
    network, data, rng = sampled(seed, np.float64)
    patterns = tuple(p for p in some(network, rng) if not any("batch_norm" in n for n in frozen_names(network, (p,))))
    start = network.parameters.vector.copy()
    results = []
    for frozen in ((), patterns):
        network.parameters.vector[...] = start
        with np.errstate(all="ignore"):
            next(Training(network, data, Recipe(1, 40, SGD(0.05, 0.9, l2=0.1), Constant(), frozen=frozen)))
        results.append({name: values.copy() for name, values in network.parameters.items()})
    free, held = results
    for name in network.parameters.keys() - frozen_names(network, patterns):
        assert_allclose(held[name], free[name], rtol=1e-9, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("seed", SEEDS)
def test_below_the_first_layer_that_learns_there_is_no_backward_product(seed: int) -> None:
    """With all but the last layer frozen, the backward pass is that of this layer alone."""
    network, data, _ = sampled(seed)
    last = network.model.names[-1] if isinstance(network.model, Sequential) else ""
    frozen = frozenset(name for name in network.parameters if not matches(last, name))
    shape = Sequential(network.model.layers[:-1]).output_shape(network.input_shape, "")  # type: ignore[union-attr]
    alone = Network(Dense(CLASSES), shape)
    heard = []
    for lowered in network.lower(8, frozen=frozen), alone.lower(8):
        with np.errstate(all="ignore"):
            y = lowered.forward(np.resize(data.images, (8, *lowered.input_shape)))
            with listen() as products:
                lowered.backward(np.ones_like(y))
        heard.append(products)
    assert heard[0] == heard[1] != []


def test_a_frozen_batch_norm_uses_its_running_statistics() -> None:
    """So the loss of a step on a frozen body is that of the network as it predicts, without Dropout."""
    model = Sequential(Conv2D(4, 3), BatchNorm(), ReLU(), Residual(Sequential(BatchNorm())), Flatten(), Dense(3))
    data = noise(32)
    for frozen, agree in (("conv1", "batch_norm1", "residual1"), True), (("conv1", "residual1"), False):
        network = Network(model, data.image_shape, dtype=np.float64)
        rng = np.random.default_rng(0)
        network.parameters.statistics[...] = rng.uniform(0.5, 1.5, network.parameters.statistics.shape)
        expected, _ = SoftmaxCrossEntropy().value_and_gradient(network.predict(data.images), data.labels, 32)
        record = next(Training(network, data, Recipe(1, 32, frozen=frozen)))
        assert (abs(record.loss - expected) < 1e-12) == agree


def test_shared_parameters_are_frozen_wherever_they_are_used() -> None:
    graph = Graph(
        Node("a", Dense(6), "x"),
        Node("b", Dense(6), "a"),
        Node("c", Dense(6), "b", shares="b"),
        Node("d", Dense(3), "c"),
    )
    data = Dataset(np.random.default_rng(0).random((32, 5)), np.arange(32) % 3)
    network = Network(graph, (5,))
    before = {name: values.copy() for name, values in network.parameters.items()}
    fit(network, data, Recipe(1, 8, frozen=("b",)))
    unchanged = {name for name, values in network.parameters.items() if bits(values) == bits(before[name])}
    assert unchanged == {"b.weight", "b.bias"}


# --- rates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [SGD(0.05, 0.9, l2=0.1), Adam(0.01), RMSprop(0.001)])
def test_rates_multiply_the_steps_of_what_they_name(optimizer: Optimizer) -> None:
    def step(rates: dict[str, float]) -> dict[str, Array]:
        network = Network(Sequential(Conv2D(4, 3), ReLU(), Flatten(), Dense(3)), (1, 8, 8), dtype=np.float64)
        before = {name: values.copy() for name, values in network.parameters.items()}
        next(Training(network, noise(32), Recipe(1, 32, optimizer, Constant(), rates=rates)))
        return {name: network.parameters[name] - values for name, values in before.items()}

    plain, changed = step({}), step({"conv1": 0.5, "dense1.bias": 3.0})
    for name, factor in {"conv1.weight": 0.5, "conv1.bias": 0.5, "dense1.weight": 1, "dense1.bias": 3.0}.items():
        assert_allclose(changed[name], factor * plain[name], rtol=1e-9, atol=1e-15)


def test_rates_of_1_change_no_bit() -> None:
    weights = []
    for rates in {}, {"*": 1.0}:
        network = Network(Sequential(Flatten(), LayerNorm(), Dropout(0.1), Dense(3)), (1, 8, 8))
        fit(network, noise(), Recipe(2, rates=rates))
        weights.append(bits(network.parameters.vector))
    assert weights[0] == weights[1]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"frozen": ("conv2",)},
            "Recipe: frozen: expected patterns of the network's layers or parameters, got 'conv2'",
        ),
        ({"rates": {"conv2": 2.0}}, "Recipe: rates: expected patterns of the network's layers or parameters, got 'con"),
        ({"frozen": ("*",)}, "Recipe: frozen: expected something left to learn, got all parameters"),
        ({"frozen": ("conv1", "dense1")}, "Recipe: frozen: expected something left to learn"),
    ],
)
def test_a_recipe_that_does_not_fit_the_network_is_refused_at_the_start(options: Any, message: str) -> None:
    network = Network(Sequential(Conv2D(4, 3), BatchNorm(), Flatten(), Dense(3)), (1, 8, 8))
    options = {**options, "frozen": (*options.get("frozen", ()), "batch_norm1")}
    with pytest.raises(InputError) as caught:
        Training(network, noise(), Recipe(**options))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frozen": (1,)}, 'Recipe: frozen: expected patterns of names, such as "conv*", got 1'),
        ({"frozen": None}, 'Recipe: frozen: expected patterns of names, such as "conv*", got None'),
        ({"rates": {"conv1": 0}}, "Recipe: rates: expected numbers above 0 by name"),
        ({"rates": {"conv1": float("nan")}}, "Recipe: rates: expected numbers above 0 by name"),
        ({"rates": {1: 1.0}}, "Recipe: rates: expected numbers above 0 by name"),
        ({"rates": 3}, "Recipe: rates: expected numbers above 0 by name"),
    ],
)
def test_invalid_patterns_and_rates_are_refused(options: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        recipe(**options)
    assert str(caught.value).startswith(message)


def test_one_pattern_need_not_be_in_a_tuple() -> None:
    assert Recipe(frozen="conv*").frozen == ("conv*",)
    assert_array_equal(Recipe(rates={"conv*": 2}).rates, [("conv*", "2")])
