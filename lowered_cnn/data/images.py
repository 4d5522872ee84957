"""Image files, read by Pillow and brought into the shape that data sets and networks expect."""

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Bytes, InputError, Shape, check_rank
from lowered_cnn.data.dataset import Dataset, Examples, Splits
from lowered_cnn.data.files import check_is_file

if TYPE_CHECKING:
    from PIL.Image import Image

ClassFiles: TypeAlias = dict[str, list[Path]]
"""The image files of each class, by class name."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".pgm", ".ppm")
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601: the perceived brightness of red, green and blue
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")  # Pillow knows others, and runs programs for some
MOST_PIXELS = 50_000_000
LONGEST_SIDE = 224  # of pictures of several sizes: more detail costs more than it is worth
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # in EXIF
HELD_OUT = 0.1
MNIST_SIDE = 28
MNIST_INK = 20  # the longer side of a digit
MNIST_CENTRE = 14  # row and column of its centre of mass
FRAMED = 1000  # images that are examined to find out whether they are framed like MNIST's
FAINTEST_INK = 32  # less contrast than this, out of 255 levels, is noise on blank paper


def read_image(path: str | Path) -> Bytes:
    """Read an image file as (1, H, W) if it is grey, (3, H, W) if it is in colour; transparency becomes white.

    Of several pictures in a file, as in an animation, it reads the first. It takes up to 25 bytes of memory per pixel,
    so images of more than 50,000,000 pixels (1.25 GB) are refused before they are unpacked.
    """
    require_pillow()
    from PIL import ImageOps

    with opened(path) as file:
        return to_bytes(ImageOps.exif_transpose(file))  # cameras store a rotation without applying it


def read_image_folder(folder: str | Path, shape: Shape | None = None) -> Splits:
    """Read `train/CLASS/*` and `test/CLASS/*`, or `CLASS/*`, about a tenth of which becomes the test split.

    Pictures of several sizes are scaled and cropped, as by `fit_image`, to the median height and width of those to
    train on, or smaller if one of these is longer than 224 pixels. With `shape` (C, H, W), such as a network's input,
    all are fitted to that. Either is logged, in one line.
    """
    folder = Path(folder)
    if os.path.isdir(folder / "train") and os.path.isdir(folder / "test"):
        train, test = class_files(folder / "train"), class_files(folder / "test")
        if train.keys() != test.keys():
            raise InputError(str(folder / "test"), f"the classes {', '.join(train)}", ", ".join(test))
    else:
        train, test = hold_out_tenth(class_files(folder))
    paths = [path for split in (train, test) for paths in split.values() for path in paths]
    count = sum(map(len, train.values()))
    size, channels = (common_size(paths[:count]), None) if shape is None else (shape[1:], shape[0])
    images = read_alike(paths, size, channels)
    return Splits(labelled(images[:count], train), labelled(images[count:], test))


def mnist_style(image: Bytes, where: str = "image") -> Bytes:
    """Prepare a photograph or drawing of one digit the way MNIST was prepared: (C, H, W) to (1, 28, 28)."""
    digit = ink(with_channels(image, 1, where)[0], where)
    rows, columns = (np.flatnonzero(digit.any(axis=axis)) for axis in (1, 0))
    digit = digit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = (max(1, round(side * MNIST_INK / max(digit.shape))) for side in digit.shape)
    digit = resized(digit, height, width).clip(min=0)
    digit = np.rint(digit * (255 / digit.max())).astype(np.uint8)  # resizing fades thin strokes
    top, left = offset(digit.sum(axis=1)), offset(digit.sum(axis=0))
    framed = np.zeros((1, MNIST_SIDE, MNIST_SIDE), np.uint8)
    framed[0, top : top + height, left : left + width] = digit
    return framed


def is_mnist_style(data: Examples) -> bool:
    """Return whether the first images are framed like MNIST's: 20 pixels of ink at most, centred by their mass."""
    if data.dtype != np.uint8 or math.prod(data.image_shape) != MNIST_SIDE**2 or MNIST_SIDE not in data.image_shape:
        return False
    first = np.empty((min(len(data), FRAMED), *data.image_shape), np.uint8)
    data.gather(np.arange(len(first)), first)
    maps = first.reshape(-1, MNIST_SIDE, MNIST_SIDE)
    return all(is_framed(maps.sum(axis=axis)) for axis in (1, 2))


def is_framed(profiles: npt.NDArray[np.integer]) -> bool:
    """Return whether ink with these profiles (n, 28) along an axis has a length and a centre as in MNIST."""
    inked, places = profiles > 0, np.arange(MNIST_SIDE)
    length = MNIST_SIDE - inked.argmax(axis=1) - inked[:, ::-1].argmax(axis=1)
    centre = (profiles * places).sum(axis=1) / profiles.sum(axis=1).clip(min=1)
    return bool(inked.any(axis=1).all() and (length <= MNIST_INK).all() and (abs(centre - MNIST_CENTRE) < 1).all())


def fit_image(image: Bytes, shape: Shape, where: str = "image") -> Bytes:
    """Convert an image (C, H, W) to the channels (1 or 3) and the size of a network's input.

    It is scaled until it just covers that size, and what is left over is cropped on both sides, so that nothing is
    distorted.
    """
    check_rank(f"{where}: input shape of the network", "C H W", shape)
    channels, height, width = shape
    image = with_channels(image, channels, where)
    if image.shape[1:] == (height, width):
        return image
    across = min(image.shape[1] / height, image.shape[2] / width)
    rows, columns = max(round(height * across), 1), max(round(width * across), 1)
    top, left = (image.shape[1] - rows) // 2, (image.shape[2] - columns) // 2
    middle = image[:, top : top + rows, left : left + columns]
    return np.stack([resized(plane, height, width) for plane in middle])


@contextmanager
def opened(path: str | Path) -> Iterator["Image"]:
    """Open an image file; whatever goes wrong, then or while it is read, becomes an InputError."""
    require_pillow()
    from PIL import Image

    check_is_file(Path(path), "a readable image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is lower
            file = Image.open(path, formats=FORMATS)
        with file:
            if math.prod(file.size) > MOST_PIXELS:
                wanted = f"an image of at most {MOST_PIXELS:,} pixels"
                raise InputError(str(path), wanted, "{} x {}".format(*file.size))
            yield file
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(str(path), f"an image of at most {MOST_PIXELS:,} pixels", error) from error
    except Exception as error:  # what Pillow raises depends on how the file is broken
        raise InputError(str(path), "a readable image", error) from error


def image_size(path: Path) -> Shape:
    """Return the size (H, W) of the image that `read_image` would return, from the file's header alone."""
    with opened(path) as file:
        width, height = file.size
        return (width, height) if file.getexif().get(ORIENTATION, 1) in SIDEWAYS else (height, width)


def require_pillow() -> None:
    """Raise InputError if Pillow, which only image files need, is not installed."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        wanted = "Pillow (pip install 'lowered-cnn[images]')"
        raise InputError("reading images", wanted, "no module named PIL") from error


def to_bytes(image: "Image") -> Bytes:
    """Return the pixels of a Pillow image as (1, H, W) or (3, H, W)."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("an image of floats")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        return (np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)[np.newaxis]
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, converted(image, "RGBA"))
    pixels = np.asarray(converted(image, mode), np.uint8)
    return pixels[np.newaxis] if mode == "L" else pixels.transpose(2, 0, 1)


def converted(image: "Image", mode: str) -> "Image":
    """Return a Pillow image in another mode, or itself, which `convert` would copy."""
    return image if image.mode == mode else image.convert(mode)


def class_files(folder: Path) -> ClassFiles:
    """Return the image files in each sub-folder; folders and files are sorted by name."""
    classes = {
        sub.name: [path for path in listed(sub) if is_image(path)] for sub in listed(folder) if os.path.isdir(sub)
    }
    if not classes:
        raise InputError(str(folder), "one sub-folder of images per class", "no sub-folders")
    for name, paths in classes.items():
        if not paths:
            raise InputError(str(folder / name), f"images ({', '.join(SUFFIXES)})", "none")
    return classes


def listed(folder: Path) -> list[Path]:
    """Return the entries of a folder that are not hidden, sorted by name."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except (OSError, ValueError) as error:  # a ValueError for a name that contains a zero byte
        raise InputError(str(folder), "a readable folder", error) from error


def is_image(path: Path) -> bool:
    """Return whether a path is an image file, judging by its suffix."""
    return path.suffix.lower() in SUFFIXES and os.path.isfile(path)


def hold_out_tenth(classes: ClassFiles) -> tuple[ClassFiles, ClassFiles]:
    """Hold out about a tenth of each class, at least one image; return the others first.

    Each name stands for a number from 0 to 1, and the images below a tenth are held out, or the lowest if there are
    none. So images that are added to a class later never move one from the training split to the test split.
    """
    train, test = {}, {}
    for name, paths in classes.items():
        if len(paths) < 2:
            raise InputError(str(paths[0].parent), "at least 2 images, for training and testing", len(paths))
        numbers = {path: number_of(path) for path in paths}
        limit = max(HELD_OUT, np.nextafter(min(numbers.values()), 1))
        train[name] = [path for path in paths if numbers[path] >= limit]
        test[name] = [path for path in paths if numbers[path] < limit]
        if not train[name]:  # to train on one of them would move it to the test split once another is added
            wanted = "an image to train on (add some, or make folders train and test)"
            raise InputError(str(paths[0].parent), wanted, f"{len(paths)} whose names make them test images")
    return train, test


def number_of(path: Path) -> float:
    """Return a number from 0 to 1 that depends on the names of a file and its folder alone."""
    import hashlib

    name = f"{path.parent.name}/{path.name}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(name).digest()[:6]) / 2**48


def common_size(paths: list[Path]) -> Shape:
    """Return the size (H, W) of all images or, if they differ, their median height and width, at most 224 pixels."""
    from statistics import median_low

    sizes = [image_size(path) for path in paths]
    height, width = map(median_low, zip(*sizes, strict=True))
    scale = 1.0 if len(set(sizes)) == 1 else min(1.0, LONGEST_SIDE / max(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def read_alike(paths: list[Path], size: Shape, channels: int | None) -> Bytes:
    """Read images as (N, C, H, W) of this size (H, W); without a number of channels, all in colour if any is."""
    images, fitted = [], 0
    for path in paths:
        image = read_image(path)
        fitted += image.shape[1:] != size
        images.append(fit_image(image, (len(image), *size), str(path)))
    if fitted:
        import logging

        line = f"{fitted} of {len(paths)} pictures scaled and cropped at the centre to {size[0]}x{size[1]} pixels (HxW)"
        logging.getLogger("lowered_cnn").warning(line)
    channels = channels or max(len(image) for image in images)
    return np.stack([with_channels(image, channels, str(path)) for path, image in zip(paths, images, strict=True)])


def labelled(images: Bytes, classes: ClassFiles) -> Dataset:
    """Label images that were read class by class."""
    numbers = np.arange(len(classes), dtype=np.int64)
    return Dataset(images, np.repeat(numbers, [len(paths) for paths in classes.values()]), tuple(classes))


def with_channels(image: Bytes, channels: int, where: str) -> Bytes:
    """Convert an image (C, H, W) to grey (1 channel) or colour (3 channels)."""
    check_rank(where, "C H W", image.shape)
    if not {len(image), channels} <= {1, 3}:
        raise InputError(f"{where}: channels", "1 (grey) or 3 (colour)", f"{len(image)} to convert to {channels}")
    if len(image) < channels:
        return np.repeat(image, channels, axis=0)
    if len(image) > channels:
        grey = np.zeros(image.shape[1:])
        for weight, plane in zip(LUMA, image, strict=True):
            grey += weight * plane
        return np.rint(grey, out=grey).astype(np.uint8)[np.newaxis]
    return image


def ink(grey: Bytes, where: str) -> npt.NDArray[np.float32]:
    """Return the contrast of each pixel (H, W) with the paper, and 0 where it is below half of the strongest."""
    levels = grey.astype(np.float32)
    paper = np.median(np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]]))
    contrast = paper - levels if paper > 127 else levels - paper
    boldest = contrast.max()
    if boldest < FAINTEST_INK:
        raise InputError(where, f"a digit with a contrast of at least {FAINTEST_INK}", f"{boldest:.0f}")
    return np.where(contrast >= boldest / 2, contrast, 0)


def resized(plane: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    """Resize one channel (H, W), with smooth edges."""
    require_pillow()
    from PIL import Image

    return np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC))


def offset(profile: npt.NDArray[np.integer]) -> int:
    """Return where a digit starts along one axis for its centre of mass to be where MNIST has it."""
    centre = float(np.average(np.arange(len(profile)), weights=profile))
    return min(max(round(MNIST_CENTRE - centre), 0), MNIST_SIDE - len(profile))  # stay inside the frame
