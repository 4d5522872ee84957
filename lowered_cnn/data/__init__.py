"""Data: inputs with targets, readers of MNIST (bundled), IDX files, .npy files and folders of pictures, and batches."""

import os
from collections.abc import Callable
from pathlib import Path

from lowered_cnn.arrays import InputError, Shape
from lowered_cnn.data.batches import batches
from lowered_cnn.data.dataset import Dataset, Examples, Splits
from lowered_cnn.data.digest import digest
from lowered_cnn.data.idx import read_idx, read_idx_folder
from lowered_cnn.data.images import fit_image, is_mnist_style, mnist_style, read_image, read_image_folder
from lowered_cnn.data.mnist import load_mnist
from lowered_cnn.data.npy import read_npy_folder

__all__ = [
    "READERS",
    "Dataset",
    "Examples",
    "Splits",
    "batches",
    "digest",
    "fit_image",
    "is_mnist_style",
    "kind_of",
    "load",
    "load_mnist",
    "mnist_style",
    "read_idx",
    "read_idx_folder",
    "read_image",
    "read_image_folder",
    "read_npy_folder",
]


READERS: dict[str, Callable[[str | Path], Splits]] = {
    "idx": read_idx_folder,
    "npy": read_npy_folder,
    "images": read_image_folder,
}
"""The kinds of data, and the function that reads a folder of each."""


def load(folder: str | Path | None = None, shape: Shape | None = None) -> Splits:
    """Load a folder of IDX files, of .npy files, or of one sub-folder of images per class; without one, load MNIST.

    Images in files of their own are fitted to `shape` (C, H, W), if it is given: the input of a trained network.
    """
    if folder is None:
        return load_mnist()
    kind = kind_of(folder)
    return read_image_folder(folder, shape) if kind == "images" else READERS[kind](folder)


def kind_of(folder: str | Path | None) -> str:
    """Return the kind of data in a folder: "idx" for IDX files and for MNIST, "npy", or "images"."""
    if folder is None:
        return "idx"
    folder = Path(folder)
    wanted = "a folder with four IDX or .npy files, or with one sub-folder of images per class"
    if not os.path.isdir(folder):
        raise InputError(str(folder), wanted, "a file" if os.path.exists(folder) else "no such folder")
    if any(folder.glob("*-ubyte*")):
        return "idx"
    if any((folder / f"{split}-images.npy").exists() for split in ("train", "test")):
        return "npy"
    if any(folder.glob("*/")):
        return "images"
    raise InputError(str(folder), wanted, "neither")
