"""How time and memory grow: with the batch in a training step, and with the image size in one convolution."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarking.framework import Setting
from benchmarking.processes import process
from benchmarking.questions import INPUT_SHAPE
from benchmarking.timing import Timed
from benchmarking.timing import measure as time_run
from benchmarking.with_lowered_cnn import Measured
from benchmarking.work import OWN_MODE, Growth, read
from lowered_cnn import Conv2D, Network, Recipe, Sequential
from lowered_cnn.models import keras_mnist

BATCHES = tuple(2**power for power in range(11))
SIDES = (28, 56, 112, 224)
CHANNELS, FILTERS, KERNEL, IMAGES = 32, 64, 3, 4


def points(environment: str, seconds: float) -> Iterator[Growth]:
    """Measure every point on one core, each in a fresh process."""
    for axis, sizes in (("batch", BATCHES), ("side", SIDES)):
        for size in sizes:
            with process(1, environment) as fresh:
                yield read(Growth, fresh.ask("growth", axis=axis, size=size, seconds=seconds), axis)


def growth(axis: str, size: int, cores: int, seconds: float) -> dict[str, object]:
    """Measure one point, in this process."""
    base = _peak_memory()
    batch = size if axis == "batch" else IMAGES
    run, workspace = _training(size, cores) if axis == "batch" else _convolution(size)
    step = time_run(run, seconds)
    return dataclasses.asdict(Growth(axis, size, batch, step, _peak_memory() - base, workspace))


def _training(batch: int, cores: int) -> tuple[Timed, int]:
    """Train keras_mnist; the workspace is that of one worker, which runs one shard of the batch at a time."""
    network = Network(keras_mnist(), INPUT_SHAPE)
    workspace = network.lower(min(batch, Recipe(batch_size=batch).largest_shard)).workspace.bytes
    return Measured(network, Setting(OWN_MODE, batch, cores)).training(), workspace


def _convolution(side: int) -> tuple[Timed, int]:
    """Run one convolution, 3 x 3, 32 channels to 64, forward and backward, with all three gradients."""
    network = Network(Sequential(Conv2D(FILTERS, KERNEL)), (CHANNELS, side, side))
    lowered = network.lower(IMAGES, wants_dx=True)
    images = np.random.default_rng(0).random((IMAGES, *network.input_shape), np.float32)
    return Timed(lambda: lowered.backward(lowered.forward(images))), lowered.workspace.bytes


def _peak_memory() -> int:
    """Return the peak memory of this process in bytes.

    It is read from /proc because the peak of `getrusage` includes the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
