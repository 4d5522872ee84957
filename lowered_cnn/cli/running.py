"""A training on its way: the progress bar, a line of metrics per step, checkpoints, and stopping in order."""

import dataclasses
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TextIO

import numpy as np
from tqdm import tqdm

from lowered_cnn import Record, Training
from lowered_cnn.cli.run_folder import RunFolder
from lowered_cnn.cli.stopping import Stopping
from lowered_cnn.training.ranks import Ranks

USUAL = 60.0
"""Seconds between checkpoints."""

SHARE = 0.01
"""Of the time, how much checkpoints at the ends of short epochs may take."""


@dataclass(frozen=True)
class Interval:
    """How often a checkpoint is written: after so many steps, or seconds."""

    steps: int | None = None
    seconds: float | None = None


class Checkpoints:
    """Writes a run's checkpoints, at an interval or, without one, once a minute and at the end of each epoch."""

    def __init__(self, folder: RunFolder, interval: Interval | None) -> None:
        self._folder = folder
        self._interval = interval
        self._written = time.monotonic()
        self._cost = 0.0
        self._told: str | None = None

    def are_due(self, record: Record) -> bool:
        """Return whether one should be written after this step; when epochs are short, not after each of them."""
        waited = time.monotonic() - self._written
        if self._interval is None:
            return waited >= USUAL or (record.ends_epoch and self._cost <= SHARE * waited)
        if self._interval.steps is not None:
            return record.step % self._interval.steps == 0
        return waited >= (self._interval.seconds or 0.0)

    def write(self, training: Training) -> None:
        """Write one. If there is no room, say so once and go on: the one before stays, and the next may succeed."""
        start, told = time.monotonic(), None
        try:
            training.save(self._folder.checkpoint)
        except OSError as error:
            told = f"{error.filename}: expected room for a checkpoint, got {error.strerror}"
            if told != self._told:
                warn(f"{told}; training goes on without one")
        self._told = told
        self._written = time.monotonic()
        self._cost = self._written - start


class Metrics:
    """The lines of `metrics.jsonl`, one per step; if they cannot be written any more, training goes on without."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file

    def write(self, record: Record) -> None:
        """Write a line."""
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(dataclasses.asdict(record)) + "\n")
        except OSError as error:
            warn(f"{self._file.name}: expected room for a line, got {error.strerror}; training goes on without")
            self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None


@contextmanager
def metrics_of(folder: RunFolder, steps: int) -> Iterator[Metrics]:
    """Go on with the metrics behind those of the first steps."""
    metrics = Metrics(folder.open_metrics(steps))
    try:
        yield metrics
    finally:
        metrics.close()


def follow(training: Training, folder: RunFolder, interval: Interval | None, ranks: Ranks) -> signal.Signals | None:
    """Take the steps that are left; return the signal that stopped it, if one did. Either way, leave a checkpoint."""
    checkpoints = Checkpoints(folder, interval)
    with _bar(training) as bar, metrics_of(folder, training.step) as metrics, _steady(), Stopping() as stopping:
        for record in training:
            metrics.write(record)
            bar.set_postfix_str(f"epoch {record.epoch}, loss {record.loss:.3f}", refresh=False)
            bar.update()
            if record.ends_epoch:
                with suppress(OSError):  # training goes on even if the line cannot be written
                    bar.write(_line(record, training.recipe.epochs), file=sys.stderr)
            if stopping.agreed(ranks):
                break
            if not training.finished and checkpoints.are_due(record):
                checkpoints.write(training)
        checkpoints.write(training)
        return None if training.finished else stopping.signal


def follow_along(training: Training, ranks: Ranks) -> signal.Signals | None:
    """Take the steps that are left on a rank that neither prints nor writes."""
    with _steady(), Stopping() as stopping:
        for _ in training:
            if stopping.agreed(ranks):
                break
        return None if training.finished else stopping.signal


def warn(line: str) -> None:
    """Write a line to stderr, if that can be written to."""
    with suppress(OSError):
        tqdm.write(f"lowered-cnn train: {line}", file=sys.stderr)


def _bar(training: Training) -> "tqdm[object]":
    return tqdm(total=training.steps, initial=training.step, unit="step", disable=None, dynamic_ncols=True)


def _steady() -> np.errstate:
    return np.errstate(over="ignore", invalid="ignore")  # a loss that is not finite is reported once, in one line


def _line(record: Record, epochs: int) -> str:
    accuracy = "" if record.dev_accuracy is None else f", dev accuracy {record.dev_accuracy:.2%}"
    speed = f"{record.images_per_second:,.0f} images/s"
    return f"epoch {record.epoch} of {epochs}: loss {record.epoch_loss:.4f}{accuracy}, {speed}"
