"""Measure the package against other frameworks on the same cores, in separate processes that take turns."""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from benchmarking.cold_start import installed, starts
from benchmarking.costs import cost
from benchmarking.duel import Tournament, fight
from benchmarking.frameworks import PEERS, Known
from benchmarking.growth import points
from benchmarking.machine import machine, speed
from benchmarking.processes import ALLOCATORS, ENVIRONMENTS, ProcessError
from benchmarking.report import report
from benchmarking.work import JOBS, OURS, Results
from lowered_cnn.cli.arguments import Parser, at_least, between, positive
from lowered_cnn.cores import usable_cores
from lowered_cnn.models import MODELS

NETWORKS = ["lenet5", "caffe_lenet", "keras_mnist", "pytorch_mnist"]
MODES = [mode for peer in PEERS for mode in peer.modes]
Item = TypeVar("Item")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurements, or print earlier ones; return 0, 2 for an error, 130 if interrupted."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    try:
        for results in _merged(parsed.report) if parsed.report else [_measure(parsed)]:
            print("\n\n".join(report(results)))
    except (ProcessError, ValueError, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
    return 0


def _merged(paths: Sequence[Path]) -> list[Results]:
    """Read results and merge those that are alike."""
    merged: list[Results] = []
    for results in map(Results.read, paths):
        place = next((number for number, other in enumerate(merged) if other.alike(results)), None)
        if place is None:
            merged.append(results)
        else:
            merged[place] += results
    return merged


def _measure(parsed: argparse.Namespace) -> Results:
    results = Results(machine(), parsed.environment, parsed.rounds, parsed.seconds)
    for _ in _measurements(parsed, results):
        if parsed.json:
            results.write(parsed.json)
    return results


def _measurements(parsed: argparse.Namespace, results: Results) -> Iterator[None]:
    """Fill in the results one by one, and yield after each."""
    peers = _peers(parsed.against)
    frameworks = [OURS, *(peer.name for peer in peers)]
    results.installed = [installed(framework) for framework in frameworks]
    if parsed.cold_start:
        for start in starts(frameworks, parsed.rounds, usable_cores(), parsed.environment):
            results.starts.append(start)
            yield
    if parsed.growth:
        for point in points(parsed.environment, parsed.seconds):
            results.growth.append(point)
            yield
    if not (parsed.cold_start or parsed.growth):
        yield from _duels(_tournament(parsed, peers), results)
        yield  # the last peer may have failed


def _duels(tournament: Tournament, results: Results) -> Iterator[None]:
    def failed(text: str) -> None:
        _report(text)
        results.failures.append(text)

    results.costs = [cost(network, batch) for network in tournament.networks for batch in tournament.batches]
    for framework, count in itertools.product([OURS, *(peer.name for peer in tournament.peers)], tournament.cores):
        try:
            results.speeds.append(speed(framework, count, tournament.environment, tournament.seconds))
        except ProcessError as error:
            failed(f"{framework}, its speed: {error}")
    for cores in tournament.cores:
        for pair in fight(tournament, cores, failed):
            _report(f"{pair.work}; {pair.peer or OURS}: {pair.job}")
            results.pairs.append(pair)
            yield


def _tournament(parsed: argparse.Namespace, peers: Sequence[Known]) -> Tournament:
    allocators = list(ALLOCATORS) if parsed.allocator == "both" else [parsed.allocator]
    counts = list(dict.fromkeys(parsed.cores))
    return Tournament(
        peers, parsed.modes, allocators, parsed.jobs, parsed.networks, sorted(parsed.batches), counts,
        parsed.environment, parsed.rounds, parsed.seconds,
    )  # fmt: skip


def _peers(asked: list[str] | None) -> list[Known]:
    """Return the requested peers, by default those that are installed."""
    if asked is None:
        return [peer for peer in PEERS if peer.installed]
    peers = [peer for peer in PEERS if peer.name in asked]
    for peer in peers:
        if not peer.installed:
            raise ValueError(f"{peer.name} is not installed (pip install 'lowered-cnn[bench]')")
    return peers


def _report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> Parser:
    parser = Parser(prog="benchmark", description=__doc__)
    add = parser.add_argument
    add("--against", type=_list(_one_of([*(p.name for p in PEERS), "none"])), help="peers, or none (all installed)")
    add("--modes", type=_list(_one_of(MODES)), default=[], help="only these modes of the peers (all)")
    add("--jobs", type=_list(_one_of(JOBS)), default=list(JOBS), help=f"{', '.join(JOBS)} (both)")
    add("--networks", type=_list(_one_of(list(MODELS))), default=NETWORKS, help=f"({', '.join(NETWORKS)})")
    add("--batches", type=_list(at_least(1)), default=[1, 32, 128], help="(1,32,128)")
    add("--cores", type=_list(_core_count), default=[1, usable_cores()], help="core counts, or all (1,all)")
    add("--environment", choices=list(ENVIRONMENTS), default="user", help=_either(ENVIRONMENTS))
    add("--allocator", choices=[*ALLOCATORS, "both"], default="both", help="glibc's allocator for the peers (both)")
    add("--rounds", type=at_least(1), default=5, help="pairs of processes (%(default)s)")
    add("--seconds", type=positive(), default=1.0, help="timing of each job in each process (%(default)s)")
    add("--cold-start", action="store_true", help="measure imports, first predictions and installed sizes instead")
    add("--growth", action="store_true", help="measure how time and memory grow with batch and image instead")
    add("--json", type=Path, metavar="FILE", help="write all results, after every pair")
    add("--report", type=Path, nargs="+", metavar="FILE", help="print the tables of earlier results instead")
    return parser


def _either(described: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in described.items()) + " (%(default)s)"


def _list(parse: Callable[[str], Item]) -> Callable[[str], list[Item]]:
    return lambda text: [parse(item) for item in text.split(",")]


def _one_of(allowed: Sequence[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(allowed)}, got {text!r}")
        return text

    return parse


def _core_count(text: str) -> int:
    most = usable_cores()
    return most if text == "all" else between(1, most)(text)


if __name__ == "__main__":
    sys.exit(main())
