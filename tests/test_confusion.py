"""Confusion: counts and shares of drawn answers, compared with scikit-learn's, and the table that tells them."""

import json
import re

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowered_cnn import Confusion, Dataset, Dense, Flatten, InputError, Network, Sequential, confusion, evaluate
from lowered_cnn.training.confusion import tallied

metrics = pytest.importorskip("sklearn.metrics")


def drawn(classes: int, examples: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw labels and answers; more classes than examples leave some without either."""
    rng = np.random.default_rng(seed)
    return rng.integers(classes, size=examples), rng.integers(classes, size=examples)


@given(classes=st.integers(1, 300), examples=st.integers(1, 400), seed=st.integers(0, 99))
def test_counts_and_shares_are_those_of_scikit_learn(classes: int, examples: int, seed: int) -> None:
    labels, answers = drawn(classes, examples, seed)
    found, numbers = tallied(labels, answers, tuple(map(str, range(classes)))), np.arange(classes)
    if classes > 1:  # scikit-learn warns of one
        np.testing.assert_array_equal(found.counts, metrics.confusion_matrix(labels, answers, labels=numbers))
    expected = metrics.precision_recall_fscore_support(labels, answers, labels=numbers, zero_division=np.nan)
    for ours, theirs in zip((found.precision, found.recall, found.f1, found.support), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(labels, answers))
    assert sum(count for _, _, count in found.mistakes()) == np.count_nonzero(labels != answers)
    assert json.loads(json.dumps(found.json(), allow_nan=False))[-1]["images"] == found.support[-1]


@given(classes=st.integers(1, 300), seed=st.integers(0, 99))
def test_the_table_is_aligned_and_tells_each_class(classes: int, seed: int) -> None:
    found = tallied(*drawn(classes, 200, seed), tuple(f"class {number}" for number in range(classes)))
    lines = str(found).splitlines()[: classes + 1]
    assert len({len(line) for line in lines}) == 1
    cells = [re.split(r"\s{2,}", line) for line in lines[1:]]
    assert [row[0] for row in cells] == list(found.classes)
    assert [int(row[-1]) for row in cells] == found.support.tolist()


def test_a_class_that_is_never_predicted_is_told_as_such() -> None:
    found = tallied(np.array([0, 0, 1]), np.array([0, 1, 1]), ("ant", "bee", "moth", "wasp"))
    assert str(found) == (
        "class  precision   recall      F1  images\n"
        "ant      100.00%   50.00%  66.67%       2\n"
        "bee       50.00%  100.00%  66.67%       1\n"
        "moth       never        -       -       0\n"
        "wasp       never        -       -       0\n"
        "never: no image was taken for this class"
    )
    missing = {"class": "moth", "precision": None, "recall": None, "f1": None, "images": 0}
    assert found.json()[2] == missing


def network(outputs: int = 4) -> Network:
    return Network(Sequential(Flatten(), Dense(outputs)), (1, 5, 5), seed=2)


def test_confusion_is_that_of_the_networks_answers() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.random((500, 1, 5, 5), np.float32), rng.integers(3, size=500)
    data = Dataset(images, labels, ("a", "b", "c"))
    found = confusion(network(), data, workers=2)
    assert isinstance(found, Confusion)
    assert found.classes == ("a", "b", "c", "3")
    answers = network().predict(images).argmax(axis=1)
    np.testing.assert_array_equal(found.counts, metrics.confusion_matrix(labels, answers, labels=np.arange(4)))
    assert found.accuracy == evaluate(network(), data).accuracy
    assert found.mistakes()[0][2] == (found.counts - np.diag(found.counts.diagonal())).max()


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ((np.zeros((2, 1, 5, 5)), [0.5, 1.0]), "confusion: targets: expected class numbers (N,), got float64"),
        ((np.zeros((2, 1, 5, 5)), [0, 7]), "network: outputs: expected one for each of 8 classes, got (4,)"),
        ((np.zeros((2, 1, 4, 5)), [0, 1]), "data: images: expected (1, 5, 5), got (1, 4, 5)"),
    ],
)
def test_data_that_do_not_fit_are_refused(data: tuple[npt.NDArray[np.float64], list[float]], line: str) -> None:
    with pytest.raises(InputError, match=re.escape(line)):
        confusion(network(), data)
