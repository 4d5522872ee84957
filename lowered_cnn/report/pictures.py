"""Pictures made of arrays: images as they are, and maps of channels side by side."""

import math

import numpy as np

from lowered_cnn.arrays import Array, Bytes, Images

LARGEST_IMAGE, LARGEST_MAP = 112, 48
"""Larger images and maps are shown smaller, by means over squares."""

MOST_MAPS = 16
MOST_FEATURES = 512

LINE, GREY = 2, 190
"""The width of the lines between maps, and their level, which is seen beside light and dark."""


def as_pixels(image: Images) -> Bytes:
    """Return an image (C, H, W) as pixels (H, W, 3): colours if it has three channels, else the mean of its channels.

    Floats are scaled so that the image has all levels.
    """
    levels = image.astype(np.float64)
    if image.dtype != np.uint8:
        low, high = float(levels.min()), float(levels.max())
        levels = 255 * (levels - low) / ((high - low) or 1.0)
    colours = levels if len(levels) == 3 else np.broadcast_to(levels.mean(axis=0), (3, *levels.shape[1:]))
    return np.moveaxis(_smaller(colours, LARGEST_IMAGE), 0, -1).round().astype(np.uint8)


def maps(activation: Array) -> Array:
    """Return an activation without the batch as maps (count, H, W), at most `MOST_MAPS` of them.

    Features become one map, filled row by row, with zeros at the end; channels in one dimension, one map of rows; of
    channels in three dimensions, the slice in the middle is shown.
    """
    if activation.ndim == 1:
        features = activation[:MOST_FEATURES]
        width = min(len(features), 16 if len(features) <= 160 else 32)
        rows = -(-len(features) // width)
        return np.pad(features, (0, rows * width - len(features))).reshape(1, rows, width)
    if activation.ndim == 2:
        return activation[None]
    while activation.ndim > 3:
        activation = activation[:, activation.shape[1] // 2]
    return _smaller(activation[:MOST_MAPS], LARGEST_MAP)


def grid(pictures: Bytes) -> Bytes:
    """Return pictures (count, H, W, 3) in a grid about as wide as it is high, with lines between them."""
    enlarged = max(1, LARGEST_MAP // max(pictures.shape[1:3]))  # beside few pixels, a line would be wide
    pictures = pictures.repeat(enlarged, axis=1).repeat(enlarged, axis=2)
    count, height, width, _ = pictures.shape
    columns = min(count, math.ceil(math.sqrt(count * height / width)))
    rows = -(-count // columns)
    padded = np.pad(pictures, ((0, rows * columns - count), (0, LINE), (0, LINE), (0, 0)), constant_values=GREY)
    lines = padded.reshape(rows, columns, height + LINE, width + LINE, 3).swapaxes(1, 2)
    return lines.reshape(rows * (height + LINE), columns * (width + LINE), 3)[:-LINE, :-LINE]


def _smaller(channels: Array, most: int) -> Array:
    """Return channels (C, H, W) whose sides are at most `most` long, by means over squares."""
    step = -(-max(channels.shape[1:]) // most)
    height, width = (max(1, length // step) for length in channels.shape[1:])
    if step == 1:
        return channels
    tall, broad = min(step, channels.shape[1]), min(step, channels.shape[2])
    cut = channels[:, : height * tall, : width * broad]
    means: Array = cut.reshape(len(cut), height, tall, width, broad).mean(axis=(2, 4))
    return means
