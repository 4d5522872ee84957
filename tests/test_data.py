"""The data room: data sets, IDX files, the embedded MNIST, image files, and batches."""

import gzip
import io
import math
import re
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from idx_files import idx_bytes
from PIL import Image

from lowered_cnn.arrays import Bytes, InputError
from lowered_cnn.data import (
    Dataset,
    Splits,
    batches,
    fit_image,
    is_mnist_style,
    load,
    load_mnist,
    mnist,
    mnist_style,
    read_idx,
    read_idx_folder,
    read_image,
    read_image_folder,
)
from lowered_cnn.data.images import hold_out_tenth, image_size


def error_of(call: Callable[..., object], *args: Any) -> str:
    """The one line in which a call reports its bad input."""
    with pytest.raises(InputError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def random_bytes(*shape: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def small_dataset(count: int = 20, classes: int = 3) -> Dataset:
    labels = np.arange(count, dtype=np.int64) % classes
    return Dataset(random_bytes(count, 1, 2, 3), labels, tuple("abcdefghij"[:classes]))


# --- data sets -------------------------------------------------------------------------------------------------------


def test_dataset_knows_its_size_and_takes_examples_in_order() -> None:
    data = small_dataset(20)
    assert len(data) == 20
    assert data.image_shape == (1, 2, 3)
    taken = data.take(np.array([7, 2, 7]))
    np.testing.assert_array_equal(taken.images, data.images[[7, 2, 7]])
    assert taken.labels.tolist() == [1, 2, 1]
    assert taken.classes == data.classes


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (random_bytes(2), [0, 1], "images: expected shape (N, C, *size), got (2,)"),
        ([[0.0], [1.0]], [0, 1], "images: expected a NumPy array, got list"),
        (random_bytes(2, 1, 3, 3), [0, 1, 1], "targets: expected (2,), got (3,)"),
        (random_bytes(2, 1, 3, 3), [0, 2], "targets: expected class numbers below 2, got 0 to 2"),
        (random_bytes(2, 1, 3, 3), [-1, 1], "targets: expected class numbers below 2, got -1 to 1"),
        (
            random_bytes(0, 1, 3, 3),
            [],
            "images: expected at least one example of at least one pixel, got (0, 1, 3, 3)",
        ),
        (np.zeros((2, 1, 3, 3), int), [0, 1], "images: expected uint8 (0 to 255) or floats, got int64"),
    ],
)
def test_dataset_refuses_what_does_not_fit(images: Any, labels: list[int], message: str) -> None:
    assert error_of(Dataset, images, np.array(labels, np.int64), ("a", "b")) == message


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5,), (4, 3), (1, 4, 3), (2, 3, 4, 5)])
def test_dataset_takes_images_of_any_rank(shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    images: Any = random_bytes(4, *shape).astype(dtype)
    data = Dataset(images, np.arange(4) % 2, ("a", "b"))
    assert data.image_shape == shape
    np.testing.assert_array_equal(data.split(1, seed=0)[1].images.dtype, dtype)


@pytest.mark.parametrize("dtype", [*np.typecodes["AllInteger"], ">i4"])
def test_labels_are_whole_numbers_of_any_type(dtype: str) -> None:
    data = Dataset(random_bytes(3, 1, 3, 3), np.array([2, 0, 1], dtype), ("a", "b", "c"))
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [2, 0, 1]


def test_labels_may_be_a_list() -> None:
    assert Dataset(random_bytes(2, 1, 3, 3), [1, 0], ["a", "b"]).labels.tolist() == [1, 0]


def test_classes_without_names_are_numbered() -> None:
    assert Dataset(random_bytes(2, 1, 3, 3), [3, 1]).classes == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([True, False], "targets: expected integers or floats, got bool"),
        (["cat", "dog"], "targets: expected integers or floats, got <U3"),
        ([[1, 0], [0, 1], [0, 0]], "targets: expected (2, 2), got (3, 2)"),
        (np.zeros((2, 0)), "targets: expected at least one number for each example, got (2, 0)"),
        (1, "targets: expected (2,), got ()"),
        (None, "targets: expected (2,), got ()"),
        ([], "targets: expected (2,), got (0,)"),
        ([-1, 0], "targets: expected class numbers from 0, below 1,048,576, got -1 to 0"),
        ([0, 10**12], "targets: expected class numbers from 0, below 1,048,576, got 0 to 1000000000000"),
    ],
)
def test_other_targets_are_refused(labels: Any, message: str) -> None:
    assert error_of(Dataset, random_bytes(2, 1, 3, 3), labels) == message


def test_targets_in_uneven_rows_are_refused() -> None:
    labels: Any = [[0], [0, 1]]
    assert error_of(Dataset, random_bytes(2, 1, 3, 3), labels).startswith(
        "targets: expected a number, or numbers of one "
    )


def test_dataset_refuses_two_classes_of_one_name() -> None:
    told = "classes: expected a different name for each class, got 'a' 2 times"
    assert error_of(Dataset, random_bytes(2, 1, 3, 3), np.zeros(2, np.int64), ("a", "b", "a")) == told


def test_take_refuses_positions_outside() -> None:
    assert error_of(small_dataset(5).take, np.array([5])).startswith("indices: expected integers below 5, got ")


@given(count=st.integers(2, 50), data=st.data(), seed=st.integers(0, 2**40))
def test_split_is_a_partition(count: int, data: st.DataObject, seed: int) -> None:
    held_out_count = data.draw(st.integers(1, count - 1))
    images = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1)
    whole = Dataset(images, np.arange(count, dtype=np.int64), tuple(map(str, range(count))))
    rest, held_out = whole.split(held_out_count, seed)
    assert len(held_out) == held_out_count
    assert sorted([*rest.labels, *held_out.labels]) == list(range(count))
    for part in (rest, held_out):
        np.testing.assert_array_equal(part.images.ravel(), part.labels)
        assert part.classes == whole.classes


def test_split_depends_on_the_seed_alone() -> None:
    whole = small_dataset(20, classes=10)
    first, again, other = (whole.split(8, seed)[1].images for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, whole.images[:8]), "the held-out examples are not just the first ones"


@pytest.mark.parametrize("count", [-1, 0, 20, 21, 0.1])
def test_split_refuses_to_leave_a_side_empty(count: float) -> None:
    message = f"examples to hold out: expected a whole number from 1 to 19, got {count}"
    assert error_of(small_dataset(20).split, count, 0) == message


def test_split_refuses_a_negative_seed() -> None:
    assert error_of(small_dataset(20).split, 5, -1) == "seed: expected a whole number of at least 0, got -1"


def test_splits_refuses_unlike_sides() -> None:
    data = small_dataset()
    wider = Dataset(random_bytes(20, 1, 2, 4), data.labels, data.classes)
    renamed = Dataset(data.images, data.labels, ("a", "b", "z"))
    assert error_of(Splits, data, wider) == "test images: expected (1, 2, 3), got (1, 2, 4)"
    assert error_of(Splits, data, renamed) == "test classes: expected a, b, c, got a, b, z"


# --- IDX files -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), zipped=st.booleans())
def test_idx_round_trip(shape: list[int], zipped: bool) -> None:
    array = random_bytes(*shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any-name"
        path.write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
        read = read_idx(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array, strict=True)


GOOD = idx_bytes(random_bytes(2, 3, 4))
ZIPPED = gzip.compress(GOOD)
WANTED_MAGIC = "expected the IDX magic number 00 00 08 (unsigned bytes), then 01 to 04 (axes), got "


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", WANTED_MAGIC + "an empty file"),
        (b"\0\0\x08", WANTED_MAGIC + "00 00 08"),
        (b"\0\0\x0d" + GOOD[3:], WANTED_MAGIC + "00 00 0d 03"),
        (b"\0\0\x08\0" + GOOD[4:], WANTED_MAGIC + "00 00 08 00"),
        (b"\0\0\x08\xff" + GOOD[4:], WANTED_MAGIC + "00 00 08 ff"),
        (b"PNG\n" + GOOD[4:], WANTED_MAGIC + "50 4e 47 0a"),
        (GOOD[:15], "expected a header of 16 bytes, got 15"),
        (GOOD[:16], "expected 24 bytes for shape (2, 3, 4), got 0"),
        (GOOD[:-1], "expected 24 bytes for shape (2, 3, 4), got 23"),
        (idx_bytes(random_bytes(0, 3)), "expected no axis of length 0, got (0, 3)"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_refuses_broken_content(tmp_path: Path, content: bytes, problem: str, zipped: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert error_of(read_idx, path) == f"{path}: {problem}"


@pytest.mark.parametrize("extra", [1, 1000])
def test_idx_refuses_more_than_its_header_promises(tmp_path: Path, extra: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(GOOD + bytes(extra))
    assert error_of(read_idx, path) == f"{path}: expected 24 bytes for shape (2, 3, 4), got {24 + extra}"
    path.write_bytes(gzip.compress(GOOD + bytes(extra)))
    assert error_of(read_idx, path) == f"{path}: expected 24 bytes for shape (2, 3, 4), got more"


def test_idx_refuses_gzip_that_cannot_hold_what_it_promises(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(header := struct.pack(">4B4I", 0, 0, 8, 4, *[2**32 - 1] * 4)))
    wanted = f"expected {(2**32 - 1) ** 4} bytes for shape {(2**32 - 1,) * 4}, got "
    most = 1032 * path.stat().st_size
    assert error_of(read_idx, path) == f"{path}: {wanted}at most {most} in a gzipped file of this length"
    path.write_bytes(header)
    assert error_of(read_idx, path) == f"{path}: {wanted}0"


@pytest.mark.parametrize("length", range(2, len(ZIPPED)))
def test_idx_refuses_gzip_cut_anywhere(tmp_path: Path, length: int) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(ZIPPED[:length])
    assert error_of(read_idx, path).startswith(f"{path}: expected a readable file, raw or gzipped, got ")


@pytest.mark.parametrize("position", [2, 12, -6, -1])
def test_idx_refuses_damaged_gzip(tmp_path: Path, position: int) -> None:
    damaged = bytearray(ZIPPED)
    damaged[position] ^= 0xFF
    path = tmp_path / "file.gz"
    path.write_bytes(damaged)
    assert error_of(read_idx, path).startswith(f"{path}: expected a readable file, raw or gzipped, got ")


def test_idx_refuses_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        assert error_of(read_idx, path).startswith(f"{path}: expected a readable file, raw or gzipped, got ")


def write_idx_folder(
    folder: Path, test: str = "t10k", separator: str = "-", suffix: str = "", channels: int = 0
) -> None:
    """Six training and four test images of 3 x 2, in the labels 0 to 4."""
    for split, count in (("train", 6), (test, 4)):
        shape = (count, channels, 3, 2) if channels else (count, 3, 2)
        labels = np.arange(count, dtype=np.uint8) % 5
        for kind, array in (("images{}idx3", random_bytes(*shape, seed=count)), ("labels{}idx1", labels)):
            content = idx_bytes(array)
            name = f"{split}-{kind.format(separator)}-ubyte{suffix}"
            (folder / name).write_bytes(gzip.compress(content) if suffix else content)


@pytest.mark.parametrize("test", ["t10k", "test"])
@pytest.mark.parametrize("separator", ["-", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("channels", [0, 3])
def test_idx_folder_in_every_spelling(tmp_path: Path, test: str, separator: str, suffix: str, channels: int) -> None:
    write_idx_folder(tmp_path, test, separator, suffix, channels)
    train, test_set = (splits := load(tmp_path)).train, splits.test
    for data, count in ((train, 6), (test_set, 4)):
        expected = random_bytes(count, channels or 1, 3, 2, seed=count)
        np.testing.assert_array_equal(data.images, expected, strict=True)
        np.testing.assert_array_equal(data.labels, np.arange(count) % 5, strict=True)
        assert data.classes == ("0", "1", "2", "3", "4"), "the largest label of both splits counts"


@pytest.mark.parametrize(
    ("removed", "wanted"),
    [
        ("train-images-idx3-ubyte", "train-images-idx3-ubyte"),
        ("train-labels-idx1-ubyte", "train-labels-idx1-ubyte"),
        ("test-images-idx3-ubyte", "t10k-images-idx3-ubyte"),
        ("test-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"),
    ],
)
def test_idx_folder_names_the_missing_file(tmp_path: Path, removed: str, wanted: str) -> None:
    write_idx_folder(tmp_path, test="test")
    (tmp_path / removed).unlink()
    for read in (load, read_idx_folder):
        assert error_of(read, tmp_path) == f"{tmp_path}: expected a file {wanted} or {wanted}.gz, got none"


def test_idx_folder_refuses_files_that_do_not_fit_together(tmp_path: Path) -> None:
    write_idx_folder(tmp_path)
    labels, images = tmp_path / "train-labels-idx1-ubyte", tmp_path / "t10k-images-idx3-ubyte"
    labels.write_bytes(idx_bytes(random_bytes(5)))
    message = f"{labels}: expected shape (6,), as in train-images-idx3-ubyte, got (5,)"
    assert error_of(load, tmp_path) == message
    write_idx_folder(tmp_path)
    images.write_bytes(idx_bytes(random_bytes(4, 6)))
    assert error_of(load, tmp_path) == f"{images}: expected 3 axes (N, H, W) or 4 (N, C, H, W), got 2"
    images.write_bytes(idx_bytes(random_bytes(4, 2, 3)))
    assert error_of(load, tmp_path) == "test images: expected (1, 3, 2), got (1, 2, 3)"


# --- MNIST -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Splits:
    return load_mnist()


def test_mnist_is_mnist(digits: Splits) -> None:
    assert digits.train.images.shape == (60000, 1, 28, 28)
    assert digits.test.images.shape == (10000, 1, 28, 28)
    assert digits.train.classes == digits.test.classes == tuple("0123456789")
    train_histogram = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test_histogram = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(digits.train.labels).tolist() == train_histogram
    assert np.bincount(digits.test.labels).tolist() == test_histogram
    assert digits.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert digits.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert digits.train.images[0, 0, 5, 12:24].tolist() == [3, 18, 18, 18, 126, 136, 175, 26, 166, 255, 247, 127]
    assert round(digits.train.images.mean() / 255, 4) == 0.1307
    assert round(digits.train.images.std() / 255, 4) == 0.3081


@pytest.fixture
def mnist_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of MNIST that may be damaged."""
    folder = tmp_path / "mnist"
    shutil.copytree(mnist.FOLDER, folder)
    monkeypatch.setattr(mnist, "FOLDER", folder)
    return folder


def test_mnist_refuses_one_changed_byte(mnist_copy: Path) -> None:
    path = mnist_copy / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] ^= 1
    path.write_bytes(gzip.compress(content, compresslevel=1))
    message = error_of(load_mnist)
    digest = "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
    assert re.fullmatch(rf"{re.escape(str(path))}: expected SHA-256 {digest}, got [0-9a-f]{{64}}", message)


@pytest.mark.parametrize("name", list(mnist.SHA256))
def test_mnist_checks_every_file(mnist_copy: Path, name: str) -> None:
    (mnist_copy / f"{name}.gz").write_bytes(ZIPPED)
    assert error_of(load_mnist).startswith(f"{mnist_copy / name}.gz: expected SHA-256 {mnist.SHA256[name]}, got ")


def test_mnist_licence_states_the_digests() -> None:
    licence = (mnist.FOLDER / "LICENSE.md").read_text(encoding="utf-8")
    for name, digest in mnist.SHA256.items():
        assert f"| {name} | {digest} |" in licence


# --- load ------------------------------------------------------------------------------------------------------------


def test_load_without_a_folder_is_mnist() -> None:
    assert len(load(None).test) == 10000


def test_load_refuses_a_folder_without_data(tmp_path: Path) -> None:
    wanted = "expected a folder with four IDX or .npy files, or with one sub-folder of images per class"
    (file := tmp_path / "file.png").write_bytes(b"")
    assert error_of(load, tmp_path / "missing") == f"{tmp_path / 'missing'}: {wanted}, got no such folder"
    assert error_of(load, str(file)) == f"{file}: {wanted}, got a file"
    assert error_of(load, tmp_path) == f"{tmp_path}: {wanted}, got neither"
    assert error_of(load, "x" * 5000).endswith("got no such folder")


# --- image files -----------------------------------------------------------------------------------------------------


def save(path: Path, array: npt.NDArray[Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "pgm"])
def test_grey_images_keep_one_channel(tmp_path: Path, suffix: str) -> None:
    array = random_bytes(5, 7)
    np.testing.assert_array_equal(read_image(save(tmp_path / f"a.{suffix}", array)), array[np.newaxis], strict=True)


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm"])
def test_colour_images_have_three_channels(tmp_path: Path, suffix: str) -> None:
    array = random_bytes(5, 7, 3)
    expected = array.transpose(2, 0, 1)
    np.testing.assert_array_equal(read_image(str(save(tmp_path / f"a.{suffix}", array))), expected, strict=True)


def test_two_level_and_palette_images(tmp_path: Path) -> None:
    bits = random_bytes(5, 7) > 127
    np.testing.assert_array_equal(read_image(save(tmp_path / "bits.png", bits))[0], bits * 255)
    colours = np.repeat(np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8), 4, axis=1)
    Image.fromarray(colours).quantize(2).save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), colours.transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", ["png", "pgm", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    levels = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    assert read_image(save(tmp_path / f"a.{suffix}", levels)).tolist() == [[[0, 0, 1, 128, 255]]]


def test_transparency_is_on_white(tmp_path: Path) -> None:
    grey = np.array([[[0, 255], [0, 0], [100, 255], [0, 127]]], np.uint8)
    assert read_image(save(tmp_path / "grey.png", grey)).tolist() == [[[0, 255, 100, 128]]]
    colour = np.array([[[255, 0, 0, 255], [255, 0, 0, 0]]], np.uint8)
    assert read_image(save(tmp_path / "colour.png", colour)).tolist() == [[[255, 255]], [[0, 255]], [[0, 255]]]
    keyed = np.array([[0, 7, 9]], np.uint8)
    assert read_image(save(tmp_path / "keyed.png", keyed, transparency=7)).tolist() == [[[0, 255, 9]]]


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    array = random_bytes(5, 7)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", array, exif=exif))[0], np.rot90(array, -1))


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "ppm"])
def test_cut_images_are_refused(tmp_path: Path, suffix: str) -> None:
    whole = save(tmp_path / f"whole.{suffix}", random_bytes(16, 16, 3)).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    errors = []
    for length in range(0, len(whole), max(1, len(whole) // 50)):
        path.write_bytes(whole[:length])
        try:
            read_image(path)
        except InputError as error:
            errors.append(str(error))
    assert len(errors) > 40
    assert all(error.startswith(f"{path}: expected a readable image, got ") for error in errors)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (path := tmp_path / "a.png").write_text("not an image")
    assert error_of(read_image, path) == f"{path}: expected a readable image, got cannot identify image file '{path}'"
    missing = tmp_path / "missing.png"
    assert error_of(read_image, missing).startswith(f"{missing}: expected a readable image, got ")


def test_pillow_is_asked_for_when_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a" / "1.png", random_bytes(2, 2))
    save(tmp_path / "a" / "2.png", random_bytes(2, 2))
    monkeypatch.setitem(sys.modules, "PIL", None)
    message = "reading images: expected Pillow (pip install 'lowered-cnn[images]'), got no module named PIL"
    assert error_of(read_image, tmp_path / "a" / "1.png") == message
    assert error_of(load, tmp_path) == message
    assert error_of(fit_image, random_bytes(1, 5, 5), (1, 4, 4)) == message
    assert error_of(mnist_style, random_bytes(1, 5, 5)) == message


def solid(level: int) -> Bytes:
    return np.full((4, 3), level, np.uint8)


def test_image_folder_with_train_and_test(tmp_path: Path) -> None:
    for split, start in (("train", 0), ("test", 100)):
        for number, name in enumerate(["cat", "ant", "bee"]):
            for copy in range(2):
                save(tmp_path / split / name / f"{copy}.PNG", solid(start + 10 * number + copy))
    (tmp_path / "train" / "ant" / "notes.txt").write_text("ignored")
    (tmp_path / "train" / "ant" / ".hidden.png").write_text("ignored")
    (tmp_path / "train" / ".cache").mkdir()
    splits = load(tmp_path)
    assert splits.train.classes == splits.test.classes == ("ant", "bee", "cat")
    assert splits.train.labels.tolist() == splits.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert splits.train.image_shape == (1, 4, 3)
    assert splits.train.images[:, 0, 0, 0].tolist() == [10, 11, 20, 21, 0, 1]
    assert splits.test.images[:, 0, 0, 0].tolist() == [110, 111, 120, 121, 100, 101]


def test_image_folder_holds_out_about_a_tenth_of_each_class(tmp_path: Path) -> None:
    for copy in range(250):
        save(tmp_path / "many" / f"{copy:03}.png", solid(copy))
    for copy in range(2):
        save(tmp_path / "few" / f"{copy}.png", solid(253 + copy))
    splits, again = load(tmp_path), load(tmp_path)
    assert np.bincount(splits.train.labels)[0] == np.bincount(splits.test.labels)[0] == 1
    assert 15 <= np.bincount(splits.test.labels)[1] <= 35
    levels = [data.images[:, 0, 0, 0].tolist() for data in (splits.train, splits.test)]
    assert sorted(levels[0] + levels[1]) == [*range(250), 253, 254]
    assert levels == [data.images[:, 0, 0, 0].tolist() for data in (again.train, again.test)]
    assert splits.train.labels.tolist() == [0 if level >= 253 else 1 for level in levels[0]]


FILE_NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=9)


@given(class_name=FILE_NAMES, names=st.sets(FILE_NAMES, min_size=2, max_size=40), more=st.sets(FILE_NAMES, min_size=1))
def test_more_images_move_none_from_training_to_testing(class_name: str, names: set[str], more: set[str]) -> None:
    def held_out(chosen: set[str]) -> tuple[list[Path], list[Path]]:
        train, test = hold_out_tenth({class_name: sorted(Path(class_name, name) for name in chosen)})
        return train[class_name], test[class_name]

    try:
        train, test = held_out(names)
        grown_train, grown_test = held_out(names | more)
    except InputError:  # all names make test images
        reject()
    assert train
    assert test
    assert sorted(train + test) == sorted(Path(class_name, name) for name in names)
    assert not set(train) & set(grown_test)
    assert set(train) <= set(grown_train)


def test_images_whose_names_all_make_them_test_images_are_refused(tmp_path: Path) -> None:
    low = [name for name in map(str, range(100)) if int(sha256(f"a/{name}".encode()).hexdigest()[:12], 16) < 2**48 / 10]
    with pytest.raises(InputError) as caught:
        hold_out_tenth({"a": [tmp_path / "a" / name for name in low[:2]]})
    wanted = "an image to train on (add some, or make folders train and test)"
    assert str(caught.value) == f"{tmp_path / 'a'}: expected {wanted}, got 2 whose names make them test images"


def test_image_folder_is_in_colour_if_one_image_is(tmp_path: Path) -> None:
    save(tmp_path / "train" / "a" / "grey.png", solid(7))
    save(tmp_path / "test" / "a" / "colour.png", np.stack([solid(1), solid(2), solid(3)], axis=2))
    splits = load(tmp_path)
    assert splits.train.images[0, :, 0, 0].tolist() == [7, 7, 7]
    assert splits.test.images[0, :, 0, 0].tolist() == [1, 2, 3]


def test_pictures_of_several_sizes_are_fitted_to_the_median_of_those_to_train_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, size in (("train/a/1", (4, 6)), ("train/a/2", (4, 8)), ("train/a/3", (5, 8)), ("test/a/4", (90, 9))):
        save(tmp_path / f"{name}.png", random_bytes(*size))
    splits = load(tmp_path)
    assert splits.train.image_shape == splits.test.image_shape == (1, 4, 8)
    np.testing.assert_array_equal(splits.train.images[1, 0], random_bytes(4, 8))
    (record,) = caplog.records
    assert record.getMessage() == "3 of 4 pictures scaled and cropped at the centre to 4x8 pixels (HxW)"
    for image, path in zip(splits.train.images, sorted((tmp_path / "train" / "a").iterdir()), strict=True):
        np.testing.assert_array_equal(image, fit_image(read_image(path), (1, 4, 8)))


def test_large_pictures_of_several_sizes_are_scaled_down(tmp_path: Path) -> None:
    for name, size in (("train/a/1", (300, 448)), ("train/a/2", (300, 448)), ("train/a/3", (300, 500))):
        save(tmp_path / f"{name}.png", random_bytes(*size))
    save(tmp_path / "test" / "a" / "1.png", random_bytes(300, 448))
    assert load(tmp_path).train.image_shape == (1, 150, 224)


def test_the_size_is_that_of_the_picture_as_it_is_read(tmp_path: Path) -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.jpg"
        Image.fromarray(random_bytes(3, 5)).save(path, exif=exif)
        assert image_size(path) == read_image(path).shape[1:]


@pytest.mark.parametrize("size", [(4, 4), (9, 4), (3, 20), (5, 5), (1, 1)])
def test_a_fitted_image_is_the_middle_of_the_picture(size: tuple[int, int]) -> None:
    """A wide picture loses both ends, a tall one top and bottom; what is left keeps its shape."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    picture = (100 + rows - (height - 1) / 2 + 2 * (columns - (width - 1) / 2)).astype(np.uint8)[None]
    fitted = fit_image(picture, (1, 1, 1))
    assert abs(float(fitted.item()) - 100) <= 1.5


def test_images_can_be_fitted_to_a_network(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png", random_bytes(4, 6))
    save(tmp_path / "a" / "2.png", random_bytes(4, 6))
    assert load(tmp_path, (3, 2, 5)).test.image_shape == (3, 2, 5)


def test_image_folder_refuses_classes_that_lack_images(tmp_path: Path) -> None:
    lonely = save(tmp_path / "a" / "1.png", solid(0))
    assert error_of(load, tmp_path) == f"{tmp_path / 'a'}: expected at least 2 images, for training and testing, got 1"
    lonely.unlink()
    suffixes = ".png, .jpg, .jpeg, .bmp, .gif, .webp, .pgm, .ppm"
    assert error_of(load, tmp_path) == f"{tmp_path / 'a'}: expected images ({suffixes}), got none"


def test_image_folder_refuses_unlike_splits(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a"):
        save(tmp_path / name / "1.png", solid(0))
    assert error_of(load, tmp_path) == f"{tmp_path / 'test'}: expected the classes a, b, got a"


def test_image_folder_refuses_no_folders(tmp_path: Path) -> None:
    wanted = f"{tmp_path}: expected one sub-folder of images per class, got no sub-folders"
    assert error_of(read_image_folder, tmp_path) == wanted
    missing = tmp_path / "missing"
    assert error_of(read_image_folder, missing).startswith(f"{missing}: expected a readable folder, got ")
    assert error_of(read_image_folder, Path("a\0b")) == "a\0b: expected a readable folder, got embedded null byte"


# --- fitting images to networks --------------------------------------------------------------------------------------


def test_fit_image_gives_channels_and_size() -> None:
    grey, colour = np.full((1, 6, 9), 80, np.uint8), np.full((3, 6, 9), 80, np.uint8)
    for image in (grey, colour):
        for shape in ((1, 6, 9), (3, 4, 4), (1, 12, 3), (3, 20, 30)):
            np.testing.assert_array_equal(fit_image(image, shape), np.full(shape, 80, np.uint8), strict=True)


def test_fit_image_changes_nothing_that_fits() -> None:
    image = random_bytes(3, 5, 7)
    np.testing.assert_array_equal(fit_image(image, (3, 5, 7)), image)


def test_fit_image_is_antialiased() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (1, 64, 32))
    assert np.ptp(fit_image(stripes, (1, 8, 8))[0, 1:-1, 1:-1].astype(int)) < 16


def test_grey_of_a_colour_is_its_luma() -> None:
    colours = np.array([[[255, 0, 0, 255]], [[0, 255, 0, 255]], [[0, 0, 255, 255]]], np.uint8)
    assert fit_image(colours, (1, 1, 4)).tolist() == [[[76, 150, 29, 255]]]


def test_fit_image_refuses_other_channels() -> None:
    image = random_bytes(1, 4, 4)
    assert (
        error_of(fit_image, image, (2, 4, 4))
        == "image: channels: expected 1 (grey) or 3 (colour), got 1 to convert to 2"
    )
    assert (
        error_of(fit_image, image, (4, 4)) == "image: input shape of the network: expected shape (C, H, W), got (4, 4)"
    )
    assert error_of(fit_image, image[0], (1, 4, 4)) == "image: expected shape (C, H, W), got (4, 4)"


def likeness(one: Bytes, other: Bytes) -> float:
    """The correlation of two images (1, H, W), one of them moved by a pixel if need be: so much is due to rounding."""
    moved = [np.roll(one, (rows, columns), axis=(1, 2)) for rows in (-1, 0, 1) for columns in (-1, 0, 1)]
    return max(float(np.corrcoef(image.ravel(), other.ravel())[0, 1]) for image in moved)


def drawing(digit: Bytes, width: int, height: int) -> Bytes:
    """A digit of MNIST as a JPEG of dark ink on light paper."""
    enlarged = Image.fromarray(digit).resize((width, height), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    Image.fromarray(255 - np.asarray(enlarged)).save(file, "JPEG", quality=80)
    return np.asarray(Image.open(file))[np.newaxis]


def test_mnist_style_brings_enlarged_digits_back(digits: Splits) -> None:
    back = [mnist_style(drawing(digit, 200, 200)) for digit in digits.test.images[:100, 0]]
    for digit in back:
        assert digit.shape == (1, 28, 28)
        assert digit.dtype == np.uint8
    alike = [likeness(digit, original) for digit, original in zip(back, digits.test.images, strict=False)]
    assert np.quantile(alike, 0.05) > 0.9
    assert np.median(alike) > 0.97
    exact = [
        np.corrcoef(digit.ravel(), image.ravel())[0, 1] for digit, image in zip(back, digits.test.images, strict=False)
    ]
    assert np.mean(exact) > 0.9


def test_mnist_style_keeps_the_aspect_ratio(digits: Splits) -> None:
    rows, columns = np.nonzero(mnist_style(drawing(digits.test.images[3, 0], 300, 150))[0])
    assert np.ptp(columns) + 1 == 20
    assert np.ptp(rows) + 1 < 16


def test_mnist_style_hardly_changes_mnist(digits: Splits) -> None:
    alike = [likeness(mnist_style(image), image) for image in digits.test.images[:100]]
    assert np.quantile(alike, 0.05) > 0.93


def test_mnist_style_does_not_care_where_the_digit_is(digits: Splits) -> None:
    digit = 255 - digits.test.images[0]
    moved = [
        np.pad(digit, ((0, 0), (top, 40 - top), (left, 60 - left)), constant_values=255)
        for top, left in ((0, 0), (20, 30), (40, 60))
    ]
    first, *others = map(mnist_style, moved)
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_mnist_style_does_not_care_which_is_dark(digits: Splits) -> None:
    digit = digits.test.images[0]
    np.testing.assert_array_equal(mnist_style(digit), mnist_style(255 - digit))
    np.testing.assert_array_equal(mnist_style(digit), mnist_style(np.repeat(digit, 3, axis=0)))


def test_mnist_style_reads_a_poor_photograph(digits: Splits) -> None:
    rng = np.random.default_rng(0)
    light = np.add.outer(np.linspace(180, 200, 480), np.linspace(-10, 10, 640))
    for digit in digits.test.images[:10]:
        stroke = np.zeros((480, 640))
        stroke[100:380, 200:480] = np.asarray(Image.fromarray(digit[0]).resize((280, 280))) / 255
        photograph = (light - 120 * stroke + rng.normal(0, 4, light.shape)).clip(0, 255).astype(np.uint8)
        assert likeness(mnist_style(photograph[np.newaxis]), digit) > 0.9


@given(height=st.integers(1, 60), width=st.integers(1, 60), thick=st.integers(1, 5), seed=st.integers(0, 99))
@settings(deadline=None)
def test_mnist_style_centres_any_ink_and_loses_none(height: int, width: int, thick: int, seed: int) -> None:
    page = np.zeros((1, 80, 80), np.uint8)
    blot = page[0, 5 : 5 + height, 5 : 5 + width]
    rng = np.random.default_rng(seed)
    blot[rng.random(blot.shape) < 0.1 * thick] = 255
    blot[0] = 255
    blot[:, 0] = 255
    framed = mnist_style(page)[0]
    assert framed.max() == 255
    for profile in (framed.sum(axis=0), framed.sum(axis=1)):
        inked = np.flatnonzero(profile)
        assert np.ptp(inked) < 20
        centre = float(np.average(np.arange(28), weights=profile))
        assert abs(centre - 14) <= 0.5 or inked[0] == 0 or inked[-1] == 27


@pytest.mark.parametrize("turns", range(4))
def test_mnist_style_keeps_lopsided_ink_inside(turns: int) -> None:
    page = np.zeros((1, 80, 80), np.uint8)
    page[0, 10:30, 10:20] = 255
    page[0, 20, 10:70] = 255
    framed = np.rot90(mnist_style(np.rot90(page, turns, axes=(1, 2))), -turns, axes=(1, 2))
    columns = np.flatnonzero(framed[0].any(axis=0))
    assert (columns[0], columns[-1]) == (8, 27), "as far towards the centre as the frame allows"


def test_mnist_style_reads_thin_lines() -> None:
    page = np.full((1, 2000, 2000), 255, np.uint8)
    diagonal = np.arange(100, 1900)
    page[0, diagonal, diagonal] = 0
    framed = mnist_style(page)
    assert framed.max() == 255
    assert np.count_nonzero(framed) >= 20


@pytest.mark.parametrize("level", [0, 100, 255])
def test_mnist_style_refuses_blank_paper(level: int) -> None:
    blank = np.full((1, 40, 50), level, np.uint8)
    wanted = "image: expected a digit with a contrast of at least 32, got "
    assert error_of(mnist_style, blank) == wanted + "0"
    blank[0, 10, 10] ^= 1
    assert error_of(mnist_style, blank).startswith(wanted)


# --- batches ---------------------------------------------------------------------------------------------------------


@given(count=st.integers(1, 200), batch_size=st.integers(1, 250), seed=st.integers(0, 2**40), epoch=st.integers(0, 99))
def test_batches_visit_every_example_once(count: int, batch_size: int, seed: int, epoch: int) -> None:
    visited = list(batches(count, batch_size, seed, epoch))
    assert len(visited) == math.ceil(count / batch_size)
    assert {len(batch) for batch in visited[:-1]} <= {batch_size}
    assert len(visited[-1]) == (count - 1) % batch_size + 1
    assert all(batch.dtype == np.int64 for batch in visited)
    assert sorted(np.concatenate(visited)) == list(range(count))


def test_batches_are_shuffled_anew_for_each_seed_and_epoch() -> None:
    orders = {
        (seed, epoch): tuple(np.concatenate(list(batches(100, 7, seed, epoch))))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len({*orders.values(), tuple(range(100))}) == 10
    assert orders[1, 2] == tuple(np.concatenate(list(batches(100, 7, 1, 2))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, 0, 0), "examples: expected a whole number of at least 1, got 0"),
        ((5, 0, 0, 0), "batch size: expected a whole number of at least 1, got 0"),
        ((5, 1, -1, 0), "seed: expected a whole number of at least 0, got -1"),
        ((5, 1, 0, -1), "epoch: expected a whole number of at least 0, got -1"),
    ],
)
def test_batches_refuses_numbers_that_make_no_sense(arguments: tuple[int, ...], message: str) -> None:
    assert error_of(batches, *arguments) == message


# --- what is framed like MNIST's digits ------------------------------------------------------------------------------


def test_digits_are_known_by_their_frame() -> None:
    mnist = load_mnist()
    assert is_mnist_style(mnist.train)
    assert is_mnist_style(mnist.test.take(np.arange(3)))
    grey = Dataset(mnist.test.images[:, 0], mnist.test.labels)
    assert is_mnist_style(grey)


@given(
    seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["shifted", "clothes", "blank", "noise", "large", "floats"])
)
def test_other_images_of_the_same_size_are_no_digits(seed: int, kind: str) -> None:
    """Among digits, one image that is not framed like them is enough."""
    rng = np.random.default_rng(seed)
    digits = load_few()
    images = digits.images.copy()
    other = images[rng.integers(len(images)), 0]
    if kind == "shifted":
        rows, columns = rng.permutation(np.array([3, rng.integers(-3, 4)]))
        other[...] = np.roll(other, (rows, columns), axis=(0, 1))
    elif kind == "clothes":  # as in Fashion-MNIST, up to the border
        other[...] = 0
        other[:, 6:22] = rng.integers(1, 256, (28, 16))
    elif kind == "blank":
        other[...] = 0
    elif kind == "noise":
        other[...] = rng.integers(1, 256, (28, 28))
    elif kind == "large":
        images = rng.integers(0, 256, (4, 1, 32, 32), dtype=np.uint8)
    labels = np.zeros(len(images), int)
    assert not is_mnist_style(Dataset(images / 255 if kind == "floats" else images, labels))


@cache
def load_few() -> Dataset:
    return load_mnist().test.take(np.arange(50))
