"""The processes that measure: each belongs to one framework, and only one of them at a time has something to do."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from benchmarking.work import OURS

SCRIPTS = Path(__file__).parents[1]
ALLOCATORS: dict[str, dict[str, str]] = {
    "installed": {},
    "tuned": {
        "MALLOC_MMAP_THRESHOLD_": "4294967296",
        "MALLOC_TRIM_THRESHOLD_": "4294967296",
        "MALLOC_TOP_PAD_": "1073741824",
    },
}
"""glibc's allocator as installed, and tuned to keep its memory, so that pages are not returned and faulted in again."""

TUNING = ("DNNL_", "MKL_", "NPY_", "OMP_", "ONEDNN_", "OPENBLAS_", "TF_ONEDNN_")
"""The beginnings of the names of variables that tune the libraries of the frameworks, ours among them."""

ENVIRONMENTS = {
    "user": f"without variables that begin with {', '.join(TUNING)}",
    "inherited": "with all variables that the benchmark was started with",
    "avx2": "as user, but our processes have OPENBLAS_CORETYPE=Haswell, so that their products use AVX2",
}
"""The variables of the processes that measure."""

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "TORCHINDUCTOR_COMPILE_THREADS": "1"}


ANSWER = "answer: "
"""How a line with an answer begins: libraries print lines, too."""


class ProcessError(RuntimeError):
    """A process that did not answer; the message is the last line of its stderr."""


class Process:
    """A process that answers questions one by one, and does nothing in between."""

    def __init__(self, popen: "subprocess.Popen[str]", errors: IO[str]) -> None:
        self._popen = popen
        self._errors = errors
        self.printed: list[str] = []
        """What it printed besides its answers."""

    def ask(self, question: str, **details: object) -> object:
        """Ask, and wait for the answer; raises ProcessError if the process ends without one."""
        assert self._popen.stdin
        assert self._popen.stdout
        with suppress(BrokenPipeError):  # that it has ended is reported below
            os.write(self._popen.stdin.fileno(), json.dumps({"ask": question, **details}).encode() + b"\n")
        for line in self._popen.stdout:
            if line.startswith(ANSWER):
                answer: object = json.loads(line.removeprefix(ANSWER))
                return answer
            self.printed.append(line)
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines() or [f"ended with code {self._popen.wait()}"]
        raise ProcessError(lines[-1])


@contextmanager
def process(cores: int, environment: str, framework: str = OURS, allocator: str = "installed") -> Iterator[Process]:
    """Start a process for this framework, which ends with the block."""
    path = os.pathsep.join(filter(None, [str(SCRIPTS), os.environ.get("PYTHONPATH")]))
    variables = variables_of(environment, framework) | QUIET | ALLOCATORS[allocator] | {"PYTHONPATH": path}
    command = [sys.executable, "-m", "benchmarking.child", str(cores)]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=variables) as popen,
    ):
        yield Process(popen, errors)


def variables_of(environment: str, framework: str) -> dict[str, str]:
    """Return the variables that a framework's processes have in one of the environments."""
    if environment == "inherited":
        return dict(os.environ)
    free = {name: value for name, value in os.environ.items() if not name.startswith(TUNING)}
    return free | {"OPENBLAS_CORETYPE": "Haswell"} if (environment, framework) == ("avx2", OURS) else free
