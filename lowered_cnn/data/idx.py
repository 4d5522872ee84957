"""The IDX format of the MNIST files: a magic number, the length of each axis, then plain bytes."""

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lowered_cnn.arrays import Bytes, InputError, Labels
from lowered_cnn.data.dataset import Dataset, Splits

GZIP_MAGIC = b"\x1f\x8b"
IDX_MAGICS = [bytes([0, 0, 8, rank]) for rank in (1, 2, 3, 4)]  # 8 stands for unsigned bytes


def read_idx(path: str | Path, sha256: str | None = None) -> Bytes:
    """Read an IDX file of unsigned bytes, raw or gzipped; `sha256` is the digest of the unpacked content."""
    content = unpack(Path(path))
    if sha256 is not None:
        check_digest(str(path), sha256, content)
    if content[:4] not in IDX_MAGICS:
        wanted = "the IDX magic number 00 00 08 (unsigned bytes), then 01 to 04 (axes)"
        raise InputError(str(path), wanted, content[:4].hex(" ") or "an empty file")
    rank = content[3]
    start = 4 + 4 * rank
    if len(content) < start:
        raise InputError(str(path), f"a header of {start} bytes", len(content))
    shape = struct.unpack_from(f">{rank}I", content, 4)
    if 0 in shape:
        raise InputError(str(path), "no axis of length 0", shape)
    if len(content) != start + math.prod(shape):
        raise InputError(str(path), f"{math.prod(shape)} bytes for shape {shape}", len(content) - start)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_idx_folder(folder: str | Path, sha256: Mapping[str, str] = {}) -> Splits:
    """Read the four files of an MNIST-like data set; `sha256` maps names of unpacked files to their digests."""
    train_images, train_labels = read_split(Path(folder), ["train"], sha256)
    test_images, test_labels = read_split(Path(folder), ["t10k", "test"], sha256)
    classes = tuple(str(label) for label in range(max(train_labels.max(), test_labels.max()) + 1))
    return Splits(Dataset(train_images, train_labels, classes), Dataset(test_images, test_labels, classes))


def read_split(folder: Path, names: list[str], sha256: Mapping[str, str]) -> tuple[Bytes, Labels]:
    """Read the images (N, C, H, W) and the labels of a split, whose files may go by any of the names."""
    images_path, labels_path = find(folder, names, "images-idx3"), find(folder, names, "labels-idx1")
    images, labels = (read_idx(path, sha256.get(path.name.removesuffix(".gz"))) for path in (images_path, labels_path))
    if images.ndim == 3:
        images = images[:, np.newaxis]
    if images.ndim != 4:
        raise InputError(str(images_path), "3 axes (N, H, W) or 4 (N, C, H, W)", images.ndim)
    if labels.shape != images.shape[:1]:
        raise InputError(str(labels_path), f"shape {images.shape[:1]}, as in {images_path.name}", labels.shape)
    return images, labels.astype(np.int64)


def find(folder: Path, names: list[str], kind: str) -> Path:
    """Return the first path that exists, over all spellings of the file name."""
    for name in names:
        for spelling in (f"{name}-{kind}-ubyte", f"{name}-{kind.replace('-', '.')}-ubyte"):
            for path in (folder / spelling, folder / f"{spelling}.gz"):
                if os.path.isfile(path):
                    return path
    raise InputError(str(folder), f"a file {names[0]}-{kind}-ubyte or {names[0]}-{kind}-ubyte.gz", "none")


def unpack(path: Path) -> bytes:
    """Return the content of a file, unzipped if it is gzipped."""
    import gzip
    import zlib

    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(str(path), "a readable file, raw or gzipped", error) from error


def check_digest(where: str, expected: str, content: bytes) -> None:
    """Raise InputError unless the content has the expected SHA-256."""
    import hashlib

    got = hashlib.sha256(content).hexdigest()
    if got != expected:
        raise InputError(where, f"SHA-256 {expected}", got)
