"""Labelled images: a data set, and the pair of data sets that a network is trained and tested on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Images, InputError, Labels, Shape, check_images, check_shape, whole_number

Indices: TypeAlias = npt.NDArray[np.int64]
"""Positions of examples in a data set."""


@dataclass(frozen=True, eq=False, init=False)
class Dataset:
    """Images (N, C, *size) or grey images (N, H, W), their class numbers (N,), and the names of the classes.

    Networks scale bytes (0 to 255) to the range 0 to 1 and take floats as they are. Labels may be integers of any type,
    or a list of them. If no names are given, the classes are called "0", "1", ... up to the largest label.
    """

    images: Images
    labels: Labels
    classes: tuple[str, ...]

    def __init__(self, images: Images, labels: npt.ArrayLike, classes: Sequence[str] | None = None) -> None:
        check_images("images", images)
        if images.ndim < 2:
            raise InputError("images", "shape (N, C, *size)", images.shape)
        if images.size == 0:
            raise InputError("images", "at least one example of at least one pixel", images.shape)
        numbers = class_numbers(labels, len(images))
        least, most = numbers.min(), numbers.max()
        if least < 0 or (classes is not None and most >= len(classes)):
            below = "from 0" if classes is None else f"below {len(classes)}"
            raise InputError("labels", f"class numbers {below}", f"{least} to {most}")
        names = tuple(map(str, range(most + 1)) if classes is None else classes)
        check_classes("classes", names)
        vars(self).update(images=images, labels=numbers, classes=names)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> Shape:
        """The shape of one image: (C, *size), or (H, W) if the images are grey."""
        return self.images.shape[1:]

    def take(self, indices: Indices) -> "Dataset":
        """Return the examples at the given positions, in that order."""
        try:
            return Dataset(self.images[indices], self.labels[indices], self.classes)
        except IndexError as error:
            raise InputError("indices", f"integers below {len(self)}", error) from error

    def split(self, count: int, seed: int) -> tuple["Dataset", "Dataset"]:
        """Hold out `count` examples chosen at random; return the others first, then those held out."""
        whole_number("examples to hold out", count, 1, len(self) - 1)
        whole_number("seed", seed, 0)
        order = np.random.default_rng(seed).permutation(len(self))
        return self.take(np.sort(order[count:])), self.take(np.sort(order[:count]))


LabelledImages: TypeAlias = Dataset | tuple[Images, npt.ArrayLike]
"""What training and evaluation accept: a data set, or a pair (images, labels) that is made into one."""


def as_dataset(where: str, data: LabelledImages) -> Dataset:
    """Return a data set as it is, or make one from a pair (images, labels); raises InputError for anything else."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, tuple) and len(data) == 2:
        return Dataset(*data)
    raise InputError(where, "a Dataset, or a pair (images, labels)", type(data).__name__)


def class_numbers(labels: npt.ArrayLike, count: int) -> Labels:
    """Return integers of any type as int64; raises InputError unless there are exactly `count` of them."""
    try:
        numbers = np.asarray(labels)
    except ValueError as error:  # rows of different lengths
        raise InputError("labels", "a class number for each image", error) from error
    check_shape("labels", (count,), numbers.shape)
    if numbers.dtype.kind not in "iu":
        raise InputError("labels", "whole numbers", numbers.dtype)
    return numbers.astype(np.int64, copy=False)


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
