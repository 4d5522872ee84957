"""The ranks of an MPI job: how they add up their gradients, check that they agree, and end together (extra `mpi`)."""

import os
import sys
import time
import traceback
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from lowered_cnn.arrays import Array, InputError

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm, Request

LAUNCHED = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")
"""Variables of which a launcher sets at least one: MPICH and its derivatives, PMIx (as under Slurm), Open MPI."""

PATIENCE = 0.02
"""For how many seconds a waiting rank only yields its core between polls; a large vector may take as long."""

NAP = 0.001
"""For how many seconds it then sleeps between rounds of polls."""

POLLS = 20
"""Polls in a round: with each, MPI moves a part of a message."""

GRACE = 1.0
"""For how many seconds the other ranks wait for rank 0 to report an error that all of them have."""

DELIVERY = 0.2
"""For how many seconds the launcher may pass the report on; once the job is aborted, it drops the rest."""

Sums: TypeAlias = Sequence[tuple[int, int]]
"""Additions (into, from) of ranks' vectors, in order, as `deal` returns them; the last one completes rank 0's."""


class Ranks(Protocol):
    """The processes that train one network together, each with its own copy; this one is `number` of `count`."""

    number: int
    count: int

    def sum(self, values: Array, sums: Sums) -> None:
        """Add up the ranks' vectors (size) in this order, element by element; all ranks get the same sum in place.

        Its bits are those of `vectors[into] += vectors[from]` in one process. Without sums, it is rank 0's vector.
        """

    def broadcast(self, values: Array) -> None:
        """Overwrite the array with rank 0's."""

    def gather(self, text: str) -> list[str]:
        """Return the text of each rank, in their order, on all ranks."""

    def agree(self, where: str, digest: str) -> None:
        """Raise InputError on all ranks, naming those that differ, unless all have the same text as rank 0."""

    def ending(self) -> AbstractContextManager[None]:
        """Report an error that leaves the `with` block, and end the job, with exit code 2, 130 (Ctrl-C) or 1.

        Without an error, all ranks leave the block together.
        """


class Alone:
    """A process outside of any job: the only rank."""

    number = 0
    count = 1

    def sum(self, values: Array, sums: Sums) -> None:
        """Do nothing, as there is one vector."""

    def broadcast(self, values: Array) -> None:
        """Do nothing."""

    def gather(self, text: str) -> list[str]:
        """Return the only text."""
        return [text]

    def agree(self, where: str, digest: str) -> None:
        """Do nothing."""

    def ending(self) -> AbstractContextManager[None]:
        """Leave errors alone."""
        return nullcontext()


class MPIRanks:
    """The ranks of the MPI job that this process belongs to.

    MPI only carries the numbers, and NumPy adds them: MPI's own sums promise no order.
    """

    def __init__(self, communicator: "Intracomm") -> None:
        self.number = communicator.rank
        self.count = communicator.size
        self._communicator = communicator
        self._received = np.empty(0, np.uint8)

    def sum(self, values: Array, sums: Sums) -> None:
        """Add up the vectors: 2 log2(R) messages from each of R ranks, with 2 (R - 1) / R times the vector in all.

        Two ranks that meet exchange halves, and each adds up one half, up to the root of the tree (which term comes
        first makes no difference to a sum of two). Then they exchange the sums in the reverse order. Ranks without a
        vector get the sum from rank 0.
        """
        plan = _exchanges(values.size, tuple(sums), self.number)
        received = self._room(values)
        for exchanges in plan:
            self._swap(exchanges, values, received)
            for exchange in exchanges:
                values[exchange.kept] += received[exchange.kept]
        for exchanges in reversed(plan):
            self._swap([exchange.back() for exchange in exchanges], values, values)
        if len({0}.union(*sums)) < self.count:
            self.broadcast(values)

    def broadcast(self, values: Array) -> None:
        """Overwrite the array with rank 0's."""
        self._wait([self._communicator.Ibcast(values)])

    def gather(self, text: str) -> list[str]:
        """Gather the ranks' texts, once all ranks are here."""
        self._wait([self._communicator.Ibarrier()])
        return self._communicator.allgather(text)

    def agree(self, where: str, digest: str) -> None:
        """Compare the ranks' texts."""
        digests = self.gather(digest)
        others = [str(rank) for rank, other in enumerate(digests) if other != digests[0]]
        if others:
            raise InputError(where, f"the same on all {self.count} ranks", f"another on {_listed(others)} than on 0")

    @contextmanager
    def ending(self) -> Iterator[None]:
        """End the job if an error leaves the `with` block; without this, the other ranks would wait forever."""
        try:
            yield
            self._wait([self._communicator.Ibarrier()])
        except (Exception, KeyboardInterrupt) as error:
            if self.number:
                time.sleep(GRACE)
            text, code = _report(self.number, error)
            print(text, file=sys.stderr, flush=True)
            time.sleep(DELIVERY)
            self._communicator.Abort(code)

    def _room(self, values: Array) -> Array:
        """Return a buffer like the values; one serves vectors of all sizes."""
        if self._received.size < values.nbytes:
            self._received = np.empty(values.nbytes, np.uint8)
        room: Array = self._received[: values.nbytes].view(values.dtype)
        return room

    def _swap(self, exchanges: "Sequence[Exchange]", values: Array, received: Array) -> None:
        """Send what is given of the values, and receive what is kept."""
        communicator, requests = self._communicator, []
        for exchange in exchanges:
            if exchange.kept.start < exchange.kept.stop:
                requests.append(communicator.Irecv(received[exchange.kept], exchange.other))
            if exchange.given.start < exchange.given.stop:
                requests.append(communicator.Isend(values[exchange.given], exchange.other))
        self._wait(requests)

    def _wait(self, requests: "Sequence[Request]") -> None:
        """Return once all requests are fulfilled. MPI's own waiting would keep the core busy throughout."""
        from mpi4py.MPI import Request

        start = time.monotonic()
        while not any(Request.Testall(requests) for _ in range(POLLS)):
            if time.monotonic() - start < PATIENCE:
                os.sched_yield()
            else:
                time.sleep(NAP)


def _report(rank: int, error: BaseException) -> tuple[str, int]:
    """Return one line, or a traceback for an error that is not expected, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return f"rank {rank}: interrupted", 130
    if isinstance(error, InputError | OSError):
        return f"rank {rank}: {error}", 2
    return "".join(traceback.format_exception(error)).rstrip(), 1


@dataclass(frozen=True)
class Exchange:
    """Two ranks hold sums of the same elements: this one gives some of its own away, and keeps and adds the others."""

    other: int
    given: slice
    kept: slice

    def back(self) -> "Exchange":
        """Return the exchange of the finished sums."""
        return Exchange(self.other, self.kept, self.given)


@cache
def _exchanges(size: int, sums: tuple[tuple[int, int], ...], rank: int) -> tuple[tuple[Exchange, ...], ...]:
    """Plan the exchanges of a rank (size: elements of the vector), for each of the sums that it takes part in.

    The ranks whose vectors are in a sum hold it together, each about the same share of its elements. Where two such
    groups are added, the two ranks that hold the same elements exchange: each keeps, and completes, some of them.
    """
    held = {head: [(0, size, head)] for pair in sums for head in pair}
    crews = dict.fromkeys(held, 1)
    plan = []
    for into, other in sums:
        firsts, seconds = held[into], held.pop(other)
        share = crews[into] / (crews[into] + crews[other])
        exchanges, pieces = [], []
        for start, stop in pairwise(sorted({start for start, _, _ in firsts + seconds} | {size})):
            middle = start + round((stop - start) * share)
            first, second = _holder(firsts, start), _holder(seconds, start)
            upper, lower = slice(start, middle), slice(middle, stop)
            pieces += [(start, middle, first), (middle, stop, second)]
            if rank == first:
                exchanges.append(Exchange(second, lower, upper))
            elif rank == second:
                exchanges.append(Exchange(first, upper, lower))
        held[into] = [piece for piece in pieces if piece[0] < piece[1]]
        crews[into] += crews.pop(other)
        if exchanges:
            plan.append(tuple(exchanges))
    return tuple(plan)


def _holder(held: list[tuple[int, int, int]], element: int) -> int:
    return held[bisect_right(held, element, key=itemgetter(0)) - 1][2]


def _listed(ranks: Sequence[str]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(ranks[:-1])} and {ranks[-1]}"


def launched(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a launcher, such as mpiexec, started this process."""
    return any(name in environment for name in LAUNCHED)


def join_ranks() -> Ranks:
    """Return the ranks of the MPI job that this process was started in, or, outside of a job, this process alone.

    Call it first, do everything else inside its `ending()`, and train with `Training(..., ranks=join_ranks())`: a rank
    that fails outside `ending()` leaves the others waiting, and the launcher reports nothing. Raises InputError if
    mpi4py or MPI is missing (extra `mpi`).
    """
    if not launched():
        return Alone()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        got = str(error).partition("\n")[0]
        raise InputError("mpiexec", "mpi4py and MPI (pip install 'lowered-cnn[mpi]')", got) from error
    return MPIRanks(MPI.COMM_WORLD)
