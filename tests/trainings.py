"""Trainings that tests interrupt and resume, and what must be the same however one came to its end.

As a program, under mpiexec or not: `trainings.py WORKERS STEPS CHECKPOINT...` takes up to so many steps from each
checkpoint, prints their records on rank 0, and writes the checkpoint anew.
"""

import dataclasses
import itertools
import sys
from hashlib import sha256
from typing import Any

import numpy as np

from lowered_cnn import BatchNorm, Conv2D, Dataset, Dense, Dropout, Flatten, Record, ReLU, Sequential, State, Training
from lowered_cnn.training import join_ranks

SHAPE = (1, 8, 8)
MODEL = Sequential(Conv2D(4, 3), BatchNorm(), ReLU(), Dropout(0.25), Flatten(), BatchNorm(), Dense(3))


def noise(count: int = 100, seed: int = 0, shape: tuple[int, ...] = SHAPE, classes: int = 3) -> Dataset:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    return Dataset(images, rng.integers(0, classes, count), tuple(map(str, range(classes))))


DATA, DEV = noise(), noise(40, seed=1)
MANY = noise(230)
"""What the program trains on: up to eight shards in a batch."""


def timeless(record: Record) -> Record:
    return dataclasses.replace(record, images_per_second=0)


def contents(state: State) -> dict[str, Any]:
    """Return all of a state but the time it took, arrays as their bytes."""
    found = {field.name: getattr(state, field.name) for field in dataclasses.fields(State) if field.name != "seconds"}
    found["history"] = [timeless(record) for record in state.history]
    found["buffers"] = {name: buffer.tobytes() for name, buffer in state.buffers.items()}
    for name in ("parameters", "average", "best"):
        found[name] = None if found[name] is None else found[name].tobytes()
    return found


def outcome(training: Training, records: list[Record]) -> tuple[Any, ...]:
    """Return what must be the same however a training came to its end."""
    weights = training.network.parameters.vector.tobytes()
    return weights, [timeless(record) for record in records], contents(training.state())


def lines(records: list[Record]) -> str:
    return "".join(f"{timeless(record)}\n" for record in records)


def main(workers: int, steps: int, paths: list[str]) -> None:
    ranks = join_ranks()
    with ranks.ending():
        for path in paths:
            with Training.resume(path, MANY, dev=DEV, workers=workers, engine=ranks) as training:
                records = list(itertools.islice(training, steps))
                ranks.agree("outcome", sha256(repr(outcome(training, records)).encode()).hexdigest())
                training.save(path)
            if ranks.number == 0:
                sys.stdout.write(lines(records))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
