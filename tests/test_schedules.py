"""Schedules: their values at points where they can be told without a computer, and their bounds everywhere."""

import itertools
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowered_cnn import Constant, Cosine, InputError, OneCycle, StepDecay
from lowered_cnn.schedules import Schedule

progress = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("schedule", "at", "factor"),
    [
        (Constant(), 0, 1),
        (Constant(), 0.99, 1),
        (StepDecay((0.5, 0.75), 0.1), 0.49, 1),
        (StepDecay((0.5, 0.75), 0.1), 0.5, 0.1),
        (StepDecay((0.5, 0.75), 0.1), 0.75, 0.01),
        (StepDecay((), 0.1), 0.9, 1),
        (Cosine(), 0, 1),
        (Cosine(), 1 / 3, 0.75),
        (Cosine(), 0.5, 0.5),
        (Cosine(), 2 / 3, 0.25),
        (OneCycle(0.2, 0.04), 0, 0.04),
        (OneCycle(0.2, 0.04), 0.1, 0.52),
        (OneCycle(0.2, 0.04), 0.2, 1),
        (OneCycle(0.2, 0.04), 0.6, 0.5),
    ],
)
def test_values_at_points(schedule: Schedule, at: float, factor: float) -> None:
    assert schedule.factor(at) == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("schedule", [Cosine(), OneCycle(), OneCycle(0.9, 0.5)])
def test_the_end_is_0(schedule: Schedule) -> None:
    assert schedule.factor(1) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("schedule", [Constant(), StepDecay(), Cosine(), OneCycle()])
@given(progress)
def test_the_factor_is_between_0_and_1(schedule: Schedule, at: float) -> None:
    assert 0 <= schedule.factor(at) <= 1


@given(st.floats(0.05, 0.95), st.floats(0, 1))
def test_one_cycle_goes_up_and_then_down(warmup: float, start: float) -> None:
    schedule = OneCycle(warmup, start)
    up = [schedule.factor(at) for at in np.linspace(0, warmup, 20, endpoint=False)]
    down = [schedule.factor(at) for at in np.linspace(warmup, 1, 20)]
    assert all(a <= b for a, b in itertools.pairwise(up))
    assert all(a > b for a, b in itertools.pairwise(down))


def test_points_outside_the_training_are_refused() -> None:
    with pytest.raises(InputError, match=r"^StepDecay: at: expected points between 0 and 1, got \(0.5, 1\)$"):
        StepDecay((0.5, 1))
    for at in ("a", 0.5, (None,)):
        with pytest.raises(InputError, match=r"^StepDecay: at: expected points between 0 and 1, got "):
            StepDecay(cast(Any, at))
    with pytest.raises(InputError, match=r"^StepDecay: drop: expected a factor above 0 and at most 1, got 'a'$"):
        StepDecay(drop=cast(Any, "a"))
    with pytest.raises(InputError, match=r"^OneCycle: start: expected a factor from 0 to 1, got 'a'$"):
        OneCycle(start=cast(Any, "a"))
    with pytest.raises(InputError, match=r"^OneCycle: warmup: expected a fraction between 0 and 1, got 'a'$"):
        OneCycle(cast(Any, "a"))
    with pytest.raises(InputError, match=r"^OneCycle: warmup: expected a fraction between 0 and 1, got 0$"):
        OneCycle(0)
