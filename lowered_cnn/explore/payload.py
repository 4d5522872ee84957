"""Arrays as JSON: their bytes in base64, which the page reads without loss and without a parser of its own."""

import base64
import binascii
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Bytes, Images, InputError, Shape, check_shape
from lowered_cnn.descriptions import JSON

DTYPES: dict[str, np.dtype[Any]] = {"uint8": np.dtype(np.uint8), "float32": np.dtype("<f4")}
"""The types of numbers in a request; what is sent to the page is always in one of these two."""

MOST_AXES = 4

LONGEST_SIDE = 512
"""The most pixels that a drawing may have in height and in width."""


def packed(values: npt.NDArray[np.generic]) -> dict[str, JSON]:
    """Return an array as {"dtype", "shape", "data"}: bytes stay bytes, and all else becomes float32."""
    name = "uint8" if values.dtype == np.uint8 else "float32"
    content = np.ascontiguousarray(values, DTYPES[name]).tobytes()
    return {"dtype": name, "shape": list(values.shape), "data": base64.b64encode(content).decode()}


def unpacked(where: str, value: JSON) -> Images:
    """Return the array that a request holds, of finite numbers; raises InputError for anything else."""
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data"}:
        raise InputError(where, 'an array {"dtype", "shape", "data"}', _short(value))
    name, lengths, data = value["dtype"], value["shape"], value["data"]
    if not isinstance(name, str) or name not in DTYPES:
        raise InputError(f"{where}: dtype", " or ".join(DTYPES), _short(name))
    shape = _shape(f"{where}: shape", lengths)
    try:
        content = base64.b64decode(data, validate=True) if isinstance(data, str) else b""
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{where}: data", "base64", error) from error
    size = math.prod(shape) * DTYPES[name].itemsize
    if len(content) != size:
        raise InputError(f"{where}: data", f"{size} bytes in base64", len(content))
    array = np.frombuffer(content, DTYPES[name]).reshape(shape)
    if name == "uint8":
        return array
    if not np.isfinite(array).all():
        raise InputError(f"{where}: data", "finite numbers", "nan or inf")
    return array.astype(np.float32, copy=False)


def image(value: JSON, shape: Shape) -> Images:
    """Return an image of this shape."""
    array = unpacked("image", value)
    check_shape("image: shape", shape, array.shape)
    return array


def drawing(value: JSON) -> Bytes:
    """Return a drawing (1, H, W) in grey levels, of at most 512 pixels each way."""
    array = unpacked("drawing", value)
    if array.dtype != np.uint8 or array.ndim != 3 or len(array) != 1 or max(array.shape) > LONGEST_SIDE:
        wanted = f"grey levels in uint8 of shape (1, H, W), with H and W up to {LONGEST_SIDE}"
        raise InputError("drawing", wanted, f"{array.dtype} {array.shape}")
    return array.view(np.uint8)


def _shape(where: str, lengths: JSON) -> Shape:
    found = [length for length in lengths if type(length) is int and length > 0] if isinstance(lengths, list) else []
    if not isinstance(lengths, list) or not len(lengths) == len(found) <= MOST_AXES:
        raise InputError(where, f"at most {MOST_AXES} lengths of at least 1", _short(lengths))
    return tuple(found)


def _short(value: JSON) -> str:
    return repr(value)[:60]
