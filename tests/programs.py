"""Programs that tests start: how they are waited for, and what ends with the test."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SECONDS = 60.0
"""How long a test waits for what takes two seconds at most on an idle machine."""


@contextmanager
def program(command: Sequence[str | Path]) -> "Iterator[subprocess.Popen[str]]":
    """Start a program in a process group of its own; if it still runs when the test is done with it, kill the group."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait until the condition holds, and return whether it does in the end."""
    deadline = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def workers_of(parent: int) -> list[int]:
    """Find the worker processes of a process; multiprocessing's resource tracker, which stays, is none."""
    return sorted(worker for worker, fields in _workers() if fields[1] == str(parent))


def workers_in_group(group: int) -> list[int]:
    """Find the worker processes in a process group."""
    return sorted(worker for worker, fields in _workers() if fields[2] == str(group))


def _workers() -> Iterator[tuple[int, list[str]]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"--multiprocessing-fork" in (folder / "cmdline").read_bytes().split(b"\0"):
                yield int(folder.name), stat(int(folder.name))


def stat(process: int) -> list[str]:
    """Return the fields of /proc/N/stat behind the name: state, parent, group, ..."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def alive(process: int) -> bool:
    """Return whether a process runs; one that nobody has waited for yet has a number, but does not."""
    try:
        return stat(process)[0] != "Z"
    except OSError:
        return False
