"""A training under way: its progress bar, a line of metrics per step, its checkpoints, and an orderly stop."""

import dataclasses
import json
import signal
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TextIO

import numpy as np
from tqdm import tqdm

from lowered_cnn import Record, Training
from lowered_cnn.cli.run_folder import RunFolder
from lowered_cnn.cli.stopping import Stopping

USUAL = 60.0
"""Seconds between checkpoints."""

SHARE = 0.01
"""The share of the time that checkpoints at the ends of short epochs may take."""


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
        self._warned: str | None = None

    def are_due(self, record: Record) -> bool:
        """Return whether one should be written after this step; when epochs are short, not after each of them."""
        waited = time.monotonic() - self._written
        if self._interval is None:
            return waited >= USUAL or (record.ends_epoch and self._cost <= SHARE * waited)
        if self._interval.steps is not None:
            return record.step % self._interval.steps == 0
        return waited >= (self._interval.seconds or 0.0)

    def write(self, training: Training) -> None:
        """Write one. If there is no room, warn once and go on: the previous one stays, and the next may succeed."""
        start, line = time.monotonic(), None
        try:
            training.save(self._folder.checkpoint)
        except OSError as error:
            line = f"{error.filename}: expected room for a checkpoint, got {error.strerror}"
            if line != self._warned:
                warn(f"{line}; training goes on without one")
        self._warned = line
        self._written = time.monotonic()
        self._cost = self._written - start


class Metrics:
    """The lines of `metrics.jsonl`, one per step; if they cannot be written, training goes on without."""

    def __init__(self, folder: RunFolder, steps: int) -> None:
        """Go on after the lines of the first steps."""
        self._file: TextIO | None = None
        try:
            self._file = folder.open_metrics(steps)
        except OSError as error:
            warn(f"{folder.metrics}: expected a file to write, got {error.strerror}")

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


class Progress:
    """What the bar tells: means over the steps of an epoch so far, in this process."""

    def __init__(self) -> None:
        self._epoch = self._steps = 0
        self._loss = self._accuracy = 0.0

    def after(self, record: Record) -> str:
        """Return the mean loss and training accuracy, and the speed, after a step."""
        if record.epoch != self._epoch:
            self._epoch, self._steps, self._loss, self._accuracy = record.epoch, 0, 0.0, 0.0
        self._steps += 1
        self._loss += record.loss
        self._accuracy += record.train_accuracy or 0.0
        loss, accuracy = self._loss / self._steps, self._accuracy / self._steps
        speed = f"{record.images_per_second:,.0f} images/s"
        return f"epoch {record.epoch}, loss {loss:.3f}, accuracy {accuracy:.1%}, {speed}"


def follow(training: Training, folder: RunFolder, interval: Interval | None) -> signal.Signals | None:
    """Take the steps that are left; return the signal that stopped it, if one did. Either way, leave a checkpoint."""
    checkpoints, metrics, progress = Checkpoints(folder, interval), Metrics(folder, training.step), Progress()
    with closing(metrics), _bar(training) as bar, _steady(), Stopping() as stopping:
        for record in training:
            metrics.write(record)
            bar.set_postfix_str(progress.after(record), refresh=False)
            bar.update()
            if record.ends_epoch:
                with suppress(OSError):  # training goes on even if the line cannot be written
                    bar.write(_line(record, training.recipe.epochs), file=sys.stderr)
            if stopping.agreed(training.engine):
                break
            if not training.finished and checkpoints.are_due(record):
                checkpoints.write(training)
        checkpoints.write(training)
        return None if training.finished else stopping.signal


def follow_along(training: Training) -> signal.Signals | None:
    """Take the steps that are left on a rank that neither prints nor writes."""
    with _steady(), Stopping() as stopping:
        for _ in training:
            if stopping.agreed(training.engine):
                break
        return None if training.finished else stopping.signal


def warn(line: str) -> None:
    """Write a line to stderr, if that can be written to."""
    with suppress(OSError):
        tqdm.write(f"lowered-cnn train: {line}", file=sys.stderr)


def _bar(training: Training) -> "tqdm[object]":
    shown = "{percentage:3.0f}%|{bar}| {remaining} left{postfix}"
    return tqdm(total=training.steps, initial=training.step, bar_format=shown, disable=None, dynamic_ncols=True)


def _steady() -> np.errstate:
    return np.errstate(over="ignore", invalid="ignore")  # a loss that is not finite is reported once, in one line


def _line(record: Record, epochs: int) -> str:
    accuracy = "" if record.dev_accuracy is None else f", dev accuracy {record.dev_accuracy:.2%}"
    speed = f"{record.images_per_second:,.0f} images/s"
    return f"epoch {record.epoch} of {epochs}: loss {record.epoch_loss:.4f}{accuracy}, {speed}"
