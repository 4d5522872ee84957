"""Data sets written as MNIST's files are."""

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lowered_cnn import Dataset


def idx_bytes(array: npt.NDArray[np.uint8]) -> bytes:
    """IDX as its specification has it, written without the code under test."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_data(folder: Path, train: Dataset, test: Dataset) -> Path:
    folder.mkdir()
    for name, part in (("train", train), ("t10k", test)):
        (folder / f"{name}-images-idx3-ubyte").write_bytes(idx_bytes(part.images[:, 0].astype(np.uint8)))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx_bytes(part.labels.astype(np.uint8)))
    return folder
