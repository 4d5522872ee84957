"""ONNX models of networks, and networks of ONNX models: against ONNX Runtime, PyTorch's exporter, and round trips."""

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from running import disturbed, normal

from lowered_cnn import (
    ELU,
    GELU,
    SGD,
    AvgPool,
    BatchNorm,
    Concatenate,
    Constant,
    Conv1D,
    Conv2D,
    Conv3D,
    ConvTranspose2D,
    Dataset,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    InputError,
    LayerNorm,
    LeakyReLU,
    MaxPool,
    Pad,
    Recipe,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
    train,
)
from lowered_cnn.arrays import Array, Shape
from lowered_cnn.cli import main
from lowered_cnn.interop.onnx import from_onnx, save_onnx, to_onnx
from lowered_cnn.models import MODELS

NETWORKS: dict[str, tuple[Sequential, Shape]] = {
    **{name: (model(), (1, 28, 28)) for name, model in MODELS.items()},
    "activations": (
        Sequential(
            Conv2D(4, 3), LeakyReLU(), Conv2D(4, 1), ELU(0.7), Conv2D(4, 1), SiLU(), Conv2D(4, 1), Sigmoid(),
            Conv2D(4, 1), Tanh(), Conv2D(4, 1), GELU(), Conv2D(4, 1), GELU(approximate=True), Softmax(),
            Flatten(), Dense(3), Softmax(),
        ),
        (2, 6, 5),
    ),
    "every option": (
        Sequential(
            Conv2D(8, (3, 2), (2, 1), ((1, 2), (0, 1)), (1, 2), groups=2, bias=False), BatchNorm(0.3, 1e-3),
            MaxPool(3, 2, 1, ceil_mode=True), ConvTranspose2D(6, 3, (2, 3), ((1, 0), (0, 1)), 1, groups=2),
            Pad(((0, 1), 2)),
            AvgPool(2, 1, "same", count_include_pad=True), AvgPool((2, 3), ceil_mode=True), MaxPool(2, 1, dilation=2),
            Flatten(), Dense(4, bias=False), LayerNorm(), Dropout(0.3), Dense(2),
        ),
        (4, 12, 13),
    ),
    "signals": (Sequential(Conv1D(4, 3, padding="same"), ReLU(), MaxPool(2), GlobalMaxPool(), Dense(3)), (2, 10)),
    "volumes": (Sequential(Conv3D(3, 2), ReLU(), AvgPool(2), GlobalAvgPool(), Dense(2)), (1, 6, 7, 5)),
    "residual": (
        Sequential(
            Conv2D(4, 3, padding=1),
            Residual(Sequential(Conv2D(4, 3, padding=1), BatchNorm(), ReLU(), Residual(Conv2D(4, 1)))),
            ReLU(),
            Residual(Sequential(Conv2D(6, 3, 2, 1), SiLU()), Conv2D(6, 1, 2)),
            GlobalAvgPool(),
            Dense(3),
        ),
        (2, 8, 6),
    ),
    "inception": (
        Sequential(
            Concatenate(
                Conv2D(2, 1), Sequential(Conv2D(3, 1), ReLU(), Conv2D(4, 3, padding=1)), MaxPool(3, 1, 1), Sequential()
            ),
            ReLU(), Flatten(), Dense(3),
        ),
        (2, 8, 6),
    ),
    "features": (Sequential(Dense(5), Tanh(), Dense(2)), (4,)),
}  # fmt: skip


def by_runtime(model: Any, images: Array) -> Array:
    """Run a model in ONNX Runtime, as it is."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs: Array = session.run(None, {session.get_inputs()[0].name: images})[0]
    return outputs


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_gets_our_outputs(name: str) -> None:
    network = disturbed(*NETWORKS[name])
    model = to_onnx(network)
    for batch in (1, 5):
        images = normal(batch, *network.input_shape).astype(np.float32)
        expected = by_runtime(model, images)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(network.predict(images), expected, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_round_trip_changes_nothing(name: str, dtype: Any) -> None:
    network = disturbed(*NETWORKS[name], dtype)
    again = from_onnx(to_onnx(network))
    assert list(again.parameters) == list(network.parameters)
    assert again.parameters.vector.dtype == dtype
    np.testing.assert_array_equal(again.parameters.vector, network.parameters.vector)
    images = normal(3, *network.input_shape).astype(dtype)
    np.testing.assert_array_equal(again.predict(images), network.predict(images))


def test_layers_and_parameters_keep_their_names() -> None:
    network = disturbed(*NETWORKS["residual"])
    graph = to_onnx(network).graph
    names = {tensor.name for tensor in graph.initializer}
    assert names == set(network.parameters)
    assert {"conv1", "residual1.body.batch_norm1", "residual1", "dense1"} <= {node.name for node in graph.node}
    assert [entry.name for entry in graph.input] == ["images"]
    assert [entry.name for entry in graph.output] == ["outputs"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_a_model_can_be_trained_on(tmp_path: Path) -> None:
    save_onnx(disturbed(*NETWORKS["residual"]), tmp_path / "model.onnx")
    network = from_onnx(tmp_path / "model.onnx")
    images = normal(60, 2, 8, 6).astype(np.float32)
    data = Dataset(images, (images.mean(axis=(1, 2, 3)) > 0).astype(np.int64), ("below", "above"))
    records = list(train(network, data, Recipe(20, 30, SGD(0.01, 0.9), Constant())))
    assert records[-1].loss < 0.5 * records[0].loss


@pytest.mark.slow
def test_what_pytorch_exports_is_read(tmp_path: Path, torch: Any) -> None:
    pytest.importorskip("onnxscript", reason="PyTorch's exporter needs onnxscript")
    nn = torch.nn
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.MaxPool2d(2), nn.Dropout(), nn.Conv2d(8, 4, 3),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    ).eval()  # fmt: skip
    images = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (images,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    network = from_onnx(tmp_path / "model.onnx")
    with torch.no_grad():
        np.testing.assert_allclose(network.predict(images.numpy()), module(images).numpy(), rtol=1e-4, atol=1e-5)


# --- graphs by hand --------------------------------------------------------------------------------------------------


def graph(nodes: list[Any], constants: dict[str, Any], shape: list[Any] | None = None, outputs: str = "y") -> Any:
    """Build a model with the input x and these constants."""
    lengths: list[Any] = ["batch", 2, 4, 4] if shape is None else shape
    return helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, lengths)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs.split()],
            [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=9,
    )


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [output], name=f"{output}_node", **attributes)


WEIGHT = normal(3, 2, 2, 2).astype(np.float32)
MATRIX = normal(32, 5).astype(np.float32)

BY_HAND: dict[str, Any] = {
    "matmul and add": graph(
        [node("Reshape", "x shape", "f"), node("MatMul", "f w", "m"), node("Add", "b m", "y")],
        {"w": MATRIX, "b": normal(5).astype(np.float32), "shape": np.array([-1, 32])},
    ),
    "gemm with factors": graph(
        [node("Flatten", "x", "f"), node("Gemm", "f w b", "y", alpha=0.5, beta=2.0)],
        {"w": MATRIX, "b": np.float32(3)},
    ),
    "constants and identities": graph(
        [
            node("Constant", "", "w", value=numpy_helper.from_array(WEIGHT)),
            node("Identity", "w", "v"),
            node("Identity", "x", "x1"),
            node("Conv", "x1 v", "c", auto_pad="SAME_LOWER"),
            node("Relu", "c", "y"),
        ],
        {},
    ),
    "a pad before a convolution": graph(
        [node("Pad", "x pads", "p"), node("Conv", "p w", "y")],
        {"w": WEIGHT, "pads": np.array([0, 0, 1, 0, 0, 0, 1, 2])},
    ),
    "a global mean that keeps its axes": graph(
        [node("GlobalAveragePool", "x", "g"), node("Conv", "g w", "c"), node("Flatten", "c", "y")],
        {"w": WEIGHT[:, :, :1, :1]},
    ),
    "three branches": graph(
        [node("Conv", "x w", "a"), node("MaxPool", "x", "m", kernel_shape=[2, 2]), node("Sigmoid", "m", "s"),
         node("Mul", "m s", "b"), node("AveragePool", "x", "c", kernel_shape=[2, 2]),
         node("Concat", "a b c", "y", axis=1)],
        {"w": WEIGHT},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_other_peoples_graphs_are_read(name: str) -> None:
    images = normal(3, 2, 4, 4).astype(np.float32)
    expected = by_runtime(BY_HAND[name], images)
    np.testing.assert_allclose(from_onnx(BY_HAND[name]).predict(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (graph([node("Sin", "x", "y")], {}), r"node y_node: expected an operator of AveragePool, .*, got Sin"),
        (
            graph([node("Softmax", "x", "y", axis=2)], {}),
            r"node y_node \(Softmax\): axis: expected 1 \(channels\), got 2",
        ),
        (
            graph([node("Pad", "x pads", "y", mode="reflect")], {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
            r"node y_node \(Pad\): mode: expected constant, got reflect",
        ),
        (
            graph([node("Relu", "x", "y", slope=0.5)], {}),
            r"node y_node \(Relu\): slope: expected no such attribute, got 0.5",
        ),
        (
            graph([node("Mul", "x x", "y")], {}),
            r"node y_node: expected Add or Concat, where branches meet, got Mul",
        ),
        (
            graph([node("Add", "x b", "y")], {"b": np.float32(1)}),
            r"node y_node \(Add\): expected two branches, or the bias of a MatMul, got a constant",
        ),
        (
            graph([node("Relu", "x", "y")], {}, ["batch", 2, "height", 4]),
            r"ONNX model: input x: expected a shape \(batch, lengths that are known\), got \[0, 2, 0, 4\]",
        ),
        (
            graph([node("Relu", "x", "y"), node("Relu", "y", "z")], {}, None, "y z"),
            "ONNX model: outputs: expected 1, got 2",
        ),
        (
            graph([node("Conv", "x x", "y")], {}),
            "node y_node: expected Add or Concat, where branches meet, got Conv",
        ),
    ],
)
def test_what_is_not_supported_is_told(model: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        from_onnx(model)


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(InputError, match=r"model\.onnx: expected an ONNX model, got "):
        from_onnx(path)


def test_the_command_writes_a_model(few_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, path = tmp_path / "run", tmp_path / "model.onnx"
    assert main(["train", "--data", str(few_digits), "--epochs", "1", "--out", str(run)]) == 0
    capsys.readouterr()
    assert main(["export", str(run), str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: images (batch x 1 x 28 x 28, from 0 to 1) to outputs (batch x 10)\n"
    onnx.checker.check_model(str(path), full_check=True)
    assert main(["export", str(run), str(tmp_path / "nowhere" / "model.onnx")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("lowered-cnn export: ")
    assert told.count("\n") == 1


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        InputError, match=r"ONNX: expected the onnx package \(pip install 'lowered-cnn\[onnx\]'\), got "
    ):
        to_onnx(disturbed(*NETWORKS["features"]))
