"""Augmentation: against SciPy's interpolation, what each amount means, and the same bits in any company."""

import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import normal
from scipy import ndimage

from lowered_cnn import Augmentation, InputError, load_mnist
from lowered_cnn.arrays import Array, Images, Shape

EVERYTHING = Augmentation(shift=2, rotation=20, scale=0.2, shear=10, elastic=1, flip=True, cutout=5)
PLACES = np.arange(40)
DIGITS = load_mnist().train.images[:40]


def spots(row: int, column: int, size: Shape = (21, 27), count: int = 40) -> Array:
    """Return images with a smooth spot."""
    down, across = np.indices(size)
    spot: Array = np.exp(-((down - row) ** 2 + (across - column) ** 2) / 4).astype(np.float32)
    return np.broadcast_to(spot, (count, 1, *size))


def centres(images: Array) -> Array:
    """Return the centre of mass of each image, rows and columns."""
    return np.array([ndimage.center_of_mass(image[0]) for image in images])


def augmented(augmentation: Augmentation, images: Images, epoch: int = 1, seed: int = 0) -> Array:
    return augmentation(images, np.arange(len(images)), seed, epoch)


@pytest.mark.slow
def test_the_interpolation_is_pytorchs(torch: Any) -> None:
    augmentation = replace(EVERYTHING, flip=False, cutout=0)
    uniform, grid = augmentation._draw(PLACES, 0, 1, (28, 28))
    sources = augmentation._sources(uniform, grid, (28, 28))
    # Its places go from -1 to 1, columns first; the border of zeros is wider than any displacement.
    places = torch.tensor((np.moveaxis(sources[:, ::-1], 1, -1) + 8) / 43 * 2 - 1)
    padded = torch.tensor(np.pad(DIGITS / np.float32(255), [(0, 0), (0, 0), (8, 8), (8, 8)]))
    expected = torch.nn.functional.grid_sample(padded, places, "bicubic", align_corners=True)
    highest = DIGITS.max(axis=(2, 3), keepdims=True) / np.float32(255)
    np.testing.assert_allclose(augmented(augmentation, DIGITS), expected.numpy().clip(0, highest), atol=1e-5)


def test_between_pixels_the_interpolation_is_a_cubic_convolution() -> None:
    """Against the kernel as it is written, by loops."""

    def kernel(t: float) -> float:
        a, t = -0.75, abs(t)
        if t < 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0

    image, augmentation = np.abs(normal(1, 1, 6, 7)) + 9, Augmentation(shift=1.5, rotation=40)
    row, column = augmentation._sources(*augmentation._draw(PLACES[:1], 0, 1, (6, 7)), (6, 7))[0]
    expected = [
        sum(kernel(row[p] - i) * kernel(column[p] - j) * image[0, 0, i, j] for i, j in np.ndindex(6, 7))
        for p in np.ndindex(6, 7)
    ]
    result = augmentation(image, PLACES[:1], 0, 1)
    np.testing.assert_allclose(result.ravel(), np.clip(expected, 0, image.max()), rtol=1e-4, atol=1e-4)


def test_edges_stay_nearly_as_sharp_as_they_are() -> None:
    def edges(images: Array) -> float:
        return float(np.square(np.diff(images, axis=-1)).mean())

    images = load_mnist().train.images[:500]
    moved = Augmentation(shift=2, rotation=10)(images, np.arange(500), 0, 1)
    assert edges(moved) > 0.8 * edges(images / np.float32(255))


def test_the_map_is_a_rotation_times_a_shear_over_the_scale_about_the_centre() -> None:
    augmentation = Augmentation(shift=3, rotation=30, scale=0.5, shear=20)
    uniform, grid = augmentation._draw(PLACES[:1], 5, 2, (9, 12))
    down, across, turn, scale, shear = uniform[0, :5]
    angle, slope = math.radians(30 * turn), math.tan(math.radians(20 * shear))
    turned = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = turned @ np.array([[1, slope], [0, 1]]) / 1.5**scale
    start = np.array([4 + 3 * down, 5.5 + 3 * across])
    expected = [[matrix @ np.array([i - 4, j - 5.5]) + start for j in range(12)] for i in range(9)]
    sources = augmentation._sources(uniform, grid, (9, 12))[0]
    np.testing.assert_allclose(np.moveaxis(sources, 0, -1), expected, atol=1e-5)


@pytest.mark.parametrize("images", [DIGITS, DIGITS[:, 0], normal(40, 3, 5, 4), normal(40, 3, 5, 4).astype(np.float32)])
def test_nothing_asked_changes_nothing(images: Images) -> None:
    result = augmented(Augmentation(), images)
    expected = images / np.float32(255) if images.dtype == np.uint8 else images
    assert result.dtype == expected.dtype
    assert not np.shares_memory(result, images)
    np.testing.assert_array_equal(result, expected)


def test_a_shift_moves_by_up_to_so_many_pixels() -> None:
    moved = centres(augmented(Augmentation(shift=3), spots(10, 13, count=300))) - [10, 13]
    assert np.abs(moved).max() <= 3.001
    assert (moved.min(axis=0) < -2.8).all()
    assert (moved.max(axis=0) > 2.8).all()
    assert abs(np.mean(moved[:, 0] * moved[:, 1])) < 0.5  # of 3: one axis does not follow the other


def test_a_rotation_turns_about_the_centre() -> None:
    moved = centres(augmented(Augmentation(rotation=30), spots(10, 19, count=300))) - [10, 13]
    angles: Array = np.degrees(np.arctan2(moved[:, 0], moved[:, 1]))
    np.testing.assert_allclose(np.hypot(*moved.T), 6, atol=0.02)
    assert angles.min() == pytest.approx(-30, abs=1)
    assert angles.max() == pytest.approx(30, abs=1)


def test_a_scale_grows_and_shrinks() -> None:
    moved = centres(augmented(Augmentation(scale=0.25), spots(10, 17, count=300))) - [10, 13]
    assert moved[:, 1].min() == pytest.approx(4 / 1.25, abs=0.05)
    assert moved[:, 1].max() == pytest.approx(4 * 1.25, abs=0.05)
    np.testing.assert_allclose(moved[:, 0], 0, atol=1e-3)


def test_a_shear_moves_rows_against_each_other() -> None:
    moved = centres(augmented(Augmentation(shear=45), spots(10, 17, count=300))) - [10, 17]
    assert np.abs(moved[:, 0]).max() == pytest.approx(4, abs=0.2)
    np.testing.assert_allclose(moved[:, 1], 0, atol=0.15)


def test_elastic_displacements_have_the_deviation_asked_for_and_are_smooth() -> None:
    augmentation = Augmentation(elastic=1.5)
    places = np.arange(500)
    sources = augmentation._sources(*augmentation._draw(places, 0, 1, (28, 30)), (28, 30))
    displacements = sources - np.indices((28, 30))
    assert displacements.std() == pytest.approx(1.5, rel=0.02)
    assert displacements.mean() == pytest.approx(0, abs=0.02)
    assert np.diff(displacements, axis=-1).std() < 0.5 * 1.5


def test_a_flip_mirrors_every_other_image_exactly() -> None:
    images = normal(200, 2, 5, 4)
    result = augmented(Augmentation(flip=True), images)
    mirrored = [np.array_equal(one, image[..., ::-1]) for one, image in zip(result, images, strict=True)]
    same = [np.array_equal(one, image) for one, image in zip(result, images, strict=True)]
    assert sum(mirrored) + sum(same) == 200
    assert 70 < sum(mirrored) < 130


def test_a_cutout_is_a_square_of_zeros() -> None:
    result = augmented(Augmentation(cutout=4), np.ones((500, 2, 9, 12), np.float32))
    for image in result:
        rows, columns = np.nonzero(image[0] == 0)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert len(rows) == height * width
        assert 2 <= min(height, width) <= max(height, width) <= 4
        np.testing.assert_array_equal(image[0], image[1])
    covered = (result[:, 0] == 0).mean(axis=0)
    assert covered.min() > 0.02  # corners are covered too
    assert covered.max() < 0.3


@given(st.permutations(range(12)), st.integers(1, 12))
def test_company_and_order_do_not_matter(order: list[int], count: int) -> None:
    chosen = np.array(order[:count])
    together = augmented(EVERYTHING, DIGITS[:12])
    np.testing.assert_array_equal(EVERYTHING(DIGITS[chosen], chosen, 0, 1), together[chosen])


def test_seed_epoch_and_place_matter() -> None:
    image = DIGITS[[7]]
    results = [
        EVERYTHING(image, np.array([place]), seed, epoch).tobytes()
        for place in range(3)
        for seed in range(3)
        for epoch in range(3)
    ]
    assert len(set(results)) == 27


def test_the_images_stay_as_they_are() -> None:
    images = normal(3, 1, 8, 8)
    before = images.copy()
    augmented(EVERYTHING, images)
    np.testing.assert_array_equal(images, before)


def test_channels_move_together() -> None:
    grey = normal(4, 1, 8, 9)
    result = augmented(EVERYTHING, np.repeat(grey, 3, axis=1))
    np.testing.assert_array_equal(result, np.repeat(augmented(EVERYTHING, grey), 3, axis=1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Augmentation(shift=-1), "Augmentation: shift: expected a finite number of at least 0, got -1"),
        (
            lambda: Augmentation(elastic=math.inf),
            "Augmentation: elastic: expected a finite number of at least 0, got inf",
        ),
        (lambda: Augmentation(shear=90), "Augmentation: shear: expected less than 90 degrees, got 90"),
        (
            lambda: Augmentation(cutout=cast(Any, 1.5)),
            "Augmentation: cutout: expected a whole number of at least 0, got 1.5",
        ),
        (
            lambda: Augmentation(flip=cast(Any, 0.5)),
            "Augmentation: flip: expected True or False, got 0.5",
        ),
        (
            lambda: augmented(EVERYTHING, np.zeros((2, 1, 8), np.uint8)[0]),
            "augmentation: images: expected shape (N, C, H, W) or (N, H, W), got (1, 8)",
        ),
    ],
)
def test_what_makes_no_sense_is_told(make: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message
