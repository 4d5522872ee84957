"""The ledger: the products and bytes of a small network, against numbers worked out by hand."""

import re

import numpy as np
import pytest

from lowered_cnn import (
    AvgPool,
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    LayerNorm,
    MaxPool,
    Network,
    ReLU,
    Sequential,
    summary,
)
from lowered_cnn.gemm import ROLES, Product, listen
from lowered_cnn.ledger import Ledger

BATCH = 4
BLOCKS = [300, 5000, None]
"""Bytes in a block: a few positions, a few rows, everything."""


@pytest.fixture(params=BLOCKS)
def small(request: pytest.FixtureRequest) -> Ledger:
    """Write down 2 x 6 x 5 images becoming 4 x 4 x 3, then 6 x 2 x 1 in two groups, their means, and 3 classes."""
    return summary(network(), BATCH, block_bytes=request.param)


def network() -> Network:
    convolutions = Conv2D(4, 3), ReLU(), Conv2D(6, 3, groups=2, bias=False)
    return Network(Sequential(*convolutions, AvgPool((2, 1)), Flatten(), Dense(3)), (2, 6, 5))


def test_products_are_those_worked_out_by_hand(small: Ledger) -> None:
    rows = {row.name: row for row in small.rows}
    positions = 4 * 3 * BATCH
    assert rows["conv1"].whole("forward") == Product("forward", 4, 2 * 9, positions, 1)
    assert rows["conv1"].whole("dweight") == Product("dweight", 4, positions, 2 * 9, 1)
    assert rows["conv1"].whole("dbias") == Product("dbias", 4, positions, 1, 1)
    assert rows["conv1"].whole("dx") is None
    assert rows["conv2"].whole("forward") == Product("forward", 3, 2 * 9, 2 * BATCH, 2)
    assert rows["conv2"].whole("dweight") == Product("dweight", 3, 2 * BATCH, 2 * 9, 2)
    assert rows["conv2"].whole("dbias") is None
    assert rows["conv2"].whole("dx") == Product("dx", 2 * 9, 3, 2 * BATCH, 2)
    assert rows["avg_pool1"].whole("forward") == Product("forward", 1, 2, BATCH, 6)
    assert rows["avg_pool1"].whole("dx") == Product("dx", 2, 1, BATCH, 6)
    assert rows["dense1"].whole("forward") == Product("forward", 3, 6, BATCH, 1)
    assert rows["dense1"].whole("dweight") == Product("dweight", 3, BATCH, 6, 1)
    assert rows["dense1"].whole("dx") == Product("dx", 6, 3, BATCH, 1)
    assert not rows["relu1"].products
    assert not rows["flatten1"].products


def test_flops_are_two_for_each_multiplication(small: Ledger) -> None:
    conv1 = 2 * (4 * 18 * 48) * 2 + 2 * (4 * 48)
    conv2 = 2 * 2 * (3 * 18 * 8) * 3
    avg_pool1 = 2 * 6 * (2 * BATCH) * 2
    dense1 = 2 * (3 * 6 * BATCH) * 3 + 2 * (3 * BATCH)
    flops = {row.name: row.flops for row in small.rows}
    assert flops == {
        "conv1": conv1,
        "relu1": 0,
        "conv2": conv2,
        "avg_pool1": avg_pool1,
        "flatten1": 0,
        "dense1": dense1,
    }
    assert small.flops == conv1 + conv2 + avg_pool1 + dense1


def test_rows_tell_shapes_and_parameters(small: Ledger) -> None:
    assert [(row.output_shape, row.parameters) for row in small.rows] == [
        ((4, 4, 3), 4 * 2 * 9 + 4),
        ((4, 4, 3), 0),
        ((6, 2, 1), 6 * 2 * 9),
        ((6, 1, 1), 0),
        ((6,), 0),
        ((3,), 3 * 6 + 3),
    ]


def test_bytes_are_those_of_the_lowered_network(small: Ledger) -> None:
    inputs, outputs, parameters = 2 * 6 * 5 * BATCH, 3 * BATCH, 76 + 108 + 21
    assert small.bytes == sum(row.bytes for row in small.rows) + 4 * (inputs + outputs + parameters)


def test_smaller_blocks_need_less_memory() -> None:
    model = Sequential(Conv2D(4, 5), Flatten(), Dense(2))
    few, all_at_once = (summary(Network(model, (3, 20, 20)), 8, block) for block in (10_000, None))
    columns = 3 * 25 * 16 * 16 * 8 * 4
    assert all_at_once.bytes - few.bytes == columns - 10_000 // 4 * 4


def test_without_blocks_a_convolution_is_one_product() -> None:
    lowered = network().lower(BATCH, block_bytes=None, fused=False)
    with listen() as heard:
        lowered.forward(np.zeros((BATCH, 2, 6, 5)))
    assert [(p.m, p.k, p.n) for p in heard if p.k == 18] == [(4, 18, 48), (3, 18, 8)]


def test_nothing_is_heard_when_nobody_listens() -> None:
    with listen() as heard:
        pass
    network().predict(np.zeros((1, 2, 6, 5)))
    assert heard == []


def test_the_ledger_leaves_the_parameters_alone() -> None:
    measured = network()
    before = measured.parameters.vector.copy()
    summary(measured)
    np.testing.assert_array_equal(measured.parameters.vector, before)


def test_the_table_has_a_line_for_each_product_and_their_sum() -> None:
    cells = [re.split(r"\s{2,}", line) for line in str(summary(network(), BATCH)).splitlines()]
    assert cells[0] == ["layer", "output", "parameters", "product", "M x K x N", "MFLOP", "bytes"]
    assert cells[2] == ["input", "2 x 6 x 5"]
    assert cells[3][:6] == ["conv1", "4 x 4 x 3", "76", "forward", "4 x 18 x 48", "0.01"]
    assert cells[4] == ["", "dweight", "4 x 48 x 18", "0.01"]
    assert cells[7][:5] == ["conv2", "6 x 2 x 1", "108", "forward", "2 * 3 x 18 x 8"]
    assert cells[-1][:3] == ["total", "205", "0.02"]
    assert len(cells) == 4 + 13 + 2


def test_a_layer_without_products_has_a_line_too() -> None:
    text = str(summary(Network(Sequential(MaxPool(2)), (1, 4, 4)), 1))
    assert "max_pool1  1 x 2 x 2" in text


def test_the_sums_of_a_batch_normalization_are_products_of_rows() -> None:
    ledger = summary(Network(Sequential(Conv2D(40, 3, padding=1), BatchNorm()), (1, 28, 28)), batch=4)
    whole = ledger.rows[1].whole("sum")
    assert whole is not None
    assert (whole.m, whole.k, whole.n) == (5 * 40, 28 * 28 * 4, 1)  # mean, what is left of it, variance, dweight, dbias


def test_the_table_charges_every_product_of_a_layer_normalization() -> None:
    row = summary(Network(Sequential(Conv2D(8, 3), LayerNorm()), (3, 8, 8)), batch=4).rows[1]
    wholes = [whole for role in ROLES if (whole := row.whole(role))]
    assert [(whole.role, whole.m, whole.k, whole.n) for whole in wholes] == [
        ("sum", 5, 8, 6 * 6 * 4),  # forward: mean, its correction, variance; backward: two means
        ("dweight", 8, 6 * 6 * 4, 1),
        ("dbias", 8, 6 * 6 * 4, 1),
    ]
    assert sum(whole.flops for whole in wholes) == row.flops
