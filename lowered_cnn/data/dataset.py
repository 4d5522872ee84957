"""Labelled images: one data set, and the two of them that a network is trained and tested on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Images, InputError, Labels, Shape, check_images, check_shape, whole_number

Indices: TypeAlias = npt.NDArray[np.int64]
"""Positions of examples in a data set."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images (N, C, *size) or grey (N, H, W), the class number of each (N,), and the names of the classes.

    Networks see bytes from 0 to 255 as numbers from 0 to 1, and floats as they are.
    """

    images: Images
    labels: Labels
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        check_images("images", self.images)
        if self.images.ndim < 2:
            raise InputError("images", "shape (N, C, *size)", self.images.shape)
        check_shape("labels", self.images.shape[:1], self.labels.shape)
        if self.images.size == 0:
            raise InputError("images", "at least one example of at least one pixel", self.images.shape)
        if self.labels.dtype != np.int64:
            raise InputError("labels", "int64", self.labels.dtype)
        least, most = self.labels.min(), self.labels.max()
        if least < 0 or most >= len(self.classes):
            raise InputError("labels", f"class numbers below {len(self.classes)}", f"{least} to {most}")
        check_classes("classes", self.classes)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> Shape:
        """The shape of one image, (C, *size) or grey (H, W)."""
        return self.images.shape[1:]

    def take(self, indices: Indices) -> "Dataset":
        """Return the examples at the given positions, in that order."""
        try:
            return Dataset(self.images[indices], self.labels[indices], self.classes)
        except IndexError as error:
            raise InputError("indices", f"integers below {len(self)}", error) from error

    def split(self, count: int, seed: int) -> tuple["Dataset", "Dataset"]:
        """Hold out `count` examples chosen at random: the rest, then the held out."""
        whole_number("examples to hold out", count, 1, len(self) - 1)
        whole_number("seed", seed, 0)
        order = np.random.default_rng(seed).permutation(len(self))
        return self.take(np.sort(order[count:])), self.take(np.sort(order[:count]))


def check_classes(where: str, names: Sequence[str]) -> None:
    """Raise InputError unless each class has a name of its own."""
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(where, "a name of its own for each class", f"{count} times {name!r}")


@dataclass(frozen=True, eq=False)
class Splits:
    """The examples to train on, and those to test on: the same kind of images, the same classes."""

    train: Dataset
    test: Dataset

    def __post_init__(self) -> None:
        check_shape("test images", self.train.image_shape, self.test.image_shape)
        if self.train.classes != self.test.classes:
            raise InputError("test classes", ", ".join(self.train.classes), ", ".join(self.test.classes))
