"""ONNX models of networks, and networks of ONNX models: against ONNX Runtime, PyTorch's exporter, and round trips."""

import random
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_oracle import graph, run_model
from running import disturbed, normal

from lowered_cnn import (
    ELU,
    GELU,
    SGD,
    AdaptiveAvgPool,
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
    Layer,
    LayerNorm,
    LeakyReLU,
    MaxPool,
    Network,
    Pad,
    Recipe,
    ReLU,
    Residual,
    Resize,
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
from lowered_cnn.layers import Lowered, Site
from lowered_cnn.layers.activation import Elementwise
from lowered_cnn.models import MODELS
from lowered_cnn.verify.specimens import specimens

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


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_gets_our_outputs(name: str) -> None:
    network = disturbed(*NETWORKS[name])
    model = to_onnx(network)
    for batch in (1, 5):
        images = normal(batch, *network.input_shape).astype(np.float32)
        expected = run_model(model, images)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(network.predict(images), expected, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {"adaptive"}))  # its Standardize comes back as a BatchNorm
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
    assert {"conv1", "residual1.body.batch_norm1", "residual1.join", "dense1"} <= {node.name for node in graph.node}
    assert [entry.name for entry in graph.input] == ["images"]
    assert [entry.name for entry in graph.output] == ["outputs"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


POOLS: dict[str, tuple[Layer, Shape]] = {
    "maximum, one more window": (MaxPool(2, 2, ceil_mode=True), (2, 5, 7)),
    "maximum, one more window dropped": (MaxPool(2, 3, 1, ceil_mode=True), (2, 5, 6)),
    "maximum, dilated, wide border": (MaxPool(2, 1, 2, dilation=3), (2, 6, 5)),
    "maximum, dilated, windows of border alone": (MaxPool(2, 1, 1, dilation=3), (2, 2, 3)),
    "mean, one more window": (AvgPool(3, 2, ceil_mode=True), (2, 6, 8)),
    "mean, one more window behind a border": (AvgPool(3, 2, ((1, 0), 1), ceil_mode=True), (2, 5, 6)),
    "mean, one more window dropped": (AvgPool(2, 3, 1, ceil_mode=True), (2, 5, 6)),
    "mean, one more window, border left out": (AvgPool(3, 2, 1, 1, True, False), (2, 6, 6)),
    "mean, dilated, wide border": (AvgPool(2, 1, 2, 3), (2, 6, 5)),
    "mean, signals": (AvgPool(4, 3, 1, ceil_mode=True), (2, 9)),
    "mean, volumes": (AvgPool(2, 2, ceil_mode=True), (1, 3, 4, 5)),
}


@pytest.mark.parametrize("name", POOLS)
def test_pools_round_up_and_pad_in_onnx_as_here(name: str) -> None:
    layer, shape = POOLS[name]
    network = Network(Sequential(layer), shape)
    images = normal(3, *shape).astype(np.float32)
    model = to_onnx(network)
    np.testing.assert_allclose(network.predict(images), run_model(model, images), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(from_onnx(model).predict(images), network.predict(images), rtol=1e-6)


REFUSED = {"avg pool, windows of nothing", "adaptive avg pool", "adaptive avg pool 3d", "graph, packed"}


@pytest.mark.parametrize("name", [name for name in specimens() if name not in REFUSED])
def test_onnx_runtime_gets_our_outputs_for_every_layer(name: str) -> None:
    specimen = specimens()[name]
    network = disturbed(specimen.model, specimen.input_shape)
    images = normal(3, *specimen.input_shape).astype(np.float32)
    expected = run_model(to_onnx(network), images)
    np.testing.assert_allclose(network.predict(images), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "floor"])
def test_onnx_runtime_resizes_as_we_do(mode: Any, coordinates: Any, rounding: Any) -> None:
    # Sizes whose places are not rounded: ONNX Runtime's are in float32.
    for scale, size in ((1.5, None), (2.0, None), ((0.5, 4.0), None), (None, (8, 8)), (None, (1, 10)), (None, 12)):
        network = Network(Sequential(Resize(scale, size, mode, coordinates, rounding)), (2, 6, 5))
        images = normal(2, 2, 6, 5).astype(np.float32)
        np.testing.assert_allclose(network.predict(images), run_model(to_onnx(network), images), rtol=0, atol=1e-5)


def test_cubic_interpolation_of_signals_is_refused() -> None:
    told = r"^resize1: input: expected shape \(C, H, W\) if it is cubic, for ONNX Runtime, got \(2, 6\)$"
    with pytest.raises(InputError, match=told):
        to_onnx(Network(Sequential(Resize(2, mode="cubic")), (2, 6)))


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 3)])
def test_onnx_runtime_normalizes_the_channels_of_maps_as_we_do(shape: Shape) -> None:
    network = disturbed(Sequential(LayerNorm(0.1)), shape)
    images = normal(3, *shape).astype(np.float32)
    np.testing.assert_allclose(network.predict(images), run_model(to_onnx(network), images), rtol=1e-5, atol=1e-6)


def test_means_over_parts_are_exported_where_onnx_has_them() -> None:
    network = Network(Sequential(AdaptiveAvgPool((3, 1))), (2, 6, 5))
    images = normal(3, 2, 6, 5).astype(np.float32)
    np.testing.assert_allclose(network.predict(images), run_model(to_onnx(network), images), rtol=1e-5, atol=1e-6)
    told = r"^adaptive_avg_pool1: size: expected one that divides the input's size \(6, 5\), for ONNX, got \(4, 5\)$"
    with pytest.raises(InputError, match=told):
        to_onnx(Network(Sequential(AdaptiveAvgPool((4, 5))), (2, 6, 5)))


def test_a_pool_that_onnx_cannot_express_is_told() -> None:
    network = Network(Sequential(AvgPool(2, 1, 2, 3, count_include_pad=False)), (2, 6, 5))
    told = r"^avg_pool1: padding: expected less than the kernel \(2, 2\), for ONNX Runtime, got \(\(2, 2\), \(2, 2\)\)$"
    with pytest.raises(InputError, match=told):
        to_onnx(network)


@pytest.mark.parametrize("model", [Sequential(), Sequential(MaxPool(2)), Sequential(ReLU(), Flatten())])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_network_without_parameters_keeps_its_precision(model: Sequential, dtype: Any) -> None:
    network = Network(model, (2, 4, 4), dtype=dtype)
    again = from_onnx(to_onnx(network))
    assert again.parameters.vector.dtype == dtype
    images = normal(2, 2, 4, 4)
    np.testing.assert_array_equal(again.predict(images.astype(dtype)), network.predict(images.astype(dtype)))


@pytest.mark.parametrize("last", [Conv2D(2, 2), MaxPool(2), Conv2D(2, 3, 2, "same")])
def test_a_network_may_end_on_a_small_map(last: Layer) -> None:
    model = Sequential(Conv2D(2, 3, bias=False), last)
    assert from_onnx(to_onnx(Network(model, (2, 4, 4)))).output_shape == Network(model, (2, 4, 4)).output_shape


# --- layers of one's own ---------------------------------------------------------------------------------------------


class Halved(Conv2D):
    """A convolution of its own: one that is another layer when it is lowered."""

    def lower(self, site: Site) -> Lowered:
        return ELU().lower(site)


class Wide:
    """What is mixed in comes before the class of the package."""

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        return input_shape


class WidePool(Wide, MaxPool):
    pass


class LastFirst(Sequential):
    @property
    def names(self) -> tuple[str, ...]:
        return super().names[::-1]


class ShiftedNorm(BatchNorm):
    def scale_and_shift(self, site: Site) -> tuple[Array, Array]:
        scale, shift = super().scale_and_shift(site)
        return scale, shift + 1


class Cube(Elementwise):
    kind = "cube"

    def value(self, x: Array) -> Array:
        return x * x * x

    def derivative(self, x: Array) -> Array:
        return 3 * x * x


@pytest.mark.parametrize(
    ("layer", "name"),
    [(Halved(2, 1), "conv1"), (WidePool(1), "max_pool1"), (LastFirst(ReLU()), "sequential1"),
     (ShiftedNorm(), "batch_norm1"), (Cube(), "cube1"), (Residual(ShiftedNorm()), "residual1.body.batch_norm1")],
)  # fmt: skip
def test_a_layer_that_behaves_in_its_own_way_is_not_exported_as_ours(layer: Layer, name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name}: expected a layer that ONNX has an operator for, got \w+$"):
        to_onnx(Network(Sequential(layer), (2, 3, 3)))


def test_a_model_that_behaves_in_its_own_way_is_told() -> None:
    with pytest.raises(InputError, match=r"^network: expected a layer that ONNX has an operator for, got LastFirst$"):
        to_onnx(Network(LastFirst(ReLU()), (2, 3, 3)))


class Filter(Conv2D):
    """A convolution under another name."""

    kind = "filter"


class Small(Sequential):
    def __init__(self, filters: int) -> None:
        super().__init__(Filter(filters, 3), ReLU())


def test_a_layer_with_a_constructor_and_a_name_of_its_own_is_exported() -> None:
    network = Network(Small(3), (2, 4, 4))
    images = normal(2, 2, 4, 4).astype(np.float32)
    model = to_onnx(network)
    assert [node.name for node in model.graph.node] == ["filter1", "relu1", "outputs"]
    np.testing.assert_allclose(network.predict(images), run_model(model, images), rtol=1e-4, atol=1e-5)


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
    "an identity before a window that pads as its input is large": graph(
        [node("Conv", "x w", "c", strides=[2, 2]), node("Identity", "c", "i"),
         node("Conv", "i v", "y", auto_pad="SAME_UPPER", strides=[2, 2])],
        {"w": WEIGHT, "v": normal(2, 3, 3, 3).astype(np.float32)},
    ),
    "a product and itself": graph(
        [node("Flatten", "x", "f"), node("MatMul", "f w", "m"), node("Add", "m m", "y")], {"w": MATRIX}
    ),
    "a reshape behind a global mean": graph(
        [node("GlobalAveragePool", "x", "g"), node("Reshape", "g shape", "y")], {"shape": np.array([0, 2])}
    ),
    "one branch": graph([node("Conv", "x w", "c"), node("Concat", "c", "y", axis=1)], {"w": WEIGHT}),
    "pools one behind the other, side by side": graph(
        [*(node("MaxPool", a, b, kernel_shape=[3, 3], pads=[1, 1, 1, 1]) for a, b in ("xa", "ab", "bc")),
         node("Concat", "x a b c", "y", axis=1)],
        {},
    ),
    "branches that part before where they last meet": graph(
        [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Sigmoid", "r", "s"),
         node("Concat", "r s", "a", axis=1), node("Tanh", "r", "t"), node("Concat", "a t", "y", axis=1)],
        {"w": WEIGHT},
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
    expected = run_model(BY_HAND[name], images)
    np.testing.assert_allclose(from_onnx(BY_HAND[name]).predict(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (graph([node("Sin", "x", "y")], {}), r"node y_node: expected one of AveragePool, .*, got Sin"),
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
            r"node y_node \(Add\): expected two branches, or a MatMul and its bias, got a constant",
        ),
        (
            graph([node("Relu", "x", "y")], {}, ["batch", 2, "height", 4]),
            r"ONNX model: input x: expected a shape \(batch, known lengths\), got \[0, 2, 0, 4\]",
        ),
        (
            graph([node("Relu", "x", "y"), node("Relu", "y", "z")], {}, None, "y z"),
            "ONNX model: outputs: expected 1, got 2",
        ),
        (
            graph([node("GlobalAveragePool", "x", "g"), node("Reshape", "g s", "y")], {"s": np.array([1, 1, -1])}),
            r"node y_node \(Reshape\): shape: expected \(batch, 2\), got \[1, 1, -1\]",
        ),
        (
            graph([node("Add", "x z", "y"), node("Relu", "y", "z")], {}),
            r"node y_node \(Add\): expected inputs that are constant or first outputs of earlier nodes, got z",
        ),
        (
            graph([node("Relu", "x", "y"), node("Tanh", "x", "y")], {}),
            r"node y_node \(Tanh\): expected an output name that is not taken, got y",
        ),
        (
            graph([node("Relu", "x", "y", domain="com.example")], {}),
            r"node y_node: expected one of AveragePool, .*, got com.example.Relu",
        ),
        (
            graph(
                [node("Conv", "x w", "c"), node("Concat", "x b", "a", axis=1), node("Add", "c a", "y")],
                {"w": WEIGHT, "b": WEIGHT},
            ),
            r"node a_node \(Concat\): expected branches only, got a constant",
        ),
        (
            graph([node("BatchNormalization", "x s s s s", "y")], {"s": np.ones(3, np.float32)}),
            r"node y_node \(BatchNormalization\): weight: expected floating-point numbers \(2,\), got float32 \(3,\)",
        ),
        (
            graph([node("Conv", "x w", "y")], {"w": np.ones((3, 2, 2, 2), np.int64)}),
            r"node y_node \(Conv\): weight: expected floating-point numbers \(3, 2, 2, 2\), got int64 \(3, 2, 2, 2\)",
        ),
        (
            graph([node("Relu", "x", "z")], {"y": WEIGHT}),
            "ONNX model: output: expected a tensor that depends on x, got y",
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


def dense_block(x: str, layers: int, name: str, constants: dict[str, Any], channels: int) -> tuple[list[Any], str]:
    """Return the nodes of a dense block, where each layer sees all that is before it, and the name of its output."""
    nodes, seen = [], [x]
    for place in range(layers):
        own = f"{name}_{place}"
        constants[f"{own}_w"] = np.ones((2, channels + 2 * place, 1, 1), np.float32)
        nodes += [node("Concat", " ".join(seen), f"{own}_in", axis=1), node("Relu", f"{own}_in", f"{own}_r")]
        nodes += [node("Conv", f"{own}_r {own}_w", own)]
        seen.append(own)
    return [*nodes, node("Concat", " ".join(seen), f"{name}_out", axis=1)], f"{name}_out"


@pytest.mark.parametrize("blocks", [[12], [6, 12, 24, 16]])
def test_dense_blocks_are_refused_at_once(blocks: list[int]) -> None:
    """With each layer in as many branches as there are ways behind it, those of DenseNet121 would be 2^58."""
    nodes: list[Any] = []
    constants: dict[str, Any] = {}
    x, channels = "x", 2
    for place, layers in enumerate(blocks):
        more, x = dense_block(x, layers, f"block{place}", constants, channels)
        nodes, channels = nodes + more, channels + 2 * layers
    nodes.append(node("Relu", x, "y"))
    told = (
        r"^node block\d_\d+\w* \(\w+\): expected a place in one branch, or in at most 64 without parameters, got more$"
    )
    with pytest.raises(InputError, match=told):
        from_onnx(graph(nodes, constants))


def test_a_node_with_parameters_is_in_one_branch_only() -> None:
    model = graph(
        [node("Conv", "x w", "c"), node("MaxPool", "x", "m", kernel_shape=[2, 2]), node("Concat", "c m", "a", axis=1),
         node("Relu", "a", "r"), node("Concat", "c r", "y", axis=1)],
        {"w": WEIGHT},
    )  # fmt: skip
    with pytest.raises(InputError, match=r"^node c_node \(Conv\): expected a place in one branch, .*, got more$"):
        from_onnx(model)


def test_branches_without_end_are_refused_at_once() -> None:
    """Sixty levels without parameters, each of which sees all before it, or lies inside the next."""
    seen = ["x", *(f"r{place}" for place in range(60))]
    dense: list[Any] = []
    for place in range(60):
        dense.append(node("Concat", " ".join(seen[: place + 1]), f"c{place}", axis=1))
        dense.append(node("Tanh", f"c{place}", f"r{place}"))
    with pytest.raises(InputError, match=r"^node \w+ \(\w+\): expected a place in one branch, .*, got more$"):
        from_onnx(graph([*dense, node("Relu", "r59", "y")], {}))
    nested: list[Any] = []
    for place in range(60):
        nested.append(node("Tanh", seen[place], f"t{place}"))
        nested.append(node("Add", f"x t{place}", f"r{place}"))
    with pytest.raises(InputError, match=r"^node r\d+_node \(Add\): expected branches nested at most 32 deep"):
        from_onnx(graph([*nested, node("Relu", "r59", "y")], {}))


@pytest.mark.parametrize("name", ["inception", "residual", "every option"])
def test_a_damaged_model_is_a_network_or_told(name: str, tmp_path: Path) -> None:
    whole, path = to_onnx(disturbed(*NETWORKS[name])).SerializeToString(), tmp_path / "model.onnx"
    draw = random.Random(name)
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(len(whole))] = draw.randrange(256)
        path.write_bytes(damaged[: draw.choice([len(whole), len(whole), draw.randrange(len(whole))])])
        with suppress(InputError):
            from_onnx(path)


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
    for folder in ("", ".", str(tmp_path)):
        assert main(["export", str(run), folder]) == 2
        told = f"lowered-cnn export: output: expected a file to write, got the folder {folder or '.'}\n"
        assert capsys.readouterr().err == told


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        InputError, match=r"ONNX: expected the onnx package \(pip install 'lowered-cnn\[onnx\]'\), got "
    ):
        to_onnx(disturbed(*NETWORKS["features"]))
