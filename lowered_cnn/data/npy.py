"""Data sets in NumPy's own .npy files, which are mapped and may be larger than memory."""

import math
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Images, InputError, Labels, Shape, check_images
from lowered_cnn.data.dataset import Splits, class_numbers
from lowered_cnn.data.files import check_is_file

NPY_MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000
"""In bytes; the header of an array of numbers has 128, or a few more."""


def read_npy(path: str | Path) -> npt.NDArray[Any]:
    """Map the array in a .npy file into memory, read-only; raises InputError for anything but numbers.

    The file may be larger than memory, and must not change while it is in use.
    """
    path = Path(path)
    wanted = "a .npy file of numbers"
    check_is_file(path, wanted)
    try:
        with path.open("rb") as file:
            shape, is_fortran, dtype = read_header(file)
            start = file.tell()
    except Exception as error:  # what NumPy raises depends on how the header is broken
        raise InputError(str(path), wanted, error) from error
    if dtype.kind not in "uif":
        raise InputError(str(path), wanted, dtype)
    if not shape or any(isinstance(length, bool) or length < 1 for length in shape):
        raise InputError(str(path), "axes of at least length 1", shape)
    size, needed = os.path.getsize(path) - start, math.prod(shape) * dtype.itemsize
    if size != needed:
        raise InputError(str(path), f"{needed} bytes for shape {shape} in {dtype}", size)
    return np.asarray(np.memmap(path, dtype, "r", start, shape, "F" if is_fortran else "C"))


def read_header(file: IO[bytes]) -> tuple[Shape, bool, np.dtype[Any]]:
    """Return the shape, whether the first axis is the innermost, and the dtype; raises ValueError, among others."""
    opening = file.read(12)
    if not opening.startswith((NPY_MAGIC + b"\1\0", NPY_MAGIC + b"\2\0")):
        raise ValueError(f"the first bytes {opening[:8].hex(' ')}")
    length = int.from_bytes(opening[8:10] if opening[6] == 1 else opening[8:12], "little")
    if length > LONGEST_HEADER:  # NumPy would read it before it refuses it
        raise ValueError(f"a header of {length} bytes")
    file.seek(8)
    read = np.lib.format.read_array_header_1_0 if opening[6] == 1 else np.lib.format.read_array_header_2_0
    return read(file)


def read_npy_folder(folder: str | Path) -> Splits:
    """Read train-images.npy, train-labels.npy, test-images.npy and test-labels.npy.

    Images are uint8 or floats (N, C, *size), or grey (N, H, W); labels are integers (N,).
    """
    return Splits.numbered(read_split(Path(folder), "train"), read_split(Path(folder), "test"))


def read_split(folder: Path, name: str) -> tuple[Images, Labels]:
    """Read the images (N, C, *size) and the labels of a split."""
    images_path, labels_path = folder / f"{name}-images.npy", folder / f"{name}-labels.npy"
    images = read_npy(images_path)
    check_images(str(images_path), images)
    if images.ndim < 2:
        raise InputError(str(images_path), "shape (N, C, *size) or (N, H, W)", images.shape)
    labels = class_numbers(str(labels_path), read_npy(labels_path), len(images))
    return images[:, np.newaxis] if images.ndim == 3 else images, labels
