"""scikit-learn (extra `sklearn`): a classifier that behaves like any other there."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, Images, InputError, Shape, whole_number
from lowered_cnn.data.dataset import Dataset
from lowered_cnn.layers import Conv2D, Dense, Flatten, Layer, MaxPool, ReLU, Sequential
from lowered_cnn.losses import softmax
from lowered_cnn.network import Network
from lowered_cnn.optimizers import Adam, Optimizer
from lowered_cnn.schedules import Constant, OneCycle, Schedule
from lowered_cnn.training import Recipe, Training

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    wanted = "scikit-learn (pip install 'lowered-cnn[sklearn]')"
    raise InputError("CNNClassifier", wanted, f"no module named {error.name}") from error

Model = Layer | Sequence[Layer] | Callable[[int], Layer]

SEEDS = 2**31 - 1
NO_LABELS = object()


class CNNClassifier(ClassifierMixin, BaseEstimator):
    """A convolutional network as a scikit-learn classifier.

    X holds images, (n, H, W) or (n, C, H, W), or features, (n, features); features are reshaped to images if
    `image_shape`, (H, W) or (C, H, W), is given. Bytes (0 to 255) are scaled to the range 0 to 1; other numbers are
    taken as they are. `model` is a Sequential, or a list of layers, with one output per class, or a function that makes
    one from the number of classes, as in `lowered_cnn.models`. The default is a small CNN for images and two dense
    layers for features.

    `optimizer` (default Adam) and `schedule` (default OneCycle) are used as in a Recipe. With `early_stopping`, a
    stratified fraction `validation_fraction` of the examples is held out. Training ends when their accuracy has not
    improved by more than `tol` for `n_iter_no_change` epochs, and the best weights are kept.

    Attributes: `classes_`, `network_`, `n_iter_` (epochs), `loss_curve_` (mean loss of each epoch), `n_features_in_`
    and, with early stopping, `validation_scores_` and `best_validation_score_`. `partial_fit` adds to them and
    continues the sequence of random numbers; `fit` starts afresh. Raises ValueError for invalid input.
    """

    def __init__(
        self,
        model: Model | None = None,
        *,
        image_shape: Sequence[int] | None = None,
        epochs: int = 30,
        batch_size: int = 32,
        optimizer: Optimizer | None = None,
        schedule: Schedule | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        tol: float = 1e-4,
        workers: int = 1,
        random_state: Any = None,
    ) -> None:
        self.model = model
        self.image_shape = image_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.schedule = schedule
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.workers = workers
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:  # noqa: N803 (scikit-learn's names)
        """Train a new network on images X with labels y (n), which may be numbers or strings."""
        if hasattr(self, "network_"):
            del self.network_  # if this fit fails, the estimator is not fitted
        images, y = self._validated(X, y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        network, seed = self._start(images)
        data, dev = Dataset(images, labels), None
        if self.early_stopping:
            places = np.arange(len(data))
            rest, held_out = train_test_split(
                places, test_size=self.validation_fraction, stratify=labels, random_state=seed
            )
            data, dev = data.take(rest), data.take(held_out)
        patience = whole_number("CNNClassifier: n_iter_no_change", self.n_iter_no_change, 1)
        recipe = Recipe(
            self.epochs,
            self.batch_size,
            self._optimizer(),
            self.schedule or OneCycle(),
            seed=seed,
            patience=patience if self.early_stopping else None,
            min_delta=self.tol,
        )
        self._train(network, data, dev, recipe)
        return self

    def partial_fit(self, X: npt.ArrayLike, y: npt.ArrayLike, classes: npt.ArrayLike | None = None) -> Self:  # noqa: N803
        """Train for one epoch on these examples, at a constant learning rate, from the current weights.

        The first call needs all `classes`. Each call starts with a fresh optimizer, without momentum.
        """
        images, y = self._validated(X, y, reset=not hasattr(self, "network_"))
        if not hasattr(self, "network_"):
            if classes is None:
                raise InputError("partial_fit: classes", "all classes in the first call", None)
            self.classes_ = np.unique(classes)
            network, _ = self._start(images)
        else:
            if classes is not None and not np.array_equal(self.classes_, np.unique(classes)):
                raise InputError("partial_fit: classes", self.classes_.tolist(), np.unique(classes).tolist())
            network = copy.deepcopy(self.network_)  # a call that fails changes nothing
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise InputError("partial_fit: y", f"classes {self.classes_.tolist()}", unknown.tolist())
        recipe = Recipe(1, self.batch_size, self._optimizer(), Constant(), seed=self._new_seed())
        before = network.input_range
        self._train(network, Dataset(images, np.searchsorted(self.classes_, y)), None, recipe)
        if before is not None:
            low, high = network.input_range or before
            network.input_range = min(low, before[0]), max(high, before[1])
        return self

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:  # noqa: N803
        """Return the most likely class of each image (n)."""
        chosen: npt.NDArray[Any] = self.predict_proba(X).argmax(axis=1)
        labels: npt.NDArray[Any] = self.classes_[chosen]
        return labels

    def predict_proba(self, X: npt.ArrayLike) -> Array:  # noqa: N803
        """Return the probability of each class (n, classes), in the order of `classes_`."""
        check_is_fitted(self, "network_")
        images, _ = self._validated(X, reset=False)
        return softmax(self.network_.predict(images, workers=self.workers))

    def _validated(self, X: npt.ArrayLike, y: Any = NO_LABELS, *, reset: bool = True) -> tuple[Images, Any]:  # noqa: N803
        """Return X as images and y checked; raises ValueError if they do not fit each other, or earlier calls."""
        options: dict[str, Any] = {"dtype": [np.float32, np.float64, np.uint8], "allow_nd": True, "reset": reset}
        if y is NO_LABELS:
            images = validate_data(self, X, **options)
        else:
            images, y = validate_data(self, X, y, **options)
            check_classification_targets(y)
        if self.image_shape is not None and images.ndim == 2:
            shape: Shape = tuple(self.image_shape)
            if images.shape[1] != int(np.prod(shape)):
                raise InputError("CNNClassifier: X", f"{int(np.prod(shape))} features for images {shape}", images.shape)
            images = images.reshape(len(images), *shape)
        if images.ndim == 3:  # grey
            images = images[:, np.newaxis]
        if not reset and hasattr(self, "network_") and images.shape[1:] != self.network_.input_shape:
            raise InputError("CNNClassifier: X", f"images {self.network_.input_shape}", images.shape[1:])
        return images, y

    def _start(self, images: Images) -> tuple[Network, int]:
        """Return a new network and its seed, and forget the history of the one before."""
        self._random_state = check_random_state(self.random_state)
        seed = self._new_seed()
        model: Model | None = self.model
        if model is None:
            model = small_cnn if images.ndim == 4 else dense
        network = Network(
            model(len(self.classes_)) if callable(model) else model,
            images.shape[1:],
            seed=seed,
            dtype=np.float64 if images.dtype == np.float64 else np.float32,
        )
        if network.output_shape != (len(self.classes_),):
            raise InputError("CNNClassifier: model", f"{len(self.classes_)} outputs", network.output_shape)
        self.loss_curve_: list[float] = []
        self.validation_scores_: list[float] = []
        self.best_validation_score_ = -np.inf
        return network, seed

    def _new_seed(self) -> int:
        return int(self._random_state.randint(SEEDS))

    def _optimizer(self) -> Optimizer:
        return Adam(learning_rate=0.003) if self.optimizer is None else self.optimizer

    def _train(self, network: Network, data: Dataset, dev: Dataset | None, recipe: Recipe) -> None:
        with Training(network, data, recipe, dev=dev, workers=self.workers) as training:
            for _ in training:
                pass
        with np.errstate(over="ignore", invalid="ignore"):  # the last update may have been one too many
            outputs = network.predict(data.images[: self.batch_size], workers=1)
        if not np.isfinite(outputs).all():
            raise InputError("CNNClassifier: outputs", "finite numbers (try a lower learning rate)", "nan or inf")
        self.network_ = network
        self.loss_curve_ += [record.epoch_loss or 0.0 for record in training.history]
        self.n_iter_ = len(self.loss_curve_)
        if dev is not None:
            self.validation_scores_ = [record.dev_accuracy or 0.0 for record in training.history]
            self.best_validation_score_ = max(self.validation_scores_)


def small_cnn(classes: int) -> Sequential:
    """The default for images: one convolution, so that small images fit."""
    return Sequential(
        Conv2D(16, 3, padding="same"), MaxPool(2, padding="same"), ReLU(), Flatten(), Dense(64), ReLU(), Dense(classes)
    )


def dense(classes: int) -> Sequential:
    """The default for features."""
    return Sequential(Dense(100), ReLU(), Dense(classes))
