"""How many cores this process may use, and how NumPy computes on one of them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from threadpoolctl import LibController

BUFFER = 1024
"""Numbers in NumPy's buffer. It copies operands that are not contiguous through it, unless their runs are longer."""


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use: its CPU affinity, capped by its cgroup quotas; at least 1.

    The quotas (cgroup version 2 or 1, as set by containers) are read from files below `root`.
    """
    if hasattr(os, "process_cpu_count"):  # from Python 3.13
        cores: int | None = os.process_cpu_count()
    elif hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count()
    return max(1, int(min([cores or 1, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quota, in cores, of each cgroup that this process is in, and of its ancestors."""
    for line in filter(None, _words(root / "proc/self/cgroup", "\n")):
        _, controllers, path = line.split(":", 2)
        for group in (PurePosixPath(path), *PurePosixPath(path).parents):
            inside = group.relative_to("/")
            if not controllers:
                quota = _words(root / "sys/fs/cgroup" / inside / "cpu.max")
            elif "cpu" in controllers.split(","):
                folder = root / "sys/fs/cgroup/cpu" / inside
                quota = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
            else:
                break
            # Without a quota, version 2 says "max 100000", and version 1 says -1 and 100000.
            if len(quota) == 2 and quota[0].isdigit():
                yield int(quota[0]) / int(quota[1])


def _words(path: Path, separator: str | None = None) -> list[str]:
    try:
        return path.read_text().strip().split(separator)
    except OSError:
        return []


class _OneCore:
    """Limits BLAS in the whole process from when the first thread enters a `with` block until the last one leaves.

    NumPy's buffer is that of a context, so each thread that enters sets its own. A Ctrl-C may interrupt entering or
    leaving at any point, so that both can be done in part and leaving can be done again.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._users: set[object] = set()
        self._before: list[tuple[LibController, int]] = []
        self._libraries: list[LibController] | None = None

    @contextmanager
    def limit(self) -> Iterator[None]:
        user, buffer = object(), np.getbufsize()
        try:
            self._enter(user)
            np.setbufsize(BUFFER)  # also for threads that run in a copy of this context
            yield
        finally:
            try:
                self._leave(user, buffer)
            except KeyboardInterrupt:
                self._leave(user, buffer)
                raise

    def _enter(self, user: object) -> None:
        with self._lock:
            if not self._users:
                self._before = [(library, library.get_num_threads()) for library in self._blas()]
            self._users.add(user)
            for library, _ in self._before:
                _set_threads(library, 1)

    def _leave(self, user: object, buffer: int) -> None:
        np.setbufsize(buffer)
        with self._lock:
            self._users.discard(user)
            if not self._users:
                for library, threads in self._before:
                    _set_threads(library, threads)
                self._before = []

    def _blas(self) -> "list[LibController]":
        if self._libraries is None:
            from threadpoolctl import ThreadpoolController

            self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers
        return self._libraries


def _set_threads(library: "LibController", threads: int) -> None:
    """Set how many threads a library uses; newer versions of threadpoolctl ignore all but one thread unless cleared."""
    if hasattr(library, "clear_controlling_thread"):
        library.clear_controlling_thread(force=True)
    library.set_num_threads(threads)


on_one_core = _OneCore().limit
"""Inside the `with` block, BLAS has one thread, so that it always sums in the same order, and NumPy a small buffer."""
