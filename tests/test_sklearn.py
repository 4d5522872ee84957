"""The scikit-learn estimators: the public checks of scikit-learn, and its own tools around them."""

import pickle
import subprocess
import sys
from typing import Any, cast
from unittest import SkipTest

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split, validation_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from lowered_cnn import SGD, Constant, Dense, Flatten, InputError, Record, Sequential, Softmax
from lowered_cnn.interop.sklearn import CNNClassifier, CNNRegressor
from lowered_cnn.models import lenet5

DIGITS, NUMBERS = load_digits(return_X_y=True)
IMAGES = (DIGITS.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
INK = DIGITS.mean(axis=1) - DIGITS.mean()
"""What a regressor learns: numbers about 0, of size 1, that are in the images."""

QUICK: dict[str, Any] = {"epochs": 3, "random_state": 0}


CHECKS = [(kind, check) for kind in (CNNClassifier, CNNRegressor) for _, check in estimator_checks_generator(kind())]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "check"), CHECKS, ids=lambda each: getattr(each, "func", each).__name__)
def test_scikit_learns_own_checks(kind: Any, check: Any) -> None:
    try:
        check(kind())
    except SkipTest as skipped:  # what needs another package
        pytest.skip(str(skipped))


def test_there_are_as_many_checks_as_the_documents_say() -> None:
    for kind in (CNNClassifier, CNNRegressor):
        assert sum(each is kind for each, _ in CHECKS) >= 50


@pytest.mark.slow
@pytest.mark.parametrize("images", [IMAGES, IMAGES[:, None], IMAGES / 255, np.float32(IMAGES / 255)])
def test_images_as_they_are(images: Any) -> None:
    x, x_test, y, y_test = train_test_split(images, NUMBERS, random_state=0)
    classifier = CNNClassifier(epochs=8, random_state=0).fit(x, y)
    assert classifier.score(x_test, y_test) > 0.95
    assert classifier.network_.input_shape == (1, 8, 8)
    assert classifier.n_iter_ == len(classifier.loss_curve_) == 8
    assert classifier.loss_curve_[-1] < 0.2 * classifier.loss_curve_[0]


def test_rows_are_images_of_the_shape_that_is_given() -> None:
    rows = CNNClassifier(image_shape=(8, 8), **QUICK).fit(DIGITS / 16, NUMBERS)
    maps = CNNClassifier(**QUICK).fit(DIGITS.reshape(-1, 1, 8, 8) / 16, NUMBERS)
    np.testing.assert_array_equal(rows.predict_proba(DIGITS / 16), maps.predict_proba(DIGITS.reshape(-1, 1, 8, 8) / 16))
    np.testing.assert_allclose(rows.predict_proba(DIGITS / 16).sum(axis=1), 1)
    assert rows.network_.input_shape == (1, 8, 8)
    assert CNNClassifier(**QUICK).fit(DIGITS / 16, NUMBERS).network_.input_shape == (64,)


def test_labels_may_be_text() -> None:
    names = np.array(["zero", "one"])[NUMBERS % 2]
    classifier = CNNClassifier(**QUICK).fit(IMAGES, names)
    assert classifier.classes_.tolist() == ["one", "zero"]
    assert (classifier.predict(IMAGES) == names).mean() > 0.8


def test_a_network_of_ones_own() -> None:
    images = np.pad(IMAGES, [(0, 0), (10, 10), (10, 10)])[:200]
    assert len(CNNClassifier(lenet5, **QUICK).fit(images, NUMBERS[:200]).network_.model.inside) == 12
    linear = Sequential(Flatten(), Dense(10))
    chosen = CNNClassifier(linear, optimizer=SGD(0.1), schedule=Constant(), **QUICK).fit(IMAGES, NUMBERS)
    assert chosen.network_.model == linear
    with pytest.raises(InputError, match=r"^CNNClassifier: model: expected 2 outputs, got \(10,\)$"):
        CNNClassifier(linear).fit(IMAGES, NUMBERS % 2)


@pytest.mark.slow
def test_it_works_in_a_pipeline_and_a_grid_search_on_two_processes() -> None:
    pipeline = make_pipeline(MinMaxScaler(), CNNClassifier(image_shape=(8, 8), **QUICK))
    grid = {"cnnclassifier__batch_size": [16, 64]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2).fit(DIGITS[:600], NUMBERS[:600])
    assert search.best_params_ == {"cnnclassifier__batch_size": 16}
    assert search.score(DIGITS[600:], NUMBERS[600:]) > 0.8
    assert cross_val_score(pipeline, DIGITS, NUMBERS, cv=3).min() > 0.8


def test_it_is_cloned_and_pickled() -> None:
    classifier = CNNClassifier(**QUICK).fit(IMAGES, NUMBERS)
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.predict_proba(IMAGES), classifier.predict_proba(IMAGES))
    copy = clone(classifier)
    assert not hasattr(copy, "network_")
    np.testing.assert_array_equal(copy.fit(IMAGES, NUMBERS).predict_proba(IMAGES), classifier.predict_proba(IMAGES))


def test_early_stopping_keeps_the_best_weights() -> None:
    classifier = CNNClassifier(
        epochs=60, early_stopping=True, validation_fraction=0.2, n_iter_no_change=3, schedule=Constant(), random_state=0
    ).fit(IMAGES, NUMBERS)
    scores = classifier.validation_scores_
    assert classifier.n_iter_ == len(scores) < 60
    assert max(scores) == classifier.best_validation_score_ == max(scores[:-3])
    _, held_out, _, labels = train_test_split(
        IMAGES, NUMBERS, test_size=0.2, stratify=NUMBERS, random_state=np.random.RandomState(0).randint(2**31 - 1)
    )
    assert classifier.score(held_out, labels) == pytest.approx(max(scores))


def test_partial_fit_goes_on() -> None:
    classifier = CNNClassifier(random_state=0)
    for _ in range(3):
        for part in np.array_split(np.arange(len(IMAGES)), 3):
            classifier.partial_fit(IMAGES[part], NUMBERS[part], classes=np.arange(10))
    assert classifier.score(IMAGES, NUMBERS) > 0.95
    with pytest.raises(InputError, match=r"^partial_fit: y: expected classes \[0, .* 9\], got \[10\]$"):
        classifier.partial_fit(IMAGES[:2], [1, 10])
    with pytest.raises(InputError, match=r"^partial_fit: classes: expected all classes in the first call, got None$"):
        CNNClassifier().partial_fit(IMAGES, NUMBERS)
    with pytest.raises(InputError, match=r"^partial_fit: classes: expected \[0, .* 9\], got \[1, 2\]$"):
        classifier.partial_fit(IMAGES[:2], [1, 2], classes=[1, 2])


def test_partial_fit_draws_another_order_in_each_call() -> None:
    """The same weights and the same examples twice: other batches, so other weights."""
    classifier = CNNClassifier(Sequential(Dense(10)), random_state=0).partial_fit(DIGITS / 16, NUMBERS, np.arange(10))
    before = classifier.network_.parameters.vector.copy()
    first, second = (before.copy() for _ in range(2))
    for after in (first, second):
        classifier.network_.parameters.vector[...] = before
        after[...] = classifier.partial_fit(DIGITS / 16, NUMBERS).network_.parameters.vector
    assert not np.array_equal(first, second)
    np.testing.assert_allclose(first, second, atol=0.1)


def test_partial_fit_goes_on_with_the_record_and_fit_starts_anew() -> None:
    classifier = CNNClassifier(epochs=2, random_state=0).fit(IMAGES, NUMBERS)
    once = list(classifier.loss_curve_)
    weights = classifier.network_.parameters.vector.copy()
    for calls in (1, 2):
        classifier.partial_fit(IMAGES, NUMBERS)
        assert classifier.n_iter_ == len(classifier.loss_curve_) == 2 + calls
        assert classifier.loss_curve_[:2] == once
    classifier.fit(IMAGES, NUMBERS)
    assert (classifier.n_iter_, classifier.loss_curve_) == (2, once)
    np.testing.assert_array_equal(classifier.network_.parameters.vector, weights)


def test_the_loss_curve_is_the_mean_over_examples() -> None:
    """All but still, so that each epoch has the loss of the weights at the start; the last batch is a short one."""
    still = CNNClassifier(Sequential(Dense(10)), optimizer=SGD(1e-30), epochs=1, random_state=0)
    still.fit(DIGITS[:70] / 16, NUMBERS[:70])
    assert still.loss_curve_ == pytest.approx([log_loss(NUMBERS[:70], still.predict_proba(DIGITS[:70] / 16))])


@pytest.mark.parametrize(
    ("classifier", "message"),
    [
        (CNNClassifier(image_shape=(8, 9)), r"CNNClassifier: X: expected 72 features for images \(8, 9\), got .*"),
        (
            CNNClassifier(n_iter_no_change=0),
            "CNNClassifier: n_iter_no_change: expected a whole number of at least 1, got 0",
        ),
        (
            CNNClassifier(optimizer=cast(Any, "adam")),
            r"Recipe: optimizer: expected an optimizer, such as SGD\(\) or Adam\(\), got 'adam'",
        ),
        (CNNClassifier(epochs=0), "Recipe: epochs: expected a whole number of at least 1, got 0"),
    ],
)
def test_what_makes_no_sense_is_told(classifier: CNNClassifier, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        classifier.fit(DIGITS, NUMBERS)


def test_a_fit_that_fails_leaves_nothing_to_predict_with() -> None:
    """Not the network of the fit before, and none that is not trained."""
    classifier = CNNClassifier(**QUICK).fit(IMAGES[:200], NUMBERS[:200])
    classifier.set_params(optimizer=SGD(1e30), schedule=Constant())
    for epochs in (1, 3):  # the only update is one too many, or the loss of the next step tells
        classifier.set_params(epochs=epochs, batch_size=200)
        with np.errstate(all="ignore"), pytest.raises(InputError, match=r"expected .*finite number.*, got "):
            classifier.fit(IMAGES[:200], NUMBERS[:200])
        with pytest.raises(NotFittedError):
            classifier.predict(IMAGES)


def test_a_partial_fit_that_fails_changes_nothing() -> None:
    classifier = CNNClassifier(**QUICK).fit(IMAGES[:200], NUMBERS[:200])
    before = classifier.predict_proba(IMAGES), list(classifier.loss_curve_)
    classifier.set_params(optimizer=SGD(1e30))
    with np.errstate(all="ignore"), pytest.raises(InputError, match=r"expected a finite number"):
        classifier.partial_fit(IMAGES[:200], NUMBERS[:200])
    np.testing.assert_array_equal(classifier.predict_proba(IMAGES), before[0])
    assert classifier.loss_curve_ == before[1]


@pytest.mark.slow
def test_processes_of_joblib_train_with_workers_of_their_own() -> None:
    alone, shared = (
        cross_val_score(CNNClassifier(workers=workers, **QUICK), IMAGES[:600], NUMBERS[:600], cv=2, n_jobs=workers)
        for workers in (1, 2)
    )
    np.testing.assert_array_equal(shared, alone)


def test_images_of_another_shape_are_told() -> None:
    classifier = CNNClassifier(**QUICK).fit(IMAGES, NUMBERS)
    with pytest.raises(InputError, match=r"^CNNClassifier: X: expected images \(1, 8, 8\), got \(1, 8, 7\)$"):
        classifier.predict(IMAGES[:, :, :7])


def test_a_missing_package_is_told() -> None:
    program = "import sys; sys.modules['sklearn'] = None; import lowered_cnn.interop.sklearn"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    wanted = "CNNClassifier: expected scikit-learn (pip install 'lowered-cnn[sklearn]'), got no module named "
    assert wanted in done.stderr.splitlines()[-1]


def test_a_model_that_ends_in_a_softmax_is_refused() -> None:
    model = Sequential(Flatten(), Dense(2), Softmax())
    with pytest.raises(InputError, match=r"^loss: expected a network without Softmax\(\) at its end"):
        CNNClassifier(model).fit(np.zeros((4, 2, 2)), [0, 1, 0, 1])


# --- regression ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("y", [INK, INK[:, None], np.stack([INK, -INK, DIGITS[:, 20] / 16], axis=1)])
def test_a_regressor_predicts_numbers(y: Any) -> None:
    x, x_test, y, y_test = train_test_split(IMAGES, y, random_state=0)
    regressor = CNNRegressor(epochs=10, random_state=0).fit(x, y)
    assert regressor.predict(x_test).shape == y_test.shape
    score = regressor.score(x_test, y_test)
    assert score > 0.8
    assert score == pytest.approx(r2_score(y_test, regressor.predict(x_test)))
    assert regressor.n_iter_ == len(regressor.loss_curve_) == 10


def test_early_stopping_of_a_regressor_keeps_the_best_weights() -> None:
    regressor = CNNRegressor(
        epochs=40, early_stopping=True, n_iter_no_change=2, schedule=Constant(), random_state=0
    ).fit(IMAGES[:600], INK[:600])
    scores = regressor.validation_scores_
    assert regressor.n_iter_ == len(scores) < 40
    _, held_out, _, y = train_test_split(
        IMAGES[:600], INK[:600], test_size=0.1, random_state=np.random.RandomState(0).randint(2**31 - 1)
    )
    assert regressor.score(held_out, y) == pytest.approx(max(scores)) == regressor.best_validation_score_


def test_partial_fit_of_a_regressor_goes_on() -> None:
    regressor = CNNRegressor(random_state=0)
    for _ in range(5):
        for part in np.array_split(np.arange(len(IMAGES)), 3):
            regressor.partial_fit(IMAGES[part], INK[part])
    assert regressor.score(IMAGES, INK) > 0.8
    with pytest.raises(InputError, match=r"^partial_fit: y: expected \(3,\), got \(3, 2\)$"):
        regressor.partial_fit(IMAGES[:3], np.zeros((3, 2)))


@pytest.mark.slow
@pytest.mark.parametrize(("estimator", "y"), [(CNNClassifier(), NUMBERS), (CNNRegressor(), INK)])
def test_validation_curves_and_grids(estimator: Any, y: Any) -> None:
    estimator = clone(estimator).set_params(**QUICK)
    train, test = validation_curve(estimator, IMAGES[:600], y[:600], param_name="epochs", param_range=[1, 6], cv=2)
    assert train.shape == test.shape == (2, 2)
    assert test[1].min() > test[0].max()
    search = GridSearchCV(estimator, {"epochs": [1, 6]}, cv=2).fit(IMAGES[:600], y[:600])
    assert search.best_params_ == {"epochs": 6}
    assert cross_val_score(estimator.set_params(epochs=6), IMAGES, y, cv=2).min() > 0.6


# --- weights and callbacks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("estimator", "y"), [(CNNClassifier(), NUMBERS % 2), (CNNRegressor(), INK)])
def test_examples_without_weight_are_not_learned_from(estimator: Any, y: Any) -> None:
    """The weights of two halves, one of which has targets that contradict."""
    wrong = np.arange(len(y)) % 2 == 0
    told = np.where(wrong, 1 - y, y)
    estimator.set_params(epochs=6, random_state=0)
    right = estimator.fit(IMAGES, told, sample_weight=1.0 - wrong).score(IMAGES, y)
    assert right > 0.8
    assert estimator.fit(IMAGES, told, sample_weight=np.ones(len(y))).score(IMAGES, y) < right - 0.2


@pytest.mark.parametrize("class_weight", ["balanced", {0: 9.0, 1: 1.0}])
def test_class_weights_make_up_for_a_rare_class(class_weight: Any) -> None:
    rare = np.r_[np.flatnonzero(NUMBERS == 8)[:15], np.flatnonzero(NUMBERS == 3)]
    x, y = DIGITS[rare] / 16, np.int64(NUMBERS[rare] != 8)
    plain, weighted = (
        CNNClassifier(Sequential(Dense(2)), class_weight=each, **QUICK).fit(x, y).predict_proba(x)[:, 0].mean()
        for each in (None, class_weight)
    )
    assert weighted > 1.3 * plain


def test_class_weights_are_the_weights_of_the_examples() -> None:
    by_class = CNNClassifier(class_weight={0: 2.0, 1: 0.5}, **QUICK).fit(IMAGES, NUMBERS % 2)
    by_example = CNNClassifier(**QUICK).fit(IMAGES, NUMBERS % 2, sample_weight=np.array([2, 0.5])[NUMBERS % 2])
    np.testing.assert_allclose(by_class.predict_proba(IMAGES), by_example.predict_proba(IMAGES), atol=1e-3)
    with pytest.raises(ValueError, match=r"class_weight"):
        CNNClassifier(class_weight="even").fit(IMAGES, NUMBERS)


def test_callbacks_see_each_epoch_and_may_end_the_training() -> None:
    seen: list[Record] = []

    def watch(record: Record) -> bool:
        seen.append(record)
        return record.epoch == 3

    classifier = CNNClassifier(epochs=9, callbacks=[watch, lambda record: None], random_state=0).fit(IMAGES, NUMBERS)
    assert [record.epoch for record in seen] == [1, 2, 3]
    assert classifier.loss_curve_ == [record.epoch_loss for record in seen]


@pytest.mark.parametrize("callbacks", [None, print, ["print"]])
def test_callbacks_that_are_no_list_of_functions_are_refused(callbacks: Any) -> None:
    with pytest.raises(ValueError, match=r"^CNNRegressor: callbacks: expected a list of functions, got "):
        CNNRegressor(callbacks=callbacks, **QUICK).fit(IMAGES, INK)


def test_a_training_that_a_callback_ends_keeps_the_best_weights() -> None:
    classifier = CNNClassifier(
        optimizer=SGD(0.5), schedule=Constant(), early_stopping=True, n_iter_no_change=9, random_state=0,
        callbacks=[lambda record: record.epoch == 5],
    ).fit(IMAGES / 255, NUMBERS)  # fmt: skip
    _, held_out, _, labels = train_test_split(
        IMAGES / 255, NUMBERS, test_size=0.1, stratify=NUMBERS,
        random_state=np.random.RandomState(0).randint(2**31 - 1),
    )  # fmt: skip
    assert classifier.n_iter_ == 5
    assert classifier.score(held_out, labels) == pytest.approx(max(classifier.validation_scores_))
