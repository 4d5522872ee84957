"""The IDX format of the MNIST files: a magic number, the length of each axis, then plain bytes."""

import math
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from lowered_cnn.arrays import Bytes, InputError, Labels, Shape
from lowered_cnn.data.dataset import Splits
from lowered_cnn.data.files import check_is_file

GZIP_MAGIC = b"\x1f\x8b"
GZIP_GROWTH = 1032  # deflate spends at least 2 bits on at most 258 bytes
IDX_MAGICS = [bytes([0, 0, 8, rank]) for rank in (1, 2, 3, 4)]  # 8 stands for unsigned bytes
PIECE_BYTES = 2**20
READABLE = "a readable file, raw or gzipped"


def read_idx(path: str | Path, sha256: str | None = None) -> Bytes:
    """Read an IDX file of unsigned bytes; `sha256` is the digest of the unpacked content.

    A raw file is mapped into memory, read-only: it may be larger than memory, and must not change while it is in use.
    A gzipped one is unpacked, but only as far as its header says.
    """
    import zlib

    path = Path(path)
    check_is_file(path, READABLE)
    try:
        with path.open("rb") as file:
            is_zipped = file.read(2) == GZIP_MAGIC
        return unpacked(path, sha256) if is_zipped else mapped(path, sha256)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(str(path), READABLE, error) from error
    except MemoryError as error:
        raise InputError(str(path), "a file that fits in memory when it is unpacked", "a larger one") from error


def mapped(path: Path, sha256: str | None) -> Bytes:
    """Map a raw file into memory."""
    with path.open("rb") as file:
        header, shape = read_header(path, file.read)
    size = os.path.getsize(path) - len(header)
    if size != math.prod(shape):
        raise InputError(str(path), f"{math.prod(shape)} bytes for shape {shape}", size)
    content = np.asarray(np.memmap(path, np.uint8, "r", len(header), shape))
    check_digest(path, sha256, header, content)
    return content


def unpacked(path: Path, sha256: str | None) -> Bytes:
    """Unpack a gzipped file into as much memory as its header asks for, unless the file is too short to hold that."""
    import gzip

    with gzip.open(path) as file:
        header, shape = read_header(path, file.read)
        size, most = math.prod(shape), GZIP_GROWTH * os.path.getsize(path)
        wanted = f"{size} bytes for shape {shape}"
        if size > most:
            raise InputError(str(path), wanted, f"at most {most} in a gzipped file of this length")
        content = np.empty(size, np.uint8)
        for start in range(0, size, PIECE_BYTES):
            piece = file.read(min(PIECE_BYTES, size - start))
            if len(piece) < min(PIECE_BYTES, size - start):
                raise InputError(str(path), wanted, start + len(piece))
            content[start : start + len(piece)] = np.frombuffer(piece, np.uint8)
        if file.read(1):
            raise InputError(str(path), wanted, "more")
    check_digest(path, sha256, header, content)
    return content.reshape(shape)


def read_header(path: Path, read: Callable[[int], bytes]) -> tuple[bytes, Shape]:
    """Read the magic number and the length of each axis; return the header and the lengths."""
    magic = read(4)
    if magic not in IDX_MAGICS:
        wanted = "the IDX magic number 00 00 08 (unsigned bytes), then 01 to 04 (axes)"
        raise InputError(str(path), wanted, magic.hex(" ") or "an empty file")
    rank = magic[3]
    lengths = read(4 * rank)
    if len(lengths) < 4 * rank:
        raise InputError(str(path), f"a header of {4 + 4 * rank} bytes", 4 + len(lengths))
    shape = struct.unpack(f">{rank}I", lengths)
    if 0 in shape:
        raise InputError(str(path), "no axis of length 0", shape)
    return magic + lengths, shape


def read_idx_folder(folder: str | Path, sha256: Mapping[str, str] = {}) -> Splits:
    """Read the four files of an MNIST-like data set; `sha256` maps names of unpacked files to their digests."""
    folder = Path(folder)
    return Splits.numbered(read_split(folder, ["train"], sha256), read_split(folder, ["t10k", "test"], sha256))


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
    """Return the first file that exists, of all spellings of the name."""
    for name in names:
        for spelling in (f"{name}-{kind}-ubyte", f"{name}-{kind.replace('-', '.')}-ubyte"):
            for path in (folder / spelling, folder / f"{spelling}.gz"):
                if os.path.isfile(path):
                    return path
    raise InputError(str(folder), f"a file {names[0]}-{kind}-ubyte or {names[0]}-{kind}-ubyte.gz", "none")


def check_digest(path: Path, expected: str | None, header: bytes, content: Bytes) -> None:
    """Raise InputError unless header and content have the expected SHA-256, if there is one."""
    import hashlib

    if expected is None:
        return
    whole = hashlib.sha256(header)
    whole.update(content.data)
    if whole.hexdigest() != expected:
        raise InputError(str(path), f"SHA-256 {expected}", whole.hexdigest())
