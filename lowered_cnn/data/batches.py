"""The order of the examples: each is visited once per epoch, and every epoch is shuffled anew."""

from collections.abc import Iterator

import numpy as np

from lowered_cnn.arrays import whole_number
from lowered_cnn.data.dataset import Indices


def batches(count: int, batch_size: int, seed: int, epoch: int) -> Iterator[Indices]:
    """Yield the positions of `count` examples in shuffled batches; the last batch may be smaller."""
    for name, least, got in [
        ("examples", 1, count),
        ("batch size", 1, batch_size),
        ("seed", 0, seed),
        ("epoch", 0, epoch),
    ]:
        whole_number(name, got, least)
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return (order[start : start + batch_size] for start in range(0, count, batch_size))
