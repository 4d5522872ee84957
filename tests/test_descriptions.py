"""Descriptions: what training is described with comes back from JSON as it was, to the last bit."""

import dataclasses
import importlib
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lowered_cnn as cnn
from lowered_cnn import InputError
from lowered_cnn.descriptions import JSON, describe, restore

FRACTIONS = st.floats(0, 1, exclude_min=True, exclude_max=True)
RATES = st.floats(0, 1, exclude_max=True)
POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)

OPTIMIZERS = st.one_of(
    st.builds(cnn.SGD, POSITIVE, FRACTIONS, st.booleans(), RATES),
    st.builds(cnn.Adam, POSITIVE, RATES, RATES, POSITIVE, RATES),
    st.builds(cnn.AdamW, POSITIVE, RATES, RATES, POSITIVE, RATES),
    st.builds(cnn.RMSprop, POSITIVE, RATES, POSITIVE, RATES, st.booleans(), RATES),
)
SCHEDULES = st.one_of(
    st.builds(cnn.Constant), st.builds(cnn.Cosine), st.builds(cnn.OneCycle, FRACTIONS, RATES),
    st.builds(cnn.StepDecay, st.lists(FRACTIONS, max_size=3).map(tuple), FRACTIONS),
    st.builds(cnn.Plateau, FRACTIONS, st.integers(1), POSITIVE, FRACTIONS),
)  # fmt: skip
LOSSES = st.one_of(st.builds(cnn.SoftmaxCrossEntropy, RATES), st.builds(cnn.MeanSquaredError))
AUGMENTATIONS = st.builds(
    cnn.Augmentation, POSITIVE, POSITIVE, POSITIVE, RATES, POSITIVE, st.booleans(), st.integers(0)
)
RECIPES = st.builds(
    cnn.Recipe, st.integers(1), st.integers(1), OPTIMIZERS, SCHEDULES, LOSSES, st.integers(0),
    st.none() | AUGMENTATIONS, RATES, st.none() | st.just(math.inf) | POSITIVE, st.none() | FRACTIONS,
)  # fmt: skip


def carried(value: object) -> object:
    """Return the value after a way through a file."""
    return restore(json.loads(json.dumps(describe(value))))


def numbers(value: object) -> Any:
    """Return all that a value is made of, with the type of each number and its bits."""
    if dataclasses.is_dataclass(value):
        return type(value), [numbers(getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, tuple):
        return list(map(numbers, value))
    return type(value), value.hex() if isinstance(value, float) else value


@given(RECIPES)
def test_a_recipe_comes_back_with_the_bits_of_every_number(recipe: cnn.Recipe) -> None:
    assert numbers(carried(recipe)) == numbers(recipe)


@given(st.one_of(OPTIMIZERS, SCHEDULES, LOSSES, AUGMENTATIONS))
def test_each_part_of_a_recipe_comes_back_alone(part: object) -> None:
    assert numbers(carried(part)) == numbers(part)


def test_the_names_are_those_of_the_public_classes() -> None:
    assert describe(cnn.SGD(0.1)) == {
        "class": "SGD", "learning_rate": 0.1, "momentum": 0.0, "nesterov": False, "l2": 0.0,
    }  # fmt: skip
    assert describe(cnn.Dense(2)) == {"layer": "Dense", "units": 2, "bias": True, "axis": None}


def test_infinite_numbers_come_back_and_undefined_ones_are_refused() -> None:
    assert carried(cnn.Pad(1, -math.inf)) == cnn.Pad(1, -math.inf)
    with pytest.raises(InputError, match=r"^Pad: value: expected a number, got nan$"):
        describe(cnn.Sequential(cnn.Pad(1, math.nan)))


def test_numbers_of_numpy_become_plain_ones() -> None:
    assert numbers(carried(cnn.SGD(np.float32(0.1)))) == numbers(cnn.SGD(float(np.float32(0.1))))  # type: ignore[arg-type]


OWN = """
from dataclasses import dataclass
import lowered_cnn as cnn

@dataclass(frozen=True)
class Lion(cnn.Optimizer):
    learning_rate: float = 0.1
    inner: cnn.Optimizer = cnn.Adam()
    def lower(self, values, decays, rates):
        return self.inner.lower(values, decays, rates)

class Triangle(cnn.Schedule):
    def factor(self, progress):
        return 1 - abs(1 - 2 * progress)

class Hinge(cnn.Loss):
    def __init__(self, margin=1.0):
        self.margin = margin
    def value_and_gradient(self, z, targets, m):
        return 0.0, z * 0

@dataclass(frozen=True)
class Hook:
    command: str = ""
    def __post_init__(self):
        raise SystemExit(self.command)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module with an optimizer, a schedule and a loss of one's own."""
    (tmp_path / "own_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    return importlib.import_module("own_parts")


def test_parts_of_ones_own_come_back_as_themselves(own: Any) -> None:
    recipe = cnn.Recipe(optimizer=own.Lion(inner=cnn.SGD(0.3)), schedule=own.Triangle())
    again = carried(recipe)
    assert isinstance(again, cnn.Recipe)
    assert again.optimizer == recipe.optimizer
    assert type(again.schedule) is own.Triangle
    assert describe(own.Triangle()) == {"class": "own_parts:Triangle"}


def test_state_that_is_in_no_field_is_refused(own: Any) -> None:
    with pytest.raises(InputError, match=r"^Hinge: expected a dataclass, whose fields can be stored, got .*margin"):
        describe(own.Hinge())


@dataclass(frozen=True)
class Halved(cnn.Schedule):
    """Does not come back as it was: its field is halved each time it is made."""

    height: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "height", self.height / 2)

    def factor(self, progress: float) -> float:
        """Return the height."""
        return self.height


def test_a_value_that_would_come_back_as_another_is_refused() -> None:
    with pytest.raises(InputError, match=r"^Halved: expected a value that can be restored from its fields, got a diff"):
        describe(Halved(1.0))


def test_of_an_imported_module_only_descriptions_are_made(own: Any) -> None:
    kinds = {"class": ["own_parts:Hook", "Network", "Training", "own_parts:cnn.SGD", "os:system", "Dense"]}
    kinds["layer"] = ["SGD", "own_parts:Lion"]
    for key, names in kinds.items():
        for name in names:
            with pytest.raises(InputError, match=f"^{key}: expected "):
                restore({key: name})


@pytest.mark.parametrize(
    "description",
    [
        None, 3, "SGD", [], {}, {"learning_rate": 0.1}, {"layer": "Sequential"}, {"layer": "Sequential", "layers": 3},
        {"layer": "Dense", "unit": 2}, {"class": "Loss"}, {"layer": "Pad", "value": math.nan},
    ],
)  # fmt: skip
def test_what_describes_nothing_is_refused(description: JSON) -> None:
    with pytest.raises(InputError, match=r"^description: expected "):
        restore(description)
