"""Labelled images: a data set, and the pair of data sets that a network is trained and tested on."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Images, InputError, Labels, Shape, check_images, check_rank, check_shape, whole_number

Indices: TypeAlias = npt.NDArray[np.int64]
"""Positions of examples in a data set."""

MOST_CLASSES = 2**20
"""How many classes may go without names: a damaged label must not ask for billions of them."""


@runtime_checkable
class Examples(Protocol):
    """What training and evaluation need from a data set: N labelled images, which are gathered batch by batch.

    `labels` (N,) are class numbers in int64, each below the number of `classes`. Images have the shape `image_shape`,
    (C, *size) or (H, W), and the type `dtype`: uint8 or floats. They need not be in memory; `Dataset` is for images
    that are, or that are mapped into it from a file.
    """

    @property
    def labels(self) -> Labels:
        """The class numbers (N,)."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""

    @property
    def image_shape(self) -> Shape:
        """The shape of one image."""

    @property
    def dtype(self) -> np.dtype[np.uint8 | np.floating]:
        """The type of the pixels."""

    def __len__(self) -> int:
        """The number of examples, N."""

    def gather(self, indices: Indices, out: Images) -> None:
        """Write the images at these positions (n,) to `out` (n, *image_shape), which is contiguous, of this dtype."""


@dataclass(frozen=True, eq=False, init=False)
class Dataset:
    """Images (N, C, *size) or grey images (N, H, W), their class numbers (N,), and the names of the classes.

    Networks scale bytes (0 to 255) to the range 0 to 1 and take floats as they are. Labels may be integers of any type,
    or a list of them. If no names are given, the classes are called "0", "1", ... up to the largest label.

    The images may be mapped from a file that is larger than memory: only those in use are read. `take` and `split`
    return views, which share the images until their own `images` are asked for.
    """

    labels: Labels
    classes: tuple[str, ...]
    _shared: Images = field(repr=False)
    _places: Indices = field(repr=False)  # where this data set's images are among those shared
    _is_view: bool = field(repr=False)

    def __init__(self, images: Images, labels: npt.ArrayLike, classes: Sequence[str] | None = None) -> None:
        check_images("images", images)
        if images.ndim < 2:
            raise InputError("images", "shape (N, C, *size)", images.shape)
        if images.size == 0:
            raise InputError("images", "at least one example of at least one pixel", images.shape)
        numbers = class_numbers("labels", labels, len(images))
        names = numbered("labels", numbers) if classes is None else tuple(classes)
        check_class_numbers("labels", numbers, names)
        check_classes("classes", names)
        self._set(numbers, names, images, np.arange(len(images)), False)

    def _set(self, labels: Labels, classes: tuple[str, ...], shared: Images, places: Indices, is_view: bool) -> None:
        vars(self).update(labels=labels, classes=classes, _shared=shared, _places=places, _is_view=is_view)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> Images:
        """All images (N, *image_shape); a view turns into a copy when it is first asked for them."""
        if self._is_view:
            self._set(self.labels, self.classes, self._shared[self._places], np.arange(len(self)), False)
        return self._shared

    @property
    def image_shape(self) -> Shape:
        """The shape of one image: (C, *size), or (H, W) if the images are grey."""
        return self._shared.shape[1:]

    @property
    def dtype(self) -> np.dtype[np.uint8 | np.floating]:
        """The type of the pixels."""
        return self._shared.dtype

    def gather(self, indices: Indices, out: Images) -> None:
        """Write the images at these positions (n,) to `out` (n, *image_shape)."""
        places = self._positions(indices)
        if self._shared.flags.c_contiguous:
            np.take(self._shared, places, axis=0, out=out, mode="clip")  # the mode that needs no temporary array
        else:  # np.take would copy all images first
            out[...] = self._shared[places]

    def take(self, indices: Indices) -> "Dataset":
        """Return the examples at the given positions, in that order; they share this data set's images."""
        places = self._positions(indices)
        if not places.size:
            raise InputError("indices", "at least one", 0)
        view = object.__new__(Dataset)
        view._set(self.labels[indices], self.classes, self._shared, places, True)
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


LabelledImages: TypeAlias = Examples | tuple[Images, npt.ArrayLike]
"""What training and evaluation accept: a data set, or a pair (images, labels) that is made into one."""


def as_dataset(where: str, data: LabelledImages) -> Examples:
    """Return a data set, checked, or make one from a pair (images, labels); raises InputError for anything else."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, tuple) and len(data) == 2:
        return Dataset(*data)
    if not isinstance(data, Examples):
        raise InputError(where, "a Dataset or other Examples, or a pair (images, labels)", type(data).__name__)
    whole_number(f"{where}: number of examples", len(data), 1)
    numbers = class_numbers(f"{where}: labels", data.labels, len(data))
    if getattr(data.labels, "dtype", None) != np.int64:
        raise InputError(f"{where}: labels", "an array of int64", getattr(data.labels, "dtype", type(data.labels)))
    check_classes(f"{where}: classes", data.classes)
    check_class_numbers(f"{where}: labels", numbers, data.classes)
    if not isinstance(data.dtype, np.dtype):
        raise InputError(f"{where}: dtype", "a dtype, such as np.dtype(np.uint8)", repr(data.dtype))
    check_images(f"{where}: dtype", np.empty(0, data.dtype))
    if min(data.image_shape, default=0) < 1:
        raise InputError(f"{where}: image_shape", "lengths of at least 1", data.image_shape)
    return data


def in_order(data: Examples, count: int) -> Iterator[Images]:
    """Yield all images in order, `count` at a time; they are valid until the next ones."""
    buffer = np.empty((min(count, len(data)), *data.image_shape), data.dtype)
    for start in range(0, len(data), count):
        indices = np.arange(start, min(start + count, len(data)))
        data.gather(indices, buffer[: len(indices)])
        yield buffer[: len(indices)]


def class_numbers(where: str, labels: npt.ArrayLike, count: int) -> Labels:
    """Return integers of any type as int64; raises InputError unless there are exactly `count` of them."""
    try:
        numbers = np.asarray(labels)
    except ValueError as error:  # rows of different lengths
        raise InputError(where, "a class number for each image", error) from error
    check_shape(where, (count,), numbers.shape)
    if numbers.dtype.kind not in "iu":
        raise InputError(where, "whole numbers", numbers.dtype)
    return numbers.astype(np.int64, copy=False)


def check_class_numbers(where: str, numbers: Labels, classes: Sequence[str]) -> None:
    """Raise InputError unless each label is the number of a class."""
    least, most = numbers.min(), numbers.max()
    if least < 0 or most >= len(classes):
        raise InputError(where, f"class numbers below {len(classes)}", f"{least} to {most}")


def numbered(where: str, numbers: Labels) -> tuple[str, ...]:
    """Return the names "0", "1", ... of the classes up to the largest label."""
    least, most = numbers.min(), numbers.max()
    if least < 0 or most >= MOST_CLASSES:
        raise InputError(where, f"class numbers from 0, below {MOST_CLASSES:,}", f"{least} to {most}")
    return tuple(map(str, range(most + 1)))


def check_classes(where: str, names: Sequence[str]) -> None:
    """Raise InputError if two classes have the same name."""
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(where, "a different name for each class", f"{name!r} {count} times")


@dataclass(frozen=True, eq=False)
class Splits:
    """The examples to train on and those to test on, with the same image shape and the same classes."""

    train: Dataset
    test: Dataset

    def __post_init__(self) -> None:
        check_shape("test images", self.train.image_shape, self.test.image_shape)
        if self.train.classes != self.test.classes:
            raise InputError("test classes", ", ".join(self.train.classes), ", ".join(self.test.classes))

    @classmethod
    def numbered(cls, train: tuple[Images, Labels], test: tuple[Images, Labels]) -> "Splits":
        """Return splits of images and labels whose classes are called "0", "1", ... up to the largest label of both."""
        classes = numbered("labels", np.concatenate([train[1], test[1]]))
        return cls(Dataset(*train, classes), Dataset(*test, classes))
