"""Graphs: compared with PyTorch and with their short forms; shared layers; names; what is frozen; what is refused."""

import functools
import operator
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import normal

from lowered_cnn import (
    SGD,
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Graph,
    Input,
    InputError,
    MaxPool,
    MeanSquaredError,
    Multiply,
    Network,
    Node,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Softmax,
    load,
    save,
)
from lowered_cnn.descriptions import describe, restore
from lowered_cnn.fusion import fuse
from lowered_cnn.gemm import listen
from lowered_cnn.verify.sampled import draw

SEEDS = st.integers(0, 2**32 - 1)


def net(graph: Any, input_shape: tuple[int, ...] = (3, 6, 5)) -> Network:
    return Network(graph, input_shape, dtype=np.float64)


def gradients(network: Network, images: Any, **options: Any) -> dict[str, Any]:
    """Return the outputs and all gradients of sum(y^2) / 2."""
    lowered = network.lower(len(images), wants_dx=True, **options)
    y = lowered.forward(images, position=(0,)).copy()
    dx = lowered.backward(y.copy())
    assert dx is not None
    return {"y": y, "dx": dx.copy(), **{name: lowered.gradients[name].copy() for name in network.parameters}}


def assert_same(a: dict[str, Any], b: dict[str, Any], tolerance: float = 1e-12) -> None:
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=tolerance, err_msg=name)


# --- compared with PyTorch -------------------------------------------------------------------------------------------


class _Drawn:
    """A graph of convolutions, some of them used several times, ReLUs and joins, all of one shape, and PyTorch's."""

    def __init__(self, seed: int) -> None:
        torch = pytest.importorskip("torch")
        rng = np.random.default_rng(seed)
        self.nodes: list[Node] = []
        names, convolutions = ["x"], list[str]()
        for number in range(int(rng.integers(2, 12))):
            name, taken = f"n{number}", str(rng.choice(names))
            kind = rng.integers(6)
            if kind == 0 or (kind == 1 and not convolutions):
                self.nodes.append(Node(name, Conv2D(3, 3, padding=1), taken))
                convolutions.append(name)
            elif kind == 1:
                self.nodes.append(Node(name, Conv2D(3, 3, padding=1), taken, shares=str(rng.choice(convolutions))))
            elif kind == 2:
                self.nodes.append(Node(name, ReLU(), taken))
            else:
                others = [str(other) for other in rng.choice(names, int(rng.integers(1, 3)))]
                self.nodes.append(Node(name, [Add(), Multiply(), Multiply()][kind - 3], (taken, *others)))
            names.append(name)
        taken_names = {name for node in self.nodes for name in node.inputs}
        ends = [name for name in names if name not in taken_names]
        self.graph = Graph(*self.nodes, Node("end", Concat(int(rng.integers(3))), ends))
        self.torch = torch

    def expected(self, network: Network, images: Any) -> dict[str, Any]:
        torch = self.torch
        tensors = {name: torch.tensor(values, requires_grad=True) for name, values in network.parameters.items()}
        x = torch.tensor(images, requires_grad=True)
        there = {"x": x}
        for node in self.graph.nodes:
            taken = [there[name] for name in node.inputs]
            match node.layer:
                case Conv2D():
                    owner = node.shares or node.name
                    weight, bias = (tensors[f"{owner}.{name}"] for name in ("weight", "bias"))
                    there[node.name] = torch.nn.functional.conv2d(taken[0], weight, bias, padding=1)
                case ReLU():
                    there[node.name] = torch.relu(taken[0])
                case Concat(axis):
                    there[node.name] = torch.cat(taken, axis + 1)
                case join:
                    combine = operator.mul if isinstance(join, Multiply) else operator.add
                    there[node.name] = functools.reduce(combine, taken)
        y = there["end"]
        (y.square().sum() / 2).backward()
        found = {name: tensor.grad.numpy() for name, tensor in tensors.items()}
        return {"y": y.detach().numpy(), "dx": x.grad.numpy(), **found}


@given(SEEDS)
def test_drawn_graphs_compute_what_pytorch_computes(seed: int) -> None:
    drawn = _Drawn(seed)
    network, images = net(drawn.graph), normal(2, 3, 6, 5)
    network.parameters.vector *= 0.5
    expected = drawn.expected(network, images)
    for fused in (False, True):
        found = gradients(network, images, fused=fused)
        for name, values in expected.items():
            scale = max(1.0, float(np.abs(values).max()))
            np.testing.assert_allclose(found[name] / scale, values / scale, atol=1e-10, err_msg=name)
    np.testing.assert_allclose(network.predict(images), found["y"], rtol=1e-10, atol=1e-10)


@given(SEEDS)
def test_joins_broadcast_as_numpy_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(length) for length in rng.integers(1, 4, rng.integers(1, 4)))
    shapes = [tuple(length if rng.random() < 0.6 else 1 for length in shape) for _ in range(rng.integers(1, 4))]
    inputs = {f"in{number}": own for number, own in enumerate(shapes)}
    for join, combine in ((Add(), operator.add), (Multiply(), operator.mul)):
        graph = Graph(Node("y", join, tuple(inputs)), inputs=inputs)
        arrays = {name: rng.standard_normal((2, *own)) for name, own in inputs.items()}
        images = graph.pack(arrays)
        network = net(graph, images.shape[1:])
        expected = functools.reduce(combine, arrays.values())
        np.testing.assert_allclose(network.predict(images), expected)
        lowered = network.lower(2, wants_dx=True)
        dy = rng.standard_normal(lowered.forward(images).shape)
        for _ in range(2):  # no buffer is left over from the step before
            lowered.forward(images)
            dx = lowered.backward(dy.copy())
        assert dx is not None
        for place in np.ndindex(dx.shape):
            moved = images.copy()
            moved[place] = moved[place] + 1e-6
            slope = ((network.predict(moved) - network.predict(images)) * dy).sum() / 1e-6
            assert dx[place] == pytest.approx(slope, abs=1e-4)


# --- short forms, names, files ---------------------------------------------------------------------------------------


def test_short_forms_are_graphs() -> None:
    body, shortcut = Sequential(Conv2D(3, 3, padding=1), BatchNorm(), ReLU(), MaxPool(2)), Sequential(Conv2D(3, 2, 2))
    short = Sequential(Residual(body, shortcut), ReLU())
    joined = Graph(Node("body", body, "x"), Node("shortcut", shortcut, "x"), Node("sum", Add(), ("body", "shortcut")))
    long = Sequential({"residual1": joined, "relu1": ReLU()})
    images = normal(4, 3, 6, 5)
    assert_same(gradients(net(short), images), gradients(net(long), images), 0)


def test_layers_have_the_names_they_are_given() -> None:
    model = Sequential({"stem.conv": Conv2D(4, 3), "act": ReLU(), "head": Sequential(Flatten(), Dense(2))})
    assert list(net(model).parameters) == [
        "stem.conv.weight",
        "stem.conv.bias",
        "head.dense1.weight",
        "head.dense1.bias",
    ]
    assert model.names == ("stem.conv", "act", "head")
    assert Sequential(ReLU(), Dense(2)) == Sequential({"relu1": ReLU(), "dense1": Dense(2)})
    assert Sequential(ReLU(), given=["other"]) != Sequential(ReLU())


def test_graphs_are_stored_and_loaded(tmp_path: Any) -> None:
    graph = Graph(
        Node("a", Conv2D(2, 3), "image"), Node("flat", Flatten(), "a"), Node("b", Dense(5), "rest"),
        Node("c", Dense(5), "rest", shares="b"), Node("both", Concat(), ("flat", "b")),
        inputs=(Input("image", (1, 4, 4)), Input("rest", (3,))), outputs=("both", "c"),
    )  # fmt: skip
    assert restore(describe(graph)) == graph
    network = net(graph, (19,))
    save(network, tmp_path / "network")
    loaded = load(tmp_path / "network")
    assert loaded.model == graph
    inputs = {"image": normal(2, 1, 4, 4), "rest": normal(2, 3)}
    outputs = graph.unpack(loaded.predict(graph.pack(inputs)), loaded.input_shape)
    assert {name: values.shape for name, values in outputs.items()} == {"both": (2, 13), "c": (2, 5)}
    np.testing.assert_array_equal(outputs["c"], outputs["both"][:, 8:])


def test_bytes_beside_floats_count_as_by_themselves() -> None:
    image, features = np.arange(0, 240, 5).astype(np.uint8).reshape(4, 3, 2, 2), normal(4, 5)
    inputs = {"image": (3, 2, 2), "features": (5,)}
    both = Graph(Node("flat", Flatten(), "image"), Node("both", Concat(), ("flat", "features")), inputs=inputs)
    found = Network(both, (17,), dtype=np.float64).predict(both.pack({"image": image, "features": features}))
    alone = Network(Flatten(), (3, 2, 2), dtype=np.float64).predict(image)
    np.testing.assert_array_equal(found, np.concatenate([alone, features], axis=1))
    two = Graph(Node("sum", Add(), ("a", "b")), inputs={"a": (12,), "b": (12,)}, outputs="sum")
    flat = image.reshape(4, 12)
    assert two.pack({"a": flat, "b": flat}).dtype == np.uint8


def test_the_cost_of_nested_graphs_does_not_double_with_each_level() -> None:
    graph: Any = Graph(Node("a", Conv2D(2, 1), "x"))
    for _ in range(40):
        graph = Graph(Node("a", graph, "x"), Node("b", Add(), ("a", "x")))
    assert net(graph, (2, 3, 3)).predict(normal(1, 2, 3, 3)).shape == (1, 2, 3, 3)


def test_a_softmax_at_the_end_of_a_graph_is_recognized() -> None:
    graph = Graph(Node("a", Flatten(), "x"), Node("b", Dense(3), "a"), Node("c", Softmax(), "b"))
    with pytest.raises(InputError, match="a network without Softmax"):
        net(graph).gradient(normal(2, 3, 6, 5), [0, 1])


# --- shared layers ---------------------------------------------------------------------------------------------------


def test_a_convolution_used_twice_is_updated_as_one() -> None:
    conv = Conv2D(3, 3, padding=1)
    graph = Graph(
        Node("conv", conv, "x"), Node("relu", ReLU(), "conv"), Node("again", conv, "relu", shares="conv"),
        Node("pool", GlobalAvgPool(), "again"),
    )  # fmt: skip
    network, images, targets = net(graph), normal(4, 3, 6, 5), normal(4, 3)
    assert list(network.parameters) == ["conv.weight", "conv.bias"]
    update = SGD(0.1).over(network.parameters)
    losses = []
    for _ in range(20):
        found = network.gradient(images, targets, MeanSquaredError())
        losses.append(found.loss)
        update.step(found.parameters)
    assert losses[-1] < losses[0] / 2


# --- what learns and what does not -----------------------------------------------------------------------------------


@given(SEEDS, st.data())
def test_freezing_stops_some_gradients_and_changes_no_other(seed: int, data: st.DataObject) -> None:
    specimen = draw(seed % 1000)
    network, images = net(specimen.model, specimen.input_shape), normal(specimen.examples, *specimen.input_shape)
    with np.errstate(all="ignore"):
        learned = [p.name for p in network.parameters.parameters if not p.statistic]
        frozen = frozenset(data.draw(st.sets(st.sampled_from(learned))))
        if "BatchNorm" in repr(specimen.model):  # a frozen one computes as at inference
            frozen = frozenset(name for name in frozen if "batch_norm" not in name)
        all_learn = gradients(network, images)
        lowered = network.lower(len(images), frozen=frozen)
        y = lowered.forward(images, position=(0,)).copy()
        lowered.backward(y.copy())
    assert_same({"y": y}, all_learn, 1e-9)  # what needs no gradient may be lowered in another way
    for name in learned:
        expected = 0 * all_learn[name] if name in frozen else all_learn[name]
        scale = 1 + np.abs(all_learn[name]).max()
        np.testing.assert_allclose(lowered.gradients[name] / scale, expected / scale, atol=1e-9, err_msg=name)
        assert name not in frozen or not lowered.gradients[name].any()


def test_a_frozen_trunk_takes_no_product_in_the_backward_pass() -> None:
    trunk = [Conv2D(4, 3), BatchNorm(), ReLU(), Residual(Conv2D(4, 3, padding=1)), Dropout(0.5)]
    network = net(Sequential(*trunk, Flatten(), Dense(2)))
    frozen = frozenset(name for name in network.parameters if not name.startswith("dense"))
    lowered = network.lower(3, frozen=frozen)
    before = {name: network.parameters[name].copy() for name in network.parameters}
    lowered.forward(normal(3, 3, 6, 5))
    with listen() as products:
        assert lowered.backward(normal(3, 2)) is None
    assert [product.role for product in products] == ["dweight", "dbias"]
    assert not any(lowered.gradients[name].any() for name in frozen)  # of BatchNorm's statistics too
    assert all(np.array_equal(network.parameters[name], before[name]) for name in before)


def test_a_frozen_batch_normalization_normalizes_as_at_inference() -> None:
    network = net(Sequential(Conv2D(4, 3), BatchNorm(), Flatten(), Dense(2)))
    images = normal(5, 3, 6, 5)
    frozen = frozenset(["batch_norm1.weight", "batch_norm1.bias"])
    lowered = network.lower(5, frozen=frozen)
    np.testing.assert_allclose(lowered.forward(images), network.predict(images), rtol=1e-12)
    lowered.backward(normal(5, 2))
    assert lowered.gradients["conv1.weight"].any()
    assert not lowered.gradients["batch_norm1.running_mean"].any()


# --- fused -----------------------------------------------------------------------------------------------------------


def test_chains_in_a_graph_are_fused() -> None:
    graph = Graph(
        Node("conv", Conv2D(4, 3), "x"), Node("norm", BatchNorm(), "conv"), Node("relu", ReLU(), "norm"),
        Node("other", Conv2D(4, 3), "x"), Node("sum", Add(), ("relu", "other")), Node("twice", Add(), ("sum", "other")),
    )  # fmt: skip
    assert [node.name for node in fuse(graph, fold=False).nodes] == ["conv", "norm", "relu", "other", "sum", "twice"]
    folded = fuse(graph, fold=True)
    assert [node.name for node in folded.nodes] == ["conv", "other", "sum", "twice"]
    assert folded.nodes[2].inputs == ("conv", "other")


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Graph(), "Graph: expected nodes, such as Node("),
        (
            lambda: Node("a", cast(Any, 3), "x"),
            "node a: layer: expected a layer or a join, such as ReLU() or Add(), got 3",
        ),
        (lambda: Node("a", ReLU(), ("x", "y")), "node a: inputs: expected one, got 2"),
        (lambda: Node("a", Add(), ()), "node a: inputs: expected at least one, got 0"),
        (lambda: Node("a", Add(), "x", shares="b"), "node a: shares: expected None for a join"),
        (
            lambda: Graph(Node("a", ReLU(), "b"), Node("b", ReLU(), "a")),
            "node a: inputs: expected inputs of the graph or earlier nodes, got b",
        ),
        (
            lambda: Graph(Node("a", ReLU(), "x"), Node("a", ReLU(), "x")),
            "Graph: names: expected a different string for each, none of them empty, got ['x', 'a', 'a']",
        ),
        (
            lambda: Graph(Node("a", ReLU(), "x"), Node("b", ReLU(), "x")),
            "Graph: nodes: expected each needed for an output, got a, which is not",
        ),
        (lambda: Graph(Node("a", ReLU(), "x"), outputs=("b",)), "Graph: outputs: expected names of nodes, got b"),
        (
            lambda: Graph(Node("a", Dense(2), "x"), Node("b", Dense(2), "a", shares="c")),
            "node b: shares: expected an earlier node that shares nothing, got c",
        ),
        (
            lambda: net(Graph(Node("a", Dense(2), "x"), Node("b", Dense(2), "a", shares="a")), (3,)),
            "node b: shares: expected the parameters of a, weight (2, 3), bias (2,), got weight (2, 2), bias (2,)",
        ),
        (
            lambda: net(Graph(Node("a", Conv2D(2, 3), "x"), Node("b", Add(), ("a", "x")))),
            "b: inputs: expected the shape of the first, (2, 4, 3), or lengths of 1 in it, got (3, 6, 5)",
        ),
        (
            lambda: net(Graph(Node("a", AvgPool(2), "x"), Node("b", Concat(), ("a", "x")))),
            "b: inputs (axis 0 aside): expected (3, 3, 2), got (3, 6, 5)",
        ),
        (lambda: net(Graph(Node("a", Concat(3), "x"))), "a: axis: expected one of the 3 of the inputs, got 3"),
        (
            lambda: net(Graph(Node("a", Sigmoid(), "i"), inputs={"i": (3,)}), (4,)),
            "graph: inputs: expected (3,), got (4,)",
        ),
        (
            lambda: Graph(Node("a", Sigmoid(), "i"), inputs={"i": (3,)}).pack({"j": np.zeros((2, 3))}),
            "pack: expected inputs i, got j",
        ),
        (
            lambda: Graph(Node("a", Add(), ("i", "j")), inputs={"i": (3,), "j": (3,)}).pack(
                {"i": np.zeros((2, 3)), "j": np.zeros((5, 3))}
            ),
            "pack: j: expected (2, 3), got (5, 3)",
        ),
        (
            lambda: Graph(Node("a", Sigmoid(), "i"), inputs={"i": (3,)}).pack({"i": cast(Any, [[1, 2, 3]])}),
            "pack: i: expected a NumPy array, got list",
        ),
        (lambda: Input("i", cast(Any, 3)), "input i: shape: expected a tuple of lengths, got 3"),
        (lambda: Input("i", (3, 0)), "input i: shape: expected a whole number of at least 1, got 0"),
        (
            lambda: Graph(Node("a", ReLU(), "i"), inputs=cast(Any, ["i"])),
            "Graph: inputs: expected shapes by name, such as {\"image\": (3, 32, 32)}, got ['i']",
        ),
        (lambda: Graph(Node("a", ReLU(), "x"), outputs="ab"), "Graph: outputs: expected names of nodes, got ab"),
        (
            lambda: Sequential({"": ReLU()}),
            "Sequential: names: expected a different string for each, none of them empty, got ['']",
        ),
        (lambda: Sequential(ReLU(), given=["a", "b"]), "Sequential: names: expected 1, one for each layer, got 2"),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert message in str(caught.value)
