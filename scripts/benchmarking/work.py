"""What is measured, and what came out: the records that go into the JSON file and come out of it."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from benchmarking.timing import Timing

OURS = "lowered_cnn"
OWN_MODE = "package"
JOBS = ("training", "inference")


@dataclass(frozen=True)
class Subject:
    """Who works: a framework, in one of its modes, with one of the settings of glibc's allocator."""

    framework: str
    mode: str = OWN_MODE
    allocator: str = "installed"

    def __str__(self) -> str:
        return f"{self.framework}, {self.mode}, allocator {self.allocator}"


@dataclass(frozen=True)
class Work:
    """What is done: a network, in batches of so many images, on so many cores."""

    network: str
    batch: int
    cores: int

    def __str__(self) -> str:
        return f"{self.network}, batch {self.batch}, {self.cores} core{'s' * (self.cores > 1)}"


@dataclass(frozen=True)
class Pair:
    """One round of a job: our process, and right after it the peer's; alone, if there is no peer."""

    job: str
    work: Work
    ours: Timing
    peer: Subject | None = None
    theirs: Timing | None = None

    @property
    def ratio(self) -> float:
        """How many times as long the peer took: above 1, we are faster."""
        assert self.theirs is not None
        return self.theirs.median / self.ours.median


@dataclass(frozen=True)
class Cost:
    """What one training step, and one inference, of a network multiplies and adds (the ledger's count)."""

    network: str
    batch: int
    training: int
    inference: int

    def of(self, job: str) -> int:
        """Return the operations of a job."""
        return self.training if job == "training" else self.inference


@dataclass(frozen=True)
class Peak:
    """The operations a second of one large matrix product in NumPy, on so many cores: the machine's own measure."""

    cores: int
    flops: float


@dataclass(frozen=True)
class Start:
    """One cold start: seconds of the import, seconds from the process's start to the first prediction."""

    framework: str
    import_seconds: float
    first_prediction: float


@dataclass(frozen=True)
class Installed:
    """The bytes of a framework and of what it depends on."""

    framework: str
    version: str
    bytes: int


@dataclass(frozen=True)
class Growth:
    """One fresh process: what a step takes, in seconds and in bytes; `size` counts images, or pixels of a side."""

    axis: str
    size: int
    batch: int
    step: Timing
    memory: int
    workspace: int


@dataclass(frozen=True)
class Machine:
    """Where it was measured."""

    processor: str
    cores: int
    memory: int
    system: str
    python: str


@dataclass
class Results:
    """Everything of one run of the benchmark; `failures` are the peers that did not answer, and why."""

    machine: Machine
    rounds: int
    seconds: float
    pairs: list[Pair] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    peaks: list[Peak] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    installed: list[Installed] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __add__(self, other: "Results") -> "Results":
        """Put the results of two runs together, if the machine and the settings were the same."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in LISTS}
        return dataclasses.replace(self, **sums)

    def alike(self, other: "Results") -> bool:
        """Tell whether another run was made on the same machine with the same settings."""
        return (self.machine, self.rounds, self.seconds) == (other.machine, other.rounds, other.seconds)

    def write(self, path: Path) -> None:
        """Write the results as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Read results back; raises ValueError for a file that holds none."""
        results: Results = read(cls, json.loads(path.read_text()), str(path))
        return results


LISTS = [each.name for each in dataclasses.fields(Results) if each.default_factory is list]


def read(kind: Any, told: object, where: str) -> Any:
    """Make a value of type `kind` of what JSON told; raises ValueError, with the place, where it does not fit."""
    if isinstance(kind, UnionType):
        return None if told is None else read(get_args(kind)[0], told, where)
    if get_origin(kind) is list and isinstance(told, list):
        return [read(get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(told)]
    if dataclasses.is_dataclass(kind) and isinstance(told, dict):
        hints = get_type_hints(kind)
        if told.keys() == hints.keys():
            values = {name: read(hints[name], value, f"{where}.{name}") for name, value in told.items()}
            return kind(**values) if isinstance(kind, type) else None
    if isinstance(told, (int, float) if kind is float else kind) and not dataclasses.is_dataclass(kind):
        return told
    raise ValueError(f"{where}: expected {getattr(kind, '__name__', kind)}, got {str(told)[:60]}")
