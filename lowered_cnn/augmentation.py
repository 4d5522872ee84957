"""Augmentation: small random shifts, rotations, distortions, flips and cut-outs of images, new in each epoch."""

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Self

import numpy as np

from lowered_cnn.arrays import (
    Array,
    Images,
    InputError,
    Labels,
    Shape,
    check_flag,
    check_images,
    is_number,
    whole_number,
)
from lowered_cnn.gemm import multiply

KNOTS = 4
"""Pixels between neighbouring points of the random grid whose smooth interpolation distorts an image."""

SHARPNESS = -0.75
"""The parameter a of cubic interpolation, as in OpenCV and PyTorch. Bilinear interpolation would blur: its images have
edges weaker by a quarter, and networks trained on them do worse on sharp ones."""

AMOUNTS = ("shift", "rotation", "scale", "shear", "elastic")
"""The fields that can be any number of at least 0."""

UNIFORMS = 8
"""Random numbers per image: two for the shift; rotation, scale, shear, flip; two for the centre of the cut-out."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes to an image (C, H, W) or (H, W); each amount is drawn uniformly from ± the one given.

    `shift` is in pixels along both axes, `rotation` and `shear` in degrees; `scale` multiplies sizes by 1 / (1 + scale)
    to 1 + scale, uniformly in the logarithm. `elastic` is the standard deviation, in pixels, of smooth random
    displacements: cubic B-splines over a grid of normal numbers (Simard et al., 2003, smooth with a Gaussian). `flip`
    mirrors an image left to right with probability 1/2. `cutout` is the side, in pixels, of a square of zeros (DeVries
    and Taylor, 2017) with its centre in the image. All that moves pixels is combined into one cubic interpolation, with
    zeros outside the image.
    """

    shift: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        for name in AMOUNTS:
            amount = getattr(self, name)
            if not (is_number(amount) and 0 <= amount < math.inf):
                raise InputError(f"Augmentation: {name}", "a finite number of at least 0", repr(amount))
        if self.shear >= 90:
            raise InputError("Augmentation: shear", "less than 90 degrees", self.shear)
        check_flag("Augmentation: flip", self.flip)
        whole_number("Augmentation: cutout", self.cutout, 0)

    def scaled(self, strength: float) -> Self:
        """Return the augmentation with all amounts times `strength`, and the side of the cut-out rounded."""
        amounts: dict[str, Any] = {name: getattr(self, name) * strength for name in AMOUNTS}
        return replace(self, **amounts, cutout=round(self.cutout * strength))

    def __call__(self, images: Images, examples: Labels, seed: int, epoch: int) -> Array:
        """Return changed copies of images (n, C, H, W) or (n, H, W); bytes from 0 to 255 are scaled to 0 to 1.

        `examples` (n,) are their indices in the data set: what happens to an image depends only on the seed, the epoch
        and its index. Raises InputError for images that are not two-dimensional.
        """
        check_images("augmentation: images", images)
        if images.ndim not in (3, 4):
            raise InputError("augmentation: images", "shape (N, C, H, W) or (N, H, W)", images.shape)
        scaled: Array = np.array(images, np.float32 if images.dtype == np.uint8 else images.dtype)
        if images.dtype == np.uint8:
            scaled /= 255
        maps = scaled if images.ndim == 4 else scaled[:, None]
        uniform, normal = self._draw(examples, seed, epoch, maps.shape[2:])
        if self.shift or self.rotation or self.scale or self.shear or self.elastic:
            _resample(maps, self._sources(uniform, normal, maps.shape[2:]))
        if self.flip:
            mirrored = uniform[:, 5] < 0
            maps[mirrored] = maps[mirrored][..., ::-1]
        if self.cutout:
            _cut_out(maps, uniform[:, 6:8], self.cutout)
        return scaled

    def _draw(self, examples: Labels, seed: int, epoch: int, size: Shape) -> tuple[Array, Array]:
        """Return uniform numbers from -1 to 1, (n, 8), and normal ones for the displacement grids, (n, 2, *grid)."""
        grid = tuple(len(_splines(length)) for length in size) if self.elastic else (0, 0)
        uniform, normal = np.empty((len(examples), UNIFORMS)), np.empty((len(examples), 2, *grid), np.float32)
        for row, example in enumerate(examples.tolist()):
            generator = np.random.default_rng([seed, epoch, example])
            uniform[row] = generator.uniform(-1, 1, UNIFORMS)
            if self.elastic:
                generator.standard_normal(out=normal[row], dtype=np.float32)
        return uniform, normal

    def _sources(self, uniform: Array, normal: Array, size: Shape) -> Array:
        """Return the row and column that each pixel comes from: (n, 2, H, W)."""
        turn, shear = np.radians(self.rotation) * uniform[:, 2], np.tan(np.radians(self.shear) * uniform[:, 4])
        scale = (1 + self.scale) ** uniform[:, 3]
        sine, cosine = np.sin(turn) / scale, np.cos(turn) / scale
        # For (row, column): the rotation, divided by the scale, times the shear along the rows.
        matrix = np.array([[cosine, cosine * shear - sine], [sine, sine * shear + cosine]], np.float32).T.swapaxes(1, 2)
        centre = [(length - 1) / 2 for length in size]
        down, across = (np.arange(length) - middle for length, middle in zip(size, centre, strict=True))
        start = (centre + self.shift * uniform[:, :2]).astype(np.float32)
        sources: Array = (matrix[:, :, :1] * np.float32(down) + start[..., None])[..., None]
        sources = sources + (matrix[:, :, 1:] * np.float32(across))[:, :, None]
        if self.elastic:
            sources += _interpolate(normal, size, self.elastic)
        return sources


def _interpolate(normal: Array, size: Shape, deviation: float) -> Array:
    """Return displacements (n, 2, H, W) = D^T G A for grids G (n, 2, *grid): splines D down the rows, A across."""
    down, across = (_splines(length) for length in size)
    half = np.empty((*normal.shape[:2], size[0], normal.shape[3]), np.float32)
    multiply("forward", down.T, normal, out=half)
    displacements = np.empty((*normal.shape[:2], *size), np.float32)
    multiply("forward", half, across * np.float32(deviation), out=displacements)
    return displacements


@cache
def _splines(length: int) -> Array:
    """Return each grid point's cubic B-spline at each pixel, (grid, length), scaled to a mean variance of 1."""
    places = np.arange(length) / KNOTS
    distance = np.abs(np.arange(-1, math.floor(places[-1]) + 3)[:, None] - places)
    inner, outer = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance).clip(0) ** 3 / 6
    splines = np.where(distance < 1, inner, outer)
    splines /= np.sqrt(np.mean(np.sum(splines**2, axis=0)))
    return splines.astype(np.float32)


def _resample(maps: Array, sources: Array) -> None:
    """Resample maps (n, C, H, W) in place at the sources (n, 2, H, W), from 16 pixels each, within each map's range."""
    count, channels, *size = maps.shape
    # Two rows and columns of zeros before the image, and three after it, supply whatever comes from outside.
    padded = np.zeros((channels, count, *(length + 5 for length in size)), maps.dtype)
    padded[:, :, 2:-3, 2:-3] = maps.swapaxes(0, 1)
    for axis, length in enumerate(size):
        np.clip(sources[:, axis], -1, length, out=sources[:, axis])
    corners = np.floor(sources).astype(np.int32)
    down, across = (_cubic(sources[:, axis] - corners[:, axis]) for axis in (0, 1))
    line = padded.shape[3]
    corners += 1  # now the first of the four by four pixels, in the padded image
    first = corners[:, 0] * line + corners[:, 1] + np.arange(count, dtype=np.int32)[:, None, None] * padded[0, 0].size
    lowest, highest = padded.min(axis=(2, 3), keepdims=True), padded.max(axis=(2, 3), keepdims=True)
    for channel, plane in enumerate(padded.reshape(channels, -1)):
        rows = (
            weight * sum(plane.take(first + (line * row + column)) * across[column] for column in range(4))
            for row, weight in enumerate(down)
        )
        np.clip(sum(rows), lowest[channel], highest[channel], out=maps[:, channel])


def _cubic(t: Array) -> list[Array]:
    """Return the weights of the pixels at -1, 0, 1 and 2 for a point t from 0 to 1 (Keys, 1981, with a = SHARPNESS)."""
    a = SHARPNESS
    inner = [((a + 2) * s - (a + 3)) * s * s + 1 for s in (t, 1 - t)]
    outer = [((a * s - 5 * a) * s + 8 * a) * s - 4 * a for s in (1 + t, 2 - t)]
    return [outer[0], *inner, outer[1]]


def _cut_out(maps: Array, centres: Array, side: int) -> None:
    """Set a square in each of maps (n, C, H, W) to zero; the centres (n, 2), from -1 to 1, span the image."""
    for image, centre in zip(maps, centres, strict=True):
        square = []
        for length, place in zip(image.shape[1:], centre, strict=True):
            first = math.floor((place + 1) / 2 * length) - side // 2
            square.append(slice(max(first, 0), max(first + side, 0)))
        image[:, *square] = 0
