"""Measure the sum over ranks (`mpiexec -n 4 python scripts/scaling.py`); without mpiexec, model steps on many machines.

The model takes the time of a shard on this core, and the latency and bandwidth of three networks on paper.
"""

import math
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from lowered_cnn import Network, models
from lowered_cnn.cores import one_blas_thread
from lowered_cnn.training.ranks import Ranks, launched, ranks
from lowered_cnn.training.reduction import deal

SIZES = (2, 35_000, 200_000, 1_200_000)
"""Numbers in a vector: a batch's totals, and parameters as in keras_mnist, between, and pytorch_mnist."""

ROUNDS = 50
SHARD = 32
BATCHES = (64, 512, 16_384)
RANKS = (8, 64, 512)

WIRES = {"1 Gbit/s": (20e-6, 1e9 / 8), "10 Gbit/s": (20e-6, 10e9 / 8), "100 Gbit/s": (2e-6, 100e9 / 8)}
"""Latency in seconds, of TCP and of a fabric, and bytes per second."""


def measure(job: Ranks) -> None:
    """Print the median time of a sum over the ranks, each of which has a vector; rank 0 prints."""
    sums = deal(range(job.count), range(job.count)).sums
    for size in SIZES:
        values = np.zeros(size, np.float32)
        milliseconds = 1e3 * median(partial(job.sum, values, sums), partial(job.agree, "start", ""))
        if job.number == 0:
            print(f"{job.count} ranks, {size:>9,} float32: {milliseconds:.3f} ms", flush=True)


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
    for name in ("lenet5", "compact", "keras_mnist", "pytorch_mnist", "deep"):
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
    with one_blas_thread():
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
    job = ranks()
    with job.ending():
        if launched():
            measure(job)
        else:
            model()
