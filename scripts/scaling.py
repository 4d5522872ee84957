"""Measure the sum over ranks (`mpiexec -n 4 python scripts/scaling.py`); without mpiexec, model steps on many machines.

With a number of workers (`mpiexec -n 2 python scripts/scaling.py 1`), measure the steps of trainings instead. The model
takes the time of a shard on this core, and the latency and bandwidth of three networks on paper.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from lowered_cnn import Network, Recipe, Training, load_mnist, models
from lowered_cnn.cores import on_one_core
from lowered_cnn.training.ranks import MPIRanks, Ranks, join_ranks, launched
from lowered_cnn.training.reduction import deal

SIZES = (2, 35_000, 200_000, 1_200_000)
"""Numbers in a vector: a batch's totals, and parameters as in keras_mnist, between, and pytorch_mnist."""

ROUNDS = 50
SHARD = 32
BATCH, STEPS = 512, 20
"""The batches of the trainings, and how many steps they take after the first."""
BATCHES = (64, 512, 16_384)
RANKS = (8, 64, 512)

WIRES = {"1 Gbit/s": (20e-6, 1e9 / 8), "10 Gbit/s": (20e-6, 10e9 / 8), "100 Gbit/s": (2e-6, 100e9 / 8)}
"""Latency in seconds, of TCP and of a fabric, and bytes per second."""


def measure(ranks: Ranks) -> None:
    """Print the median time of a sum over the ranks, each of which has a vector; rank 0 prints."""
    sums = deal(range(ranks.count), range(ranks.count)).sums
    for size in SIZES:
        values = np.zeros(size, np.float32)
        milliseconds = 1e3 * median(partial(ranks.sum, values, sums), partial(ranks.agree, "start", ""))
        if ranks.number == 0:
            print(f"{ranks.count} ranks, {size:>9,} float32: {milliseconds:.3f} ms", flush=True)


class Counting:
    """A communicator that counts the bytes that this rank sends to another one."""

    def __init__(self, communicator: Any) -> None:
        self._communicator = communicator
        self.sent = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._communicator, name)

    def Isend(self, values: Any, other: int) -> Any:  # noqa: N802
        """Send, and count."""
        self.sent += values.nbytes
        return self._communicator.Isend(values, other)


def measure_steps(workers: int) -> None:
    """Print the median times of a step of trainings, and what each rank sends in it.

    One is by the clock. The other is processor time of rank 0 (without its children), which says more on a machine that
    is busy with something else.
    """
    from mpi4py import MPI

    communicator: Any = Counting(MPI.COMM_WORLD)
    ranks = MPIRanks(communicator)
    with ranks.ending():
        data = load_mnist().train.take(np.arange(BATCH * (STEPS + 1)))
        for name in ("lenet5", "pytorch_mnist"):
            network = Network(models.MODELS[name](10), (1, 28, 28))
            with Training(network, data, Recipe(1, BATCH, shard_size=SHARD), workers=workers, engine=ranks) as training:
                next(training)
                communicator.sent = 0
                clocks = [(time.perf_counter(), time.process_time())]
                for _ in range(STEPS):
                    next(training)
                    clocks.append((time.perf_counter(), time.process_time()))
            wall, processor = 1e3 * np.median(np.diff(clocks, axis=0), axis=0)
            sent = [f"{int(text) / STEPS / 1000:,.1f}" for text in ranks.gather(str(communicator.sent))]
            if ranks.number == 0:
                setting = f"ranks {ranks.count}, workers {workers}"
                times = f"{wall:.2f} ms per step, {processor:.2f} ms of the processor"
                print(f"{name}, {setting}: {times}, {', '.join(sent)} kB sent", flush=True)


def median(run: Callable[[], object], prepare: Callable[[], object] = lambda: None) -> float:
    """Return the median time of a run in seconds; the first does not count."""
    times = []
    for _ in range(ROUNDS + 1):
        prepare()
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def model() -> None:
    """Print how many times as fast as one rank a step is, with one core per rank."""
    print("| network | batch | 1 rank, ms |", *(f"{wire}: {'/'.join(map(str, RANKS))} |" for wire in WIRES))
    print("| --- | ---: | ---: |", *["---: |"] * len(WIRES))
    for name in ("lenet5", "keras_mnist", "pytorch_mnist", "deep"):
        network = Network(getattr(models, name)(10), (1, 28, 28))
        shard = shard_seconds(network)
        for batch in BATCHES:
            shards = -(-batch // SHARD)
            size = network.parameters.vector.nbytes
            gains = (
                [shards * shard / step_seconds(shards, shard, size, count, *wire) for count in RANKS]
                for wire in WIRES.values()
            )
            cells = (" / ".join(f"{gain:.3g}" for gain in row) for row in gains)
            print(f"| {name} | {batch:,} | {1e3 * shards * shard:.3g} |", *(f"{cell} |" for cell in cells))


def shard_seconds(network: Network) -> float:
    """Measure the gradient of one shard."""
    lowered = network.lower(SHARD, seed=0)
    rng = np.random.default_rng(0)
    images = rng.random((SHARD, *network.input_shape), np.float32)
    dz = rng.standard_normal((SHARD, *network.output_shape)).astype(np.float32)
    with on_one_core():
        return median(lambda: (lowered.forward(images, position=(0, 0)), lowered.backward(dz)))


def step_seconds(shards: int, shard: float, size: int, count: int, latency: float, bandwidth: float) -> float:
    """Return the time of a step: a rank's shards, then the sums of gradients (`size` bytes) and of totals.

    Both sums go up the tree of the ranks that have shards and back; then the other ranks receive the result.
    """
    busy = min(count, shards)
    seconds = math.ceil(shards / busy) * shard
    seconds += 4 * math.ceil(math.log2(busy)) * latency + 2 * (busy - 1) / busy * size / bandwidth
    if busy < count:
        seconds += math.ceil(math.log2(count)) * (2 * latency + size / bandwidth)
    return seconds


if __name__ == "__main__":
    if not launched():
        model()
    elif sys.argv[1:]:
        measure_steps(int(sys.argv[1]))
    else:
        ranks = join_ranks()
        with ranks.ending():
            measure(ranks)
