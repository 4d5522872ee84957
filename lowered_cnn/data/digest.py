"""The fingerprint of a data set: the same for the same examples in the same order, however they are stored."""

import math
from collections.abc import Iterator

import numpy as np

from lowered_cnn.arrays import Targets
from lowered_cnn.data.dataset import Examples, are_labels, in_order

PIECE_BYTES = 2**20
"""How many bytes of an array are hashed at once: few enough for the cache."""


def digest(data: Examples) -> str:
    """Return the SHA-256, in hexadecimal, of a data set's shape, pixel type, class names, targets, weights and inputs.

    Two data sets have the same digest only if all of these are equal, bit for bit, whatever the order of their bytes; a
    view has the same one as a copy. It takes about half a second per gigabyte on a processor with instructions for
    SHA-256.
    """
    import hashlib

    targets, pixels = data.targets, data.dtype.newbyteorder("<")
    numbers = np.dtype("<i8") if are_labels(targets) else targets.dtype.newbyteorder("<")
    described: tuple[object, ...] = (len(data), tuple(data.image_shape), pixels.str, tuple(data.classes))
    if not are_labels(targets):
        described += (targets.shape[1:], numbers.str)
    if data.weights is not None:
        described += ("weights",)
    whole = hashlib.sha256(repr(described).encode())
    for part in _pieces(targets):
        whole.update(part.astype(numbers, copy=False).data)
    if data.weights is not None:
        whole.update(data.weights.astype("<f8").data)
    bytes_per_image = data.dtype.itemsize * math.prod(data.image_shape)
    for images in in_order(data, max(1, PIECE_BYTES // bytes_per_image)):
        whole.update(images.astype(pixels, copy=False).data)
    return whole.hexdigest()


def _pieces(targets: Targets) -> Iterator[Targets]:
    """Yield the targets in order, as contiguous arrays, so that mapped ones need not fit in memory."""
    count = max(1, PIECE_BYTES * len(targets) // targets.nbytes)
    for start in range(0, len(targets), count):
        yield np.ascontiguousarray(targets[start : start + count])
