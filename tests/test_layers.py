"""The layers that have no room of tests of their own: against PyTorch and SciPy, in float64, and in networks."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import as_images, assert_close, normal, run
from strategies import lengths

from lowered_cnn import (
    ELU,
    GELU,
    SGD,
    AdamW,
    AvgPool,
    BatchNorm,
    Concatenate,
    Constant,
    Conv1D,
    Conv2D,
    Conv3D,
    ConvTranspose1D,
    ConvTranspose2D,
    ConvTranspose3D,
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
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    SoftmaxCrossEntropy,
    Tanh,
    Window,
    load,
    save,
    summary,
    train,
)
from lowered_cnn.arrays import Array, Shape
from lowered_cnn.parameters import Parameter, ParameterVector
from lowered_cnn.workspace import BLOCK_BYTES

CONVS = [Conv1D, Conv2D, Conv3D]
TRANSPOSES = [ConvTranspose1D, ConvTranspose2D, ConvTranspose3D]


def against(torch: Any, layer: Layer, module: Any, x: Array, **parameters: Array) -> None:
    """Compare outputs and all gradients of a layer and a module of PyTorch, in float64."""
    module = module.double()
    module.load_state_dict({name: torch.tensor(values) for name, values in parameters.items()})
    images = torch.tensor(as_images(x).copy(), requires_grad=True)
    y = module(images)
    dy = normal(*y.shape[1:], y.shape[0], seed=9)
    y.backward(torch.tensor(as_images(dy).copy()))
    ours = run(layer, x, dy, BLOCK_BYTES, **parameters)
    assert_close(as_images(ours.y), y.detach().numpy(), 1e-12)
    assert_close(as_images(ours.dx), images.grad.numpy(), 1e-12)
    for name, parameter in module.named_parameters():
        assert_close(ours.gradients[f"{layer.kind}1.{name}"], parameter.grad.numpy(), 1e-12)


# --- activations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "name", "options"),
    [
        (LeakyReLU(), "LeakyReLU", {}),
        (LeakyReLU(0.3), "LeakyReLU", {"negative_slope": 0.3}),
        (LeakyReLU(1.5), "LeakyReLU", {"negative_slope": 1.5}),
        (ELU(), "ELU", {}),
        (ELU(0.4), "ELU", {"alpha": 0.4}),
        (GELU(), "GELU", {}),
        (GELU(approximate=True), "GELU", {"approximate": "tanh"}),
        (SiLU(), "SiLU", {}),
        (Sigmoid(), "Sigmoid", {}),
        (Tanh(), "Tanh", {}),
        (Softmax(), "Softmax", {"dim": 1}),
    ],
    ids=repr,
)
@pytest.mark.parametrize("shape", [(4, 3, 5, 2), (6, 3)])
def test_activations_are_pytorchs(torch: Any, layer: Layer, name: str, options: Any, shape: Shape) -> None:
    against(torch, layer, getattr(torch.nn, name)(**options), 3 * normal(*shape))


@pytest.mark.parametrize("layer", [LeakyReLU(), ELU(), GELU(), GELU(approximate=True), SiLU(), Sigmoid(), Tanh()])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_numbers_neither_overflow_nor_lose_their_type(layer: Layer, dtype: Any) -> None:
    x = np.array([[-1e4, -30, -0.0, 0.0, 30, 1e4]], dtype)
    result = run(layer, x)
    assert result.y.dtype == result.dx.dtype == dtype
    assert np.isfinite(result.y).all()
    assert np.isfinite(result.dx).all()


# --- transposed convolution ------------------------------------------------------------------------------------------


@st.composite
def placed(draw: st.DrawFn) -> tuple[Window, Shape, Shape, int]:
    """Draw a window, the size of the convolution's input, the output padding that leads back to it, and groups."""
    rank = draw(st.integers(1, 3))
    kernel, stride, dilation = draw(lengths(rank, 3)), draw(lengths(rank, 3)), draw(lengths(rank, 2))
    pads = draw(st.tuples(*[st.tuples(st.integers(0, 1), st.integers(0, 1))] * rank))
    window = Window.of(rank, kernel, stride, pads, dilation)
    size = tuple(e + more for e, more in zip(window.extent, draw(lengths(rank, 4)), strict=True))
    sweep = window.over(size)
    used = [(o - 1) * s + e for o, s, e in zip(sweep.output, stride, window.extent, strict=True)]
    return window, size, tuple(h - u for h, u in zip(sweep.padded, used, strict=True)), draw(st.integers(1, 2))


@given(placed())
def test_a_transposed_convolution_is_the_adjoint(drawn: tuple[Window, Shape, Shape, int]) -> None:
    window, size, rest, groups = drawn
    assert window.padding is not None
    rank, where = len(size), (window.kernel, window.stride, window.padding)
    conv = CONVS[rank - 1](4, *where, window.dilation, groups, bias=False)
    transpose = TRANSPOSES[rank - 1](6, *where, rest, window.dilation, groups, bias=False)
    x, weight = normal(6, *size, 2), normal(4, 6 // groups, *window.kernel, seed=1)
    y = run(conv, x, weight=weight).y
    z = normal(*y.shape, seed=2)
    back = run(transpose, z, weight=weight).y
    assert back.shape == x.shape
    np.testing.assert_allclose((y * z).sum(), (x * back).sum(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("block_bytes", [None, 300])
@pytest.mark.parametrize(
    ("rank", "options"),
    [
        (1, {}),
        (1, {"stride": 3, "padding": 1, "output_padding": 2, "dilation": 2, "groups": 2}),
        (2, {}),
        (2, {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2), "groups": 2, "bias": False}),
        (2, {"stride": 2, "dilation": (2, 1)}),
        (3, {"stride": (1, 2, 1), "padding": 1, "output_padding": (0, 1, 0)}),
    ],
)
def test_transposed_convolutions_are_pytorchs(torch: Any, rank: int, options: Any, block_bytes: int | None) -> None:
    kernel = (3, 2, 2)[:rank]
    x = normal(4, *(5, 4, 3)[:rank], 2)
    module = getattr(torch.nn, f"ConvTranspose{rank}d")(4, 6, kernel, **options)
    parameters = {name: normal(*values.shape, seed=3) for name, values in module.named_parameters()}
    against(torch, TRANSPOSES[rank - 1](6, kernel, **options), module, x, **parameters)
    ours = TRANSPOSES[rank - 1](6, kernel, **options)
    whole, blocks = (run(ours, x, None, size, **parameters) for size in (None, block_bytes))
    assert_close(blocks.y, whole.y, 1e-13)
    assert_close(blocks.dx, whole.dx, 1e-13)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_same_padding_multiplies_the_size_by_the_stride(kernel: int, stride: int) -> None:
    if kernel < stride:
        return
    assert ConvTranspose2D(2, kernel, stride, "same").output_shape((1, 5, 4), "") == (2, 5 * stride, 4 * stride)


ONCE_MORE = [
    ConvTranspose2D(3, 3, 2), GlobalMaxPool(), LayerNorm(), BatchNorm(), GELU(), Softmax(), Pad(1), Dropout(0.3),
    Residual(Conv2D(4, 3, padding=1)), Concatenate(Conv2D(2, 1), Sequential()), AvgPool(2, 2, 1, ceil_mode=True),
    Conv2D(4, 3, groups=4),
]  # fmt: skip


@pytest.mark.parametrize("layer", ONCE_MORE, ids=repr)
def test_a_step_leaves_nothing_behind_for_the_next_one(layer: Layer) -> None:
    network = Network(Sequential(Conv2D(4, 1), layer), (2, 5, 6), dtype=np.float64)
    lowered, fresh = (network.lower(3, wants_dx=True) for _ in range(2))
    images, others = normal(3, 2, 5, 6), normal(3, 2, 5, 6, seed=1)
    dy = normal(*lowered.forward(others).shape, seed=2)
    lowered.backward(-dy)
    results = []
    for each in (lowered, fresh):
        y = each.forward(images, position=(0,)).copy()
        dx = each.backward(dy.copy())
        assert dx is not None
        results.append((y, dx.copy(), each.gradients.vector.copy()))
    for again, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(again, expected)


# --- pooling and normalization ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 2), (2, 3, 2, 2, 3)])
def test_the_global_maximum_is_pytorchs(torch: Any, shape: Shape) -> None:
    kind = getattr(torch.nn, f"AdaptiveMaxPool{len(shape) - 2}d")
    against(torch, GlobalMaxPool(), torch.nn.Sequential(kind(1), torch.nn.Flatten()), normal(*shape))


def test_the_first_of_equal_maxima_gets_the_gradient() -> None:
    assert run(GlobalMaxPool(), np.ones((1, 2, 2, 1))).dx.ravel().tolist() == [1, 0, 0, 0]


def test_layer_normalization_is_pytorchs(torch: Any) -> None:
    weight, bias = normal(5, seed=1), normal(5, seed=2)
    against(torch, LayerNorm(), torch.nn.LayerNorm(5), normal(5, 7), weight=weight, bias=bias)
    x, dy = normal(5, 4, 3, 2), normal(5, 4, 3, 2, seed=3)
    ours = run(LayerNorm(0.1), x, dy, weight=weight, bias=bias)
    images = torch.tensor(np.moveaxis(x, 0, -1).copy(), requires_grad=True)
    y = torch.nn.functional.layer_norm(images, (5,), torch.tensor(weight), torch.tensor(bias), 0.1)
    y.backward(torch.tensor(np.moveaxis(dy, 0, -1).copy()))
    assert_close(np.moveaxis(ours.y, 0, -1), y.detach().numpy(), 1e-12)
    assert_close(np.moveaxis(ours.dx, 0, -1), images.grad.numpy(), 1e-12)


@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(6, 7), (8, 5)])
@pytest.mark.parametrize("padding", [0, 1])
def test_pooling_with_ceil_mode_and_dilation_is_pytorchs(
    torch: Any, kernel: int, stride: int, size: Shape, padding: int
) -> None:
    x = normal(2, *size, 3)
    for dilation in (1, 2):
        options: Any = {"padding": padding, "dilation": dilation, "ceil_mode": True}
        against(torch, MaxPool(kernel, stride, **options), torch.nn.MaxPool2d(kernel, stride, **options), x)
    for include in (False, True):
        options = {"padding": padding, "ceil_mode": True, "count_include_pad": include}
        against(torch, AvgPool(kernel, stride, **options), torch.nn.AvgPool2d(kernel, stride, **options), x)


# --- branches --------------------------------------------------------------------------------------------------------

RESIDUAL = Sequential(
    Conv2D(4, 3, padding=1),
    Residual(
        Sequential(Conv2D(4, 3, padding=1, bias=False), BatchNorm(), ReLU(), Conv2D(4, 3, padding=1), BatchNorm())
    ),
    ReLU(),
    Residual(Sequential(Conv2D(6, 3, 2, 1), GELU()), Conv2D(6, 1, 2)),
    GlobalAvgPool(),
    Dense(3),
)
INCEPTION = Sequential(
    Concatenate(
        Conv2D(2, 1),
        Sequential(Conv2D(3, 1), ReLU(), Conv2D(4, 3, padding=1)),
        MaxPool(3, 1, 1),
        Sequential(),
        Sequential(AvgPool(3, 1, 1), Residual(Conv2D(2, 1))),
    ),
    ReLU(), MaxPool(2), Flatten(), Dense(3),
)  # fmt: skip


def module_of(torch: Any, layer: Layer, shape: Shape) -> Any:
    """Build what a layer describes from PyTorch's modules."""
    nn = torch.nn

    class Sum(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, body: Any, shortcut: Any) -> None:
            super().__init__()
            self.body, self.shortcut = body, shortcut

        def forward(self, x: Any) -> Any:
            return self.body(x) + self.shortcut(x)

    class Join(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, *branches: Any) -> None:
            super().__init__()
            self.branches = nn.ModuleList(branches)

        def forward(self, x: Any) -> Any:
            return torch.cat([branch(x) for branch in self.branches], 1)

    match layer:
        case Sequential():
            return nn.Sequential(*(module_of(torch, inner, inside) for _, inner, inside in layer.steps(shape)))
        case Residual():
            return Sum(*(module_of(torch, inner, shape) for _, inner in layer.branches))
        case Concatenate():
            return Join(*(module_of(torch, inner, shape) for _, inner in layer.branches))
        case Conv2D():
            assert isinstance(layer.padding, int) or layer.padding == "valid"
            padding = 0 if layer.padding == "valid" else layer.padding
            return nn.Conv2d(shape[0], layer.filters, layer.kernel, layer.stride, padding, bias=layer.bias)
        case MaxPool() | AvgPool():
            kind = nn.MaxPool2d if isinstance(layer, MaxPool) else nn.AvgPool2d
            return kind(layer.kernel, layer.stride, 0 if layer.padding == "valid" else layer.padding)
        case BatchNorm():
            return nn.BatchNorm2d(shape[0])
        case GlobalAvgPool():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case Dense():
            return nn.Linear(shape[0], layer.units)
    return {ReLU: nn.ReLU, GELU: nn.GELU, Flatten: nn.Flatten}[type(layer)]()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("model", [RESIDUAL, INCEPTION], ids=["residual", "inception"])
def test_networks_with_branches_are_pytorchs(torch: Any, model: Sequential, fused: bool) -> None:
    shape = (2, 8, 6)
    network = Network(model, shape, dtype=np.float64)
    network.parameters.vector += 0.1 * np.abs(normal(network.parameters.vector.size))
    module = module_of(torch, model, shape).double()
    with torch.no_grad():
        # Both list the parameters in the order of the layers.
        learned = [parameter.name for parameter in network.parameters.parameters if not parameter.statistic]
        for name, parameter in zip(learned, module.parameters(), strict=True):
            parameter.copy_(torch.tensor(network.parameters[name]))
    images, dy = normal(5, *shape), normal(5, 3)
    x = torch.tensor(images, requires_grad=True)
    y = module(x)
    y.backward(torch.tensor(dy))
    lowered = network.lower(5, wants_dx=True, fused=fused)
    for _ in range(2):
        assert_close(lowered.forward(images), y.detach().numpy(), 1e-11)
        dx = lowered.backward(dy.copy())
        assert dx is not None
        assert_close(dx, x.grad.numpy(), 1e-11)
        for name, parameter in zip(learned, module.parameters(), strict=True):
            assert_close(lowered.gradients[name] + 1, parameter.grad.numpy() + 1, 1e-11)


@pytest.mark.parametrize("model", [RESIDUAL, INCEPTION], ids=["residual", "inception"])
def test_networks_with_branches_learn(model: Sequential) -> None:
    images = normal(60, 2, 8, 6).astype(np.float32)
    labels = np.arange(60) % 3
    images += labels[:, None, None, None]
    network = Network(model, (2, 8, 6))
    records = list(train(network, Dataset(images, labels, ("a", "b", "c")), Recipe(25, 30, SGD(0.02, 0.9), Constant())))
    assert records[-1].loss < 0.5 * records[0].loss


@pytest.mark.parametrize("model", [RESIDUAL, INCEPTION], ids=["residual", "inception"])
def test_networks_with_branches_are_saved_and_fused(model: Sequential, tmp_path: Any) -> None:
    network = Network(model, (2, 8, 6), dtype=np.float64)
    network.parameters.vector += 0.1 * np.abs(normal(network.parameters.vector.size))
    save(network, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert again.model == model
    np.testing.assert_array_equal(again.parameters.vector, network.parameters.vector)
    images = normal(4, 2, 8, 6)
    plain = network.lower(4, training=False, fused=False).forward(images)
    assert_close(network.predict(images), plain, 1e-12)


def test_branches_have_names_and_rows_in_the_ledger() -> None:
    network = Network(RESIDUAL, (2, 8, 6))
    assert "residual1.body.batch_norm2.weight" in network.parameters
    assert "residual2.shortcut.conv1.weight" in network.parameters
    assert "concatenate1.branch5.residual1.body.conv1.bias" in Network(INCEPTION, (2, 8, 6)).parameters
    ledger = summary(network)
    rows = [row.name for row in ledger.rows]
    assert rows[1:4] == ["residual1.body.conv1", "residual1.body.batch_norm1", "residual1.body.relu1"]
    assert rows[6:8] == ["residual1", "relu1"]
    inner = next(row for row in ledger.rows if row.name == "residual1.body.conv1")
    product = inner.whole("dweight")
    assert product is not None
    assert (product.m, product.k, product.n) == (4, 48, 36)


# --- depthwise, losses, optimizers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolutions_are_pytorchs(torch: Any, multiplier: int) -> None:
    module = torch.nn.Conv2d(6, 6 * multiplier, 3, (1, 2), 1, (2, 1), groups=6)
    parameters = {name: normal(*values.shape) for name, values in module.named_parameters()}
    layer = Conv2D(6 * multiplier, 3, (1, 2), 1, (2, 1), groups=6)
    against(torch, layer, module, normal(6, 9, 8, 3), **parameters)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_label_smoothing_is_pytorchs(torch: Any, smoothing: float) -> None:
    z, labels = 4 * normal(7, 5), np.arange(7) % 5
    value, gradient = SoftmaxCrossEntropy(smoothing).value_and_gradient(z.copy(), labels, 7)
    theirs = torch.tensor(z, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(theirs, torch.tensor(labels), label_smoothing=smoothing)
    loss.backward()
    assert value == pytest.approx(loss.item(), rel=1e-13)
    assert_close(gradient, theirs.grad.numpy(), 1e-13)


def test_adamw_is_pytorchs(torch: Any) -> None:
    vector = ParameterVector.zeros([Parameter("weight", (3,), decays=True), Parameter("bias", (2,))], np.float64)
    vector.vector[...] = normal(5)
    theirs = [torch.nn.Parameter(torch.tensor(part)) for part in (vector.vector[:3].copy(), vector.vector[3:].copy())]
    groups = [{"params": theirs[:1]}, {"params": theirs[1:], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.3)
    ours = AdamW(0.01, 0.8, 0.95, 1e-6, 0.3).over(vector)
    for step in range(5):
        gradient = normal(5, seed=step)
        for parameter, part in zip(theirs, (gradient[:3], gradient[3:]), strict=True):
            parameter.grad = torch.tensor(part)
        reference.step()
        ours.step(ParameterVector(vector.parameters, gradient))
    np.testing.assert_allclose(vector.vector, torch.cat(theirs).detach().numpy(), rtol=1e-12)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LeakyReLU(float("nan")), "LeakyReLU: slope: expected a finite number, got nan"),
        (lambda: ELU(float("inf")), "ELU: alpha: expected a finite number, got inf"),
        (lambda: LayerNorm(0), "LayerNorm: epsilon: expected a number above 0, got 0"),
        (lambda: Concatenate(), "Concatenate: expected at least one branch, got none"),
        (
            lambda: SoftmaxCrossEntropy(1),
            "SoftmaxCrossEntropy: label_smoothing: expected a number from 0 up to, but not including, 1, got 1",
        ),
        (lambda: AdamW(weight_decay=-1), "AdamW: weight_decay: expected a finite number of at least 0, got -1"),
        (lambda: AdamW(epsilon=0), "AdamW: epsilon: expected a number above 0, got 0"),
        (
            lambda: ConvTranspose2D(3, 3, groups=2),
            "ConvTranspose2D: expected filters to be a multiple of groups (2), got 3",
        ),
        (
            lambda: ConvTranspose2D(3, 3, output_padding=1),
            "ConvTranspose2D: output_padding: expected less than the stride (1, 1), got (1, 1)",
        ),
        (
            lambda: ConvTranspose1D(3, 3, 2, "same", 1),
            "ConvTranspose1D: output_padding: expected none with 'same' padding, got (1,)",
        ),
        (
            lambda: ConvTranspose1D(3, 3, output_padding=(0, 0)),
            "ConvTranspose1D: output_padding: expected a number, or 1 of them, got (0, 0)",
        ),
        (
            lambda: Network(Sequential(ConvTranspose1D(2, 2, padding=3)), (1, 2)),
            "conv_transpose1: expected an output of at least one position, got (-3,)",
        ),
        (
            lambda: Network(Sequential(Residual(Conv2D(2, 3))), (2, 5, 5)),
            "residual1: shortcut: expected (2, 3, 3), got (2, 5, 5)",
        ),
        (
            lambda: Network(Sequential(Concatenate(Conv2D(2, 3), Conv2D(2, 1))), (2, 5, 5)),
            "concatenate1.branch2: size: expected (3, 3), got (5, 5)",
        ),
        (
            lambda: Network(Sequential(MaxPool(2, padding="same", dilation=2**30)), (2, 5, 5)),
            "max_pool1: padded input: expected at most 32 axes and 1e+14 numbers, got 2 axes and 2^60 numbers",
        ),
        (lambda: Pad(1, cast(Any, "same")), "Pad: value: expected a number, got 'same'"),
        (
            lambda: Network(Sequential(GlobalMaxPool()), (2,)),
            "global_max_pool1: input: expected shape (C, *size), got (2,)",
        ),
    ],
)
def test_what_makes_no_sense_is_told(make: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message


@pytest.mark.parametrize("wrong", ["no", 1, None])
@pytest.mark.parametrize(
    ("layer", "flag"),
    [
        (MaxPool(), "ceil_mode"),
        (AvgPool(), "ceil_mode"),
        (AvgPool(), "count_include_pad"),
        (Conv2D(2, 3), "bias"),
        (ConvTranspose2D(2, 3), "bias"),
        (Dense(2), "bias"),
        (GELU(), "approximate"),
    ],
)
def test_a_flag_is_true_or_false(layer: Layer, flag: str, wrong: Any) -> None:
    with pytest.raises(InputError) as caught:
        replace(layer, **{flag: wrong})
    assert str(caught.value) == f"{type(layer).__name__}: {flag}: expected True or False, got {wrong!r}"


def test_dropout_in_branches_has_noise_of_its_own() -> None:
    network = Network(Sequential(Concatenate(Dropout(), Sequential(Dropout()))), (50,))
    y = network.lower(1).forward(np.ones((1, 50), np.float32))
    assert not np.array_equal(y[:50], y[50:])
