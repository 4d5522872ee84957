"""Maximum and mean pooling (S6, S7) against plain loops, ONNX Runtime and PyTorch, and the rule for ties."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_oracle import run_node
from running import as_images, assert_close, normal, run
from scipy.ndimage import maximum_filter, uniform_filter
from strategies import lengths

from lowered_cnn import AvgPool, GlobalAvgPool, InputError, MaxPool
from lowered_cnn.arrays import Array, Shape
from lowered_cnn.verify import direct


@dataclass(frozen=True)
class Case:
    """One pooling: the input's size, and the window."""

    size: Shape
    kernel: Shape
    stride: Shape
    padding: tuple[tuple[int, int], ...]

    @property
    def slide(self) -> direct.Slide:
        """The window for the reference."""
        return direct.Slide(self.kernel, self.stride, self.padding, (1,) * len(self.size))

    @property
    def x(self) -> Array:
        """An activation of two channels and three examples."""
        return normal(2, *self.size, 3, seed=1)

    @property
    def dy(self) -> Array:
        """The gradient that comes back."""
        return normal(2, *self.slide.output(self.size), 3, seed=2)

    @property
    def pads(self) -> list[int]:
        """The padding as ONNX writes it: all befores, then all afters."""
        return [p[0] for p in self.padding] + [p[1] for p in self.padding]


CASES = [
    Case((4, 4), (2, 2), (2, 2), ((0, 0), (0, 0))),
    Case((5, 7), (2, 2), (2, 2), ((0, 0), (0, 0))),
    Case((5, 7), (3, 2), (1, 2), ((0, 0), (0, 0))),
    Case((6, 5), (3, 3), (2, 2), ((1, 1), (1, 1))),
    Case((5, 6), (2, 3), (1, 1), ((0, 1), (2, 0))),
    Case((7, 7), (2, 2), (3, 3), ((1, 0), (0, 1))),
    Case((3, 3), (3, 3), (1, 1), ((2, 2), (2, 2))),
    Case((1, 1), (1, 1), (1, 1), ((0, 0), (0, 0))),
    Case((9,), (3,), (2,), ((1, 1),)),
    Case((8,), (2,), (2,), ((0, 0),)),
    Case((3, 5, 4), (2, 2, 2), (2, 2, 2), ((0, 0), (0, 0), (0, 0))),
    Case((3, 4, 5), (2, 3, 1), (1, 2, 2), ((1, 0), (1, 1), (0, 0))),
]


def pytorch_has(case: Case) -> bool:
    """PyTorch pads both sides alike, and by no more than half the kernel."""
    axes = zip(case.kernel, case.padding, strict=True)
    return all(before == after and 2 * before <= k for k, (before, after) in axes)


every = pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case)[5:-1])
both_means = pytest.mark.parametrize("count_include_pad", [True, False])
blocks = pytest.mark.parametrize("block_bytes", [100, None])


@every
def test_max_pool_is_that_of_the_loops(case: Case) -> None:
    ours = run(MaxPool(case.kernel, case.stride, case.padding), case.x, case.dy)
    y, dx = direct.max_pool(case.x, case.slide, case.dy)
    np.testing.assert_array_equal(ours.y, y)
    assert_close(ours.dx, dx, 1e-14)


@every
def test_max_pool_sends_ties_to_the_first(case: Case) -> None:
    x = np.round(case.x)
    ours = run(MaxPool(case.kernel, case.stride, case.padding), x, case.dy)
    assert_close(ours.dx, direct.max_pool(x, case.slide, case.dy)[1], 1e-14)


@every
@both_means
@blocks
def test_avg_pool_is_that_of_the_loops(case: Case, count_include_pad: bool, block_bytes: int | None) -> None:
    layer = AvgPool(case.kernel, case.stride, case.padding, count_include_pad=count_include_pad)
    ours = run(layer, case.x, case.dy, block_bytes)
    y, dx = direct.avg_pool(case.x, case.slide, case.dy, count_include_pad)
    assert_close(ours.y, y, 1e-13)
    assert_close(ours.dx, dx, 1e-13)


@every
def test_max_pool_is_onnx_runtimes(case: Case) -> None:
    theirs = run_node(
        "MaxPool", as_images(case.x), kernel_shape=list(case.kernel), strides=list(case.stride), pads=case.pads
    )
    ours = run(MaxPool(case.kernel, case.stride, case.padding), case.x).y
    np.testing.assert_array_equal(as_images(ours).astype(np.float32), theirs)


@every
@both_means
def test_avg_pool_is_onnx_runtimes(case: Case, count_include_pad: bool) -> None:
    theirs = run_node(
        "AveragePool",
        as_images(case.x),
        kernel_shape=list(case.kernel),
        strides=list(case.stride),
        pads=case.pads,
        count_include_pad=int(count_include_pad),
    )
    layer = AvgPool(case.kernel, case.stride, case.padding, count_include_pad=count_include_pad)
    assert_close(as_images(run(layer, case.x).y), theirs, 1e-6)


@pytest.mark.parametrize("size", [(6, 9), (7, 8)])
def test_pooling_by_three_is_scipys_filter_thinned_out(size: Shape) -> None:
    x = normal(2, *size, 3)
    window = (1, 3, 3, 1)
    thinned = (slice(None), slice(1, size[0] - 1, 3), slice(1, size[1] - 1, 3))
    np.testing.assert_array_equal(run(MaxPool(3), x).y, maximum_filter(x, window)[thinned])
    assert_close(run(AvgPool(3), x).y, uniform_filter(x, window)[thinned], 1e-13)


@pytest.mark.parametrize("case", [case for case in CASES if pytorch_has(case)], ids=lambda case: repr(case)[5:-1])
def test_ties_go_where_pytorch_sends_them(case: Case, torch: Any) -> None:
    x = torch.tensor(np.ascontiguousarray(as_images(np.round(case.x))), requires_grad=True)
    pool = getattr(torch.nn.functional, f"max_pool{len(case.size)}d")
    y = pool(x, case.kernel, case.stride, [p[0] for p in case.padding])
    y.backward(torch.tensor(np.ascontiguousarray(as_images(case.dy))))
    ours = run(MaxPool(case.kernel, case.stride, case.padding), np.round(case.x), case.dy)
    assert_close(as_images(ours.dx), x.grad.numpy(), 1e-14)


def test_a_patch_of_zeros_sends_its_gradient_once_to_its_first_element() -> None:
    ours = run(MaxPool(2), np.zeros((1, 4, 6, 2)), np.full((1, 2, 3, 2), 5.0))
    expected = np.zeros((1, 4, 6, 2))
    expected[:, ::2, ::2] = 5.0
    np.testing.assert_array_equal(ours.dx, expected)


@pytest.mark.parametrize("layer", [MaxPool(2), AvgPool(2)])
def test_the_last_odd_row_and_column_get_no_gradient(layer: MaxPool | AvgPool) -> None:
    dx = run(layer, normal(1, 5, 3, 2)).dx
    assert dx[:, :4, :2].sum() == pytest.approx(4)
    assert not dx[:, 4].any()
    assert not dx[:, :, 2].any()


def test_max_pooling_of_negative_numbers_does_not_see_the_border() -> None:
    x = -1 - np.abs(normal(1, 3, 3, 1))
    assert run(MaxPool(3, 2, padding=1), x).y.max() == x.max()


@pytest.mark.parametrize("size", [(5,), (3, 4), (2, 3, 2)])
def test_global_average_is_the_mean_of_each_channel(size: Shape) -> None:
    x, axes = normal(3, *size, 2), tuple(range(1, 1 + len(size)))
    dy = normal(3, 2, seed=1)
    ours = run(GlobalAvgPool(), x, dy)
    assert_close(ours.y, x.mean(axis=axes), 1e-14)
    shared = np.expand_dims(dy, axes) / np.prod(size)
    assert_close(ours.dx, np.broadcast_to(shared, x.shape), 1e-14)


@st.composite
def pools(draw: st.DrawFn) -> tuple[Shape, dict[str, Any]]:
    """Draw an input's size, perhaps smaller than the window, and what PyTorch allows: padding up to half the kernel."""
    rank = draw(st.integers(1, 3))
    kernel = draw(lengths(rank, 5))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    options = {"padding": padding, "stride": draw(lengths(rank, 4)), "ceil_mode": draw(st.booleans())}
    return draw(lengths(rank, 4)), {"kernel": kernel, **options}


def check_against_pytorch(layer: MaxPool | AvgPool, name: str, size: Shape, options: dict[str, Any]) -> None:
    """Compare y and dx; what PyTorch has no output for is refused."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = normal(2, *size, 2)
    images = torch.tensor(as_images(x).copy(), requires_grad=True)
    kernel, *rest = options.items()
    try:
        y = getattr(torch.nn.functional, f"{name}{len(size)}d")(images, kernel[1], **dict(rest))
    except RuntimeError as error:
        if "smaller than kernel size" in str(error):
            return  # its mean of three axes wants an input as large as the kernel
        with pytest.raises(InputError, match="at least"):
            layer.output_shape((2, *size), "pool1")
        return
    dy = normal(*y.shape[1:], 2, seed=1)
    ours = run(layer, x, dy)
    np.testing.assert_allclose(as_images(ours.y), y.detach().numpy(), rtol=1e-13, atol=1e-13)
    if y.isinf().any():
        return  # all taps lie in the border: PyTorch's gradient then goes out of bounds
    y.backward(torch.tensor(as_images(dy).copy()))
    np.testing.assert_allclose(as_images(ours.dx), images.grad.numpy(), rtol=1e-13, atol=1e-13)


@given(pools(), st.integers(1, 3))
def test_maxima_over_any_window_are_pytorchs(drawn: tuple[Shape, dict[str, Any]], dilation: int) -> None:
    size, options = drawn
    options["dilation"] = dilation
    check_against_pytorch(MaxPool(**options), "max_pool", size, options)


@given(pools(), st.booleans())
def test_means_over_any_window_are_pytorchs(drawn: tuple[Shape, dict[str, Any]], count_include_pad: bool) -> None:
    size, options = drawn
    options["count_include_pad"] = count_include_pad
    check_against_pytorch(AvgPool(**options), "avg_pool", size, options)


@pytest.mark.parametrize("kind", [MaxPool, AvgPool])
def test_an_input_smaller_than_the_window_has_a_position_where_the_rest_counts(kind: type[MaxPool | AvgPool]) -> None:
    assert run(kind(2, ceil_mode=True), np.full((1, 1, 1, 1), 3.0)).y.ravel().tolist() == [3]
    assert kind(4, 3, ceil_mode=True).output_shape((1, 2, 2), "pool1") == (1, 1, 1)
    for layer, least in ((kind(4, 3, ceil_mode=True), 2), (kind(4, 3), 4)):
        message = (
            rf"^pool1: expected an input of at least \({least}, {least}\) under a window of \(4, 4\), got \(1, 2\)$"
        )
        with pytest.raises(InputError, match=message):
            layer.output_shape((1, 1, 2), "pool1")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@blocks
def test_the_mean_of_nothing_is_zero(dtype: type[np.floating], block_bytes: int | None) -> None:
    """Between two windows that see a number of the input each, one has both its taps in the border."""
    layer = AvgPool(2, 1, 2, 3, count_include_pad=False)
    x, dy = np.array([[[3.0], [4.0]]], dtype), np.array([[[5.0], [6.0], [7.0]]], dtype)
    ours = run(layer, x, dy, block_bytes)
    y, dx = direct.avg_pool(x, direct.Slide((2,), (1,), ((2, 2),), (3,)), dy, count_include_pad=False)
    assert ours.y.dtype == dtype
    assert ours.y.ravel().tolist() == y.ravel().tolist() == [4, 0, 3]
    assert ours.dx.ravel().tolist() == dx.ravel().tolist() == [7, 5]


@pytest.mark.parametrize("kind", [MaxPool, AvgPool])
def test_a_border_wider_than_the_window_is_refused(kind: type[MaxPool]) -> None:
    with pytest.raises(InputError, match=r"^pool1: padding: expected less than the window \(2, 2\), got \(\(2, 2\), "):
        kind(2, 1, padding=2).output_shape((1, 5, 5), "pool1")


@pytest.mark.parametrize("layer", [MaxPool(2), AvgPool(2), GlobalAvgPool()])
def test_pooling_of_features_is_refused(layer: MaxPool | AvgPool | GlobalAvgPool) -> None:
    with pytest.raises(InputError, match=r"^pool1: input: expected shape \(C, \*size\), got \(7,\)$"):
        layer.output_shape((7,), "pool1")


def test_the_stride_of_none_is_the_kernel() -> None:
    for kernel in itertools.product((1, 2, 3), (1, 2)):
        x = normal(1, 6, 7, 1)
        np.testing.assert_array_equal(run(MaxPool(kernel), x).y, run(MaxPool(kernel, kernel), x).y)
