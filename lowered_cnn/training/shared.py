"""Memory shared between processes."""

import mmap
import os
import tempfile
from multiprocessing.reduction import DupFd
from typing import IO, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import InputError, Shape

Scalar = TypeVar("Scalar", bound=np.generic)

MEMORY = "/dev/shm"
"""Linux's in-memory file system."""

ALIGNMENT = 64
"""Bytes: a cache line."""


class SharedMemory:
    """Zeros for arrays of the given sizes in bytes; a child process that gets this as an argument sees the same memory.

    The memory is a nameless file that is gone with the last process that maps it, so nothing is left behind, even
    after kill -9. It is in the directory for temporary files if /dev/shm is missing or too small (as in some
    containers). Raises InputError if neither has room. Close it once the children have started; the arrays stay valid.
    """

    def __init__(self, sizes: list[int]) -> None:
        size = sum(map(_aligned, sizes))
        try:
            self._file = _nameless_file(size, MEMORY)
        except OSError:
            folder = tempfile.gettempdir()
            try:
                self._file = _nameless_file(size, folder)
            except OSError as error:
                wanted = f"room for {size:,} bytes in {folder}"
                raise InputError("train: workers", wanted, error.strerror or error) from error
        self._map()

    def _map(self) -> None:
        self._memory = mmap.mmap(self._file.fileno(), 0)
        self._used = 0

    def zeros(self, shape: Shape, dtype: "np.dtype[Scalar]") -> npt.NDArray[Scalar]:
        """Return the next array; every process must ask for the same arrays in the same order."""
        array: npt.NDArray[Scalar] = np.ndarray(shape, dtype, self._memory, self._used)
        self._used += _aligned(array.nbytes)
        return array

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __getstate__(self) -> "_Descriptor":
        return DupFd(self._file.fileno())

    def __setstate__(self, descriptor: "_Descriptor") -> None:
        self._file = os.fdopen(descriptor.detach(), "r+b")
        self._map()


class _Descriptor(Protocol):
    """A file descriptor on its way to a child process."""

    def detach(self) -> int: ...


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _nameless_file(size: int, folder: str) -> IO[bytes]:
    """Write real zeros: pages that are only promised would kill the process if there is no room for them.

    Raises OSError.
    """
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (it stays open)
    try:
        np.zeros(size, np.uint8).tofile(file)
    except OSError:
        file.close()
        raise
    return file
