"""A reader under test, and what each of its executions must satisfy."""

import resource
import signal
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from types import FrameType
from typing import NoReturn, TypeAlias

from lowered_cnn.arrays import InputError

Mutation: TypeAlias = Callable[[bytes], bytes]
"""A change of a few bytes that knows nothing of their meaning."""

SECONDS = 5.0
"""The most time on the processor that an execution with a file of a few kilobytes may take."""

ROOM = 2**28
"""The bytes that a process may map beyond what it has when it begins; a read that asks for more is a find."""


class Hang(BaseException):
    """An execution that takes too long; no reader takes it for an error of its own."""


class Target(ABC):
    """A reader of files of a few kilobytes; `folder` is where to put them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "input"

    @abstractmethod
    def seeds(self) -> Iterable[bytes]:
        """Return sound files, and a few that are not."""

    @abstractmethod
    def mutate(self, content: bytes, plain: Mutation, draw: Random) -> bytes:
        """Return the content changed: by the plain mutation, or in a way that gets further into the reader."""

    @abstractmethod
    def read(self, content: bytes) -> object:
        """Return what the reader makes of the content; raises InputError if it is refused."""

    @abstractmethod
    def verify(self, content: bytes, value: object) -> None:
        """Raise an error if what was read is not what the content means."""

    def loads(self, content: bytes) -> bool:
        """Return whether the content is read, and not refused; raises what is a find."""
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            value = self.read(content)
        except InputError as error:
            check_refusal(error)
            return False
        self.verify(content, value)
        return True


def check_refusal(error: InputError) -> None:
    """Raise AssertionError unless it is told in one line, and not for lack of memory."""
    assert "\n" not in str(error), "an error of more than one line"
    cause: BaseException | None = error
    while cause is not None:
        assert not isinstance(cause, MemoryError), "more memory than a file of a few kilobytes can need"
        cause = cause.__cause__ or cause.__context__


@contextmanager
def limited() -> Iterator[None]:
    """Raise Hang in an execution that takes longer than `SECONDS`, and MemoryError (on Linux) beyond `ROOM`."""
    before = signal.signal(signal.SIGPROF, _hang), resource.getrlimit(resource.RLIMIT_AS)
    with suppress(OSError):
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + ROOM, before[1][1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before[0])
        resource.setrlimit(resource.RLIMIT_AS, before[1])


def _hang(number: int, frame: FrameType | None) -> NoReturn:
    raise Hang(f"more than {SECONDS:g} s")


class Finds:
    """A folder with the first input of each kind of find, and its traceback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kinds: set[str] = set()

    def add(self, name: str, content: bytes, error: BaseException) -> None:
        """Keep a find, unless one has been raised at the same place before."""
        first = error.__context__ or error  # a refusal's own place, if it is one that should not be
        place = traceback.extract_tb(first.__traceback__)[-1]
        kind = f"{name}-{type(error).__name__}-{Path(place.filename).stem}-{place.lineno}"
        if kind not in self.kinds:
            self.kinds.add(kind)
            (self.folder / kind).write_bytes(content)
            (self.folder / f"{kind}.txt").write_text("".join(traceback.format_exception(error)), errors="replace")
