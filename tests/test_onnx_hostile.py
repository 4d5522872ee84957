"""ONNX models that are damaged or meant to harm: each is told in one line, or is what ONNX Runtime reads."""

import math
import os
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_oracle import graph, run_model
from running import disturbed, normal

from lowered_cnn import (
    ELU,
    GELU,
    AvgPool,
    BatchNorm,
    Concatenate,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    InputError,
    LayerNorm,
    LeakyReLU,
    MaxPool,
    Network,
    Pad,
    Residual,
    Sequential,
    SiLU,
    Softmax,
)
from lowered_cnn.arrays import Shape
from lowered_cnn.interop.onnx import from_onnx, save_onnx, to_onnx

WEIGHT = np.ones((2, 2, 1, 1), np.float32)


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def relu(change: Callable[[Any], object], *, kind: str = "Relu", **attributes: Any) -> Any:
    """Return a model of one node, changed."""
    model = graph([node(kind, "x", "y", **attributes)], {})
    change(model)
    return model


def conv(change: Callable[[Any], object], weight: Any = WEIGHT) -> Any:
    """Return a model of one convolution, changed."""
    model = graph([node("Conv", "x w", "y")], {"w": weight})
    change(model)
    return model


def set_dims(model: Any, dims: list[int]) -> None:
    model.graph.initializer[0].dims[:] = dims


def add_function(model: Any, domain: str) -> None:
    body = [helper.make_node("Tanh", ["a"], ["b"])]
    model.functions.append(helper.make_function(domain, "Relu", ["a"], ["b"], body, [helper.make_opsetid("", 20)]))


def doubled(attribute: Any) -> Callable[[Any], object]:
    return lambda model: model.graph.node[0].attribute.append(attribute)


BRANCH = helper.make_graph([node("Relu", "x", "z")], "branch", [], [helper.make_tensor_value_info("z", 1, None)])


def folded(operator: str, constants: dict[str, Any], **attributes: Any) -> Any:
    """Return a model that adds what an operator computes from constants."""
    return graph([node(operator, " ".join(constants), "c", **attributes), node("Add", "x c", "y")], constants)


def nested_functions(depth: int, *, closed: bool = False) -> Any:
    """Return a model whose function calls another one twice, and so on."""
    model = graph([node("F0", "x", "y", domain="own")], {})
    model.opset_import.append(helper.make_opsetid("own", 1))
    for level in range(depth):
        inner = f"F{(level + 1) % depth if closed else level + 1}" if closed or level < depth - 1 else "Relu"
        calls = [
            node(inner, "a", "b", domain="own" if inner != "Relu" else ""),
            node(inner, "b", "c", domain="own" if inner != "Relu" else ""),
        ]
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", f"F{level}", ["a"], ["c"], calls, opsets))
    return model


HOSTILE: dict[str, tuple[Any, str]] = {
    "a cycle": (graph([node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")], {}), "earlier nodes"),
    "a node of itself": (graph([node("Relu", "y", "y")], {}), "earlier nodes"),
    "Relu of another domain": (relu(lambda model: None, domain="com.example"), "got com.example.Relu"),
    "Relu redefined": (relu(lambda model: add_function(model, "")), "functions: expected none in the place"),
    "operators of the future": (
        relu(lambda model: setattr(model.opset_import[0], "version", 10_000)),
        "operator set: expected one from 1 to",
    ),
    "operators of two versions": (
        relu(lambda model: model.opset_import.append(helper.make_opsetid("ai.onnx", 7))),
        "operator set: expected one from 1 to",
    ),
    "a subgraph": (relu(lambda model: None, kind="If", then_branch=BRANCH, else_branch=BRANCH), "got If"),
    "an attribute that is a graph": (relu(lambda model: None, body=BRANCH), "body: expected no such attribute"),
    "an attribute twice": (
        relu(doubled(helper.make_attribute("alpha", 0.5)), kind="LeakyRelu", alpha=0.1),
        "attributes: expected each name once, got alpha",
    ),
    "a flag of 2": (
        relu(lambda model: None, kind="MaxPool", kernel_shape=[2, 2], ceil_mode=2),
        "ceil_mode: expected 0 or 1, got 2",
    ),
    "a border of 1.5": (
        graph([node("Pad", "x p", "y")], {"p": np.array([0, 0, 1.5, 0, 0, 0, 0, 0])}),
        "pads: expected a vector of whole numbers, got float64 (8,)",
    ),
    "a shape of floats": (
        graph([node("Reshape", "x s", "y")], {"s": np.array([0.0, 32.0])}),
        "shape: expected a vector of whole numbers, got float64 (2,)",
    ),
    "strides of 1.5": (
        relu(lambda model: None, kind="MaxPool", kernel_shape=[2, 2], strides=[1.5, 1.5]),
        "strides: expected the type that ONNX gives it",
    ),
    "a tensor twice": (
        conv(lambda model: model.graph.initializer.append(numpy_helper.from_array(WEIGHT, "w"))),
        "initializers: expected each name once, got w",
    ),
    "a gigantic tensor": (conv(lambda model: set_dims(model, [10**9, 10**9, 10**9, 1])), "expected an ONNX model, got"),
    "a negative length": (conv(lambda model: set_dims(model, [-1, 2, 1, 1])), "no negative lengths"),
    "a tensor of many axes": (conv(lambda model: set_dims(model, [1] * 1000)), "expected an ONNX model, got"),
    "complex numbers": (conv(lambda model: None, WEIGHT.astype(np.complex64)), "real numbers, got complex64"),
    "texts": (conv(lambda model: None, WEIGHT.astype(str).astype(object)), "real numbers, got object"),
    "numbers in another file": (
        conv(lambda model: setattr(model.graph.initializer[0], "data_location", TensorProto.EXTERNAL)),
        "tensor w: expected numbers in the model, got a reference to a file",
    ),
    "a gigantic input": (
        relu(lambda model: setattr(model.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 2**62)),
        "input x: expected at most",
    ),
    "an input of texts": (
        relu(lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", TensorProto.STRING)),
        "input x: expected one of FLOAT",
    ),
    "a gigantic border": (
        graph([node("Pad", "x p", "y")], {"p": np.array([0, 0, 0, 0, 0, 0, 10**17, 0])}),
        "output: expected at most",
    ),
    "channels doubled 50 times": (
        graph([node("Concat", f"{'x' if n == 0 else f't{n}'} " * 2, f"t{n + 1}", axis=1) for n in range(50)], {},
              outputs="t50"),
        "output: expected at most",
    ),
}  # fmt: skip


GIGANTIC: dict[str, tuple[Any, str]] = {
    "numbers without end": (
        folded("Range", {"s": np.int64(0), "e": np.int64(10**18), "d": np.int64(1)}),
        "numbers that are computed",
    ),
    "numbers at no distance": (
        folded("Range", {"s": np.int64(0), "e": np.int64(9), "d": np.int64(0)}),
        "ZeroDivisionError",
    ),
    "a tile of a gigantic size": (
        folded("Tile", {"v": np.ones(1, np.float32), "r": np.array([10**18])}),
        "numbers that are computed",
    ),
    "an outer sum of a gigantic size": (
        folded("Sub", {"v": np.zeros((10**5, 1), np.float32), "w": np.zeros(10**5, np.float32)}),
        "numbers that are computed",
    ),
    "a sum of a constant of a gigantic size": (
        graph(
            [node("ConstantOfShape", "s", "c"), node("ReduceSum", "c", "d"), node("Add", "x d", "y")],
            {"s": np.array([10**6, 10**6])},
        ),
        "numbers that are computed",
    ),
    "a weight of a gigantic size": (
        graph([node("ConstantOfShape", "s", "w"), node("Conv", "x w", "y")], {"s": np.array([10**9, 2, 1, 1])}),
        "parameters beyond those in the file",
    ),
    "a split into parts without end": (
        graph([node("Split", "x", "y", axis=1, num_outputs=10**15)], {}),
        "num_outputs: expected 1, got 1000000000000000",
    ),
    "a tile of an input without end": (
        graph([node("Tile", "x r", "y")], {"r": np.array([1, 10**9, 1, 1])}),
        "repeats: expected 1 for the batch, and at most",
    ),
    "a shape of a thousand axes": (
        graph([node("Reshape", "x s", "y")], {"s": np.array([-1, 2, 4, 4, *[1] * 1000])}),
        "results of at most",
    ),
    "functions of functions": (nested_functions(60), "functions: expected at most 200000 nodes, written out, got more"),
    "a function of itself": (nested_functions(3, closed=True), "functions: expected none that calls itself"),
    "a border around the batch": (
        graph([node("Pad", "x p", "y")], {"p": np.array([1, 0, 0, 0, 0, 0, 0, 0])}),
        "pads: expected 0 for the batch",
    ),
}


@pytest.mark.parametrize("name", [*HOSTILE, *GIGANTIC])
def test_a_model_meant_to_harm_is_told(name: str) -> None:
    model, told = {**HOSTILE, **GIGANTIC}[name]
    with pytest.raises(InputError) as caught:
        from_onnx(model)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_functions_of_another_domain_do_not_matter() -> None:
    assert (
        from_onnx(relu(lambda model: add_function(model, "com.example"))).model
        == from_onnx(relu(lambda model: None)).model
    )


def test_a_long_row_of_diamonds_has_each_layer_once() -> None:
    nodes: list[Any] = []
    for place in range(200):
        before = f"t{place}" if place else "x"
        nodes += [node("Relu", before, f"a{place}"), node("Tanh", before, f"b{place}")]
        nodes += [node("Add", f"a{place} b{place}", f"t{place + 1}")]
    assert len(from_onnx(graph(nodes, {}, outputs="t200")).model.inside) == 400


# Numbers that lie beside the model.


def beside(folder: Path, location: str, **entries: object) -> Path:
    """Write a model whose weight is said to be in another file."""
    model = conv(lambda model: None)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with numbers, beside another file, a link to it, and a pipe."""
    (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "numbers").write_bytes(WEIGHT.tobytes())
    (inner / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(inner / "pipe")
    return inner


def test_numbers_beside_the_model_are_read(folder: Path) -> None:
    network = from_onnx(beside(folder, "numbers", offset=0, length=16))
    np.testing.assert_array_equal(network.parameters["conv1.weight"], WEIGHT)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
@pytest.mark.parametrize(
    ("location", "entries"),
    [
        ("missing", {}), ("../secret", {}), ("{}/../secret", {}), ("link", {}), ("pipe", {}), (".", {}),
        ("numbers", {"offset": 10**18}), ("numbers", {"offset": -4}), ("numbers", {"length": 10**15}),
    ],
)  # fmt: skip
def test_numbers_from_elsewhere_are_refused(location: str, entries: dict[str, object], folder: Path) -> None:
    with pytest.raises(InputError, match=r"model\.onnx: expected an ONNX model, got"):
        from_onnx(beside(folder, location.format(folder), **entries))


def test_a_model_in_memory_reads_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    model = onnx.load(beside(folder, "numbers"), load_external_data=False)
    with pytest.raises(InputError, match="tensor w: expected numbers in the model, got a reference to a file"):
        from_onnx(model)


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    with pytest.raises(InputError, match="pipe: expected an ONNX file, got no file"):
        from_onnx(folder / "pipe")


def test_an_export_replaces_files_only_and_follows_links(folder: Path) -> None:
    network = Network(Dense(2), (3,))
    (folder / "link.onnx").symlink_to(folder / "target.onnx")
    save_onnx(network, folder / "link.onnx")
    assert (folder / "link.onnx").is_symlink()
    onnx.load(folder / "target.onnx")
    for path in (folder / "pipe", folder):
        with pytest.raises(InputError, match="output: expected a file to write"):
            save_onnx(network, path)
    assert (folder / "pipe").is_fifo()
    assert not list(folder.glob(".*"))


# Damage: what is still read must be what ONNX Runtime reads.

MODELS: dict[str, tuple[Sequential, Shape]] = {
    "windows": (
        Sequential(
            Conv2D(2, (2, 3), (1, 2), ((1, 0), (0, 1))), BatchNorm(), LeakyReLU(), MaxPool(2, 1, ceil_mode=True),
            Flatten(), Dense(2), Softmax(),
        ),
        (2, 4, 4),
    ),
    "branches": (
        Sequential(
            Conv2D(2, 3, padding=1), Residual(Sequential(Conv2D(2, 1), ELU(0.7))),
            Concatenate(AvgPool(2, 1), MaxPool(2, 1)), Pad(1), GlobalAvgPool(), Dense(2),
        ),
        (2, 4, 4),
    ),
    "others": (
        Sequential(
            ConvTranspose2D(2, 2, 2, groups=2), GELU(), SiLU(), Flatten(), LayerNorm(), Dropout(), Dense(2),
        ),
        (2, 3, 3),
    ),
}  # fmt: skip


def theirs(content: bytes, images: Any) -> Any:
    """Return what ONNX Runtime makes of a model, or None if it refuses it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run_model(onnx.ModelProto.FromString(content), images)
    except Exception:  # it has errors of many kinds
        return None


def check_damaged(content: bytes, path: Path) -> bool:
    """Return whether a damaged model is read, and by ONNX Runtime too, with the same outputs."""
    path.write_bytes(content)
    try:
        network = from_onnx(path)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - most are refused, some are not
        return False
    model = network.model
    shapes = [shape for _, _, shape in model.steps(network.input_shape)] if isinstance(model, Sequential) else []
    if any(math.prod(shape) > 10**5 for shape in shapes):
        return False  # a border, say, that takes seconds
    images = normal(2, *network.input_shape).astype(np.float32)
    expected = theirs(content, images)
    if expected is None or not np.abs(expected).max() < 1e10:
        return False
    with np.errstate(all="ignore"):
        outputs = network.predict(images)
    np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    return True


def damaged(whole: bytes, draw: random.Random) -> bytes:
    """Flip a bit, or overwrite up to three bytes in a row."""
    content, place = bytearray(whole), draw.randrange(len(whole) - 3)
    if draw.random() < 0.7:
        content[place] ^= 1 << draw.randrange(8)
    else:
        content[place : place + draw.randint(1, 3)] = draw.randbytes(draw.randint(1, 3))
    return bytes(content)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("count", [150, pytest.param(3000, marks=pytest.mark.slow)])
def test_a_damaged_model_is_told_or_means_what_onnx_runtime_reads(name: str, count: int, tmp_path: Path) -> None:
    whole, draw = to_onnx(disturbed(*MODELS[name])).SerializeToString(), random.Random(f"{name} {count}")
    read = [check_damaged(damaged(whole, draw), tmp_path / "model.onnx") for _ in range(count)]
    assert 0.1 * count < sum(read) < 0.6 * count
