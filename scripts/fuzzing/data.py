"""Data files: IDX, raw and gzipped, and .npy, each compared with a second, small reader."""

import ast
import gzip
import io
import math
import struct
import zlib
from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np

from fuzzing.target import Mutation, Target
from lowered_cnn.data.idx import read_idx
from lowered_cnn.data.npy import read_npy

LENGTHS = (0, 1, 2, 3, 255, 256, 65536, 2**31, 2**32 - 1)


class Idx(Target):
    """IDX: a magic number, the length of each axis, then bytes; alone or in a gzip file."""

    def seeds(self) -> Iterator[bytes]:
        """Yield arrays of 1 to 4 axes."""
        for shape in ((3,), (2, 3), (2, 3, 4), (2, 1, 2, 2), (1, 600)):
            raw = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + bytes(range(256)) * 3
            raw = raw[: 4 + 4 * len(shape) + math.prod(shape)]
            yield from (raw, gzip.compress(raw, mtime=0), gzip.compress(raw[:9]) + gzip.compress(raw[9:]))

    def mutate(self, content: bytes, plain: Mutation, draw: Random) -> bytes:
        """Change what is in the gzip file: the numbers, a length, or anything."""
        if draw.random() < 0.3:
            return plain(content)
        raw = content
        if content[:2] == b"\x1f\x8b" and (inside := unzipped(content)) is not None:
            raw = inside
        action = draw.random()
        if action < 0.3 and len(raw) >= 8:
            place = 4 * draw.randrange(1, len(raw) // 4)
            raw = raw[:place] + struct.pack(">I", draw.choice(LENGTHS)) + raw[place + 4 :]
        elif action < 0.6 and len(raw) >= 20 and 1 <= raw[3] <= 4:  # other numbers behind a header that fits
            numbers = plain(raw[4 + 4 * raw[3] :])
            raw = raw[:4] + struct.pack(f">{raw[3]}I", *[1] * (raw[3] - 1), len(numbers)) + numbers
        else:
            raw = plain(raw)
        return raw if raw is content or draw.random() < 0.2 else gzip.compress(raw, draw.choice([0, 1, 9]), mtime=0)

    def read(self, content: bytes) -> object:
        """Read from a file."""
        self.path.write_bytes(content)
        return read_idx(self.path)

    def verify(self, content: bytes, value: Any) -> None:
        """Unpack and count once more."""
        raw = unzipped(content) if content[:2] == b"\x1f\x8b" else content
        assert raw is not None, "a damaged gzip file"
        rank = raw[3]
        shape, numbers = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank]), raw[4 + 4 * rank :]
        assert raw[:3] == b"\0\0\x08", "another magic number"
        assert (value.dtype, value.shape, value.tobytes()) == (np.uint8, shape, numbers), "other numbers"


def unzipped(content: bytes) -> bytes | None:
    """Return what is in a gzip file (RFC 1952) of one or more members, and zeros behind each; None if it is damaged.

    As in Python's own reader, reserved flags and a header's checksum do not matter; that of the content does.
    """
    whole = b""
    while content:
        if content[:3] != b"\x1f\x8b\x08" or len(content) < 18:
            return None
        flags, rest = content[3], content[10:]
        if flags & 4:
            rest = rest[2 + int.from_bytes(rest[:2], "little") :]
        for flag in (8, 16):  # a name and a comment
            rest = rest.partition(b"\0")[2] if flags & flag else rest
        rest = rest[2:] if flags & 2 else rest
        unpacking = zlib.decompressobj(-15)
        try:
            piece = unpacking.decompress(rest, 2**24)
        except zlib.error:
            return None
        trailer, content = unpacking.unused_data[:8], unpacking.unused_data[8:].lstrip(b"\0")
        if not unpacking.eof or trailer != struct.pack("<II", zlib.crc32(piece), len(piece)):
            return None
        whole += piece
    return whole


class Npy(Target):
    """NumPy's files: a magic number, a header that is a Python literal, then the numbers."""

    def seeds(self) -> Iterator[bytes]:
        """Yield arrays of many types."""
        grid = np.arange(24).reshape(2, 3, 4)
        arrays: list[Any] = [grid.astype(kind) for kind in ("u1", "<i8", ">i2", "<f4", ">f8", "f2", "?", "c8", "U3")]
        for array in (*arrays, np.asfortranarray(grid), np.float64(3.0), np.zeros((0, 2)), np.array([None, {}])):
            for version in ((1, 0), (2, 0)):
                file = io.BytesIO()
                np.lib.format.write_array(file, np.asanyarray(array), version)
                yield file.getvalue()

    def mutate(self, content: bytes, plain: Mutation, draw: Random) -> bytes:
        """Change the header, and make its length right; or the numbers."""
        start = 10 if content[6:7] == b"\1" else 12
        length = int.from_bytes(content[8:start], "little")
        if draw.random() < 0.3 or not 0 < length < len(content):
            return plain(content)
        header, numbers = content[start : start + length], content[start + length :]
        action = draw.random()
        if action < 0.2:
            return content[: start + length] + plain(numbers)
        if action < 0.4:
            header = plain(header)
        elif action < 0.6:  # other numbers behind a header that fits
            kind, size = draw.choice([("|u1", 1), ("<i2", 2), (">f4", 4), ("<f8", 8), ("|b1", 1), ("<f2", 2)])
            numbers = plain(numbers)
            lengths = (len(numbers) // size,) if draw.random() < 0.5 else (len(numbers) // size // 2, 2)
            numbers = numbers[: math.prod(lengths) * size]
            text = {"descr": kind, "fortran_order": draw.random() < 0.5, "shape": lengths}
            header = repr(text).encode() + b" " * draw.randrange(3) + b"\n"
        else:
            old = draw.choice([b"1", b"2", b"3", b"4", b"<", b"f", b"i", b"u", b"8", b"(", b")", b"False", b",", b"'"])
            new = draw.choice([b"0", b"1", b"6", b"12", b"24", b"-1", b">", b"|", b"u1", b"f4", b"()", b"True", b"1e9"])
            header = header.replace(old, new, draw.choice([1, -1]))
        return content[:8] + len(header).to_bytes(start - 8, "little") + header + numbers

    def read(self, content: bytes) -> object:
        """Read from a file."""
        self.path.write_bytes(content)
        return read_npy(self.path)

    def verify(self, content: bytes, value: Any) -> None:
        """Read the header as a literal, and the numbers from memory."""
        start = 10 if content[6] == 1 else 12
        length = int.from_bytes(content[8:start], "little")
        header = ast.literal_eval(content[start : start + length].decode("latin1").strip())
        numbers = np.frombuffer(content[start + length :], header["descr"])
        expected = numbers.reshape(header["shape"], order="F" if header["fortran_order"] else "C")
        assert (value.dtype, value.shape) == (expected.dtype, expected.shape), "another array"
        assert value.tobytes() == expected.tobytes(), "other numbers"
