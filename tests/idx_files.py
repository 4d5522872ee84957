"""Data sets written as MNIST's files are, for the commands that read them."""

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lowered_cnn import Dataset


def write_idx(path: Path, array: npt.NDArray[np.uint8]) -> None:
    path.write_bytes(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


def write_data(folder: Path, train: Dataset, test: Dataset) -> Path:
    folder.mkdir()
    for name, part in (("train", train), ("t10k", test)):
        write_idx(folder / f"{name}-images-idx3-ubyte", part.images[:, 0].astype(np.uint8))
        write_idx(folder / f"{name}-labels-idx1-ubyte", part.labels.astype(np.uint8))
    return folder
