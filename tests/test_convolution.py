"""Convolution, forward and all three gradients (S1 to S4), against plain loops, SciPy and ONNX Runtime."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from onnx_oracle import run_node
from running import Pass, as_images, assert_close, normal, run
from scipy.signal import correlate
from strategies import placements

from lowered_cnn import Conv1D, Conv2D, Conv3D, InputError, Window
from lowered_cnn.arrays import Array, Shape
from lowered_cnn.layers.conv import Conv
from lowered_cnn.verify import direct
from lowered_cnn.window import Lengths, Padding

KINDS: tuple[type[Conv], ...] = (Conv1D, Conv2D, Conv3D)


@dataclass(frozen=True)
class Convolution:
    """One convolution: what is written when it is described, and what runs through it."""

    size: Shape
    kernel: Lengths
    stride: Lengths = 1
    padding: Padding = "valid"
    dilation: Lengths = 1
    channels: int = 2
    filters: int = 3
    groups: int = 1
    bias: bool = True
    batch: int = 3

    @property
    def layer(self) -> Conv:
        """The layer under test."""
        kind = KINDS[len(self.size) - 1]
        return kind(self.filters, self.kernel, self.stride, self.padding, self.dilation, self.groups, self.bias)

    @property
    def slide(self) -> direct.Slide:
        """The same window for the reference, read without the package."""
        rank = len(self.size)
        kernel, stride, dilation = (each_axis(v, rank) for v in (self.kernel, self.stride, self.dilation))
        if self.padding == "same":
            return direct.Slide(kernel, stride, direct.same_padding(self.size, kernel, stride, dilation), dilation)
        sides = 0 if self.padding == "valid" else self.padding
        each = [sides] * rank if isinstance(sides, int) else sides
        pairs = [(side, side) if isinstance(side, int) else side for side in each]
        return direct.Slide(kernel, stride, tuple((before, after) for before, after in pairs), dilation)

    @property
    def x(self) -> Array:
        """The activation that comes in."""
        return normal(self.channels, *self.size, self.batch, seed=1)

    @property
    def weight(self) -> Array:
        """The filter bank."""
        return normal(self.filters, self.channels // self.groups, *self.slide.kernel, seed=2)

    @property
    def offset(self) -> Array:
        """The bias; zeros where there is none."""
        return normal(self.filters, seed=3) if self.bias else np.zeros(self.filters)

    @property
    def dy(self) -> Array:
        """The gradient that comes back."""
        return normal(self.filters, *self.slide.output(self.size), self.batch, seed=4)

    def run(self, block_bytes: int | None) -> Pass:
        """Run the layer under test."""
        parameters = {"weight": self.weight, "bias": self.offset} if self.bias else {"weight": self.weight}
        return run(self.layer, self.x, self.dy, block_bytes, **parameters)


def each_axis(value: Lengths, rank: int) -> Shape:
    return (value,) * rank if isinstance(value, int) else tuple(value)


KERNELS: tuple[Lengths, ...] = (1, 2, 3, 5, (2, 3), (3, 1))
PADDINGS: tuple[Padding, ...] = ("valid", "same", 1, ((1, 2), (0, 1)))
ANY_RANK: tuple[Padding, ...] = PADDINGS[:3]
DILATIONS: tuple[Lengths, ...] = (2, (1, 3))
BOXES: tuple[Lengths, ...] = (2, (1, 2, 3))

PLAIN = [
    Convolution((5, 7), kernel, stride, padding, batch=batch, bias=bias)
    for kernel, padding in itertools.product(KERNELS, PADDINGS)
    for stride, batch, bias in [(1, 1, True), (2, 3, False), (3, 3, True)]
]
HOLES = [
    Convolution((8, 7), kernel, stride, padding, dilation)
    for kernel, stride in itertools.product((2, 3), (1, 2))
    for padding, dilation in itertools.product(PADDINGS, DILATIONS)
]
GROUPS = [
    Convolution((5, 4), 3, stride, "same", channels=4, filters=filters, groups=groups, bias=bias)
    for groups, filters in [(2, 2), (2, 6), (4, 4), (4, 8)]
    for stride, bias in [(1, True), (2, False)]
]
RANKS = [
    *(Convolution((9,), *window) for window in itertools.product((1, 2, 5), (1, 3), ANY_RANK)),
    *(Convolution((3, 4, 5), *window) for window in itertools.product(BOXES, (1, 2), ANY_RANK)),
    Convolution((7,), 3, 2, ((2, 1),), 2, channels=4, filters=4, groups=2),
    Convolution((3, 4, 3), 2, (1, 2, 1), ((1, 0), (0, 1), (1, 1)), (2, 1, 1), filters=2, groups=2),
]
SPECIAL = [
    Convolution((1, 1), 1, padding="same"),
    Convolution((1, 1), 3, padding="same"),
    Convolution((2, 2), 5, 3, padding=2),
    Convolution((3, 8), (3, 8), batch=1),
]
ALL = [*PLAIN, *HOLES, *GROUPS, *RANKS, *SPECIAL]
FEW = [*PLAIN[5::11], *HOLES[1::5], *GROUPS[::3], *RANKS[2::5], *RANKS[-2:]]


def every(cases: list[Convolution]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: repr(case)[len("Convolution(") : -1])


@every(ALL)
def test_forward_and_gradients_are_those_of_the_loops(case: Convolution) -> None:
    ours = case.run(block_bytes=2048)
    dx, dweight, dbias = direct.gradients(case.dy, case.x, case.weight, case.slide, case.groups)
    assert_close(ours.y, direct.forward(case.x, case.weight, case.offset, case.slide, case.groups))
    assert_close(ours.dx, dx)
    assert_close(ours.gradients["conv1.weight"], dweight)
    if case.bias:
        assert_close(ours.gradients["conv1.bias"], dbias)


@every(FEW)
@pytest.mark.parametrize("block_bytes", [1, 700, 5000])
def test_blocks_change_nothing_but_the_rounding(case: Convolution, block_bytes: int) -> None:
    blocks, whole = case.run(block_bytes), case.run(None)
    assert_close(blocks.y, whole.y, 1e-12)
    assert_close(blocks.dx, whole.dx, 1e-12)
    assert_close(blocks.gradients.vector, whole.gradients.vector, 1e-12)


@every([case for case in FEW if case.groups == 1])
def test_forward_is_scipys_correlation(case: Convolution) -> None:
    slide = case.slide
    padded = np.pad(case.x, ((0, 0), *slide.padding, (0, 0)))
    extent = tuple(d * (k - 1) + 1 for k, d in zip(slide.kernel, slide.dilation, strict=True))
    spread = np.zeros((*case.weight.shape[:2], *extent))
    spread[:, :, *(slice(None, None, d) for d in slide.dilation)] = case.weight
    ours = case.run(None).y
    for k, n in np.ndindex(case.filters, case.batch):
        summed = sum(correlate(padded[c, ..., n], spread[k, c], "valid") for c in range(case.channels))
        assert_close(ours[k, ..., n], summed[*(slice(None, None, s) for s in slide.stride)] + case.offset[k])


@every(FEW)
def test_forward_is_onnx_runtimes_conv(case: Convolution) -> None:
    slide = case.slide
    theirs = run_node(
        "Conv",
        as_images(case.x),
        case.weight,
        case.offset,
        strides=list(slide.stride),
        pads=[p[0] for p in slide.padding] + [p[1] for p in slide.padding],
        dilations=list(slide.dilation),
        group=case.groups,
    )
    assert_close(as_images(case.run(None).y), theirs, 1e-5)


@every([case for case in ALL if set(case.slide.stride) == {1} and case.groups == 1])
def test_the_input_gradient_is_itself_a_convolution(case: Convolution) -> None:
    assert_close(case.run(None).dx, direct.input_gradient_as_convolution(case.dy, case.weight, case.slide))


@given(placements())
def test_output_size_is_the_number_of_places_where_the_window_fits(placement: tuple[Window, Shape]) -> None:
    window, size = placement
    padding = window.padding or direct.same_padding(size, window.kernel, window.stride, window.dilation)
    places = direct.Slide(window.kernel, window.stride, padding, window.dilation).output(size)
    if min(places) == 0:
        with pytest.raises(InputError, match=r"expected an input of at least \(.*\) under a window of"):
            window.over(size)
    else:
        sweep = window.over(size)
        assert sweep.output == places
        assert sweep.pads == padding


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": 0}, "kernel: expected a whole number of at least 1, got 0"),
        ({"kernel": 2.5}, "kernel: expected a whole number of at least 1, got 2.5"),
        ({"kernel": (3, 3, 3)}, "kernel: expected a number, or 2 of them, got (3, 3, 3)"),
        ({"stride": -1}, "stride: expected a whole number of at least 1, got -1"),
        ({"stride": 2**31}, "stride: expected at most 2147483647, got 2147483648"),
        ({"dilation": (1, 0)}, "dilation: expected a whole number of at least 1, got 0"),
        ({"padding": -1}, "padding: expected a whole number of at least 0, got -1"),
        ({"padding": None}, "padding: expected a whole number of at least 0, got None"),
        ({"padding": "full"}, "padding: expected 'same', 'valid', a number, or 2 numbers or pairs, got 'full'"),
        (
            {"padding": ((1, 2, 3), 0)},
            "padding: expected 'same', 'valid', a number, or 2 numbers or pairs, got ((1, 2, 3), 0)",
        ),
    ],
)
def test_a_window_without_sense_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Conv2D(**{"filters": 2, "kernel": 3, **arguments})
    assert str(caught.value) == f"Conv2D: {message}"


@pytest.mark.parametrize(
    ("filters", "groups", "message"),
    [
        (0, 1, "Conv2D: filters: expected a whole number of at least 1, got 0"),
        (2.0, 1, "Conv2D: filters: expected a whole number of at least 1, got 2.0"),
        (2, 0, "Conv2D: groups: expected a whole number of at least 1, got 0"),
        (3, 2, "Conv2D: expected filters to be a multiple of groups (2), got 3"),
    ],
)
def test_filters_that_groups_cannot_share_are_refused(filters: int, groups: int, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Conv2D(filters, 3, groups=groups)
    assert str(caught.value) == message
