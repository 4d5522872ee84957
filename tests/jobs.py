"""Jobs that tests start with mpiexec; where it or mpi4py is missing, what needs them is skipped."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from programs import SECONDS

pytest.importorskip("mpi4py", reason="mpi4py is not installed (pip install 'lowered-cnn[mpi]')")
MPIEXEC = Path(sys.executable).parent / "mpiexec"
if not MPIEXEC.exists():
    pytest.skip("mpiexec is not installed (pip install 'lowered-cnn[mpi]')", allow_module_level=True)


def job(count: int, *arguments: str | Path) -> list[str]:
    """Return the command that starts so many ranks of Python with these arguments."""
    return [str(MPIEXEC), "-n", str(count), sys.executable, *map(str, arguments)]


def ended(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run a job by the path of mpiexec, without the virtual environment on the path."""
    environment = {**os.environ, "PATH": os.defpath}
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment)


def rank_with(argument: str, number: int) -> int:
    """Find the process that is the rank of this number in the job with this argument."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words, variables = ((folder / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
            if argument.encode() in words and f"PMI_RANK={number}".encode() in variables:
                return int(folder.name)
    raise AssertionError(f"rank {number} does not run")
