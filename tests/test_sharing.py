"""Layers that share memory at inference: the same bits as with memory of their own, for any network, every time."""

from typing import Any

import numpy as np
import pytest
from running import normal

from lowered_cnn import (
    AvgPool,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Graph,
    Layer,
    MaxPool,
    Network,
    Node,
    Pad,
    ReLU,
    Sequential,
    Sigmoid,
)
from lowered_cnn.arrays import Array, Shape
from lowered_cnn.layers import Add, Concat, Lowered, Multiply, Site
from lowered_cnn.layers.join import Join
from lowered_cnn.tracing import Recorder
from lowered_cnn.verify import sampled
from lowered_cnn.workspace import Workspace


def unshared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every buffer be the caller's alone, as in training."""
    original = Workspace.__init__

    def init(workspace: Workspace, *arguments: Any, **options: Any) -> None:
        original(workspace, *arguments, **options | {"shares": False})

    monkeypatch.setattr(Workspace, "__init__", init)


def outputs(network: Network, batches: list[Array], fused: bool) -> tuple[list[Array], list[dict[str, Array]]]:
    """Run batches of the same size through one lowered form; return outputs and the activations seen."""
    lowered = network.lower(len(batches[0]), training=False, fused=fused)
    results, seen = [], []
    for batch in batches:
        recorder = Recorder()
        with lowered.tapped(recorder):
            results.append(lowered.forward(batch).copy())
        seen.append({name: passage.y for name, passage in recorder.passages.items()})
    return results, seen


def check(network: Network, examples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [normal(examples, *network.input_shape).astype(np.float32) for _ in range(2)]
    batches = [*images, np.full_like(images[0], np.nan), images[0]]
    for fused in (False, True):
        got, seen = outputs(network, batches, fused)
        with monkeypatch.context() as context:
            unshared(context)
            expected, alone = outputs(network, batches, fused)
        np.testing.assert_equal(got, expected)
        np.testing.assert_equal(seen, alone)
        np.testing.assert_array_equal(got[0], got[3])


@pytest.mark.parametrize("seed", range(60))
def test_random_networks_compute_the_same_bits_in_shared_memory(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    specimen = sampled.draw(1000 + seed)
    check(Network(specimen.model, specimen.input_shape, seed=seed), specimen.examples, monkeypatch)


def drawn_graph(seed: int) -> Graph:
    """Draw a graph on maps of one shape, in which every node may be read again much later, some of them as outputs."""
    generator = np.random.default_rng(seed)
    nodes: list[Node] = []
    names, unread = ["x"], {"x"}
    for number in range(int(generator.integers(3, 14))):
        chances: list[Layer | Join] = [
            ReLU(), Dropout(), BatchNorm(), Conv2D(4, 3, padding=1), Conv2D(4, 1), Add(), Multiply(), Add(),
            Sequential(), Sequential(Conv2D(4, 3, padding=1), ReLU(), Dropout()), MaxPool(3, 1, 1), AvgPool(3, 1, 1),
            Sequential(Dropout(), Pad(1), MaxPool(3, 1)), Graph(Node("a", ReLU(), "x"), Node("b", Add(), ("a", "x"))),
        ]  # fmt: skip
        layer = chances[int(generator.integers(len(chances)))]
        count = int(generator.integers(1, 4)) if isinstance(layer, Join) else 1
        inputs = [names[int(generator.integers(len(names)))] for _ in range(count)]
        names.append(f"n{number}")
        nodes.append(Node(names[-1], layer, inputs))
        unread = unread.difference(inputs) | {names[-1]}
    several = bool(generator.random() < 0.4)
    if several:
        return Graph(*nodes, outputs=sorted(unread | {names[-1], names[len(names) // 2]}))
    return Graph(*nodes, Node("all", Concat(), sorted(unread)), Node("last", Conv2D(3, 1), "all"))


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs_compute_the_same_bits_in_shared_memory(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check(Network(drawn_graph(seed), (4, 6, 6), seed=seed), 2, monkeypatch)


class Own(Layer):
    """A layer that returns its input, and takes no output from the workspace."""

    kind = "own"

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        return input_shape

    def lower(self, site: Site) -> Lowered:
        return _LoweredOwn()


class _LoweredOwn(Lowered):
    def forward(self, x: Array) -> Array:
        return x[:]

    def backward(self, dy: Array) -> Array:
        return dy


def test_a_custom_layer_may_return_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph(
        Node("a", ReLU(), "x"), Node("own", Own(), "a"), Node("flat", Flatten(), "own"), Node("b", ReLU(), "a"),
        Node("c", Conv2D(4, 3, padding=1), "b"), Node("d", Flatten(), "c"), Node("sum", Add(), ("d", "flat")),
    )  # fmt: skip
    check(Network(graph, (4, 6, 6)), 2, monkeypatch)


def test_a_chain_of_layers_takes_the_memory_of_two() -> None:
    layers = [layer for _ in range(20) for layer in (Dense(100, bias=False), Sigmoid())]
    lowered = Network(layers, (100,)).lower(16, training=False)
    assert lowered.workspace.bytes == 4 * 16 * (100 + 2 * 100)
