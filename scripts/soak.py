"""Trains, stops, resumes, predicts and evaluates for an hour, and watches that the process holds no more than before.

Each round trains the same network with one and two workers by turns, stops at random steps, and resumes from the file;
the weights must end with the same bits in every round. A dozen times, the first one after a warm-up, a line tells what
the process holds: resident memory, open files, child processes (one of them is multiprocessing's own) and mappings of
shared memory. Exits with 1 if there is more of anything at the end than in the first line; memory may differ by 16 MiB,
as the allocator keeps more or less of what was freed. Linux only.
"""

import argparse
import gc
import os
import tempfile
import time
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from lowered_cnn import Augmentation, Dataset, Network, Recipe, Training, evaluate, load_mnist
from lowered_cnn.models import compact

RECIPE = Recipe(epochs=3, batch_size=100, augmentation=Augmentation(shift=1), average=0.9, patience=3)
STOPS = 3
"""How often a round stops and resumes."""

LINES = 12
SLACK = 16.0
"""MiB."""


@dataclass(frozen=True)
class Holdings:
    """What this process holds."""

    memory: float
    """MiB in RAM."""
    files: int
    children: int
    mappings: int
    """Of shared memory."""

    @classmethod
    def now(cls) -> "Holdings":
        """Count what is held, once garbage is collected."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        tasks = Path("/proc/self/task").glob("*/children")
        return cls(
            pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
            len(os.listdir("/proc/self/fd")),
            sum(len(task.read_text().split()) for task in tasks),
            Path("/proc/self/maps").read_text().count("/dev/shm/"),
        )

    def exceed(self, before: "Holdings") -> bool:
        """Return whether there is more of anything than before."""
        limits = (before.memory + SLACK, *astuple(before)[1:])
        return any(now > limit for now, limit in zip(astuple(self), limits, strict=True))


def train_in_parts(data: Dataset, dev: Dataset, rng: np.random.Generator, checkpoint: Path) -> bytes:
    """Train, stopping at random steps and resuming with another number of workers; return the final weights."""
    training = Training(Network(compact(), (1, 28, 28)), data, RECIPE, dev=dev, workers=2)
    for stop in range(STOPS):
        list(islice(training, int(rng.integers(training.steps // STOPS))))
        training.save(checkpoint)
        training.close()
        training = Training.resume(checkpoint, data, dev=dev, workers=1 + stop % 2)
        training.network.predict(dev.images)
        evaluate(training.network, dev)
    list(training)
    return training.network.parameters.vector.tobytes()


def soak(minutes: float) -> int:
    rng, mnist = np.random.default_rng(0), load_mnist().train
    data, dev = mnist.take(np.arange(1000)), mnist.take(np.arange(1000, 1200))
    start, told, rounds = time.monotonic(), 1, 1
    print("minutes   rounds   MiB   files   children   mappings")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "checkpoint.safetensors")
        expected = train_in_parts(data, dev, rng, checkpoint)
        first: Holdings | None = None
        while first is None or time.monotonic() - start < 60 * minutes:
            if train_in_parts(data, dev, rng, checkpoint) != expected:
                print(f"round {rounds + 1}: other weights")
                return 1
            rounds += 1
            passed = (time.monotonic() - start) / 60
            if passed >= told * minutes / LINES:
                told = int(passed * LINES / minutes) + 1
                now = Holdings.now()
                first = first or now
                row = f"{passed:7.1f} {rounds:8} {now.memory:5.0f} {now.files:7} {now.children:10} {now.mappings:10}"
                print(row, flush=True)
        return int(Holdings.now().exceed(first))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    return soak(parser.parse_args().minutes)


if __name__ == "__main__":
    raise SystemExit(main())
