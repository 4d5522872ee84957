"""The version and, with --verbose, what computes on this machine, and how fast."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lowered_cnn import InputError, __version__
from lowered_cnn.cores import usable_cores
from lowered_cnn.kernels import blas, instructions, processor
from lowered_cnn.timing import PEAK_SIZE, peak_flops

BLAS_HOLD, NUMPY_HOLD = "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES"
"""The variables that hold OpenBLAS to certain kernels, and NumPy to certain instructions."""

ASK = """
import dataclasses, json
from lowered_cnn.cli.version import speed
print(json.dumps(dataclasses.asdict(speed())))
"""


@dataclass(frozen=True)
class Speed:
    """The kernels of BLAS, the instructions of NumPy, and the operations per second of a large product on one core."""

    kernels: str
    instructions: str
    flops: float

    def __str__(self) -> str:
        return f"{self.flops / 1e9:.0f} GFLOP/s"


def run(arguments: argparse.Namespace) -> None:
    """Print the version and, with --verbose, the machine."""
    print(f"lowered-cnn {__version__}")
    if hasattr(arguments, "verbose"):
        print("\n".join(_lines(speed())))


def speed() -> Speed:
    """Measure this process."""
    return Speed(", ".join(each.kernels for each in blas()), instructions(), peak_flops("float32"))


def _lines(here: Speed) -> Iterator[str]:
    yield f"NumPy {np.__version__}, instructions: {here.instructions or 'its baseline'}"
    for each in blas():
        yield f"{each.name} {each.version}, kernels: {each.kernels or 'unknown'}, threads: {each.threads}"
    yield f"{processor()}, usable cores: {usable_cores()}"
    yield f"a product of {PEAK_SIZE} x {PEAK_SIZE} in float32 on one core: {here}"
    yield from _warnings(here)


def _warnings(here: Speed) -> Iterator[str]:
    """Compare with a process that has neither variable, if this one has any."""
    if BLAS_HOLD in os.environ or NUMPY_HOLD in os.environ:
        free = _free()
        if here.kernels != free.kernels:
            yield (
                f"warning: {BLAS_HOLD} holds OpenBLAS to {here.kernels} kernels, {here}; "
                f"without it, it would use {free.kernels}, {free}"
            )
        if here.instructions != free.instructions:
            yield (
                f"warning: {NUMPY_HOLD} holds NumPy to {here.instructions or 'its baseline'}; "
                f"without it, it would use {free.instructions}"
            )


def _free() -> Speed:
    """Measure a fresh process, with the same modules, that is not held."""
    free = {name: value for name, value in os.environ.items() if name not in (BLAS_HOLD, NUMPY_HOLD)}
    free["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run([sys.executable, "-P", "-c", ASK], capture_output=True, text=True, env=free)
    if done.returncode:
        wanted = f"a process without {BLAS_HOLD} and {NUMPY_HOLD} to measure"
        raise InputError("--verbose", wanted, (done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1])
    return Speed(**json.loads(done.stdout))
