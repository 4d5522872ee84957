"""The folder of one training run: its settings, its records, its network."""

import itertools
import json
import os
from functools import cached_property
from pathlib import Path
from typing import IO

from lowered_cnn.arrays import InputError
from lowered_cnn.data import READERS
from lowered_cnn.data.dataset import check_classes
from lowered_cnn.models import MODELS
from lowered_cnn.network import Network
from lowered_cnn.storage import JSON, load, save, write_whole


def check_out(path: Path) -> None:
    """Raise InputError unless `path` is a new or empty folder that a run can be written to."""
    try:
        taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
        above = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    except OSError as error:
        raise InputError("--out", "a new or empty folder", f"{path} ({error.strerror})") from error
    if taken:
        raise InputError("--out", "a new or empty folder", path)
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError("--out", "a writable folder", f"{path} in {above}")


class RunFolder:
    """`config.json` (written first), `metrics.jsonl` (a line per step), `model.safetensors` (written at the end)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path | None, config: dict[str, JSON]) -> "RunFolder":
        """Make the folder, by default the first of runs/1, runs/2, ... that does not exist, and write the settings."""
        path = path or next(free for n in itertools.count(1) if not (free := Path("runs", str(n))).exists())
        check_out(path)
        path.mkdir(parents=True, exist_ok=True)
        write_whole(path / "config.json", (json.dumps(config, indent=2) + "\n").encode())
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Return the folder of an earlier run; raises InputError unless it holds settings and a network."""
        for name in ("config.json", "model.safetensors"):
            if not (path / name).is_file():
                raise InputError("RUN", "a folder written by lowered-cnn train", f"{path} without {name}")
        return cls(path)

    @cached_property
    def config(self) -> dict[str, JSON]:
        """Return the settings."""
        path = self.path / "config.json"
        try:
            config = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise InputError(str(path), "JSON", error) from error
        if not isinstance(config, dict) or not isinstance(config.get("classes"), list):
            raise InputError(str(path), "the settings of a run", "no list of classes")
        check_classes(f"{path}: classes", [str(name) for name in config["classes"]])
        return config

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the network's outputs."""
        classes = self.config["classes"]
        assert isinstance(classes, list)
        return [str(name) for name in classes]

    @property
    def data_kind(self) -> str:
        """The kind of data that the network was trained on."""
        kind = self.config.get("data_kind")
        if not isinstance(kind, str) or kind not in READERS:
            raise InputError(f"{self.path / 'config.json'}: data_kind", " or ".join(READERS), repr(kind))
        return kind

    def open_metrics(self) -> IO[str]:
        """Open `metrics.jsonl` for writing, line by line."""
        return (self.path / "metrics.jsonl").open("w", buffering=1)

    def save(self, network: Network) -> None:
        """Write the network."""
        save(network, self.path / "model.safetensors")

    def network(self) -> Network:
        """Return the trained network; raises InputError unless it has one output per class."""
        network = load(self.path / "model.safetensors")
        if network.output_shape != (len(self.classes),):
            where = str(self.path / "config.json")
            raise InputError(where, f"one class per output {network.output_shape}", len(self.classes))
        return network


def find_network(name: str, *others: str) -> Network:
    """Return the network of a run's folder, or a named one; the InputError lists `others` too."""
    if name in MODELS:
        return Network(MODELS[name](), (1, 28, 28))
    if Path(name).is_dir():
        return RunFolder.open(Path(name)).network()
    wanted = ", ".join(["a folder", *others, f"or one of {', '.join(MODELS)}"])
    raise InputError("|".join(["RUN", "MODEL", *others]), wanted, repr(name))
