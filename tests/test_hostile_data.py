"""Files that are damaged, lie, or are no files at all: one line says so, in bounded memory, or the content is right."""

import ast
import gzip
import io
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from idx_files import idx_bytes
from PIL import Image

from lowered_cnn import InputError
from lowered_cnn.data import load, read_idx, read_image
from lowered_cnn.data.npy import read_npy

MIB = 2**20
IDX = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to write over and over."""
    return tmp_path_factory.mktemp("hostile") / "file"


def attempt(read: Callable[[Path], Any], path: Path) -> tuple[Any, str]:
    """Return what a reader returns, or None and the line in which it refuses."""
    try:
        return read(path), ""
    except InputError as error:
        return None, str(error)


def same_or_refused(path: Path, content: bytes, read: Callable[[Path], Any], by_hand: Callable[[bytes], Any]) -> None:
    """Assert that a reader returns what another one reads by hand, or refuses in one line what that cannot read."""
    path.unlink(missing_ok=True)  # a mapped file must not be written again
    path.write_bytes(content)
    got, line = attempt(read, path)
    expected = by_hand(content)
    if expected is None:
        assert re.fullmatch(rf"{re.escape(str(path))}: expected .*, got .*", line)
    else:
        np.testing.assert_array_equal(got, expected, strict=True)


# --- IDX -------------------------------------------------------------------------------------------------------------


def idx_by_hand(content: bytes) -> npt.NDArray[np.uint8] | None:
    """Read IDX as its specification has it; None if it is none, or has more axes than images have."""
    if content[:2] == b"\x1f\x8b":
        try:
            unzipped = b"".join(iter_members(content))
        except (zlib.error, ValueError):
            return None
        content = unzipped
    if content[:3] != b"\0\0\x08" or len(content) < 4 or not 1 <= content[3] <= 4:
        return None
    rank = content[3]
    if len(content) < 4 + 4 * rank:
        return None
    shape, numbers = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank]), content[4 + 4 * rank :]
    size = 1
    for length in shape:
        size *= length
    if not size or size != len(numbers):
        return None
    return np.array(list(numbers), np.uint8).reshape(shape)


def iter_members(content: bytes) -> list[bytes]:
    """Unzip every member of a gzip file with zlib; zeros may follow the last one, and reserved flags say nothing."""
    members = []
    while content:
        member = zlib.decompressobj(wbits=31)
        members.append(member.decompress(content[:3] + bytes(flags & 0x1F for flags in content[3:4]) + content[4:]))
        if not member.eof:
            raise ValueError("cut off")
        content = member.unused_data.lstrip(b"\0")
    return members


@given(st.binary(max_size=60))
def test_random_bytes_are_idx_or_refused(path: Path, content: bytes) -> None:
    same_or_refused(path, content, read_idx, idx_by_hand)


LENGTHS = st.lists(st.integers(0, 3) | st.sampled_from([255, 2**16, 2**31, 2**32 - 1]), min_size=0, max_size=5)


@given(rank=st.integers(0, 6), lengths=LENGTHS, count=st.integers(0, 30), zipped=st.booleans())
def test_random_headers_are_idx_or_refused(path: Path, rank: int, lengths: list[int], count: int, zipped: bool) -> None:
    content = struct.pack(f">4B{len(lengths)}I", 0, 0, 8, rank, *lengths) + bytes(range(count))
    same_or_refused(path, gzip.compress(content) if zipped else content, read_idx, idx_by_hand)


@pytest.mark.parametrize("content", [IDX, gzip.compress(IDX, mtime=0)], ids=["raw", "gzipped"])
def test_every_damage_to_one_byte_is_seen_or_read(path: Path, content: bytes) -> None:
    for position in range(len(content)):
        for flip in (1, 0x80, 0xFF):
            damaged = bytearray(content)
            damaged[position] ^= flip
            same_or_refused(path, bytes(damaged), read_idx, idx_by_hand)
        same_or_refused(path, content[:position], read_idx, idx_by_hand)
        same_or_refused(path, content[position:], read_idx, idx_by_hand)


@given(cuts=st.lists(st.integers(0, len(IDX)), max_size=4), tail=st.sampled_from([b"", b"\0\0\0", b"x", b"\x1f\x8b"]))
def test_gzip_files_of_many_members_are_one_file(path: Path, cuts: list[int], tail: bytes) -> None:
    edges = [0, *sorted(cuts), len(IDX)]
    members = [gzip.compress(IDX[start:stop]) for start, stop in pairwise(edges)]
    path.write_bytes(b"".join(members) + tail)
    if tail.strip(b"\0"):
        with pytest.raises(InputError):
            read_idx(path)
    else:
        assert read_idx(path).tobytes() == IDX[16:]


# --- .npy ------------------------------------------------------------------------------------------------------------


def npy_bytes(array: npt.NDArray[Any]) -> bytes:
    np.save(file := io.BytesIO(), array)
    return file.getvalue()


def npy_by_hand(content: bytes) -> Any:
    """Read .npy as its specification has it; None if it is none."""
    if content[:8] not in (b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00"):
        return None
    width = 2 if content[6] == 1 else 4
    length = int.from_bytes(content[8 : 8 + width], "little")
    start = 8 + width + length
    if len(content) < start or length > 10_000:
        return None
    try:
        header = ast.literal_eval(content[8 + width : start].decode("latin1"))
        shape, is_fortran, kind = header["shape"], header["fortran_order"], np.dtype(header["descr"])
        valid = header.keys() == {"shape", "fortran_order", "descr"} and isinstance(is_fortran, bool)
        if not (valid and isinstance(header["descr"], str) and kind.kind in "uif" and min(shape) > 0):
            return None
        numbers = np.frombuffer(content[start:], kind)
        return numbers.reshape(shape, order="F" if is_fortran else "C")
    except (ValueError, SyntaxError, KeyError, TypeError, AttributeError):
        return None


NPY = npy_bytes(np.arange(12, dtype=np.float32).reshape(3, 2, 2))


@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning", "ignore:invalid escape")
def test_every_damage_to_one_byte_of_npy_is_seen_or_read(path: Path) -> None:
    for position in range(len(NPY)):
        for flip in (1, 2, 4, 0x80, 0xFF):
            damaged = bytearray(NPY)
            damaged[position] ^= flip
            same_or_refused(path, bytes(damaged), read_npy, npy_by_hand)
        same_or_refused(path, NPY[:position], read_npy, npy_by_hand)


@given(st.binary(max_size=60), st.sampled_from([b"", b"\x93NUMPY\1\0", b"\x93NUMPY\2\0", b"\x93NUMPY\3\0", b"PK\3\4"]))
def test_random_bytes_are_npy_or_refused(path: Path, content: bytes, start: bytes) -> None:
    same_or_refused(path, start + content, read_npy, npy_by_hand)


SHAPES = st.lists(st.sampled_from([-1, 0, 1, 2, 3, 2**31, 2**32, 2**62, 2**63, 2**64, 10**40]), max_size=5).map(tuple)
TYPES = st.sampled_from(["|u1", "<f4", ">f8", "<i8", "|O", "<c8", "|V4", "<U3", "|b1", "<M8[s]", "no", [("a", "<f4")]])


@given(shape=SHAPES, kind=TYPES, is_fortran=st.booleans(), count=st.integers(0, 12))
def test_npy_headers_of_every_shape_are_true_or_refused(
    path: Path, shape: tuple[int, ...], kind: Any, is_fortran: bool, count: int
) -> None:
    header = repr({"descr": kind, "fortran_order": is_fortran, "shape": shape}).encode()
    content = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(range(4 * count))
    same_or_refused(path, content, read_npy, npy_by_hand)


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (struct.pack("<I", 2**32 - 1), "a header of 4294967295 bytes"),
        (struct.pack("<I", 9000) + b"(" * 9000, ""),
    ],
)
def test_npy_headers_that_never_end_are_refused(path: Path, header: bytes, problem: str) -> None:
    path.write_bytes(b"\x93NUMPY\2\0" + header)
    with pytest.raises(InputError, match=rf"file: expected a \.npy file of numbers, got {problem}"):
        read_npy(path)


def test_npy_lengths_that_are_truth_values_are_refused(path: Path) -> None:
    header = b"{'descr': '<i2', 'fortran_order': True, 'shape': (True,)} \n"
    path.write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + b"\1\0")
    with pytest.raises(InputError, match=r"file: expected axes of at least length 1, got \(True,\)$"):
        read_npy(path)


def test_pickled_objects_are_not_loaded(path: Path) -> None:
    for content in (npy_bytes(np.array([print, {}], object)), b"\x80\x04N."):
        path.write_bytes(content)
        with pytest.raises(InputError):
            read_npy(path)


# --- pictures --------------------------------------------------------------------------------------------------------


RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (6, 5, 3), np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM", "TIFF"])
def test_damaged_pictures_are_refused_or_pictures(path: Path, kind: str) -> None:
    Image.fromarray(COLOURS).save(file := io.BytesIO(), kind)
    content = file.getvalue()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= (1, 0x80, 0xFF)[position % 3]
        for some in (damaged, content[:position]):
            path.write_bytes(some)
            image, line = attempt(read_image, path)
            if line:
                assert line.startswith(f"{path}: expected ")
            else:
                assert (image.dtype, image.ndim, len(image) in (1, 3)) == (np.uint8, 3, True)


def test_a_cmyk_picture_is_read_as_its_colours(path: Path) -> None:
    colours = (
        np.repeat([[[255, 0, 0]], [[0, 90, 200]], [[255, 255, 255]]], 8, axis=0).astype(np.uint8).repeat(8, axis=1)
    )
    cmyk = np.concatenate([255 - colours, np.zeros((*colours.shape[:2], 1), np.uint8)], axis=2)
    Image.frombytes("CMYK", (8, 24), cmyk.tobytes()).save(path, "TIFF")
    np.testing.assert_array_equal(read_image(path), colours.transpose(2, 0, 1))
    Image.frombytes("CMYK", (8, 24), cmyk.tobytes()).save(path, "JPEG", quality=100)
    assert np.abs(read_image(path).astype(int) - colours.transpose(2, 0, 1)).max() < 8


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_picture_of_several_is_read(path: Path, kind: str) -> None:
    first, *more = (Image.new("RGB", (5, 4), colour) for colour in ("red", "blue", "lime"))
    first.save(path, kind, save_all=True, append_images=more, **({"lossless": True} if kind == "WEBP" else {}))
    assert read_image(path).reshape(3, -1).T.tolist() == [[255, 0, 0]] * 20


def test_a_picture_of_floats_is_refused(path: Path) -> None:
    Image.fromarray(np.ones((3, 3), np.float32)).save(path, "TIFF")
    with pytest.raises(InputError, match="expected a readable image, got an image of floats"):
        read_image(path)


def test_a_picture_that_is_a_program_is_not_run(path: Path) -> None:
    Image.new("RGB", (9, 9)).save(path, "EPS")
    with pytest.raises(InputError, match="expected a readable image, got cannot identify image file"):
        read_image(path)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises this size, and has no pixels."""
    header = b"IHDR" + struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    checked = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + checked + bytes(4) + b"IDAT"


@pytest.mark.parametrize("side", [7072, 9000, 10_000, 13_000])
def test_pictures_of_too_many_pixels_are_refused_unread(path: Path, side: int) -> None:
    path.write_bytes(png_header(side, side))
    with pytest.raises(InputError, match=f"expected an image of at most 50,000,000 pixels, got {side} x {side}$"):
        read_image(path)


def test_pictures_that_pillow_calls_bombs_are_refused(path: Path) -> None:
    path.write_bytes(png_header(2**16, 2**16))
    with pytest.raises(InputError, match="expected an image of at most 50,000,000 pixels, got "):
        read_image(path)


# --- no files, and memory --------------------------------------------------------------------------------------------


READERS = [read_idx, read_npy, read_image]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
@pytest.mark.parametrize("read", READERS)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("link")
    for path, got in (
        (tmp_path / "pipe", "a pipe or a device"),
        (Path("/dev/zero"), "a pipe or a device"),
        (tmp_path, "a folder"),
        (tmp_path / "missing", ".*No such file.*"),
        (tmp_path / "link", ".*symbolic links.*"),
        (tmp_path / "a\0b", ".*null byte.*"),
    ):
        with pytest.raises(InputError, match=rf"expected a [^,]*(, raw or gzipped)?, got {got}$"):
            read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-images.npy", "train/a/1.png"])
def test_folders_of_pipes_are_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "test" / "a").mkdir(parents=True)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError):
        load(tmp_path)


MEASURED = """
import resource, sys
from lowered_cnn.data import read_idx, read_image
from lowered_cnn.data.npy import read_npy
import PIL.Image, PIL.ImageOps

def peak():
    return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) * 1024

resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31))
before = peak()
try:
    print({"idx": read_idx, "npy": read_npy, "png": read_image}[sys.argv[1]](sys.argv[2]).shape)
except ValueError as error:
    print(error)
print(peak() - before)
"""


def measured(kind: str, path: Path) -> tuple[str, int]:
    """Read a file in a process of its own; return what it says, and by how much its memory grew."""
    done = subprocess.run([sys.executable, "-c", MEASURED, kind, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said, grown = done.stdout.splitlines()
    return said, int(grown)


def idx_header(*shape: int) -> bytes:
    return struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)


def bomb(content: bytes, zeros: int) -> bytes:
    """Zip some bytes and many zeros, without holding them."""
    packer = zlib.compressobj(1, wbits=31)
    pieces = [packer.compress(content), *(packer.compress(bytes(MIB)) for _ in range(zeros // MIB)), packer.flush()]
    return b"".join(pieces)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from Linux's /proc")
@pytest.mark.parametrize(
    ("kind", "content", "line"),
    [
        ("idx", bomb(idx_header(1, 28, 28), 300 * MIB), "784 bytes for shape (1, 28, 28), got more"),
        (
            "idx",
            bomb(b"", 300 * MIB),
            "the IDX magic number 00 00 08 (unsigned bytes), then 01 to 04 (axes), got 00 00",
        ),
        ("idx", bomb(idx_header(2**32 - 1), 0), "4294967295 bytes for shape (4294967295,), got at most"),
        ("idx", idx_header(2**32 - 1), "4294967295 bytes for shape (4294967295,), got 0"),
        ("npy", b"\x93NUMPY\2\0\xff\xff\xff\xff", "a .npy file of numbers, got a header of 4294967295 bytes"),
        ("png", png_header(7500, 7500), "an image of at most 50,000,000 pixels, got 7500 x 7500"),
    ],
    ids=["gzip bomb", "gzip of zeros", "gzip that lies", "raw that lies", "npy that lies", "picture"],
)
def test_hostile_files_take_no_memory(path: Path, kind: str, content: bytes, line: str) -> None:
    path.write_bytes(content)
    said, grown = measured(kind, path)
    assert said.startswith(f"{path}: expected {line}")
    assert grown < 20 * MIB


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from Linux's /proc")
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_the_largest_picture_takes_the_memory_that_is_promised(path: Path, mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter, which takes a copy
    Image.new(mode, (7071, 7071), "red" if mode != "L" else 9).save(path, "PNG", exif=exif)
    said, grown = measured("png", path)
    assert said == ("(1, 7071, 7071)" if mode == "L" else "(3, 7071, 7071)")
    assert grown < 25 * 7071**2
