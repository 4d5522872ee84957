"""Files that are whole or absent: networks, as safetensors files with a description in JSON and a checksum."""

import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import InputError, check_shape, whole_number
from lowered_cnn.descriptions import JSON, describe, restore
from lowered_cnn.layers import Graph, Sequential
from lowered_cnn.network import Network, as_input_shape, check_network

HEADER, CHECKSUM = "lowered_cnn", "sha256"
"""The entry of a file's metadata that holds its header, as JSON, and the entry of the header that holds the checksum of
everything else. With more than one entry in the metadata, safetensors would vary their order from file to file."""

FORMAT = 1
"""The format of the files that are written, and the latest one that can be read."""

LOCKS = os.name == "posix"
"""Whether files can be locked by a process, as on Linux and macOS."""

Tensors: TypeAlias = Mapping[str, npt.NDArray[Any]]


def save(network: Network, path: str | os.PathLike[str]) -> None:
    """Write the network to `path`; the file appears complete or not at all.

    Your own layers are stored as "module:Class". Raises InputError for a class that cannot be found by that name, such
    as one defined in a function.
    """
    check_network("save: network", network)
    header: dict[str, JSON] = {
        "model": describe(network.model),
        "input_shape": list(network.input_shape),
        "dtype": network.parameters.vector.dtype.name,
        "input_range": None if network.input_range is None else list(network.input_range),
    }
    write_checked(path, header, network.parameters)


def load(path: str | os.PathLike[str]) -> Network:
    """Return the network that `save` wrote; raises InputError for any other file, and for a damaged one.

    It imports nothing: the modules of your own layers must have been imported before. Files of earlier versions, which
    have no checksum, are read too.
    """
    header, tensors = read_checked(path)
    if "checkpoint" in header:
        raise InputError(str(path), "a network", "a checkpoint, which Training.resume reads")
    with _describing(path):
        model, input_shape = restore(header["model"]), as_input_shape(header["input_shape"])
        if not isinstance(model, Sequential | Graph):
            raise InputError("model", "a Sequential or a Graph", type(model).__name__)
        shapes = {parameter.name: parameter.shape for parameter in model.parameters(input_shape)}
        dtype = header["dtype"]
        if dtype not in ("float32", "float64"):
            raise InputError("dtype", "float32 or float64", repr(dtype))
    if set(tensors) != set(shapes):
        raise InputError(str(path), f"tensors {sorted(shapes)}", sorted(tensors))
    for name, shape in shapes.items():  # before anything of that size is allocated
        check_shape(f"{path}: {name}", shape, tensors[name].shape)
        if tensors[name].dtype.name != dtype:
            raise InputError(f"{path}: {name}", dtype, tensors[name].dtype)
    with _describing(path):
        network = Network(model, input_shape, dtype=dtype)
        if header.get("input_range") is not None:
            low, high = map(float, header["input_range"])
            if not -math.inf < low <= high < math.inf:
                raise InputError("input_range", "the smallest and the largest number", [low, high])
            network.input_range = (low, high)
    for name, values in tensors.items():
        network.parameters.assign(name, values, str(path))
    return network


def write_checked(path: str | os.PathLike[str], header: Mapping[str, JSON], tensors: Tensors) -> None:
    """Write a safetensors file with a header and a checksum over all of it; it appears complete or not at all."""
    import json

    from safetensors.numpy import save as to_bytes

    whole = {"format": FORMAT, **header}
    arrays = {name: np.array(values, order="C") for name, values in tensors.items()}
    text = json.dumps({**whole, CHECKSUM: _checksum(whole, arrays)})
    write_whole(Path(path), to_bytes(arrays, {HEADER: text}))


def read_checked(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Return the header and the tensors that `write_checked` wrote; raises InputError for any other or damaged file.

    A file whose header has no "format" was written by an earlier version, and needs no checksum.
    """
    import json

    metadata, tensors = read_tensors(path)
    text = metadata.get(HEADER)
    if text is None:
        raise InputError(str(path), f"a {HEADER!r} entry in the file's metadata", "none")
    try:
        header: dict[str, Any] = json.loads(text, object_pairs_hook=_without_duplicates, parse_int=_short_int)
        version, stored = header.get("format"), header.pop(CHECKSUM, None)
    except Exception as error:  # how damaged JSON fails depends on where it is damaged
        raise InputError(str(path), "a header in JSON", error) from error
    if version is not None and whole_number(f"{path}: format", version, 1) > FORMAT:
        raise InputError(str(path), f"format {FORMAT}, or a newer lowered_cnn to read it", f"format {version}")
    if version is not None or stored is not None:
        actual = _checksum(header, tensors)
        if stored is None:
            raise InputError(str(path), "a checksum", "none: the file is damaged")
        if stored != actual:
            raise InputError(str(path), f"the checksum {stored}", f"{actual}: the file is damaged")
        header.pop("format", None)
    return header, tensors


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, str], dict[str, npt.NDArray[Any]]]:
    """Return the metadata and the tensors of a safetensors file; raises InputError for any other file."""
    from safetensors import safe_open

    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for
        raise InputError(str(path), "a safetensors file", "a folder" if os.path.isdir(path) else "no file")
    try:
        with safe_open(path, "numpy") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError:
        raise
    except Exception as error:  # from safetensors, or from NumPy if it lacks the type of number
        raise InputError(str(path), "a safetensors file", error) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it appears complete or not at all; a link stays, and its target is written.

    The content goes to a file beside it, `.NAME.NUMBER.part`, reaches the disk, and then takes the name. Such files
    that killed writers have left behind are removed. A file that exists keeps its permissions. Raises
    InputError if the path is taken by something other than a file, such as a folder or a device, and OSError, with the
    path, if there is no space or no permission; then nothing has changed.
    """
    real = Path(os.path.realpath(path))
    if os.path.lexists(real) and not real.is_file():
        got = f"the folder {path}" if real.is_dir() else path
        raise InputError("output", "a file to write", got)
    part = real.with_name(f".{real.name}.{os.urandom(8).hex()}.part")
    try:
        _remove_leftovers(real)
        with _locked(part):
            with open(part, "wb") as file:
                if real.exists():
                    os.chmod(part, real.stat().st_mode & 0o777)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(real)
        _sync(real.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def _locked(part: Path) -> Iterator[None]:
    """Mark a file that is being written by a lock, which ends with the process; on Windows, do nothing."""
    if not LOCKS:
        yield
        return
    descriptor = _create_locked(part)
    try:
        yield
    finally:
        os.close(descriptor)


def _create_locked(part: Path) -> int:
    import fcntl

    while True:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):  # where there are no locks, leftovers stay
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # another writer took it for a leftover before it was locked


def _remove_leftovers(real: Path) -> None:
    """Remove the unfinished files of writers that were killed: those that nobody holds a lock on."""
    if not LOCKS:
        return
    import fcntl

    leftover = re.compile(rf"\.{re.escape(real.name)}\.[0-9a-f]+\.part")
    names: list[str] = []
    with suppress(OSError):  # a folder may be writable but not readable
        names = os.listdir(real.parent)
    for name in filter(leftover.fullmatch, names):
        with suppress(OSError):
            descriptor = os.open(real.with_name(name), os.O_RDONLY | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(real.with_name(name))
            finally:
                os.close(descriptor)


def _sync(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _checksum(header: Mapping[str, JSON], tensors: Tensors) -> str:
    """Return the SHA-256 of the header and of each tensor, in the order of their names: name, type, shape, numbers."""
    import hashlib
    import json

    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, values in sorted(tensors.items()):
        digest.update(json.dumps([name, values.dtype.name, values.shape]).encode())
        digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def _without_duplicates(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    """Return an object of JSON; raises InputError if it has a name twice, which readers would take differently."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InputError("header", "each name once", sorted(name for name, _ in pairs))
    return found


def _short_int(digits: str) -> int:
    """Return a whole number of JSON; raises InputError for one that is longer than any seed."""
    if len(digits) > 100:
        raise InputError("header", "whole numbers of at most 100 digits", len(digits))
    return int(digits)


@contextmanager
def _describing(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # how a damaged description fails depends on where it is damaged
        got = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(str(path), "the description of a network", got) from error
