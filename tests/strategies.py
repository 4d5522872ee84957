"""What hypothesis draws: windows over inputs of one, two and three dimensions."""

from hypothesis import strategies as st

from lowered_cnn import Window
from lowered_cnn.arrays import InputError, Shape
from lowered_cnn.window import Padding, Sweep


def lengths(rank: int, most: int) -> st.SearchStrategy[Shape]:
    """Draw one number an axis, from 1 to ``most``."""
    return st.tuples(*[st.integers(1, most)] * rank)


def paddings(rank: int) -> st.SearchStrategy[Padding]:
    """Draw every way to write a padding."""
    pairs = st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * rank)
    return st.one_of(st.just("same"), st.just("valid"), st.integers(0, 2), pairs)


@st.composite
def placements(draw: st.DrawFn) -> tuple[Window, Shape]:
    """Draw a window and an input's size that it may or may not fit."""
    rank = draw(st.integers(1, 3))
    window = Window.of(
        rank,
        draw(lengths(rank, 4)),
        draw(lengths(rank, 3)),
        draw(paddings(rank)),
        draw(lengths(rank, 3)),
    )
    return window, draw(lengths(rank, 9 - 2 * rank))


@st.composite
def sweeps(draw: st.DrawFn) -> Sweep:
    """Draw a window over an input that is large enough for it."""
    window, size = draw(placements())
    try:
        return window.over(size)
    except InputError:
        grown = tuple(h + e for h, e in zip(size, window.extent, strict=True))
        return window.over(grown)
