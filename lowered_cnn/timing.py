"""Timing: how long each layer takes in a training step on this machine, and what share of its peak that is."""

import time
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from statistics import median

import numpy as np
import numpy.typing as npt

from lowered_cnn.arrays import Array, Shape, whole_number
from lowered_cnn.cores import on_one_core
from lowered_cnn.fusion.fused import FusedConv
from lowered_cnn.gemm import listen, multiply
from lowered_cnn.layers.container import Stage, Tap, stages_of
from lowered_cnn.ledger import Bill
from lowered_cnn.network import Network, check_network

PEAK_SIZE, PEAK_TRIES = 1024, 5
"""M = K = N of the product whose speed is taken as the peak, and how often it is tried."""

MOST_SECONDS = 2.0
"""Steps are repeated no more once they have taken this long."""


@dataclass(frozen=True)
class Timing:
    """One layer, or several that run as one: its name, and the kinds of all layers in it.

    `output_shape` is without the batch, `flops` counts the multiplications and additions of its products in both
    directions, `forward` and `backward` are seconds, and `share` is the share of the peak: flops per second / peak.
    """

    name: str
    kinds: tuple[str, ...]
    output_shape: Shape
    flops: int
    forward: float
    backward: float
    share: float


@dataclass(frozen=True)
class Timings:
    """The layers of a training step of `batch` examples on one core.

    `peak` is the speed of a large product in the network's precision, in operations per second. `forward` and
    `backward` are the seconds of the whole network, with the joins of its branches.
    """

    batch: int
    repeats: int
    dtype: str
    peak: float
    forward: float
    backward: float
    rows: tuple[Timing, ...]

    @property
    def flops(self) -> int:
        """The number of multiplications and additions in all products."""
        return sum(row.flops for row in self.rows)

    @property
    def share(self) -> float:
        """The share of the peak that the whole step reaches."""
        return self.flops / (self.forward + self.backward) / self.peak


def timings(network: Network, batch: int = 32, *, repeats: int = 20, fused: bool = True) -> Timings:
    """Take some training steps with one BLAS thread, and return the median time of each layer, forward and backward.

    By default, these are steps as a worker of `train` takes them, over one shard: fused layers count as one, and their
    products are those of the fused form; Winograd's are smaller than the equations say. The time of a layer with
    branches is that of what joins them. There are fewer than `repeats` steps if they take seconds.
    """
    check_network("timings: network", network)
    whole_number("timings: repeats", repeats, 1)
    lowered = network.lower(batch, fused=fused)
    dtype = network.parameters.vector.dtype
    images: Array = np.random.default_rng(0).random((batch, *network.input_shape)).astype(dtype)
    dy: Array = np.full((batch, *network.output_shape), 1 / batch, dtype)
    forward, backward, clock = list[float](), list[float](), _Clock()
    with on_one_core(), np.errstate(all="ignore"):
        with listen() as products, lowered.tapped(bill := Bill(products)):  # the first step warms up, too
            lowered.forward(images)
            lowered.backward(dy)
        peak, begun = peak_flops(dtype.name), time.perf_counter()
        with lowered.tapped(clock):
            while len(forward) < repeats and (not forward or time.perf_counter() - begun < MOST_SECONDS):
                clock.inside = [0.0]
                start = time.perf_counter()
                lowered.forward(images)
                middle = time.perf_counter()
                lowered.backward(dy)
                forward.append(middle - start)
                backward.append(time.perf_counter() - middle)
    rows = tuple(_row(stage, bill, clock, peak) for stage in stages_of(lowered.layers))
    return Timings(batch, len(forward), dtype.name, peak, median(forward), median(backward), rows)


@cache
def peak_flops(dtype: str) -> float:
    """Return the operations per second of a large product in "float32" or "float64": the best of some, on one core."""
    size = (PEAK_SIZE, PEAK_SIZE)
    a, b = (np.random.default_rng(seed).random(size).astype(dtype) for seed in (0, 1))
    out: npt.NDArray[np.floating] = np.empty(size, dtype)

    def seconds() -> float:
        start = time.perf_counter()
        multiply("forward", a, b, out)
        return time.perf_counter() - start

    with on_one_core():
        return 2 * PEAK_SIZE**3 / min(seconds() for _ in range(PEAK_TRIES))


class _Clock(Tap):
    """Measures the seconds of each layer in each step, without those of the layers inside it."""

    def __init__(self) -> None:
        self.forwards = defaultdict[str, list[float]](list)
        self.backwards = defaultdict[str, list[float]](list)
        self.begun: list[float] = []
        self.inside = [0.0]

    def start(self, stage: Stage) -> None:
        """Start the clock of a layer."""
        self.inside.append(0.0)
        self.begun.append(time.perf_counter())

    def forward(self, stage: Stage, x: Array, y: Array) -> None:
        """Stop it."""
        self.forwards[stage.site.name].append(self._stop())

    def backward(self, stage: Stage, dy: Array, dx: Array | None) -> None:
        """Stop it."""
        self.backwards[stage.site.name].append(self._stop())

    def _stop(self) -> float:
        taken = time.perf_counter() - self.begun.pop()
        inside = self.inside.pop()
        self.inside[-1] += taken
        return taken - inside


def _row(stage: Stage, bill: Bill, clock: _Clock, peak: float) -> Timing:
    layer, name = stage.layer, stage.site.name
    forward, backward = (median(seconds.get(name, [0.0])) for seconds in (clock.forwards, clock.backwards))
    flops, taken = sum(product.flops for product in bill.products[name]), forward + backward
    kinds = layer.kinds if isinstance(layer, FusedConv) else (layer.kind,)
    return Timing(name, kinds, stage.y_shape[:-1], flops, forward, backward, flops / taken / peak if flops else 0.0)
