"""Inputs with targets: a data set, and the pair of data sets that a network is trained and tested on."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import (
    Images,
    InputError,
    Labels,
    Shape,
    Targets,
    Weights,
    check_images,
    check_rank,
    check_shape,
    whole_number,
)

Indices: TypeAlias = npt.NDArray[np.int64]
"""Positions of examples in a data set."""

MOST_CLASSES = 2**20
"""How many classes may go without names: a damaged label must not ask for billions of them."""


@runtime_checkable
class Examples(Protocol):
    """What training and evaluation need from a data set: N inputs, gathered batch by batch, and their targets.

    Inputs have the shape `image_shape`, (C, *size), (H, W) or (features), and the type `dtype`: uint8 or floats. They
    need not be in memory; `Dataset` is for inputs that are, or that are mapped into it from a file.

    Integer targets are class numbers: (N,) in int64, each below the number of `classes`, or maps (N, *size) with one at
    each position. Floats are values (N,), vectors (N, k) or maps (N, ...). Only class numbers have `classes`.
    """

    @property
    def targets(self) -> Targets:
        """The targets (N, ...)."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; maps of class numbers may go without."""

    @property
    def weights(self) -> Weights | None:
        """How much each example counts in the loss (N,); None if all count the same."""

    @property
    def image_shape(self) -> Shape:
        """The shape of one input."""

    @property
    def dtype(self) -> np.dtype[np.uint8 | np.floating]:
        """The type of the numbers in the inputs."""

    def __len__(self) -> int:
        """The number of examples, N."""

    def gather(self, indices: Indices, out: Images) -> None:
        """Write the inputs at these positions (n,) to `out` (n, *image_shape), which is contiguous, of this dtype."""


@dataclass(frozen=True, eq=False, init=False)
class Dataset:
    """Inputs (N, C, *size), (N, H, W) or (N, features) with their targets, and the names of the classes, if any.

    Networks scale input bytes (0 to 255) to the range 0 to 1 and take floats as they are. The type of the targets
    tells what they are. Integers of any type, or a list of them, are class numbers (N,); without names, the classes are
    called "0", "1", ... up to the largest. Integer maps (N, *size) hold a class number at each position; their classes
    may have names, and only the loss knows which number it ignores. Floats are values (N,), vectors (N, k) or maps
    (N, ...), have no classes, and are not scaled. `weights` (N,), of at least 0, say how much each example counts in
    the loss.

    Inputs and targets may be mapped from files that are larger than memory: only those in use are read. `take` and
    `split` return views, which share the inputs until their own `inputs` are asked for, and have a copy of the targets.
    """

    targets: Targets
    classes: tuple[str, ...]
    weights: Weights | None
    _shared: Images = field(repr=False)
    _places: Indices = field(repr=False)  # where this data set's inputs are among those shared
    _is_view: bool = field(repr=False)

    def __init__(
        self,
        inputs: Images,
        targets: npt.ArrayLike,
        classes: Sequence[str] | None = None,
        weights: npt.ArrayLike | None = None,
    ) -> None:
        check_images("images", inputs)
        if inputs.ndim < 2:
            raise InputError("images", "shape (N, C, *size)", inputs.shape)
        if inputs.size == 0:
            raise InputError("images", "at least one example of at least one pixel", inputs.shape)
        wanted = as_targets("targets", targets, len(inputs))
        unnamed = classes is None and are_labels(wanted)
        names = numbered("targets", wanted) if unnamed else tuple(classes or ())
        check_targets("targets", wanted, names)
        check_classes("classes", names)
        counts = None if weights is None else as_weights("weights", weights, len(inputs))
        self._set(wanted, names, counts, inputs, np.arange(len(inputs)), False)

    def _set(
        self,
        targets: Targets,
        classes: tuple[str, ...],
        weights: Weights | None,
        shared: Images,
        places: Indices,
        is_view: bool,
    ) -> None:
        vars(self).update(
            targets=targets, classes=classes, weights=weights, _shared=shared, _places=places, _is_view=is_view
        )

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def inputs(self) -> Images:
        """All inputs (N, *image_shape); a view turns into a copy when it is first asked for them."""
        if self._is_view:
            vars(self).update(_shared=self._shared[self._places], _places=np.arange(len(self)), _is_view=False)
        return self._shared

    @property
    def images(self) -> Images:
        """The inputs, by the name they have where they are images."""
        return self.inputs

    @property
    def labels(self) -> Labels:
        """The targets, by the name they have where they are class numbers (N,); raises InputError for others."""
        if not are_labels(self.targets):
            raise InputError("labels", "targets that are class numbers (N,)", described(self.targets))
        return self.targets.astype(np.int64, copy=False)

    @property
    def image_shape(self) -> Shape:
        """The shape of one input: (C, *size), (features), or (H, W) if the images are grey."""
        return self._shared.shape[1:]

    @property
    def dtype(self) -> np.dtype[np.uint8 | np.floating]:
        """The type of the numbers in the inputs."""
        return self._shared.dtype

    def gather(self, indices: Indices, out: Images) -> None:
        """Write the inputs at these positions (n,) to `out` (n, *image_shape)."""
        gather_rows(self._shared, self._positions(indices), out)

    def take(self, indices: Indices) -> "Dataset":
        """Return the examples at the given positions, in that order; they share this data set's inputs."""
        places = self._positions(indices)
        if not places.size:
            raise InputError("indices", "at least one", 0)
        view = object.__new__(Dataset)
        weights = None if self.weights is None else self.weights[indices]
        view._set(self.targets[indices], self.classes, weights, self._shared, places, True)
        return view

    def split(self, count: int, seed: int) -> tuple["Dataset", "Dataset"]:
        """Hold out `count` examples chosen at random; return the others first, then those held out."""
        whole_number("examples to hold out", count, 1, len(self) - 1)
        whole_number("seed", seed, 0)
        order = np.random.default_rng(seed).permutation(len(self))
        return self.take(np.sort(order[count:])), self.take(np.sort(order[:count]))

    def _positions(self, indices: Indices) -> Indices:
        """Return where the images at these positions are among those shared; raises InputError if there is none."""
        try:
            places = self._places[indices]
        except IndexError as error:
            raise InputError("indices", f"integers below {len(self)}", error) from error
        check_rank("indices", "n", places.shape)
        return places


ExamplesLike: TypeAlias = Examples | tuple[Images, npt.ArrayLike]
"""What training and evaluation accept: a data set, or a pair (inputs, targets) that is made into one."""


def as_dataset(where: str, data: ExamplesLike) -> Examples:
    """Return a data set, checked, or make one from a pair (inputs, targets); raises InputError for anything else."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, tuple) and len(data) == 2:
        return Dataset(*data)
    if not isinstance(data, Examples):
        raise InputError(where, "a Dataset or other Examples, or a pair (inputs, targets)", type(data).__name__)
    whole_number(f"{where}: number of examples", len(data), 1)
    targets = as_targets(f"{where}: targets", data.targets, len(data))
    if getattr(data.targets, "dtype", None) != targets.dtype:
        got = getattr(data.targets, "dtype", type(data.targets))
        raise InputError(f"{where}: targets", f"an array of {targets.dtype}", got)
    check_classes(f"{where}: classes", data.classes)
    check_targets(f"{where}: targets", targets, data.classes)
    if data.weights is not None:
        as_weights(f"{where}: weights", data.weights, len(data))
    if not isinstance(data.dtype, np.dtype):
        raise InputError(f"{where}: dtype", "a dtype, such as np.dtype(np.uint8)", repr(data.dtype))
    check_images(f"{where}: dtype", np.empty(0, data.dtype))
    if min(data.image_shape, default=0) < 1:
        raise InputError(f"{where}: image_shape", "lengths of at least 1", data.image_shape)
    return data


def gather_rows(rows: npt.NDArray[Any], places: Indices, out: npt.NDArray[Any]) -> None:
    """Write the entries of an array at these places, none of them negative, to `out`."""
    if rows.flags.c_contiguous:
        np.take(rows, places, axis=0, out=out, mode="clip")  # the mode that needs no temporary array
    else:  # np.take would copy all of them first
        out[...] = rows[places]


def in_order(data: Examples, count: int) -> Iterator[Images]:
    """Yield all images in order, `count` at a time; they are valid until the next ones."""
    buffer = np.empty((min(count, len(data)), *data.image_shape), data.dtype)
    for start in range(0, len(data), count):
        indices = np.arange(start, min(start + count, len(data)))
        data.gather(indices, buffer[: len(indices)])
        yield buffer[: len(indices)]


def as_targets(where: str, targets: npt.ArrayLike, count: int) -> Targets:
    """Return targets as an array, class numbers (N,) in int64; raises InputError unless there are exactly `count`."""
    try:
        array = np.asarray(targets)
    except ValueError as error:  # rows of different lengths
        raise InputError(where, "a number, or numbers of one shape, for each example", error) from error
    check_shape(where, (count, *array.shape[1:]), array.shape)
    if array.dtype.kind not in "iuf":
        raise InputError(where, "integers or floats", array.dtype)
    if not array.size:
        raise InputError(where, "at least one number for each example", array.shape)
    return array.astype(np.int64, copy=False) if are_labels(array) else array


def as_weights(where: str, weights: npt.ArrayLike, count: int) -> Weights:
    """Return the weights of `count` examples in float64; raises InputError for any that are invalid."""
    try:
        if np.iscomplexobj(weights):
            raise TypeError("complex numbers")
        array = np.asarray(weights, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(where, "a number for each example", error) from error
    check_shape(where, (count,), array.shape)
    if not (array.min() >= 0 and 0 < array.max() < np.finfo(np.float64).max / count):
        wanted = "numbers of at least 0, with a finite sum that is not 0"
        raise InputError(where, wanted, f"{array.min():g} to {array.max():g}")
    return array


def are_labels(targets: Targets) -> bool:
    """Return whether targets are class numbers (N,)."""
    return targets.ndim == 1 and targets.dtype.kind in "iu"


def described(targets: Targets) -> str:
    """Return the type and shape of targets, for an error message."""
    return f"{targets.dtype} of shape {targets.shape}"


def class_numbers(where: str, labels: npt.NDArray[Any], count: int) -> Labels:
    """Return integers of any type as int64; raises InputError unless there are exactly `count` of them."""
    check_shape(where, (count,), labels.shape)
    if labels.dtype.kind not in "iu":
        raise InputError(where, "whole numbers", labels.dtype)
    return labels.astype(np.int64, copy=False)


def numbered(where: str, numbers: Targets) -> tuple[str, ...]:
    """Return the names "0", "1", ... of the classes up to the largest label."""
    least, most = int(numbers.min()), int(numbers.max())
    if least < 0 or most >= MOST_CLASSES:
        raise InputError(where, f"class numbers from 0, below {MOST_CLASSES:,}", f"{least} to {most}")
    return tuple(map(str, range(most + 1)))


def check_targets(where: str, targets: Targets, classes: Sequence[str]) -> None:
    """Raise InputError if a label is not the number of a class, or if values have classes.

    Numbers in maps are left to the loss, which may ignore one of them.
    """
    if are_labels(targets):
        least, most = targets.min(), targets.max()
        if least < 0 or most >= len(classes):
            raise InputError(where, f"class numbers below {len(classes)}", f"{least} to {most}")
    elif classes and targets.dtype.kind == "f":
        raise InputError(where, "class numbers, as there are classes", described(targets))


def check_classes(where: str, names: Sequence[str]) -> None:
    """Raise InputError if two classes have the same name."""
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(where, "a different name for each class", f"{name!r} {count} times")


@dataclass(frozen=True, eq=False)
class Splits:
    """The examples to train on and those to test on, alike in the shapes of inputs and targets and in their classes."""

    train: Dataset
    test: Dataset

    def __post_init__(self) -> None:
        check_shape("test images", self.train.image_shape, self.test.image_shape)
        check_shape("test targets", self.train.targets.shape[1:], self.test.targets.shape[1:])
        if self.train.classes != self.test.classes:
            raise InputError("test classes", ", ".join(self.train.classes), ", ".join(self.test.classes))

    @classmethod
    def numbered(cls, train: tuple[Images, Labels], test: tuple[Images, Labels]) -> "Splits":
        """Return splits of images and labels whose classes are called "0", "1", ... up to the largest label of both."""
        classes = numbered("labels", np.concatenate([train[1], test[1]]))
        return cls(Dataset(*train, classes), Dataset(*test, classes))
