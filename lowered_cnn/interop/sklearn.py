"""scikit-learn (extra `sklearn`): a classifier and a regressor that behave like any others there."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, Images, InputError, Shape, check_shape, whole_number
from lowered_cnn.data.dataset import Dataset
from lowered_cnn.layers import Conv2D, Dense, Flatten, Layer, MaxPool, ReLU, Sequential
from lowered_cnn.losses import Loss, MeanSquaredError, SoftmaxCrossEntropy, softmax
from lowered_cnn.network import Network
from lowered_cnn.optimizers import Adam, Optimizer
from lowered_cnn.schedules import Constant, OneCycle, Schedule
from lowered_cnn.training import Metric, Recipe, Record, Training

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.metrics import r2_score
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state
    from sklearn.utils.class_weight import compute_class_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    wanted = "scikit-learn (pip install 'lowered-cnn[sklearn]')"
    raise InputError("CNNClassifier", wanted, f"no module named {error.name}") from error

Model = Layer | Sequence[Layer] | Callable[[int], Layer]
Callback = Callable[[Record], object]

SEEDS = 2**31 - 1
NO_TARGETS = object()


class CNN(BaseEstimator):
    """What the estimators share: images, features, the network and its training."""

    _monitor: str | None = None
    """The figure of a record that is the estimator's score, as in `Recipe.monitor`; None for the accuracy."""
    _metrics: ClassVar[dict[str, Metric]] = {}

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
        callbacks: Sequence[Callback] = (),
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
        self.callbacks = callbacks
        self.workers = workers
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:  # noqa: N803 (scikit-learn's names)
        """Train a new network on X with targets y; `sample_weight` (n) says how much each example counts."""
        if hasattr(self, "network_"):
            del self.network_  # if this fit fails, the estimator is not fitted
        images, y = self._validated(X, y)
        targets, outputs, loss = self._learned(y)
        network, seed = self._start(images, outputs)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, images, dtype=np.float64)
        data, dev = Dataset(images, targets, weights=weights), None
        if self.early_stopping:
            labels = targets if targets.dtype.kind == "i" else None
            rest, held_out = train_test_split(
                np.arange(len(data)), test_size=self.validation_fraction, stratify=labels, random_state=seed
            )
            data, dev = data.take(rest), data.take(held_out)
        patience = whole_number(f"{self._name}: n_iter_no_change", self.n_iter_no_change, 1)
        recipe = Recipe(
            self.epochs,
            self.batch_size,
            self._optimizer(),
            self.schedule or OneCycle(),
            loss,
            seed=seed,
            patience=patience if self.early_stopping else None,
            min_delta=self.tol,
            monitor=self._monitor,
        )
        self._train(network, data, dev, recipe)
        return self

    def _learned(self, y: Any) -> tuple[npt.NDArray[Any], int, Loss]:
        """Learn from y what all targets have in common; return the targets, the number of outputs and the loss."""
        raise NotImplementedError

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _validated(
        self, x: npt.ArrayLike, y: Any = NO_TARGETS, *, reset: bool = True, **options: bool
    ) -> tuple[Images, Any]:
        """Return x as images and y checked; raises ValueError if they do not fit each other, or earlier calls."""
        of_x: dict[str, Any] = {"dtype": [np.float32, np.float64, np.uint8], "allow_nd": True, "reset": reset}
        if y is NO_TARGETS:
            images = validate_data(self, x, **of_x)
        else:
            images, y = validate_data(self, x, y, **of_x, **options)
        if self.image_shape is not None and images.ndim == 2:
            shape: Shape = tuple(self.image_shape)
            if images.shape[1] != int(np.prod(shape)):
                raise InputError(f"{self._name}: X", f"{int(np.prod(shape))} features for images {shape}", images.shape)
            images = images.reshape(len(images), *shape)
        if images.ndim == 3:  # grey
            images = images[:, np.newaxis]
        if not reset and hasattr(self, "network_") and images.shape[1:] != self.network_.input_shape:
            raise InputError(f"{self._name}: X", f"images {self.network_.input_shape}", images.shape[1:])
        return images, y

    def _start(self, images: Images, outputs: int) -> tuple[Network, int]:
        """Return a new network and its seed, and forget the history of the one before."""
        self._random_state = check_random_state(self.random_state)
        seed = self._new_seed()
        model: Model | None = self.model
        if model is None:
            model = small_cnn if images.ndim == 4 else dense
        network = Network(
            model(outputs) if callable(model) else model,
            images.shape[1:],
            seed=seed,
            dtype=np.float64 if images.dtype == np.float64 else np.float32,
        )
        if network.output_shape != (outputs,):
            raise InputError(f"{self._name}: model", f"{outputs} outputs", network.output_shape)
        self.loss_curve_: list[float] = []
        self.validation_scores_: list[float] = []
        self.best_validation_score_ = -np.inf
        return network, seed

    def _new_seed(self) -> int:
        return int(self._random_state.randint(SEEDS))

    def _optimizer(self) -> Optimizer:
        return Adam(learning_rate=0.003) if self.optimizer is None else self.optimizer

    def _train_once(self, network: Network, data: Dataset, loss: Loss) -> None:
        """Train for one epoch at a constant learning rate, and remember the range of all images so far."""
        recipe = Recipe(1, self.batch_size, self._optimizer(), Constant(), loss, seed=self._new_seed())
        before = network.input_range
        self._train(network, data, None, recipe)
        if before is not None:
            low, high = network.input_range or before
            network.input_range = min(low, before[0]), max(high, before[1])

    def _train(self, network: Network, data: Dataset, dev: Dataset | None, recipe: Recipe) -> None:
        if not (isinstance(self.callbacks, Sequence) and all(map(callable, self.callbacks))):
            raise InputError(f"{self._name}: callbacks", "a list of functions", repr(self.callbacks))
        options: dict[str, Any] = {"metrics": self._metrics, "workers": self.workers}
        with Training(network, data, recipe, dev=dev, **options) as training:
            for record in training:
                answers = [callback(record) for callback in self.callbacks if record.ends_epoch]
                if True in answers:
                    training.stop()
        with np.errstate(over="ignore", invalid="ignore"):  # the last update may have been one too many
            outputs = network.predict(data.inputs[: self.batch_size], workers=1)
        if not np.isfinite(outputs).all():
            raise InputError(f"{self._name}: outputs", "finite numbers (try a lower learning rate)", "nan or inf")
        self.network_ = network
        self.loss_curve_ += [record.epoch_loss or 0.0 for record in training.history]
        self.n_iter_ = len(self.loss_curve_)
        if dev is not None:
            self.validation_scores_ = [record.score(self._monitor) for record in training.history]
            self.best_validation_score_ = max(self.validation_scores_)

    def _outputs(self, X: npt.ArrayLike) -> Array:  # noqa: N803
        check_is_fitted(self, "network_")
        images, _ = self._validated(X, reset=False)
        return self.network_.predict(images, workers=self.workers)


class CNNClassifier(ClassifierMixin, CNN):
    """A convolutional network as a scikit-learn classifier.

    X holds images, (n, H, W) or (n, C, H, W), or features, (n, features); features are reshaped to images if
    `image_shape`, (H, W) or (C, H, W), is given. Bytes (0 to 255) are scaled to the range 0 to 1; other numbers are
    taken as they are. `model` is a Sequential, or a list of layers, with one output per class, or a function that makes
    one from the number of classes, as in `lowered_cnn.models`. The default is a small CNN for images and two dense
    layers for features.

    `optimizer` (default Adam) and `schedule` (default OneCycle) are used as in a Recipe. With `early_stopping`, a
    stratified fraction `validation_fraction` of the examples is held out. Training ends when their accuracy has not
    improved by more than `tol` for `n_iter_no_change` epochs, and the best weights are kept. The `callbacks` are
    functions of the Record of each epoch's end; one that returns True ends the training. `class_weight`, a dictionary
    or "balanced", says how much the examples of each class count.

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
        class_weight: Mapping[Any, float] | str | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        tol: float = 1e-4,
        callbacks: Sequence[Callback] = (),
        workers: int = 1,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            model,
            image_shape=image_shape,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            schedule=schedule,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            callbacks=callbacks,
            workers=workers,
            random_state=random_state,
        )
        self.class_weight = class_weight

    def partial_fit(self, X: npt.ArrayLike, y: npt.ArrayLike, classes: npt.ArrayLike | None = None) -> Self:  # noqa: N803
        """Train for one epoch on these examples, at a constant learning rate, from the current weights.

        The first call needs all `classes`. Each call starts with a fresh optimizer, without momentum.
        """
        images, y = self._validated(X, y, reset=not hasattr(self, "network_"))
        if not hasattr(self, "network_"):
            if classes is None:
                raise InputError("partial_fit: classes", "all classes in the first call", None)
            self.classes_ = np.unique(classes)
            network, _ = self._start(images, len(self.classes_))
        else:
            if classes is not None and not np.array_equal(self.classes_, np.unique(classes)):
                raise InputError("partial_fit: classes", self.classes_.tolist(), np.unique(classes).tolist())
            network = copy.deepcopy(self.network_)  # a call that fails changes nothing
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise InputError("partial_fit: y", f"classes {self.classes_.tolist()}", unknown.tolist())
        self._train_once(network, Dataset(images, np.searchsorted(self.classes_, y)), self._loss(y))
        return self

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:  # noqa: N803
        """Return the most likely class of each image (n)."""
        chosen: npt.NDArray[Any] = self.predict_proba(X).argmax(axis=1)
        labels: npt.NDArray[Any] = self.classes_[chosen]
        return labels

    def predict_proba(self, X: npt.ArrayLike) -> Array:  # noqa: N803
        """Return the probability of each class (n, classes), in the order of `classes_`."""
        return softmax(self._outputs(X))

    def _validated(
        self, x: npt.ArrayLike, y: Any = NO_TARGETS, *, reset: bool = True, **options: bool
    ) -> tuple[Images, Any]:
        images, y = super()._validated(x, y, reset=reset, **options)
        if y is not NO_TARGETS:
            check_classification_targets(y)
        return images, y

    def _learned(self, y: Any) -> tuple[npt.NDArray[Any], int, Loss]:
        self.classes_, labels = np.unique(y, return_inverse=True)
        return labels, len(self.classes_), self._loss(y)

    def _loss(self, y: Any) -> Loss:
        if self.class_weight is None:
            return SoftmaxCrossEntropy()
        return SoftmaxCrossEntropy(class_weights=compute_class_weight(self.class_weight, classes=self.classes_, y=y))


class CNNRegressor(RegressorMixin, CNN):
    """A convolutional network as a scikit-learn regressor, for one or several outputs, by the mean squared error.

    X and the arguments are those of `CNNClassifier`, except for `class_weight`. y holds numbers, (n) or (n, outputs),
    best on a scale of about 1, as `sklearn.compose.TransformedTargetRegressor` brings them to; `model` has as many
    outputs, or makes a network from their number. With `early_stopping`, training ends when the R^2 of the examples
    held out, `validation_scores_`, no longer improves. The attributes are those of `CNNClassifier`, without `classes_`.
    """

    _monitor = "r2"
    _metrics: ClassVar[dict[str, Metric]] = {
        "r2": lambda outputs, targets: float(r2_score(targets.reshape(outputs.shape), outputs))
    }

    def partial_fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:  # noqa: N803
        """Train for one epoch on these examples, at a constant learning rate, from the current weights.

        Each call starts with a fresh optimizer, without momentum.
        """
        is_new = not hasattr(self, "network_")
        images, checked = self._validated(X, y, reset=is_new)
        if not is_new:
            check_shape("partial_fit: y", (len(images), *self._y_shape), checked.shape)
        targets, outputs, loss = self._learned(checked)
        # A call that fails changes nothing.
        network = self._start(images, outputs)[0] if is_new else copy.deepcopy(self.network_)
        self._train_once(network, Dataset(images, targets), loss)
        return self

    def predict(self, X: npt.ArrayLike) -> Array:  # noqa: N803
        """Return the outputs of each image, (n) or (n, outputs) as y was."""
        outputs = self._outputs(X)
        return outputs.reshape(len(outputs), *self._y_shape)

    def _validated(
        self, x: npt.ArrayLike, y: Any = NO_TARGETS, *, reset: bool = True, **options: bool
    ) -> tuple[Images, Any]:
        return super()._validated(x, y, reset=reset, multi_output=True, y_numeric=True, **options)

    def _learned(self, y: Any) -> tuple[npt.NDArray[Any], int, Loss]:
        self._y_shape: Shape = y.shape[1:]
        return y.astype(np.float64), int(np.prod(self._y_shape)), MeanSquaredError()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def small_cnn(outputs: int) -> Sequential:
    """The default for images: one convolution, so that small images fit."""
    return Sequential(
        Conv2D(16, 3, padding="same"), MaxPool(2, padding="same"), ReLU(), Flatten(), Dense(64), ReLU(), Dense(outputs)
    )


def dense(outputs: int) -> Sequential:
    """The default for features."""
    return Sequential(Dense(100), ReLU(), Dense(outputs))
