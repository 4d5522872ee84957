"""What is measured, and the results: the records that are written to the JSON file and read back."""

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
    """What runs the work: a framework, in one of its modes, with one of the settings of glibc's allocator."""

    framework: str
    mode: str = OWN_MODE
    allocator: str = "installed"

    def __str__(self) -> str:
        return f"{self.framework}, {self.mode}, allocator {self.allocator}"


@dataclass(frozen=True)
class Work:
    """A piece of work: a network, a batch size, and a number of cores."""

    network: str
    batch: int
    cores: int

    def __str__(self) -> str:
        return f"{self.network}, batch {self.batch}, {self.cores} core{'s' * (self.cores > 1)}"


@dataclass(frozen=True)
class Pair:
    """One round of a job: our process and, if there is a peer, its process right after."""

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
    """The multiplications and additions of one training step and of one inference, as the ledger counts them."""

    network: str
    batch: int
    training: int
    inference: int

    def of(self, job: str) -> int:
        """Return the operations of a job."""
        return self.training if job == "training" else self.inference


@dataclass(frozen=True)
class Speed:
    """What a framework says about its kernels, and the operations per second of a large product on `cores` cores."""

    framework: str
    cores: int
    kernels: str
    flops: float


@dataclass(frozen=True)
class Start:
    """One cold start: seconds for the import, and seconds from process start to the first prediction."""

    framework: str
    import_seconds: float
    first_prediction: float


@dataclass(frozen=True)
class Installed:
    """The size in bytes of a framework and its dependencies."""

    framework: str
    version: str
    bytes: int


@dataclass(frozen=True)
class Growth:
    """One fresh process: the time and memory of a step; `size` is the number of images, or of pixels per side."""

    axis: str
    size: int
    batch: int
    step: Timing
    memory: int
    workspace: int


@dataclass(frozen=True)
class Machine:
    """The machine that the results are from."""

    processor: str
    vendor: str
    family: str
    model: str
    cores: int
    memory: int
    system: str
    python: str


@dataclass
class Results:
    """All results of one benchmark run; `failures` lists the peers that did not answer, and why."""

    machine: Machine
    environment: str
    rounds: int
    seconds: float
    pairs: list[Pair] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    speeds: list[Speed] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    installed: list[Installed] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __add__(self, other: "Results") -> "Results":
        """Merge the results of two runs that are alike."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in LISTS}
        return dataclasses.replace(self, **sums)

    def alike(self, other: "Results") -> bool:
        """Return whether another run was on the same machine, in the same environment, with the same settings."""
        return all(getattr(self, name) == getattr(other, name) for name in SETTINGS)

    def write(self, path: Path) -> None:
        """Write the results as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Read results back; raises ValueError for a file without results."""
        results: Results = read(cls, json.loads(path.read_text()), str(path))
        return results


SETTINGS = ("machine", "environment", "rounds", "seconds")
LISTS = [each.name for each in dataclasses.fields(Results) if each.default_factory is list]


def read(kind: Any, parsed: object, where: str) -> Any:
    """Convert a parsed JSON value to type `kind`; raises ValueError, with the place, if it does not fit."""
    if isinstance(kind, UnionType):
        return None if parsed is None else read(get_args(kind)[0], parsed, where)
    if get_origin(kind) is list and isinstance(parsed, list):
        return [read(get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(parsed)]
    if dataclasses.is_dataclass(kind) and isinstance(parsed, dict):
        hints = get_type_hints(kind)
        if parsed.keys() == hints.keys():
            values = {name: read(hints[name], value, f"{where}.{name}") for name, value in parsed.items()}
            return kind(**values) if isinstance(kind, type) else None
    if isinstance(parsed, (int, float) if kind is float else kind) and not dataclasses.is_dataclass(kind):
        return parsed
    raise ValueError(f"{where}: expected {getattr(kind, '__name__', kind)}, got {str(parsed)[:60]}")
