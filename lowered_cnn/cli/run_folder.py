"""The folder of one training run: its settings, metrics, checkpoint and network."""

import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

from lowered_cnn.arrays import InputError, Shape, whole_number
from lowered_cnn.cli.own_model import import_again
from lowered_cnn.data.dataset import check_classes
from lowered_cnn.descriptions import JSON
from lowered_cnn.models import MODELS
from lowered_cnn.network import Network
from lowered_cnn.storage import LOCKS, load, save, write_whole

LOCK = ".lock"
CHECKPOINT = "checkpoint.safetensors"
CONFIG = "config.json"


def check_out(path: Path) -> None:
    """Raise InputError unless `path` is a new or empty folder that a run can be written to.

    A folder counts as empty if a run was killed there before it began: such a run has written no settings yet.
    """
    try:
        taken = os.path.lexists(path) and (not path.is_dir() or not all(map(_is_leftover, os.listdir(path))))
        above = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    except OSError as error:
        raise InputError("--out", "a new or empty folder", f"{path} ({error.strerror})") from error
    if taken:
        raise InputError("--out", "a new or empty folder", path)
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError("--out", "a writable folder", f"{path} in {above}")


def _are_texts(names: object) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _is_leftover(name: str) -> bool:
    return name in (LOCK, CHECKPOINT) or (name.startswith(".") and name.endswith(".part"))


class RunFolder:
    """The files of one run, which are written by one process at a time.

    `checkpoint.safetensors` is what a training goes on from, `config.json` its settings, written once it can go on;
    `metrics.jsonl` has a line per step, and `model.safetensors`, written at the end, is the network.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / CHECKPOINT
        self.metrics = path / "metrics.jsonl"

    @classmethod
    def make(cls, path: Path | None) -> "RunFolder":
        """Make the folder, by default the first of runs/1, runs/2, ... that does not exist."""
        if path is not None:
            check_out(path)
            path.mkdir(parents=True, exist_ok=True)
            return cls(path)
        for number in itertools.count(1):
            path = Path("runs", str(number))
            with suppress(FileExistsError):  # another training may take the number at the same time
                path.mkdir(parents=True)
                return cls(path)
        raise AssertionError("there is always another number")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder; the lock ends with the process, however it ends."""
        if not LOCKS:
            yield
            return
        import fcntl

        with (self.path / LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError("RUN", "a folder that nothing is training in", f"{self.path} in use") from error
            yield

    def write_config(self, config: dict[str, JSON]) -> None:
        """Write the settings."""
        self.config = config
        write_whole(self.path / CONFIG, (json.dumps(config, indent=2) + "\n").encode())

    def remove(self) -> None:
        """Remove the folder of a run that did not begin, with what is in it."""
        with suppress(OSError):
            shutil.rmtree(self.path)

    @classmethod
    def open(cls, path: Path, wanted: str = "model.safetensors") -> "RunFolder":
        """Return the folder of an earlier run; raises InputError unless it holds settings and the wanted file."""
        for name in (CONFIG, wanted):
            if not (path / name).is_file():
                expected = "a folder written by lowered-cnn train"
                if name != CONFIG and (path / CHECKPOINT).is_file():
                    expected = f"a training that has ended (train --resume {path} goes on with it)"
                raise InputError("RUN", expected, f"{path} without {name}")
        return cls(path)

    @cached_property
    def config(self) -> dict[str, JSON]:
        """The settings."""
        path = self.path / CONFIG
        try:
            config = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise InputError(str(path), "JSON", error) from error
        if not isinstance(config, dict) or not _are_texts(config.get("classes")):
            raise InputError(str(path), "the settings of a run", "no list of classes")
        check_classes(f"{path}: classes", config["classes"])
        return config

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the network's outputs."""
        classes = self.config["classes"]
        assert isinstance(classes, list)
        return [str(name) for name in classes]

    @property
    def has_mnist_style(self) -> bool:
        """Whether the images that the network was trained on are framed like MNIST's digits."""
        style = self.config.get("mnist_style")
        if not isinstance(style, bool):
            raise InputError(f"{self.path / CONFIG}: mnist_style", "true or false", json.dumps(style))
        return style

    @property
    def source(self) -> Path | None:
        """The folder of the data, or None for MNIST."""
        source = self.config.get("data", "")
        if source is not None and not (isinstance(source, str) and source):
            raise InputError(f"{self.path / CONFIG}: data", "a folder, or null for MNIST", repr(source))
        return None if source is None else Path(source)

    @property
    def input_shape(self) -> Shape | None:
        """The shape of the images that the network was trained on, or None for a run that did not record it."""
        shape = self.config.get("input_shape")
        if shape is None:
            return None
        lengths = shape if isinstance(shape, list) else [shape]
        return tuple(whole_number(f"{self.path / CONFIG}: input_shape", length, 1) for length in lengths)

    def number(self, name: str) -> int:
        """Return one of the settings that are whole numbers."""
        return whole_number(f"{self.path / CONFIG}: {name}", self.config.get(name), 0)

    def import_model(self) -> None:
        """Import the file with the network's own layers, if it has any."""
        import_again(str(self.path / CONFIG), self.config.get("model_file"))

    def open_metrics(self, steps: int) -> TextIO:
        """Open `metrics.jsonl` to go on after the lines of the first steps; raises OSError if it cannot be written.

        Lines that are missing there, since the disk was full or the power failed, stay missing.
        """
        with self.metrics.open("ab+") as file:
            file.seek(0)
            file.truncate(_bytes_until(steps, file))
        return self.metrics.open("a", buffering=1)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of `metrics.jsonl`, but for those that were cut off or are not ours."""
        with suppress(OSError):
            for line in self.metrics.read_bytes().splitlines():
                with suppress(ValueError, RecursionError):
                    record = json.loads(line)
                    if isinstance(record, dict):
                        yield record

    def save(self, network: Network) -> None:
        """Write the network."""
        save(network, self.path / "model.safetensors")

    def network(self) -> Network:
        """Return the trained network; raises InputError unless it has one output per class."""
        self.import_model()
        network = load(self.path / "model.safetensors")
        if network.output_shape != (len(self.classes),):
            where = str(self.path / CONFIG)
            raise InputError(where, f"one class per output {network.output_shape}", len(self.classes))
        return network


def _bytes_until(step: int, lines: Iterable[bytes]) -> int:
    """Return where the last complete line of a step up to this one ends."""
    end = position = 0
    for line in lines:
        position += len(line)
        with suppress(ValueError, TypeError, LookupError, RecursionError):  # a line that was cut off, or is not ours
            if json.loads(line)["step"] <= step and line.endswith(b"\n"):
                end = position
    return end


def find_network(name: str, *others: str) -> Network:
    """Return the network of a run's folder, or a named one; the InputError lists `others` too."""
    if name in MODELS:
        return Network(MODELS[name](), (1, 28, 28))
    if Path(name).is_dir():
        return RunFolder.open(Path(name)).network()
    wanted = ", ".join(["a folder", *others, f"or one of {', '.join(MODELS)}"])
    raise InputError("|".join(["RUN", "MODEL", *others]), wanted, repr(name))
