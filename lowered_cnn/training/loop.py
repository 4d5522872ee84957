"""The training loop: an iterator over typed records that prints nothing and writes no files."""

import copy
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from lowered_cnn.arrays import InputError, whole_number
from lowered_cnn.cores import one_blas_thread
from lowered_cnn.data.batches import batches
from lowered_cnn.data.dataset import Examples, LabelledImages, as_dataset
from lowered_cnn.network import Network, check_loss, check_network, image_range
from lowered_cnn.training.evaluation import check_data, chunks, evaluate
from lowered_cnn.training.recipe import Recipe
from lowered_cnn.training.worker import Capacity, Job
from lowered_cnn.training.workers import POSIX, team

SHARD_SIZES = range(16, 33)
"""The most examples in a shard: few enough for the cache, and enough for fast products."""


@dataclass(frozen=True)
class Record:
    """One step: the loss (without L2) and accuracy of its batch before the update, and the update's learning rate.

    `step` and `epoch` count from 1. `ends_epoch` marks the last step of an epoch. Only its record has an `epoch_loss`,
    the mean over the epoch's examples, and, with a dev set, `dev_loss` and `dev_accuracy`. `images_per_second` is the
    mean since training began, evaluation excluded.
    """

    step: int
    epoch: int
    ends_epoch: bool
    loss: float
    train_accuracy: float
    epoch_loss: float | None
    dev_loss: float | None
    dev_accuracy: float | None
    images_per_second: float
    learning_rate: float


class Training(Iterator[Record]):
    """A training run in progress: each `next` takes a step and returns its record.

    `average` is the network with the average of the weights so far, or None if the recipe asks for no average. It is
    what is tested on the dev set. Read it, but do not change it.
    """

    def __init__(self, network: Network, data: Examples, recipe: Recipe, *, dev: Examples | None, workers: int) -> None:
        self.average = None if recipe.average is None else copy.deepcopy(network)
        self._records = _steps(network, self.average, data, recipe, dev, workers)

    def __next__(self) -> Record:
        """Take the next step."""
        return next(self._records)

    def close(self) -> None:
        """Stop training here and end the workers; the network keeps its weights."""
        self._records.close()


def train(
    network: Network,
    data: LabelledImages,
    recipe: Recipe = Recipe(),
    *,
    dev: LabelledImages | None = None,
    workers: int = 1,
) -> Training:
    """Train the network in place on mini-batches (S10); return an iterator that yields a record after each step.

    `data` and `dev` are data sets or pairs (images, labels); `dev` is tested at the end of each epoch.

    The examples are reshuffled for each epoch, and a last partial batch is used too. The weights are the same to the
    last bit for any number of `workers`, which are this process and its children, each with one BLAS thread; there are
    never more of them than a batch has shards. Several workers need POSIX (Linux, macOS), and a script that trains
    under `if __name__ == "__main__":`, because each child imports it.

    If the recipe asks for an average of the weights, that average is what is tested on `dev`, and what the network
    holds at the end. Until then it is `average` of the returned Training.

    Between two records the network is the caller's to use, and changes to its parameters take effect.

    Raises InputError if the data do not fit the network or the workers cannot start, ChildProcessError if a worker is
    killed, OSError if there is no room for the memory they share, and whatever a worker raises.
    """
    if whole_number("train: workers", workers, 1) > 1 and not POSIX:
        raise InputError("train: workers", "1 on this system, as several workers need POSIX (Linux, macOS)", workers)
    check_network("train: network", network)
    if not isinstance(recipe, Recipe):
        raise InputError("train: recipe", "a Recipe", repr(recipe))
    data = as_dataset("train: data", data)
    check_data(network, data)
    if dev is not None:
        dev = as_dataset("train: dev", dev)
        check_data(network, dev)
    if recipe.augmentation is not None and len(network.input_shape) != 3:
        raise InputError("train: augmentation", "a network for images (C, H, W)", network.input_shape)
    check_loss(network, recipe.loss)
    network.input_range = image_range(data.dtype, chunks(data))
    return Training(network, data, recipe, dev=dev, workers=workers)


def shard_size(batch_size: int) -> int:
    """Return the most examples in a shard: half of a small batch, so that two workers can share it."""
    return min(max(-(-batch_size // 2), SHARD_SIZES[0]), SHARD_SIZES[-1])


def _steps(
    network: Network, average: Network | None, data: Examples, recipe: Recipe, dev: Examples | None, workers: int
) -> Generator[Record, None, None]:
    step, images, seconds = 0, 0, 0.0
    steps = recipe.steps(len(data))
    size = shard_size(recipe.batch_size)
    job = Job(recipe.loss, recipe.optimizer, recipe.augmentation, recipe.clip_norm, recipe.seed, size)
    if average is not None:  # the caller may have changed the network since
        average.parameters.vector[...] = network.parameters.vector
    capacity = Capacity(workers, min(recipe.batch_size, len(data)), data.dtype)
    with team(network, job, capacity) as workforce:
        for epoch in range(1, recipe.epochs + 1):
            epoch_loss = 0.0
            for indices in batches(len(data), recipe.batch_size, recipe.seed, epoch):
                start = time.perf_counter()
                learning_rate = recipe.optimizer.learning_rate * recipe.schedule.factor(step / steps)
                with one_blas_thread():
                    totals = workforce.step(data, indices, step, epoch, learning_rate)
                step, images = step + 1, images + len(indices)
                epoch_loss += totals.loss * len(indices) / len(data)
                if average is not None:
                    _follow(average, network, recipe.average_decay(step))
                seconds += time.perf_counter() - start
                ends_epoch = step == recipe.steps(len(data), epoch)
                tested = evaluate(average or network, dev, recipe.loss, workers=workers) if dev and ends_epoch else None
                if average is not None and step == steps:
                    network.parameters.vector[...] = average.parameters.vector
                yield Record(
                    step,
                    epoch,
                    ends_epoch,
                    totals.loss,
                    totals.correct / len(indices),
                    epoch_loss if ends_epoch else None,
                    tested.loss if tested else None,
                    tested.accuracy if tested else None,
                    images / seconds,
                    learning_rate,
                )


def _follow(average: Network, network: Network, decay: float) -> None:
    """Set average to decay average + (1 - decay) w."""
    average.parameters.vector *= decay
    average.parameters.vector += (1 - decay) * network.parameters.vector
