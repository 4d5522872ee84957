"""Measure three design decisions: batch innermost, columns in blocks, gradients summed by a fixed tree."""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lowered_cnn import Network
from lowered_cnn.arrays import Array
from lowered_cnn.cores import on_one_core
from lowered_cnn.models import keras_mnist

BATCH = 32
LAYERS = {"1 channel of 28 x 28, 6 filters of 5 x 5": (1, 28, 6, 5), "32 of 13 x 13, 64 of 3 x 3": (32, 13, 64, 3)}
"""Channels, size, filters and kernel."""

BLOCK_BYTES: tuple[int | None, ...] = (2**14, 2**16, 2**18, 2**19, 2**21, 2**23, None)


def milliseconds(contenders: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Return the median time of each, taken in turn."""
    times: list[list[float]] = [[] for _ in contenders]
    for _ in range(rounds + 1):
        for contender, taken in zip(contenders, times, strict=True):
            start = time.perf_counter()
            contender()
            taken.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(taken[1:]) for taken in times]


class Convolution:
    """The forward pass of a convolution, max pooling and ReLU, and col2im, with arrays in memory as CHWN or NHWC.

    All are viewed as (C, H, W, N) or (C, KH, KW, OH, OW, N): NumPy traverses views in memory order.
    """

    def __init__(self, channels: int, size: int, filters: int, kernel: int, *, innermost: bool) -> None:
        self.innermost, self.kernel, self.positions = innermost, kernel, size - kernel + 1
        positions = self.positions
        rng = np.random.default_rng(0)
        self.weight = rng.standard_normal((filters, channels * kernel * kernel), np.float32)
        self.x, self.dx = (self.new(channels, size, size, BATCH) for _ in range(2))
        self.x[...] = rng.standard_normal(self.x.shape, np.float32)
        self.y = self.new(filters, positions, positions, BATCH)
        self.pooled = self.new(filters, positions // 2, positions // 2, BATCH)
        if innermost:
            self.memory = np.empty((channels, kernel, kernel, positions, positions, BATCH), np.float32)
            self.columns = self.memory
        else:
            self.memory = np.empty((BATCH, positions, positions, kernel, kernel, channels), np.float32)
            self.columns = self.memory.transpose(5, 3, 4, 1, 2, 0)

    def new(self, channels: int, height: int, width: int, batch: int) -> Array:
        """Return an activation, viewed as (C, H, W, N)."""
        if self.innermost:
            return np.zeros((channels, height, width, batch), np.float32)
        return np.zeros((batch, height, width, channels), np.float32).transpose(3, 1, 2, 0)

    def taps(self, x: Array) -> Iterator[tuple[tuple[int, int], Array]]:
        """Yield each tap of the window and the inputs it reads."""
        for a, b in itertools.product(range(self.kernel), repeat=2):
            yield (a, b), x[:, a : a + self.positions, b : b + self.positions]

    def im2col(self) -> None:
        """Copy each tap of all windows."""
        for (a, b), windows in self.taps(self.x):
            np.copyto(self.columns[:, a, b], windows)

    def product(self) -> None:
        """Multiply; the result is the next activation."""
        filters, length = self.weight.shape
        if self.innermost:
            np.matmul(self.weight, self.memory.reshape(length, -1), out=self.y.reshape(filters, -1))
        else:
            out = self.y.transpose(3, 1, 2, 0).reshape(-1, filters)
            np.matmul(self.memory.reshape(-1, length), self.weight.T, out=out)

    def pool(self) -> None:
        """Take the maximum over 2 x 2, then the maximum of that and 0."""
        even = self.positions // 2 * 2
        first, *taps = (self.y[:, a:even:2, b:even:2] for a, b in itertools.product(range(2), repeat=2))
        np.maximum(first, taps[0], out=self.pooled)
        for tap in taps[1:]:
            np.maximum(self.pooled, tap, out=self.pooled)
        np.maximum(self.pooled, np.float32(0), out=self.pooled)

    def col2im(self) -> None:
        """Add each tap of all windows."""
        self.dx.fill(0)
        for (a, b), target in self.taps(self.dx):
            np.add(target, self.columns[:, a, b], out=target)


def innermost(rounds: int) -> None:
    """Time the parts of a convolution in both layouts."""
    for name, layer in LAYERS.items():
        ours, theirs = Convolution(*layer, innermost=True), Convolution(*layer, innermost=False)
        print(f"{name}, batch {BATCH}")
        print(f"{'ms':<10}{'(C, H, W, N)':>14}{'(N, H, W, C)':>14}{'ratio':>8}")
        for part in ("im2col", "product", "pool", "col2im"):
            here, there = milliseconds([getattr(ours, part), getattr(theirs, part)], rounds)
            print(f"{part:<10}{here:>14.3f}{there:>14.3f}{there / here:>8.2f}")


def blocks(rounds: int) -> None:
    """Time a training step with several block sizes, and print the memory that it takes."""
    network = Network(keras_mnist(), (1, 28, 28))
    images = np.random.default_rng(0).random((4 * BATCH, 1, 28, 28), np.float32)
    lowered = [network.lower(4 * BATCH, fused=False, block_bytes=size) for size in BLOCK_BYTES]

    def step(number: int) -> None:
        lowered[number].backward(lowered[number].forward(images))

    times = milliseconds([lambda number=number: step(number) for number in range(len(lowered))], rounds)  # type: ignore[misc]
    print(f"{'block':>10}{'ms':>10}{'buffers':>12}")
    for size, taken, each in zip(BLOCK_BYTES, times, lowered, strict=True):
        name = "one" if size is None else f"{size // 1024} KiB"
        print(f"{name:>10}{taken:>10.2f}{each.workspace.bytes / 2**20:>8.1f} MiB")


def tree(rounds: int) -> None:
    """Sum the gradients of 8 shards in several orders; print how many bits differ, the error and the time."""
    rng = np.random.default_rng(0)
    shards = rng.standard_normal((8, 200_000)).astype(np.float32)
    exact = shards.sum(axis=0, dtype=np.float64)

    def row(order: Sequence[int]) -> Array:
        total: Array = shards[order[0]].copy()
        for number in order[1:]:
            np.add(total, shards[number], out=total)
        return total

    def pairs() -> Array:
        sums: Array = shards.copy()
        for width in (1, 2, 4):
            for left in range(0, 8, 2 * width):
                np.add(sums[left], sums[left + width], out=sums[left])
        total: Array = sums[0]
        return total

    first = row(range(8))
    others = [float(np.mean(row(rng.permutation(8).tolist()) != first)) for _ in range(10)]
    print(f"added in order of arrival: {statistics.mean(others):.0%} of the numbers have different bits")
    for name, total in (("in a row", first), ("by a tree", pairs())):
        print(f"{name + ':':<11}mean error {np.abs(total - exact).mean():.1e}")
    in_a_row, by_a_tree, copied = milliseconds([lambda: row(range(8)), pairs, shards.copy], rounds)
    print(f"8 shards of 200,000 numbers: in a row {in_a_row:.2f} ms, by a tree {by_a_tree - copied:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    decisions = {"innermost": innermost, "blocks": blocks, "tree": tree}
    parser.add_argument("decision", choices=decisions)
    parser.add_argument("--rounds", type=int, default=15, help="measurements of each (%(default)s)")
    arguments = parser.parse_args()
    with on_one_core():
        decisions[arguments.decision](arguments.rounds)


if __name__ == "__main__":
    main()
