"""The layers that have no room of tests of their own: against PyTorch and SciPy, in float64, and in networks."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import as_images, assert_close, normal, run
from strategies import lengths

from lowered_cnn import (
    ELU,
    GELU,
    LRN,
    SGD,
    AdamW,
    AdaptiveAvgPool,
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    Clip,
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
    GroupNorm,
    HardSigmoid,
    HardSwish,
    InputError,
    InstanceNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    LogSoftmax,
    MaxPool,
    Network,
    Pad,
    PixelShuffle,
    PReLU,
    Recipe,
    ReLU,
    Reshape,
    Residual,
    Resize,
    Scale,
    Sequential,
    Sigmoid,
    SiLU,
    Slice,
    Softmax,
    SoftmaxCrossEntropy,
    Tanh,
    Transpose,
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
        (Softmax(-1), "Softmax", {"dim": -1}),
        (LogSoftmax(), "LogSoftmax", {"dim": 1}),
        (LogSoftmax(-1), "LogSoftmax", {"dim": -1}),
        (Clip(), "ReLU6", {}),
        (Clip(-1, 0.5), "Hardtanh", {"min_val": -1, "max_val": 0.5}),
        (Clip(-math.inf, 0), "Hardtanh", {"min_val": -math.inf, "max_val": 0}),
        (HardSwish(), "Hardswish", {}),
    ],
    ids=repr,
)
@pytest.mark.parametrize("shape", [(4, 3, 5, 2), (6, 3)])
def test_activations_are_pytorchs(torch: Any, layer: Layer, name: str, options: Any, shape: Shape) -> None:
    against(torch, layer, getattr(torch.nn, name)(**options), 3 * normal(*shape))


def test_the_hard_sigmoid_is_pytorchs(torch: Any) -> None:
    # PyTorch's own gradient has 1 / 6 in float32.
    line = function_module(torch, lambda x: torch.clamp(x / 6 + 0.5, 0, 1))
    against(torch, HardSigmoid(), line, 3 * normal(4, 3, 5, 2))
    np.testing.assert_allclose(
        run(HardSigmoid(), x := normal(6, 3)).y, torch.nn.functional.hardsigmoid(torch.tensor(x)), rtol=1e-12
    )


@pytest.mark.parametrize("shape", [(4, 3, 5, 2), (6, 3)])
@pytest.mark.parametrize("shared", [False, True])
def test_a_prelu_is_pytorchs(torch: Any, shared: bool, shape: Shape) -> None:
    count = 1 if shared else shape[0]
    against(torch, PReLU(shared), torch.nn.PReLU(count), normal(*shape), weight=normal(count, seed=1))
    start, theirs = Network(Sequential(PReLU(shared)), shape[:-1]).parameters, torch.nn.PReLU(count)
    np.testing.assert_array_equal(start["prelu1.weight"], theirs.weight.detach().numpy())


@pytest.mark.parametrize(
    "layer",
    [
        LeakyReLU(), ELU(), GELU(), GELU(approximate=True), SiLU(), Sigmoid(), Tanh(), Clip(), HardSigmoid(),
        HardSwish(), PReLU(), LogSoftmax(),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_numbers_neither_overflow_nor_lose_their_type(layer: Layer, dtype: Any) -> None:
    x = np.array([[-1e4, -30, -0.0, 0.0, 30, 1e4]], dtype)
    result = run(layer, x)
    assert result.y.dtype == result.dx.dtype == dtype
    assert np.isfinite(result.y).all()
    assert np.isfinite(result.dx).all()


# --- scales and rearrangements ---------------------------------------------------------------------------------------


@st.composite
def scaled(draw: st.DrawFn) -> tuple[Shape, Shape]:
    """Draw the shape of an activation of one to three axes, and that of numbers which broadcast to it."""
    rank = draw(st.integers(1, 3))
    shape = draw(lengths(rank, 4))
    own = tuple(draw(st.sampled_from([1, n])) for n in shape)
    return shape, own[draw(st.integers(0, rank - 1)) :]


@given(scaled(), st.sampled_from([(True, True), (True, False), (False, True)]))
def test_a_scale_is_what_pytorch_broadcasts(torch: Any, drawn: tuple[Shape, Shape], has: tuple[bool, bool]) -> None:
    shape, own = drawn
    names = [name for name, there in zip(("weight", "bias"), has, strict=True) if there]

    class Module(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for name in names:
                self.register_parameter(name, torch.nn.Parameter(torch.zeros(own)))

        def forward(self, x: Any) -> Any:
            x = x * self.weight if has[0] else x
            return x + self.bias if has[1] else x

    numbers = {name: normal(*own, seed=len(name)) for name in names}
    against(torch, Scale(own, *has), Module(), normal(*shape, 3), **numbers)


def test_constants_scale_but_are_not_trained() -> None:
    layer = Scale((2, 1, 1), learned=False)
    network = Network(Sequential(layer, Flatten(), Dense(3)), (2, 3, 4))
    network.parameters["scale1.weight"], network.parameters["scale1.bias"] = 3, 5
    images = normal(20, 2, 3, 4).astype(np.float32)
    data = Dataset(images, np.arange(20) % 3, ("a", "b", "c"))
    before = network.parameters["dense1.weight"].copy()
    for recipe in (Recipe(1, 10, SGD(0.1, 0.9)), Recipe(1, 10, AdamW(weight_decay=0.5))):
        list(train(network, data, recipe))
    assert not np.array_equal(before, network.parameters["dense1.weight"])
    assert (network.parameters["scale1.weight"] == 3).all()
    assert (network.parameters["scale1.bias"] == 5).all()
    initial = Network(Sequential(Scale(initial=1e-6)), (2, 3)).parameters["scale1.weight"]
    np.testing.assert_array_equal(initial, np.full((2, 1), 1e-6, np.float32))


def function_module(torch: Any, function: Callable[[Any], Any]) -> Any:
    """Return a module of PyTorch that only applies a function."""

    class Module(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return function(x)

    return Module()


@st.composite
def rearranged(draw: st.DrawFn) -> tuple[Layer, Shape, Callable[[Any], Any]]:
    """Draw a layer that rearranges numbers, an input's shape, and the same for a tensor of PyTorch."""
    rank = draw(st.integers(2, 4))
    groups, factor = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    shape = (groups * factor ** (rank - 1) * draw(st.integers(1, 2)), *draw(lengths(rank - 1, 4)))
    axis = draw(st.integers(-rank, rank - 1))
    match draw(st.sampled_from(["reshape", "transpose", "slice", "shuffle", "pixels"])):
        case "reshape":
            order = draw(st.permutations([*shape, 1]))
            unknown = draw(st.sampled_from([None, *range(rank + 1)]))
            wanted = tuple(-1 if place == unknown else n for place, n in enumerate(order))
            return Reshape(wanted), shape, lambda x: x.reshape(len(x), *order)
        case "transpose":
            axes = tuple(draw(st.permutations(range(rank))))
            return Transpose(axes), shape, lambda x: x.permute(0, *(axis + 1 for axis in axes))
        case "slice":
            last = shape[axis] - 1
            start, step = draw(st.integers(-last - 2, last)), draw(st.integers(1, 3))
            stop = draw(st.sampled_from([None, last + 1, last + 9]))
            part = (slice(None),) * (1 + axis % rank)
            return Slice(axis, start, stop, step), shape, lambda x: x[*part, start:stop:step]
        case "shuffle":
            inside = (groups, shape[0] // groups, *shape[1:])
            return ChannelShuffle(groups), shape, lambda x: x.reshape(len(x), *inside).swapaxes(1, 2).reshape(x.shape)
    order = [0, 1, *(place for number in range(rank - 1) for place in (rank + 1 + number, 2 + number))]
    inside = (shape[0] // factor ** (rank - 1), *[factor] * (rank - 1), *shape[1:])
    size = tuple(h * factor for h in shape[1:])
    return PixelShuffle(factor), shape, lambda x: x.reshape(len(x), *inside).permute(order).reshape(len(x), -1, *size)


@given(rearranged())
def test_rearrangements_are_pytorchs(torch: Any, drawn: tuple[Layer, Shape, Callable[[Any], Any]]) -> None:
    layer, shape, function = drawn
    against(torch, layer, function_module(torch, function), normal(*shape, 2))


def test_shuffles_are_pytorchs(torch: Any) -> None:
    against(torch, ChannelShuffle(3), torch.nn.ChannelShuffle(3), normal(6, 4, 5, 2))
    against(torch, PixelShuffle(2), torch.nn.PixelShuffle(2), normal(8, 4, 5, 2))


@given(st.integers(1, 3), st.sampled_from(["reflect", "replicate"]), st.data())
@settings(max_examples=40)
def test_borders_are_pytorchs(torch: Any, rank: int, mode: str, data: st.DataObject) -> None:
    size = data.draw(lengths(rank, 4))
    most = [h - 1 if mode == "reflect" else 3 for h in size]
    pads = tuple(data.draw(st.tuples(st.integers(0, m), st.integers(0, m))) for m in most)
    flat = [side for pad in reversed(pads) for side in pad]
    module = function_module(torch, lambda x: torch.nn.functional.pad(x, flat, mode=mode))
    layer = Pad(pads, mode="reflect" if mode == "reflect" else "edge")
    against(torch, layer, module, normal(2, *size, 3))


# --- interpolation and means over parts ------------------------------------------------------------------------------

INTERPOLATIONS = {
    "nearest": ["nearest"] * 3,
    "linear": ["linear", "bilinear", "trilinear"],
    "cubic": ["", "bicubic", ""],
}


@given(st.integers(1, 3), st.sampled_from(list(INTERPOLATIONS)), st.booleans(), st.booleans(), st.data())
def test_interpolation_is_pytorchs(
    torch: Any, rank: int, mode: Any, corners: bool, by_scale: bool, data: st.DataObject
) -> None:
    rank = 2 if mode == "cubic" else rank  # PyTorch has no other
    size = data.draw(lengths(rank, 6))
    options: Any = {"mode": INTERPOLATIONS[mode][rank - 1]}
    coordinates: Any = "align_corners" if corners else "half_pixel"
    if mode == "nearest":
        coordinates = "asymmetric"
    else:
        options |= {"align_corners": corners}
    scale = size_out = None
    if by_scale:
        # At these scales no place is rounded, so that both have the same nearest one.
        scale = tuple(data.draw(st.sampled_from([1.0, 2.0, 4.0, 8.0])) for _ in size)
    else:
        size_out = tuple(data.draw(st.sampled_from([h, 2 * h, 4 * h, 1])) for h in size)
    module = torch.nn.Upsample(size_out, scale, **options)
    layer = Resize(scale, size_out, mode, coordinates, "floor" if mode == "nearest" else "round_prefer_floor")
    against(torch, layer, module, normal(2, *size, 3))


@pytest.mark.parametrize(("size", "output"), [((37, 9), (70, 18)), ((50, 33), (11, 40)), ((3, 64), (64, 3))])
def test_large_images_are_resized_in_bands(torch: Any, size: Shape, output: Shape) -> None:
    module = torch.nn.Upsample(output, mode="bilinear")
    against(torch, Resize(size=output, mode="linear"), module, normal(2, *size, 3))
    against(torch, AdaptiveAvgPool(output), torch.nn.AdaptiveAvgPool2d(output), normal(2, *size, 3))


def test_nearest_neighbours_of_any_scale_are_pytorchs(torch: Any) -> None:
    for scale in (0.3, 0.45, 1.3, 1.7, 2.6):
        against(
            torch,
            Resize(scale, coordinates="asymmetric", rounding="floor"),
            torch.nn.Upsample(scale_factor=scale),
            normal(2, 9, 7, 3),
        )


@given(st.integers(1, 3), st.data())
@settings(max_examples=40)
def test_means_over_parts_are_pytorchs(torch: Any, rank: int, data: st.DataObject) -> None:
    size, parts = data.draw(lengths(rank, 7)), data.draw(lengths(rank, 7))
    module = getattr(torch.nn, f"AdaptiveAvgPool{rank}d")(parts)
    against(torch, AdaptiveAvgPool(parts), module, normal(2, *size, 3))


# --- dense layers along an axis --------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.booleans(), st.data())
def test_a_dense_layer_along_an_axis_is_pytorchs(torch: Any, rank: int, bias: bool, data: st.DataObject) -> None:
    shape, axis = data.draw(lengths(rank, 4)), data.draw(st.integers(-rank, rank - 1))
    place = axis % rank + 1
    module = torch.nn.Linear(shape[axis], 3, bias)
    parameters = {name: normal(*values.shape, seed=3) for name, values in module.named_parameters()}

    class Along(torch.nn.Linear):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return super().forward(x.movedim(place, -1)).movedim(-1, place)

    against(torch, Dense(3, bias, axis), Along(shape[axis], 3, bias), normal(*shape, 2), **parameters)


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
    Conv2D(4, 3, groups=4), Clip(), PReLU(), Scale(), LogSoftmax(), Softmax(1), Dense(3, axis=1), LRN(3), GroupNorm(2),
    InstanceNorm(), Resize(2, mode="linear"), AdaptiveAvgPool(3), Reshape((-1, 2)), Transpose((1, 0, 2)), Slice(1, 1),
    PixelShuffle(2), ChannelShuffle(2), Pad(2, mode="reflect"), Pad(2, mode="edge"), Dropout(0.3, channels=True),
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


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.sampled_from([1e-3, 0.1]))
@settings(max_examples=40)
def test_group_normalization_is_pytorchs(torch: Any, groups: int, together: int, rank: int, epsilon: float) -> None:
    channels, size = groups * together, (4, 3, 2)[:rank]
    x = normal(channels, *size, 3)
    numbers = {"weight": normal(channels, seed=1), "bias": normal(channels, seed=2)}
    if together * math.prod(size) > 2:
        against(torch, GroupNorm(groups, epsilon), torch.nn.GroupNorm(groups, channels, epsilon), x, **numbers)
    if rank:
        kind = getattr(torch.nn, f"InstanceNorm{rank}d")
        against(torch, InstanceNorm(epsilon), kind(channels, epsilon), x)
        against(torch, InstanceNorm(epsilon, affine=True), kind(channels, epsilon, affine=True), x, **numbers)


@given(st.sampled_from([1, 3, 5, 7]), st.integers(1, 6), st.integers(1, 2))
@settings(max_examples=40)
def test_local_response_normalization_is_pytorchs(torch: Any, size: int, channels: int, rank: int) -> None:
    x = 2 * normal(channels, *(3, 4)[:rank], 2)
    for options in ((1e-4, 0.75, 1.0), (0.5, 0.6, 2.0)):
        against(torch, LRN(size, *options), torch.nn.LocalResponseNorm(size, *options), x)


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
            lambda: Pad(mode=cast(Any, "wrap")),
            "Pad: mode: expected 'constant' or 'reflect' or 'edge', got 'wrap'",
        ),
        (
            lambda: Network(Sequential(Pad(3, mode="reflect")), (1, 3, 5)),
            "pad1: padding: expected less than the size (3, 5), which is reflected, got ((3, 3), (3, 3))",
        ),
        (lambda: Clip(6, 0), "Clip: expected two numbers, low < high, got 6 and 0"),
        (lambda: Clip(0, math.nan), "Clip: expected two numbers, low < high, got 0 and nan"),
        (lambda: HardSigmoid(math.inf), "HardSigmoid: alpha: expected a finite number, got inf"),
        (lambda: HardSigmoid(beta=math.nan), "HardSigmoid: beta: expected a finite number, got nan"),
        (lambda: Scale(weight=False, bias=False), "Scale: expected a weight, a bias or both, got neither"),
        (lambda: Scale(initial=math.inf), "Scale: initial: expected a finite number, got inf"),
        (lambda: Scale(cast(Any, 3)), "Scale: shape: expected a tuple of lengths, got 3"),
        (lambda: Scale((0,)), "Scale: shape: expected a whole number of at least 1, got 0"),
        (
            lambda: Network(Sequential(Scale((3, 1))), (2, 4, 5)),
            "scale1: input: expected a shape that (3, 1) broadcasts to, got (2, 4, 5)",
        ),
        (lambda: Reshape(()), "Reshape: shape: expected a tuple of lengths, got ()"),
        (
            lambda: Reshape((-1, -1)),
            "Reshape: shape: expected lengths above 0, one of which may be -1, got (-1, -1)",
        ),
        (
            lambda: Network(Sequential(Reshape((3, -1))), (2, 4)),
            "reshape1: input: expected as many numbers as (3, -1), got (2, 4)",
        ),
        (lambda: Transpose((0, 0)), "Transpose: axes: expected 0, 1, ..., each once, got (0, 0)"),
        (
            lambda: Network(Sequential(Transpose((1, 0))), (2, 4, 5)),
            "transpose1: input: expected a shape of 2 axes, got (2, 4, 5)",
        ),
        (lambda: Slice(0, cast(Any, None)), "Slice: start: expected a whole number, got None"),
        (lambda: Slice(step=0), "Slice: step: expected a whole number of at least 1, got 0"),
        (
            lambda: Network(Sequential(Slice(1, 4)), (2, 4)),
            "slice1: input: expected something in [4:None] of axis 1, got (2, 4)",
        ),
        (
            lambda: Network(Sequential(ChannelShuffle(3)), (4, 2)),
            "channel_shuffle1: input: expected channels in 3 groups of the same size, got (4, 2)",
        ),
        (
            lambda: Network(Sequential(PixelShuffle(2)), (6, 2, 2)),
            "pixel_shuffle1: input: expected shape (C, *size) with C a multiple of 4, got (6, 2, 2)",
        ),
        (lambda: Softmax(cast(Any, 0.5)), "Softmax: axis: expected a whole number, got 0.5"),
        (
            lambda: Network(Sequential(LogSoftmax(2)), (4, 2)),
            "log_softmax1: input: expected a shape that has an axis 2, got (4, 2)",
        ),
        (lambda: Dense(3, axis=cast(Any, True)), "Dense: axis: expected a whole number, got True"),
        (
            lambda: Network(Sequential(Dense(3)), (4, 2)),
            "dense1: input: expected shape (features), as Flatten() gives, got (4, 2)",
        ),
        (lambda: Resize(), "Resize: expected either a scale or a size, got neither"),
        (lambda: Resize(2, 3), "Resize: expected either a scale or a size, got both"),
        (
            lambda: Resize(2, mode=cast(Any, "bilinear")),
            "Resize: mode: expected 'nearest' or 'linear' or 'cubic', got 'bilinear'",
        ),
        (
            lambda: Network(Sequential(Resize((2, 2, 2))), (2, 4, 4)),
            "resize1: scale: expected a number above 0, or 2 of them, got (2, 2, 2)",
        ),
        (
            lambda: Network(Sequential(Resize(0.2)), (2, 4, 4)),
            "resize1: expected an output of at least one position, got (0, 0)",
        ),
        (
            lambda: Network(Sequential(AdaptiveAvgPool((2, 2))), (2, 4)),
            "adaptive_avg_pool1: size: expected a number, or 1 of them, got (2, 2)",
        ),
        (lambda: LRN(4), "LRN: size: expected an odd number, got 4"),
        (lambda: LRN(k=0), "LRN: expected alpha of at least 0 and k above 0, got 0.0001 and 0"),
        (lambda: GroupNorm(0), "GroupNorm: groups: expected a whole number of at least 1, got 0"),
        (lambda: GroupNorm(2, 0), "GroupNorm: epsilon: expected a number above 0, got 0"),
        (
            lambda: Network(Sequential(GroupNorm(3)), (4, 2)),
            "group_norm1: input: expected channels in 3 groups of the same size, got (4, 2)",
        ),
        (
            lambda: Network(Sequential(InstanceNorm()), (4,)),
            "instance_norm1: input: expected shape (C, *size), got (4,)",
        ),
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
        (Dropout(), "channels"),
        (InstanceNorm(), "affine"),
        (PReLU(), "shared"),
        (Scale(), "learned"),
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


def test_dropout_of_channels_drops_them_whole() -> None:
    network = Network(Sequential(Dropout(0.4, channels=True)), (20, 3, 4), dtype=np.float64)
    y = network.lower(50).forward(np.ones((50, 20, 3, 4)))
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :, :1, :1], y.shape))
    assert set(np.unique(y)) == {0, 1 / (1 - 0.4)}
    assert 0.3 < (y == 0).mean() < 0.5
    np.testing.assert_array_equal(network.predict(np.ones((2, 20, 3, 4))), np.ones((2, 20, 3, 4)))
