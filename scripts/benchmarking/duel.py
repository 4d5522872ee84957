"""The duels: for each piece of work, our process and the peer's take turns, round after round."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarking.frameworks import Known
from benchmarking.processes import ProcessError, ask
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
    rounds: int
    seconds: float

    def works(self) -> list[Work]:
        """Return every combination of network, batch and cores."""
        return [Work(*work) for work in itertools.product(self.networks, self.batches, self.cores)]

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


def fight(tournament: Tournament, work: Work, failed: Callable[[str], None]) -> Iterator[Pair]:
    """Run all rounds of one piece of work; an opponent that fails is reported and left out from then on."""
    opponents = tournament.opponents()
    for _ in range(tournament.rounds):
        for opponent in list(opponents):
            ours = _times(Subject(OURS), work, opponent.jobs, tournament.seconds)
            try:
                theirs = _times(opponent.subject, work, opponent.jobs, tournament.seconds)
            except ProcessError as error:
                opponents.remove(opponent)
                failed(f"{opponent.subject}; {work}: {error}")
                continue
            for job in opponent.jobs:
                yield Pair(job, work, ours[job], opponent.subject, theirs.get(job))


def _times(subject: Subject | None, work: Work, jobs: Sequence[str], seconds: float) -> dict[str, Timing]:
    if subject is None:
        return {}
    answer = ask(
        "measure",
        work.cores,
        subject.allocator,
        framework=subject.framework,
        mode=subject.mode,
        network=work.network,
        batch=work.batch,
        jobs=jobs,
        seconds=seconds,
    )
    assert isinstance(answer, dict)
    return {job: read(Timing, timing, "timing") for job, timing in answer.items()}
