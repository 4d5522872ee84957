"""Schedules: their values at points where they can be told without a computer, and their bounds everywhere."""

import itertools
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowered_cnn import Constant, Cosine, InputError, OneCycle, Plateau, StepDecay
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


# Losses on a coarse grid often repeat, or differ by exactly min_delta.
losses = st.lists(st.integers(0, 8).map(lambda number: number / 4), max_size=40)
plateaus = st.builds(
    Plateau,
    st.sampled_from([0.1, 0.5]),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.25, 0.3]),
    st.sampled_from([0, 0.2]),
)


@given(plateau=plateaus, losses=losses)
def test_plateaus_are_those_of_pytorch_which_waits_one_epoch_longer(
    plateau: Plateau, losses: list[float], torch: Any
) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        factor=plateau.drop,
        patience=plateau.patience - 1,
        threshold=plateau.min_delta,
        threshold_mode="abs",
        min_lr=plateau.least,
        eps=0,
    )
    for count, loss in enumerate(losses, 1):
        theirs.step(loss)
        assert plateau.factor_after(0.5, losses[:count]) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


def test_a_plateau_starts_at_1_and_counts_losses_that_are_nan() -> None:
    plateau = Plateau(0.5, patience=2)
    assert plateau.factor(0.9) == plateau.factor_after(0.9, []) == 1
    nan = float("nan")
    assert [plateau.factor_after(0.9, [nan] * count) for count in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


@given(progress, losses)
def test_a_schedule_of_progress_ignores_the_losses(at: float, losses: list[float]) -> None:
    for schedule in (Constant(), StepDecay(), Cosine(), OneCycle()):
        assert schedule.factor_after(at, losses) == schedule.factor(at)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drop": 1}, "Plateau: drop: expected a factor between 0 and 1, got 1"),
        ({"drop": "a"}, "Plateau: drop: expected a factor between 0 and 1, got 'a'"),
        ({"patience": 0}, "Plateau: patience: expected a whole number of at least 1, got 0"),
        ({"min_delta": float("inf")}, "Plateau: min_delta: expected a finite number of at least 0, got inf"),
        ({"least": 2}, "Plateau: least: expected a factor from 0 to 1, got 2"),
    ],
)
def test_plateaus_with_invalid_options_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Plateau(**settings)
    assert str(caught.value) == message


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
