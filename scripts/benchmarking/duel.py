"""The duels: in each round, a process of ours and one of the peer take turns, from one piece of work to the next."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarking.frameworks import Known
from benchmarking.processes import Process, ProcessError, process
from benchmarking.timing import Timing
from benchmarking.work import OURS, Pair, Subject, Work, read


@dataclass(frozen=True)
class Tournament:
    """What to measure: every combination, `rounds` times, for `seconds` each."""

    peers: Sequence[Known]
    modes: Sequence[str]
    allocators: Sequence[str]
    jobs: Sequence[str]
    networks: Sequence[str]
    batches: Sequence[int]
    cores: Sequence[int]
    environment: str
    rounds: int
    seconds: float

    def works(self, cores: int) -> list[Work]:
        """Return every combination of network and batch."""
        return [Work(network, batch, cores) for network in self.networks for batch in self.batches]

    def opponents(self) -> list["Opponent"]:
        """Return the peers in all their modes and settings, or one opponent without a subject if there are none."""
        return [
            Opponent(Subject(peer.name, mode, allocator), jobs)
            for peer in self.peers
            for mode in peer.modes
            for allocator in self.allocators
            if (not self.modes or mode in self.modes) and (jobs := [job for job in self.jobs if job in peer.jobs])
        ] or [Opponent(None, self.jobs)]


@dataclass(frozen=True)
class Opponent:
    """A peer, or None, and the jobs that it can do."""

    subject: Subject | None
    jobs: Sequence[str]


def fight(tournament: Tournament, cores: int, failed: Callable[[str], None]) -> Iterator[Pair]:
    """Run all rounds on so many cores; an opponent that fails is reported and left out from then on."""
    opponents = tournament.opponents()
    for _ in range(tournament.rounds):
        for opponent in list(opponents):
            try:
                yield from _round(tournament, opponent, cores)
            except PeerError as error:
                opponents.remove(opponent)
                failed(str(error))


class PeerError(RuntimeError):
    """A peer that did not answer, and why."""


def _round(tournament: Tournament, opponent: Opponent, cores: int) -> Iterator[Pair]:
    """Start our process and that of the opponent, which do one piece of work after the other, in turns."""
    subject, environment = opponent.subject, tournament.environment
    with ExitStack() as stack:
        us = stack.enter_context(process(cores, environment))
        peer = (
            stack.enter_context(process(cores, environment, subject.framework, subject.allocator)) if subject else None
        )
        for work in tournament.works(cores):
            ours = _times(us, Subject(OURS), work, opponent.jobs, tournament.seconds)
            try:
                theirs = _times(peer, subject, work, opponent.jobs, tournament.seconds) if peer and subject else {}
            except ProcessError as error:
                raise PeerError(f"{subject}; {work}: {error}") from error
            for job in opponent.jobs:
                yield Pair(job, work, ours[job], subject, theirs.get(job))


def _times(asked: Process, subject: Subject, work: Work, jobs: Sequence[str], seconds: float) -> dict[str, Timing]:
    answer = asked.ask(
        "measure",
        framework=subject.framework,
        mode=subject.mode,
        network=work.network,
        batch=work.batch,
        jobs=jobs,
        seconds=seconds,
    )
    assert isinstance(answer, dict)
    return {job: read(Timing, timing, "timing") for job, timing in answer.items()}
