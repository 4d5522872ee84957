"""The processes that measure, one at a time: each starts fresh, answers, and ends before the next one starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

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

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "TORCHINDUCTOR_COMPILE_THREADS": "1"}


class ProcessError(RuntimeError):
    """A process that did not answer; the message is the last line of its stderr."""


def ask(question: str, cores: int, allocator: str = "installed", **details: object) -> object:
    """Ask a fresh process; raises ProcessError if it ends without an answer."""
    command = [sys.executable, "-m", "benchmarking.child", json.dumps({"ask": question, "cores": cores, **details})]
    path = os.pathsep.join(filter(None, [str(SCRIPTS), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **QUIET, **ALLOCATORS[allocator], "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
        raise ProcessError(lines[-1])
    answer: object = json.loads(done.stdout.splitlines()[-1])
    return answer
