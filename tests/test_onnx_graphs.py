"""ONNX models of any graph, against ONNX Runtime: folded constants, layouts, shared weights, several ends."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_oracle import graph, run_model, run_outputs
from running import normal

from lowered_cnn import (
    Add,
    BatchNorm,
    Conv2D,
    Dense,
    GlobalAvgPool,
    Graph,
    InputError,
    Multiply,
    Network,
    Node,
    ReLU,
    Sequential,
)
from lowered_cnn.arrays import Array
from lowered_cnn.interop.onnx import from_onnx, to_onnx

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), name=f"{outputs.split()[0]}_node", **attributes)


def floats(*shape: int, seed: int = 0) -> Any:
    return normal(*shape, seed=seed).astype(np.float32)


def check(model: Any, images: Array, network: Network | None = None) -> Network:
    """Compare what is read with ONNX Runtime, and return it."""
    network = network or from_onnx(model)
    expected = run_model(model, images)
    outputs = network.predict(images)
    assert outputs.shape == expected.shape
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-4 * np.abs(expected).max() + 1e-7)
    return network


# --- graphs drawn at random ------------------------------------------------------------------------------------------


class Drawing:
    """A model that grows node by node, from the tensors that it has, all of them (batch, C, 4, 4)."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.inputs = [f"input{place}" for place in range(self.draw.choice([1, 1, 2]))]
        self.channels = dict.fromkeys(self.inputs, 2)
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        for _ in range(self.draw.randint(3, 14)):
            self.draw.choice(
                [
                    self.conv,
                    self.conv,
                    self.shuffle,
                    self.channels_last,
                    self.gate,
                    self.concat,
                    self.split,
                    self.add,
                    self.add,
                    self.folded,
                    self.scale,
                    self.dense,
                ]
            )()

    def name(self) -> str:
        return f"t{len(self.nodes)}"

    def add_node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = self.name()
        self.nodes.append(node(kind, " ".join(inputs), name, **attributes))
        return name

    def constant(self, values: Any, name: str = "") -> str:
        values = np.asarray(values)
        alike = [own for own, old in self.constants.items() if (old.shape, old.dtype) == (values.shape, np.dtype("f4"))]
        if alike and not name and values.dtype == np.float32 and self.draw.random() < 0.5:
            return self.draw.choice(alike)
        name = name or f"c{len(self.constants)}"
        self.constants[name] = values
        return name

    def any(self) -> str:
        return self.draw.choice(list(self.channels))

    def keep(self, name: str, channels: int) -> None:
        self.channels[name] = channels

    def conv(self) -> None:
        """A convolution, with the weights of another one where there is one of as many channels."""
        x = self.any()
        name = f"shared{self.channels[x]}"
        if name not in self.constants or self.draw.random() < 0.5:
            name = self.constant(
                floats(3, self.channels[x], 3, 3, seed=len(self.nodes)), "" if name in self.constants else name
            )
        y = self.add_node("Conv", [x, name], pads=[1, 1, 1, 1])
        self.keep(self.add_node(self.draw.choice(["Relu", "Tanh", "Sigmoid"]), [y]), 3)

    def shuffle(self) -> None:
        x, channels = self.any(), 0
        channels = self.channels[x]
        groups = self.draw.choice([n for n in range(1, channels + 1) if channels % n == 0])
        y = self.add_node("Reshape", [x, self.constant([0, groups, channels // groups, 4, 4])])
        y = self.add_node("Transpose", [y], perm=[0, 2, 1, 3, 4])
        self.keep(self.add_node("Reshape", [y, self.constant([-1, channels, 4, 4])]), channels)

    def channels_last(self) -> None:
        """Nodes that TensorFlow would have between two Transposes."""
        x = self.any()
        channels = self.channels[x]
        y = self.add_node("Transpose", [x], perm=[0, 2, 3, 1])
        for _ in range(self.draw.randint(1, 3)):
            kind = self.draw.choice(["Add", "Softmax", "Pad", "LayerNormalization", "MatMul", "Relu", "ReduceMean"])
            if kind == "Add":
                y = self.add_node(kind, [y, self.constant(floats(channels))])
            elif kind == "Softmax":
                y = self.add_node(kind, [y], axis=self.draw.choice([-1, 1, 2]))
            elif kind == "Pad":
                y = self.add_node(kind, [y, self.constant([0, 1, 0, 0, 0, 0, 0, 0])])
                y = self.add_node("Slice", [y, *(self.constant([n]) for n in (0, -1, 1))])
            elif kind == "LayerNormalization":
                y = self.add_node(
                    kind, [y, self.constant(floats(channels)), self.constant(floats(channels))], epsilon=0.1
                )
            elif kind == "MatMul":
                y = self.add_node(kind, [y, self.constant(floats(channels, channels))])
            elif kind == "Relu":
                y = self.add_node(kind, [y])
            else:
                mean = self.add_node(kind, [y, self.constant([self.draw.choice([1, 2, 3])])], keepdims=1)
                y = self.add_node("Sub", [y, mean])
        self.keep(self.add_node("Transpose", [y], perm=[0, 3, 1, 2]), channels)

    def gate(self) -> None:
        """Squeeze and excitation."""
        x = self.any()
        y = self.add_node("GlobalAveragePool", [x])
        y = self.add_node("Conv", [y, self.constant(floats(self.channels[x], self.channels[x], 1, 1))])
        y = self.add_node(self.draw.choice(["Sigmoid", "HardSigmoid"]), [y])
        self.keep(self.add_node("Mul", self.draw.sample([x, y], 2)), self.channels[x])

    def concat(self) -> None:
        parts = [self.any() for _ in range(self.draw.randint(1, 3))]
        if sum(self.channels[part] for part in parts) < 12:
            self.keep(self.add_node("Concat", parts, axis=1), sum(self.channels[part] for part in parts))

    def split(self) -> None:
        x = self.any()
        if self.channels[x] > 1:
            first = self.draw.randint(1, self.channels[x] - 1)
            name, lengths = self.name(), [first, self.channels[x] - first]
            self.nodes.append(node("Split", f"{x} {self.constant(lengths)}", f"{name}a {name}b", axis=1))
            self.channels |= {f"{name}a": lengths[0], f"{name}b": lengths[1]}

    def add(self) -> None:
        x = self.any()
        same = [name for name, channels in self.channels.items() if channels == self.channels[x]]
        self.keep(
            self.add_node(self.draw.choice(["Add", "Sub", "Mul", "Max"]), [x, self.draw.choice(same)]), self.channels[x]
        )

    def folded(self) -> None:
        """A Reshape to what arithmetic with the tensor's own shape gives."""
        x = self.any()
        shape = self.add_node("Shape", [x])
        batch, channels = (self.add_node("Gather", [shape, self.constant(place)]) for place in (0, 1))
        doubled = self.add_node("Mul", [channels, self.constant(2)])
        parts = [self.add_node("Unsqueeze", [length, self.constant([0])]) for length in (batch, doubled)]
        wanted = self.add_node("Concat", [*parts, self.constant([-1])], axis=0)
        y = self.add_node("Relu", [self.add_node("Reshape", [x, wanted])])
        self.keep(self.add_node("Reshape", [y, shape]), self.channels[x])

    def scale(self) -> None:
        x = self.any()
        shape = self.draw.choice([(self.channels[x], 1, 1), (4,), (1, self.channels[x], 1, 4), ()])
        kind = self.draw.choice(["Mul", "Add", "Sub", "Div"])
        values = np.float32(np.abs(floats(*shape)) + 0.5)
        self.keep(self.add_node(kind, [x, self.constant(values)]), self.channels[x])

    def dense(self) -> None:
        x = self.any()
        y = self.add_node("MatMul", [x, self.constant(floats(4, 4))])
        self.keep(self.add_node("Add", [y, self.constant(floats(4))]), self.channels[x])

    def model(self) -> Any:
        last = list(self.channels)[-1]
        outputs = list(dict.fromkeys([last, self.any()]))
        if self.draw.random() < 0.5:
            y = self.add_node("Transpose", [last], perm=self.draw.choice([[0, 1, 2, 3], [0, 2, 3, 1], [0, 3, 1, 2]]))
            y = self.add_node("Flatten", [y])
            outputs = [self.add_node("Gemm", [y, self.constant(floats(16 * self.channels[last], 3))])]
        entries = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2, 4, 4]) for name in self.inputs]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        constants = [numpy_helper.from_array(values, name) for name, values in self.constants.items()]
        proto = helper.make_graph(self.nodes, "drawn", entries, ends, constants)
        return helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def needed_inputs(model: Any) -> list[str]:
    used = {entry.name for entry in model.graph.output}
    for each in reversed(model.graph.node):
        used |= set(each.input) if used & set(each.output) else set()
    return [entry.name for entry in model.graph.input if entry.name in used]


def check_drawn(seed: int) -> None:
    model = Drawing(seed).model()
    network = from_onnx(model)
    images = {name: floats(3, 2, 4, 4, seed=place) for place, name in enumerate(needed_inputs(model))}
    unused = {entry.name: floats(3, 2, 4, 4) for entry in model.graph.input if entry.name not in images}
    expected = run_outputs(model, images | unused)
    again = from_onnx(to_onnx(network))
    assert list(again.parameters) == list(network.parameters)
    for own in (network, again):
        for output, wanted in zip(outputs_of(own, images), expected, strict=True):
            assert output.shape == wanted.shape
            atol = 1e-4 * np.abs(wanted).max() + 1e-6
            np.testing.assert_allclose(output, wanted, rtol=0, atol=atol, err_msg=f"seed {seed}")


def outputs_of(network: Network, images: dict[str, Array]) -> list[Array]:
    model = network.model
    packed: Any = model.pack(images) if isinstance(model, Graph) and model.inputs else next(iter(images.values()))
    outputs = network.predict(packed)
    if isinstance(model, Graph) and len(model.outputs) > 1:
        return list(model.unpack(outputs, network.input_shape).values())
    return [outputs]


@pytest.mark.parametrize("start", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(100, 1000, 100))])
def test_drawn_graphs_are_read_as_onnx_runtime_reads_them(start: int) -> None:
    for seed in range(start, start + 100):
        check_drawn(seed)


# --- several nodes that are one layer --------------------------------------------------------------------------------

SIXTH, HALF, ROOT = np.float32(1 / 6), np.float32(0.5), np.float32(np.sqrt(2))

PATTERNS: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "silu": ([node("Sigmoid", "x", "s"), node("Mul", "s x", "y")], {}, "SiLU"),
    "hard swish of a hard sigmoid": (
        [node("HardSigmoid", "x", "s", alpha=1 / 6), node("Mul", "x s", "y")],
        {},
        "HardSwish",
    ),
    "hard swish, divided first": (
        [
            node("Add", "x three", "a"),
            node("Clip", "a zero six", "c"),
            node("Div", "c six", "d"),
            node("Mul", "x d", "y"),
        ],
        {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)},
        "HardSwish",
    ),
    "hard swish, divided last": (
        [
            node("Add", "three x", "a"),
            node("Clip", "a zero six", "c"),
            node("Mul", "x c", "m"),
            node("Mul", "m s", "y"),
        ],
        {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6), "s": SIXTH},
        "HardSwish",
    ),
    "hard sigmoid": (
        [node("Mul", "x a", "m"), node("Add", "m b", "s"), node("Clip", "s zero one", "y")],
        {"a": np.float32(0.2), "b": HALF, "zero": np.float32(0), "one": np.float32(1)},
        "HardSigmoid",
    ),
    "gelu, halved last": (
        [
            node("Div", "x r", "d"),
            node("Erf", "d", "e"),
            node("Add", "e one", "a"),
            node("Mul", "x a", "m"),
            node("Mul", "m h", "y"),
        ],
        {"r": ROOT, "one": np.float32(1), "h": HALF},
        "GELU",
    ),
    "gelu, halved first": (
        [
            node("Mul", "x r", "d"),
            node("Erf", "d", "e"),
            node("Add", "one e", "a"),
            node("Mul", "h x", "m"),
            node("Mul", "m a", "y"),
        ],
        {"r": 1 / ROOT, "one": np.float32(1), "h": HALF},
        "GELU",
    ),
    "layer norm of channels": (
        [
            node("ReduceMean", "x axes", "m"),
            node("Sub", "x m", "d"),
            node("Pow", "d two", "p"),
            node("ReduceMean", "p axes", "v"),
            node("Add", "v e", "a"),
            node("Sqrt", "a", "r"),
            node("Div", "d r", "z"),
            node("Mul", "z w", "s"),
            node("Add", "s b", "y"),
        ],
        {"axes": np.array([1]), "two": np.float32(2), "e": np.float32(0.1), "w": floats(2, 1, 1), "b": floats(2, 1, 1)},
        "LayerNorm",
    ),
    "layer norm as in Keras": (
        [
            node("ReduceMean", "x axes", "m"),
            node("Sub", "x m", "d"),
            node("Mul", "d d", "p"),
            node("ReduceMean", "p axes", "v"),
            node("Add", "v e", "a"),
            node("Sqrt", "a", "q"),
            node("Reciprocal", "q", "r"),
            node("Mul", "r w", "s"),
            node("Mul", "x s", "xs"),
            node("Mul", "m s", "ms"),
            node("Sub", "b ms", "t"),
            node("Add", "xs t", "y"),
        ],
        {"axes": np.array([-1]), "e": np.float32(0.1), "w": floats(4), "b": floats(4)},
        "LayerNorm",
    ),
    "group norm": (
        [
            node("Reshape", "x s", "g"),
            node("InstanceNormalization", "g one zero", "n"),
            node("Shape", "x", "t"),
            node("Reshape", "n t", "m"),
            node("Mul", "m w", "p"),
            node("Add", "p b", "y"),
        ],
        {
            "s": np.array([0, 1, -1]),
            "one": np.ones(1, np.float32),
            "zero": np.zeros(1, np.float32),
            "w": floats(2, 1, 1),
            "b": floats(2, 1, 1),
        },
        "GroupNorm",
    ),
    "channel shuffle": (
        [
            node("Concat", "x x", "c", axis=1),
            node("Reshape", "c s", "r"),
            node("Transpose", "r", "t", perm=[0, 2, 1, 3, 4]),
            node("Reshape", "t u", "y"),
        ],
        {"s": np.array([0, 2, 2, 4, 4]), "u": np.array([0, 4, 4, 4])},
        "ChannelShuffle",
    ),
    "pixel shuffle": (
        [node("Concat", "x x", "c", axis=1), node("DepthToSpace", "c", "y", blocksize=2, mode="CRD")],
        {},
        "PixelShuffle",
    ),
    "a matrix and a bias": (
        [node("MatMul", "x w", "m"), node("Add", "b m", "y")],
        {"w": floats(4, 5), "b": floats(5)},
        "Dense",
    ),
    "a scale and a shift": (
        [node("Mul", "w x", "m"), node("Add", "m b", "y")],
        {"w": floats(2, 1, 1), "b": floats(2, 1, 1)},
        "Scale",
    ),
    "a slope for each channel, as in Keras": (
        [
            node("Relu", "x", "p"),
            node("Neg", "x", "n"),
            node("Relu", "n", "q"),
            node("Mul", "w q", "m"),
            node("Add", "p m", "y"),
        ],
        {"w": floats(2, 1, 1)},
        "PReLU",
    ),
    "relu6 of a minimum and a maximum": (
        [node("Max", "x zero", "m"), node("Min", "m six", "y")],
        {"zero": np.float32(0), "six": np.float32(6)},
        "Clip",
    ),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_nodes_that_are_one_layer_become_one(name: str) -> None:
    nodes, constants, kind = PATTERNS[name]
    network = check(graph(nodes, constants), 3 * floats(3, 2, 4, 4))
    found = [type(layer).__name__ for layer in network.model.inside]
    assert [name for name in found if name not in ("Reshape", "Transpose", "ReLU")] == [kind]


ALONE: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "a maximum of two": ([node("Tanh", "x", "t"), node("Max", "x t", "y")], {}),
    "a minimum of two": ([node("Tanh", "x", "t"), node("Min", "x t", "y")], {}),
    "absolute values": ([node("Abs", "x", "y")], {}),
    "selu": ([node("Selu", "x", "y")], {}),
    "celu": ([node("Celu", "x", "y")], {}),
    "a sum of three": ([node("Tanh", "x", "t"), node("Sum", "x t x", "y")], {}),
    "a mean of three": ([node("Tanh", "x", "t"), node("Mean", "x t x", "y")], {}),
    "a square": ([node("Pow", "x two", "y")], {"two": np.float32(2)}),
    "a constant minus": ([node("Sub", "c x", "y")], {"c": floats(4)}),
    "a sum over channels": ([node("ReduceSum", "x a", "y", keepdims=0)], {"a": np.array([1])}),
    "a maximum over positions": ([node("ReduceMax", "x a", "y", keepdims=1)], {"a": np.array([-1, 2])}),
    "a reversed axis": (
        [node("Slice", "x s e a t", "y")],
        {"s": np.array([-1]), "e": np.array([-9]), "a": np.array([2]), "t": np.array([-1])},
    ),
    "places in any order": ([node("Gather", "x p", "y", axis=3)], {"p": np.array([[2, 0], [1, 1], [3, 2]])}),
    "one place": ([node("Gather", "x p", "y", axis=2)], {"p": np.array(-1)}),
    "repetitions": ([node("Tile", "x r", "y")], {"r": np.array([1, 3, 1, 2])}),
    "an expansion": ([node("GlobalAveragePool", "x", "g"), node("Expand", "g s", "y")], {"s": np.array([1, 2, 3, 5])}),
    "a wrapped border": ([node("Pad", "x p", "y", mode="wrap")], {"p": np.array([0, 0, 1, 0, 0, 0, 2, 1])}),
    "a border of the channels": (
        [node("Pad", "x p v", "y")],
        {"p": np.array([0, 1, 0, 0, 0, 0, 2, 0]), "v": np.float32(2)},
    ),
    "a border that cuts": ([node("Pad", "x p", "y")], {"p": np.array([0, 0, -1, 0, 0, 0, 2, -2])}),
    "space to depth": ([node("SpaceToDepth", "x", "y", blocksize=2)], {}),
    "depth to space, columns last": (
        [node("Concat", "x x", "c", axis=1), node("DepthToSpace", "c", "y", blocksize=2)],
        {},
    ),
    "a matrix from the left": ([node("MatMul", "w x", "y")], {"w": floats(5, 4)}),
    "logarithms of a softmax": ([node("LogSoftmax", "x", "y", axis=2)], {}),
    "twice the size": (
        [node("Resize", "x  s".replace("  ", " e "), "y", mode="linear")],
        {"e": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2], np.float32)},
    ),
    "local response": ([node("LRN", "x", "y", size=3, alpha=0.5)], {}),
    "a reshape to its own size": (
        [
            node("Size", "x", "n"),
            node("Unsqueeze", "n z", "u"),
            node("Reshape", "x u", "r"),
            node("Shape", "x", "s"),
            node("Reshape", "r s", "y"),
        ],
        {"z": np.array([0])},
    ),
    "a new first axis": (
        [node("Unsqueeze", "x a", "u"), node("Concat", "u u", "c", axis=1), node("Relu", "c", "y")],
        {"a": np.array([1])},
    ),
    "parts of the batch together with positions": (
        [node("Reshape", "x s", "r"), node("Relu", "r", "a"), node("MatMul", "a w", "m"), node("Reshape", "m t", "y")],
        {"s": np.array([-1, 4]), "w": floats(4, 3), "t": np.array([-1, 2, 4, 3])},
    ),
    "means over a grid, as PyTorch writes them": (
        [
            node("Transpose", "x", "t", perm=[2, 3, 0, 1]),
            node("GatherND", "t p", "g"),
            node("Transpose", "g", "h", perm=[4, 5, 0, 1, 2, 3]),
            node("ReduceMean", "h a", "y", keepdims=0),
        ],
        {
            "p": np.stack(np.meshgrid([0, 1, 2, 3, 2, 3], [0, 0, 2, 1], indexing="ij"), -1).reshape(3, 2, 2, 2, 2),
            "a": np.array([-3, -1]),
        },
    ),
    "stochastic depth of no rate": (
        [
            node("RandomUniformLike", "x", "u", low=-2.0, high=-1.0),
            node("Less", "u one", "l"),
            node("Cast", "l", "c", to=1),
            node("Div", "c one", "d"),
            node("Mul", "x d", "y"),
        ],
        {"one": np.float32(1)},
    ),
}


@pytest.mark.parametrize("name", ALONE)
def test_operators_without_a_layer_of_their_own_are_read(name: str) -> None:
    nodes, constants = ALONE[name]
    check(graph(nodes, constants), floats(3, 2, 4, 4))


def test_two_transposes_and_what_lies_between_are_no_layers() -> None:
    nodes = [
        node("Conv", "x w", "c"), node("Transpose", "c", "l", perm=[0, 2, 3, 1]), node("Add", "l b", "a"),
        node("Relu", "a", "r"), node("Transpose", "r", "f", perm=[0, 3, 1, 2]), node("Conv", "f v", "y"),
    ]  # fmt: skip
    network = check(
        graph(nodes, {"w": floats(3, 2, 2, 2), "v": floats(1, 3, 2, 2), "b": floats(3)}), floats(2, 2, 4, 4)
    )
    assert isinstance(network.model, Sequential)
    assert network.model.names == ("c_node", "a_node", "r_node", "y_node")


def test_channels_last_before_a_dense_layer_are_the_order_of_its_weights() -> None:
    nodes = [
        node("Conv", "x w", "c"), node("Transpose", "c", "t", perm=[0, 2, 3, 1]), node("Flatten", "t", "f"),
        node("Gemm", "f v", "y"),
    ]  # fmt: skip
    network = check(graph(nodes, {"w": floats(3, 2, 2, 2), "v": floats(27, 5)}), floats(2, 2, 4, 4))
    assert [type(layer).__name__ for layer in network.model.inside] == ["Conv2D", "Flatten", "Dense"]


# --- what else a file has --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "constant", "name"),
    [
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1.weight", "layer1.0.conv1"),
        ("/layer1/layer1.0/conv1/Conv", "onnx::Conv_12", "layer1.0.conv1"),
        ("node_conv2d", "features.0.weight", "features.0"),
        ("model/bn/mul_1", "model/conv_1/convolution/ReadVariableOp:0", "conv_1"),
        ("model/dw/depthwise", "const_fold_opt__5", "dw"),
        ("first", "w", "first"),
        ("", "w", "conv1"),
    ],
)
def test_parameters_keep_their_names(given: str, constant: str, name: str) -> None:
    model = graph([helper.make_node("Conv", ["x", constant], ["y"], name=given)], {constant: floats(3, 2, 2, 2)})
    assert list(from_onnx(model).parameters) == [f"{name}.weight"]


def test_a_weight_that_two_nodes_have_is_one() -> None:
    nodes = [
        node("Conv", "x w b", "a", pads=[1, 1, 1, 1]), node("Relu", "a", "r"), node("Conv", "r w b", "c"),
        node("Conv", "r w d", "e"), node("Concat", "c e", "y", axis=1),
    ]  # fmt: skip
    network = check(graph(nodes, {"w": floats(2, 2, 3, 3), "b": floats(2), "d": floats(2)}), floats(2, 2, 4, 4))
    assert isinstance(network.model, Graph)
    assert [place.shares for place in network.model.nodes] == [None, None, "a_node", None, None]
    assert list(network.parameters) == ["a_node.weight", "a_node.bias", "e_node.weight", "e_node.bias"]


def test_a_constant_that_is_used_in_several_ways_is_not_shared() -> None:
    nodes = [
        node("Add", "x c", "a"), node("Sub", "a c", "b"), node("Mul", "b c", "d"), node("Div", "d c", "e"),
        node("Sub", "c e", "f"), node("MatMul", "f w", "g"), node("MatMul", "w g", "y"),
    ]  # fmt: skip
    check(graph(nodes, {"c": floats(2, 1, 1), "w": floats(4, 4)}), floats(3, 2, 4, 4))


def test_lengths_that_a_file_leaves_open_are_given() -> None:
    model = graph([node("Conv", "x w", "y")], {"w": floats(3, 2, 2, 2)}, ["batch", 2, "height", "width"])
    images = floats(2, 2, 5, 7)
    check(model, images, from_onnx(model, input_shape=(2, 5, 7)))
    with pytest.raises(
        InputError, match=r"^ONNX model: input_shape: expected lengths for x, \[2, 0, 0\] \(0 is open\), "
    ):
        from_onnx(model, input_shape=(3, 5, 7))
    with pytest.raises(InputError, match=r"^ONNX model: input_shape: expected a shape for the input x, got z$"):
        from_onnx(model, input_shape={"z": (2, 5, 7)})


def test_a_model_for_one_example_takes_any_number() -> None:
    model = graph([node("Reshape", "x s", "f"), node("Gemm", "f w", "y")],
                  {"s": np.array([1, 32]), "w": floats(32, 3)}, [1, 2, 4, 4])  # fmt: skip
    network, images = from_onnx(model), floats(3, 2, 4, 4)
    for image, output in zip(images, network.predict(images), strict=True):
        np.testing.assert_allclose(output, run_model(model, image[None])[0], rtol=1e-4, atol=1e-5)


def test_functions_of_a_model_are_written_out() -> None:
    model = graph([helper.make_node("Twice", ["x"], ["y"], domain="own")], {})
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 20)]))
    model.opset_import.append(helper.make_opsetid("own", 1))
    np.testing.assert_allclose(from_onnx(model).predict(floats(2, 2, 4, 4)), 2 * floats(2, 2, 4, 4))


def test_a_normalization_in_training_form_has_the_statistics_of_the_file() -> None:
    numbers = {name: np.abs(floats(2, seed=place)) for place, name in enumerate("abcd")}
    training = helper.make_node("BatchNormalization", ["x", *"abcd"], ["y", "m", "v"], training_mode=1)
    plain = helper.make_node("BatchNormalization", ["x", *"abcd"], ["y"])
    check(graph([plain], numbers), floats(2, 2, 4, 4), from_onnx(graph([training], numbers)))


def siamese() -> Network:
    branches = [
        Node("a", Conv2D(4, 3, padding=1), "left"), Node("b", Conv2D(4, 3, padding=1), "right", shares="a"),
        Node("c", Sequential(BatchNorm(), ReLU()), "a"), Node("d", Sequential(BatchNorm(), ReLU()), "b", shares="c"),
        Node("product", Multiply(), ("c", "d")), Node("sum", Add(), ("c", "d", "product")),
        Node("pool", GlobalAvgPool(), "sum"), Node("scores", Dense(3), "pool"),
    ]  # fmt: skip
    inputs = {"left": (2, 5, 5), "right": (2, 5, 5)}
    return Network(Graph(*branches, inputs=inputs, outputs=("scores", "product")), (100,), seed=1)


def test_several_inputs_and_outputs_and_shared_weights_go_there_and_back() -> None:
    network, images = siamese(), {"left": floats(3, 2, 5, 5), "right": floats(3, 2, 5, 5, seed=1)}
    model = to_onnx(network)
    assert {tensor.name for tensor in model.graph.initializer} == set(network.parameters)
    assert len(model.graph.initializer) == len(network.parameters)
    assert [entry.name for entry in model.graph.input] == ["left", "right"]
    assert [entry.name for entry in model.graph.output] == ["scores", "product"]
    again = from_onnx(model)
    assert list(again.parameters) == list(network.parameters)
    for output, same, expected in zip(
        outputs_of(network, images), outputs_of(again, images), run_outputs(model, images), strict=True
    ):
        np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(output, same)


def light(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.slow) if name in ("vgg19", "bvlc_alexnet", "zfnet512") else name


@pytest.mark.parametrize("name", [light(path.stem.removeprefix("light_")) for path in sorted(LIGHT.glob("*.onnx"))])
def test_the_light_models_of_onnx_are_read(name: str) -> None:
    """Their weights are all alike, so outputs say little: they must be the same, and the network must have the size."""
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    network = from_onnx(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    [entry] = [entry.name for entry in model.graph.input if entry.name not in constants]
    images = np.abs(floats(1, *network.input_shape))
    [expected] = run_outputs(model, {entry: images})
    np.testing.assert_allclose(network.predict(images), expected, rtol=1e-4, atol=1e-6)
