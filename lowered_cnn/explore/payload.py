"""Arrays as JSON: their bytes in base64, which the page reads without loss and without a parser of its own."""

import base64
import binascii
import math

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, Images, InputError, Shape, check_shape
from lowered_cnn.descriptions import JSON

DTYPES = {"uint8": np.dtype(np.uint8), "float32": np.dtype("<f4")}
"""What an array in a request may hold; what is sent to the page is always in one of these two."""


def packed(values: npt.NDArray[np.generic]) -> dict[str, JSON]:
    """Return an array as {"dtype", "shape", "data"}: bytes stay bytes, and all else becomes float32."""
    dtype = DTYPES["uint8" if values.dtype == np.uint8 else "float32"]
    data = base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()
    return {"dtype": "uint8" if dtype == np.uint8 else "float32", "shape": list(values.shape), "data": data}


def unpacked(where: str, value: JSON, shape: Shape) -> Images:
    """Return the array of this shape that a request holds; raises InputError for anything else."""
    if not isinstance(value, dict) or not {"dtype", "shape", "data"} <= value.keys():
        raise InputError(where, "an array {dtype, shape, data}", type(value).__name__)
    dtype, lengths, data = value["dtype"], value["shape"], value["data"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise InputError(f"{where}: dtype", " or ".join(DTYPES), repr(dtype)[:40])
    if not isinstance(lengths, list) or not all(type(length) is int for length in lengths):
        raise InputError(f"{where}: shape", str(shape), repr(lengths)[:40])
    check_shape(f"{where}: shape", shape, tuple(lengths))  # type: ignore[arg-type]
    try:
        content = base64.b64decode(data, validate=True) if isinstance(data, str) else b""
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{where}: data", "base64", error) from error
    size = math.prod(shape) * DTYPES[dtype].itemsize
    if len(content) != size:
        raise InputError(f"{where}: data", f"{size} bytes in base64", len(content))
    array = np.frombuffer(content, DTYPES[dtype]).reshape(shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{where}: data", "finite numbers", "nan or inf")
    return array if array.dtype == np.uint8 else as_floats(array)


def as_floats(array: Array) -> Array:
    """Return float32 numbers in this machine's byte order."""
    return array.astype(np.float32, copy=False)
