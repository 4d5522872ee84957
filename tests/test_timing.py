"""Timing: rows that cover a training step as it runs, their operations, and times by a clock that the tests turn."""

import dataclasses
import itertools
import json
import re
import time

import numpy as np
import pytest

from lowered_cnn import (
    BatchNorm,
    Concatenate,
    Conv2D,
    Dense,
    Flatten,
    InputError,
    MaxPool,
    Network,
    ReLU,
    Residual,
    Sequential,
    summary,
    timing,
    timings,
)
from lowered_cnn.gemm import listen
from lowered_cnn.models import MODELS


def branched(dtype: type[np.floating] = np.float32) -> Network:
    """Return a network with branches in branches, and with chains that are fused."""
    body = Sequential(Conv2D(6, 3, padding=1), BatchNorm(), ReLU(), Residual(Conv2D(6, 1)))
    parts = Conv2D(6, 3, padding=1), MaxPool(2), ReLU(), Concatenate(body, Conv2D(2, 1)), Flatten(), Dense(4)
    return Network(Sequential(*parts), (2, 8, 8), dtype=dtype)


def test_fused_layers_are_one_row_that_names_their_kinds() -> None:
    rows = {row.name: (row.kinds, row.output_shape) for row in timings(branched(), 3, repeats=1).rows}
    assert rows["conv1"] == (("conv", "max_pool", "relu"), (6, 4, 4))
    assert rows["dense1"] == (("dense",), (4,))
    assert not {"max_pool1", "relu1"} & rows.keys()
    alone = [row.name for row in timings(branched(), 3, repeats=1, fused=False).rows]
    assert alone == [row.name for row in summary(branched()).rows]


@pytest.mark.parametrize("model", ["compact", "keras_mnist", "deep"])
def test_operations_are_those_of_a_step_in_the_form_that_trains(model: str) -> None:
    network = Network(MODELS[model](), (1, 28, 28))
    lowered = network.lower(8)
    with listen() as products:
        lowered.forward(np.zeros((8, 1, 28, 28)))
        lowered.backward(np.zeros((8, 10)))
    found = timings(network, 8, repeats=1)
    assert found.flops == sum(product.flops for product in products)
    assert timings(network, 8, repeats=1, fused=False).flops == summary(network, 8).flops


def test_shares_are_those_of_the_measured_peak() -> None:
    found = timings(branched(np.float64), 4, repeats=2)
    assert (found.batch, found.repeats, found.dtype) == (4, 2, "float64")
    assert found.peak == timing.peak_flops("float64")
    for row in found.rows:
        assert row.share == pytest.approx(row.flops / (row.forward + row.backward) / found.peak)
    assert found.share == pytest.approx(found.flops / (found.forward + found.backward) / found.peak)
    assert json.loads(json.dumps(dataclasses.asdict(found)))["rows"][0]["kinds"] == ["conv", "max_pool", "relu"]


def test_the_time_of_what_is_inside_a_layer_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that moves on by a second whenever it is read: one for each layer, and one before and after each."""
    peak = timing.peak_flops("float32")
    monkeypatch.setattr(time, "perf_counter", itertools.count(0.0).__next__)
    found = timings(branched(), 2, repeats=1)
    assert found.peak == peak
    innermost = [row for row in found.rows if not row.name.startswith("concatenate") or row.kinds[0] == "batch_norm"]
    assert len(innermost) == 4
    assert all((row.forward, row.backward) == (1.0, 1.0) for row in innermost)
    outermost = sum("." not in row.name for row in found.rows)
    for direction in ("forward", "backward"):
        own = sum(getattr(row, direction) for row in found.rows)
        assert own == 2 * len(found.rows) - outermost
        assert getattr(found, direction) == 2 * len(found.rows) + 1


def test_the_parameters_are_left_alone() -> None:
    network = branched()
    before = network.parameters.vector.copy()
    timings(network, 2, repeats=1)
    np.testing.assert_array_equal(network.parameters.vector, before)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"batch": 0}, "network: batch: expected a whole number of at least 1, got 0"),
        ({"repeats": 0}, "timings: repeats: expected a whole number of at least 1, got 0"),
    ],
)
def test_wrong_numbers_are_refused(options: dict[str, int], line: str) -> None:
    with pytest.raises(InputError, match=re.escape(line)):
        timings(branched(), **options)  # type: ignore[arg-type]
