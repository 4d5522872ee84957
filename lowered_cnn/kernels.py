"""What computes: the BLAS that NumPy multiplies with, NumPy's own instructions, and the processor."""

import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Blas:
    """A BLAS in this process: `kernels` is the processor family that its kernels are written for, "" if unknown.

    OpenBLAS chooses its kernels when it is loaded, for the processor that it finds or for OPENBLAS_CORETYPE.
    """

    name: str
    version: str
    kernels: str
    threads: int

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name, self.version, self.kernels)))


@dataclass(frozen=True)
class Processor:
    """A processor as Linux describes it; some of it is "" elsewhere, and on processors other than x86."""

    name: str
    vendor: str = ""
    family: str = ""
    model: str = ""

    def __str__(self) -> str:
        parts = (self.vendor, self.family and f"family {self.family}", self.model and f"model {self.model}")
        told = ", ".join(filter(None, parts))
        return f"{self.name} ({told})" if told else self.name


def blas() -> list[Blas]:
    """Return the BLAS that NumPy has: usually one, and none if it is of a kind that threadpoolctl does not know."""
    from threadpoolctl import threadpool_info

    loaded = [library for library in threadpool_info() if library["user_api"] == "blas"]
    folder = Path(np.__file__).resolve().parent
    folders = {folder, folder.with_name("numpy.libs")}
    own = [library for library in loaded if folders & {*Path(library["filepath"]).resolve().parents}]
    return [  # SciPy's wheel has another BLAS, which NumPy does not use
        Blas(each["internal_api"], each["version"] or "", each.get("architecture") or "", each["num_threads"])
        for each in own or loaded
    ]


def instructions() -> str:
    """Return the sets of instructions that NumPy uses beyond its baseline: "X86_V3 X86_V4"."""
    return " ".join(np.show_config(mode="dicts")["SIMD Extensions"].get("found", []))


def processor(root: Path = Path("/")) -> Processor:
    """Describe the first processor in proc/cpuinfo below `root`."""
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    name = told.get("model name") or platform.processor() or platform.machine()
    return Processor(name, told.get("vendor_id", ""), told.get("cpu family", ""), told.get("model", ""))
