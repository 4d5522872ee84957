"""im2col and col2im: what they move where, that they are adjoint, and the blocks in which positions are cut."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import normal
from strategies import lengths, sweeps

from lowered_cnn import Window, col2im, im2col
from lowered_cnn.arrays import Array, InputError, Shape
from lowered_cnn.lowering import Columns, cut
from lowered_cnn.verify import direct
from lowered_cnn.window import Sweep
from lowered_cnn.workspace import Workspace


def read_one_by_one(x: Array, sweep: Sweep) -> Array:
    """Fill columns[c, a, i] = x[c, i S + a D - P] one number at a time, zero where that is outside."""
    window = sweep.window
    slide = direct.Slide(window.kernel, window.stride, sweep.pads, window.dilation)
    columns = np.zeros((x.shape[0], *window.kernel, *sweep.output, x.shape[-1]))
    for c, *a in np.ndindex(columns.shape[: -len(sweep.size) - 1]):
        for i in np.ndindex(sweep.output):
            p = slide.source(i, a)
            if direct.inside(p, sweep.size):
                columns[c, *a, *i] = x[c, *p]
    return columns


def inner(a: Array, b: Array) -> float:
    return float((a * b).sum())


@given(sweeps(), st.integers(1, 2), st.integers(1, 3))
def test_im2col_reads_what_its_equation_says(sweep: Sweep, channels: int, batch: int) -> None:
    x = normal(channels, *sweep.size, batch)
    np.testing.assert_array_equal(im2col(x, sweep), read_one_by_one(x, sweep))


@given(sweeps(), st.integers(1, 2), st.integers(1, 3))
def test_im2col_and_col2im_are_adjoint(sweep: Sweep, channels: int, batch: int) -> None:
    x = normal(channels, *sweep.size, batch, seed=1)
    columns = im2col(x, sweep)
    c = normal(*columns.shape, seed=2)
    folded = col2im(c, sweep)
    assert folded.shape == x.shape
    most = float(np.linalg.norm(columns) * np.linalg.norm(c))
    assert abs(inner(columns, c) - inner(x, folded)) <= 1e-12 * most


@given(sweeps())
def test_col2im_of_ones_counts_how_often_each_input_is_read(sweep: Sweep) -> None:
    numbered = 1.0 + np.arange(math.prod(sweep.size)).reshape(1, *sweep.size, 1)
    read = im2col(numbered, sweep)
    counts = np.bincount(read.ravel().astype(int), minlength=numbered.size + 1)[1:]
    folded = col2im(np.ones_like(read), sweep)
    np.testing.assert_array_equal(folded.ravel(), counts)


@given(sweeps(), st.integers(1, 4000))
def test_blocks_of_columns_are_parts_of_the_whole(sweep: Sweep, block_bytes: int) -> None:
    x = normal(2, *sweep.size, 2)
    columns = Columns(sweep, 2, 2, Workspace(x.dtype, block_bytes))
    columns.read(x)
    columns.clear()
    rows = 2 * math.prod(sweep.window.kernel)
    whole = im2col(x, sweep).reshape(rows, -1)
    for block in columns.blocks:
        part = columns.im2col(block)
        np.testing.assert_array_equal(part.reshape(rows, -1), block.of(whole, 2))
        columns.col2im(block, part)
    np.testing.assert_allclose(columns.dx(), col2im(im2col(x, sweep), sweep), rtol=1e-12, atol=1e-12)


@given(st.integers(1, 3).flatmap(lambda rank: lengths(rank, 7)), st.integers(1, 50), st.integers(1, 2000))
def test_blocks_cover_all_positions_once_in_order_and_are_small(
    output: Shape, position_bytes: int, block_bytes: int
) -> None:
    numbers = np.arange(math.prod(output)).reshape(output)
    seen: list[int] = []
    for block in cut(output, position_bytes, block_bytes):
        part = numbers[block.positions]
        assert part.shape == block.shape(output)
        assert (block.start, block.stop) == (len(seen), len(seen) + part.size)
        assert part.size == 1 or part.size * position_bytes <= block_bytes
        seen += part.ravel().tolist()
    assert seen == numbers.ravel().tolist()


@given(st.integers(1, 3).flatmap(lambda rank: lengths(rank, 7)))
def test_without_a_bound_there_is_one_block(output: Shape) -> None:
    (block,) = cut(output, 8, None)
    assert (block.start, block.stop) == (0, math.prod(output))


def test_no_more_blocks_than_the_bound_asks_for() -> None:
    assert len(cut((28, 28), position_bytes=100, block_bytes=28 * 100)) == 28
    assert len(cut((28, 28), position_bytes=100, block_bytes=7 * 28 * 100)) == 4
    assert len(cut((28, 28), position_bytes=100, block_bytes=14 * 100)) == 56


def test_the_columns_of_a_small_image() -> None:
    x = np.arange(1.0, 7.0).reshape(1, 2, 3, 1)
    columns = im2col(x, Window.of(2, kernel=2).over((2, 3)))
    assert columns.reshape(4, 2).tolist() == [[1, 2], [2, 3], [4, 5], [5, 6]]


def test_a_window_takes_arrays_for_what_they_hold() -> None:
    array: Any = np.array  # no annotation promises them
    window = Window.of(2, array([2, 3]), array(2), array([1, 0]), array([1, 2]))
    assert window == Window.of(2, (2, 3), 2, (1, 0), (1, 2))
    assert Window.of(2, 3, padding=array([[1, 0], [2, 1]])) == Window.of(2, 3, padding=((1, 0), (2, 1)))
    with pytest.raises(
        InputError, match=r"^window: padding: expected a whole number of at least 0, got np.float64\(0.5\)$"
    ):
        Window.of(2, 3, padding=array([0.5, 0.5]))
    with pytest.raises(
        InputError, match=r"^window: kernel: expected a whole number of at least 1, got array\(\[1, 2\]\)$"
    ):
        Window.of(2, array([[1, 2], [1, 2]]))


@pytest.mark.parametrize("size", [(), (8,), (8, 8, 8)])
def test_a_window_lies_over_as_many_axes_as_it_has(size: Shape) -> None:
    with pytest.raises(InputError) as caught:
        Window.of(2, 3).over(size)
    assert str(caught.value) == f"window: expected an input of 2 axes under a window of (3, 3), got {size}"


def test_shapes_that_do_not_fit_the_sweep_are_refused() -> None:
    """A view of every window would otherwise reach behind the array."""
    sweep = Window.of(2, 5).over((8, 8))
    with pytest.raises(InputError, match=r"^im2col: x: expected \(3, 8, 8, 1\), got \(3, 6, 6, 1\)$"):
        im2col(np.zeros((3, 6, 6, 1)), sweep)
    with pytest.raises(InputError, match=r"^col2im: columns: expected \(3, 5, 5, 4, 4, 1\), got \(3, 5, 5, 1, 1, 1\)$"):
        col2im(np.zeros((3, 5, 5, 1, 1, 1)), sweep)
