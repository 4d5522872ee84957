"""Fuzz the readers of files (extra `fuzz`; POSIX): `python scripts/fuzz.py idx onnx --runs 1000000 --finds finds`.

Atheris guides the mutations by coverage; where it is missing, they are random. An input is a find unless it is refused
by an InputError of one line, or read as an independent check has it, within limits of time and memory
(`scripts/fuzzing/target.py`). Finds are kept, and the fuzzing goes on.
"""

import argparse
import importlib
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, MutableSequence, Sequence
from contextlib import ExitStack
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzzing.target import Target  # imported when it can be instrumented

TARGETS = {
    "idx": "data:Idx",
    "npy": "data:Npy",
    "network": "storage:NetworkFile",
    "checkpoint": "storage:Checkpoint",
    "onnx": "onnx_models:OnnxModel",
    "config": "settings:RunSettings",
    "description": "settings:Description",
}
MEMORY = Path("/dev/shm")
LONGEST = 8192
"""The most bytes in an input."""
FRESH = 0.25
"""How often a mutation starts from a seed again: most inputs that reach new code are refused early."""
ENOUGH = 60
"""Seconds after which libFuzzer ends a process that does not come back from C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz one target after the other, each in a process, and print a table; return 1 if there were finds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)} (all)")
    parser.add_argument("--runs", type=int, default=100_000, help="executions of each target (100000)")
    parser.add_argument("--seconds", type=float, default=1e6, help="the most time for each target (no limit)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="where to keep inputs that reach new code, to go on from them")
    parser.add_argument("--finds", type=Path, default=Path("finds"), help="where to keep finds (finds)")
    parsed = parser.parse_args(arguments)
    if unknown := set(parsed.targets) - set(TARGETS):
        parser.error(f"TARGET: expected {', '.join(TARGETS)}, got {', '.join(sorted(unknown))}")
    print("| target | executions | read | seconds | edges covered | finds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    found = 0
    for name in parsed.targets or TARGETS:
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
            found += fuzz(name, parsed, Path(folder))
    return 1 if found else 0


def fuzz(name: str, parsed: argparse.Namespace, folder: Path) -> int:
    """Fuzz a target in a process of its own, which may die; print a line of the table, and return how many finds."""
    parsed.finds.mkdir(parents=True, exist_ok=True)
    log, start = parsed.finds / f"{name}.log", time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    counts = spawn.RawArray("q", 3)
    process = spawn.Process(target=run, args=(name, parsed, folder, log, counts))
    process.start()
    process.join()
    covered = re.findall(r"cov: (\d+)", log.read_text(errors="replace"))
    executions, read, kinds = counts[:]
    kinds += process.exitcode != 0  # a hang or fault in C, of which the log tells
    seconds = time.monotonic() - start
    edges = covered[-1] if covered else "not guided"
    print(f"| {name} | {executions:,} | {read:,} | {seconds:,.0f} | {edges} | {kinds} |", flush=True)
    return int(kinds)


def run(name: str, parsed: argparse.Namespace, folder: Path, log: Path, counts: MutableSequence[int]) -> None:
    """Fuzz in this process, whose words go to a log; count executions, inputs that were read, and kinds of finds."""
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    is_guided = find_spec("atheris") is not None
    target = instrumented(name, folder) if is_guided else plain_target(name, folder)
    once = counting(name, target, parsed.finds, counts)
    if not is_guided:
        blind(target, once, parsed.runs, parsed.seconds, parsed.seed)
        return
    corpus = (parsed.corpus or folder / "corpus") / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(content)
    guided(target, once, parsed, corpus)


def plain_target(name: str, folder: Path) -> "Target":
    """Return a target that puts its files into the folder."""
    module, kind = TARGETS[name].split(":")
    target: Target = getattr(importlib.import_module(f"fuzzing.{module}"), kind)(folder)
    return target


def instrumented(name: str, folder: Path) -> "Target":
    """Return a target whose reader tells Atheris where it goes."""
    import atheris

    with atheris.instrument_imports(include=["lowered_cnn"]):
        return plain_target(name, folder)


def counting(name: str, target: "Target", finds: Path, counts: MutableSequence[int]) -> Callable[[bytes], None]:
    """Return a function that executes the target once, counts, and keeps a find."""
    from fuzzing.target import Finds

    found = Finds(finds)

    def once(content: bytes) -> None:
        counts[0] += 1
        try:
            counts[1] += target.loads(content)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # all else that a reader lets through is a find
            found.add(name, content, error)
            counts[2] = len(found.kinds)

    return once


def guided(target: "Target", once: Callable[[bytes], None], parsed: argparse.Namespace, corpus: Path) -> None:
    """Let Atheris draw inputs, those that reach new code more often; ends the process."""
    import atheris

    from fuzzing.target import limited

    seeds, limits = list(target.seeds()), ExitStack()

    @cache
    def begin() -> None:
        limits.enter_context(limited())

    def execute(content: bytes) -> None:
        begin()  # not before Atheris has mapped its counters
        once(content)

    def mutate(content: bytes, most: int, seed: int) -> bytes:
        draw = Random(seed)
        if draw.random() < FRESH:
            content = draw.choice(seeds)
        return target.mutate(content, lambda part: bytes(atheris.Mutate(part, most)), draw)[:most]

    options = {
        "runs": parsed.runs,
        "max_total_time": int(parsed.seconds),
        "seed": parsed.seed,
        "max_len": LONGEST,
        "len_control": 0,
        "timeout": ENOUGH,
        "rss_limit_mb": 4096,
        "artifact_prefix": f"{parsed.finds}/",
    }
    atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(corpus)], execute,
                  custom_mutator=mutate)  # fmt: skip
    atheris.Fuzz()


def blind(target: "Target", once: Callable[[bytes], None], runs: int, seconds: float, seed: int) -> None:
    """Execute the seeds, then draw inputs from them at random: up to four mutations of each."""
    from fuzzing.mutations import bytes_changed
    from fuzzing.target import limited

    draw, end = Random(seed), time.monotonic() + seconds
    seeds = list(target.seeds())
    with limited():
        for number in range(runs):
            content = seeds[number] if number < len(seeds) else draw.choice(seeds)
            for _ in range(draw.randint(1, 4) if number >= len(seeds) else 0):
                content = target.mutate(content, lambda part: bytes_changed(part, draw), draw)[:LONGEST]
            once(content)
            if time.monotonic() > end:
                return


if __name__ == "__main__":
    sys.exit(main())
