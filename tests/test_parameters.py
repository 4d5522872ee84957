"""Parameters copied from another network or a mapping: those that fit, and an account of all others."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import normal

from lowered_cnn import Conv2D, Copied, Dense, Flatten, InputError, Network, ParameterVector, ReLU, Sequential
from lowered_cnn.parameters import Parameter

SHAPES = st.dictionaries(
    st.sampled_from("abcdef"), st.tuples(st.integers(1, 2), st.integers(1, 3)) | st.just(()), max_size=6
)


@given(ours=SHAPES, theirs=SHAPES, dtype=st.sampled_from([np.float32, np.float64]))
def test_every_parameter_is_accounted_for_once(
    ours: dict[str, tuple[int, ...]], theirs: dict[str, tuple[int, ...]], dtype: type[np.floating]
) -> None:
    vector = ParameterVector.zeros([Parameter(name, shape) for name, shape in ours.items()], np.float32)
    other = {name: np.asarray(normal(*shape), dtype) for name, shape in theirs.items()}
    left = vector.copy_from(other)
    shared = ours.keys() & theirs.keys()
    assert set(left.copied) == {name for name in shared if ours[name] == theirs[name]}
    assert left.mismatched == {name: (ours[name], theirs[name]) for name in shared if ours[name] != theirs[name]}
    assert set(left.missing) == ours.keys() - theirs.keys()
    assert set(left.unused) == theirs.keys() - ours.keys()
    for name in ours:
        expected = other[name].astype(np.float32) if name in left.copied else np.zeros(ours[name])
        np.testing.assert_array_equal(vector[name], expected)
    assert "\n" not in str(left)


def test_a_network_with_another_head_keeps_its_own() -> None:
    def model(classes: int, more: bool) -> Sequential:
        return Sequential(Conv2D(4, 3), ReLU(), Flatten(), Dense(classes), *[ReLU(), Dense(2)] * more)

    old, new = Network(model(10, False), (1, 6, 6), seed=1), Network(model(3, True), (1, 6, 6), seed=2)
    head = new.parameters["dense1.weight"].copy()
    left = new.parameters.copy_from(old.parameters)
    np.testing.assert_array_equal(new.parameters["conv1.weight"], old.parameters["conv1.weight"])
    np.testing.assert_array_equal(new.parameters["dense1.weight"], head)
    assert str(left) == (
        "2 copied; missing: dense2.weight, dense2.bias; "
        "mismatched: dense1.weight (3, 64) from (10, 64), dense1.bias (3,) from (10,)"
    )
    assert old.parameters.copy_from(old.parameters) == Copied(tuple(old.parameters), (), (), {})


def test_nothing_is_copied_from_what_is_not_an_array_of_numbers() -> None:
    network = Network(Dense(2), (3,))
    before = network.parameters.vector.copy()
    wrongs: list[tuple[Any, str]] = [
        (network, "parameters: copy_from: expected parameters, or a mapping of arrays, got Network"),
        ({"dense1.bias": [1, 2], "x": "a"}, "parameters: copy_from: x: expected real numbers, got "),
        (
            {"dense1.bias": [1, 2], "x": [[1], [2, 3]]},
            "parameters: copy_from: x: expected an array, got rows of different",
        ),
    ]
    for wrong, told in wrongs:
        with pytest.raises(InputError) as caught:
            network.parameters.copy_from(wrong)
        assert str(caught.value).startswith(told)
    np.testing.assert_array_equal(network.parameters.vector, before)
