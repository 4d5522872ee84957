"""The default command's training run, as far as it is the same in every framework: data, order, learning rates.

The others normalize over a batch, and we over each shard, half of it.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from benchmarking.framework import Floats
from lowered_cnn import SGD, Network, Recipe, load_mnist
from lowered_cnn.arrays import Array, Images, Labels
from lowered_cnn.data.batches import batches
from lowered_cnn.data.dataset import Indices
from lowered_cnn.models import compact
from lowered_cnn.training import COMPACT

TESTED = 500
"""The images that are tested at a time."""


@dataclass(frozen=True)
class Run:
    """What there is to train: a network with its initial weights, a recipe, and images from 0 to 1 with labels."""

    network: Network
    recipe: Recipe
    images: Floats
    labels: Labels

    @property
    def sgd(self) -> SGD:
        """The optimizer; its L2 is on weights only."""
        assert isinstance(self.recipe.optimizer, SGD)
        return self.recipe.optimizer

    def steps(self) -> Iterator[tuple[float, Indices]]:
        """Yield the learning rate and the examples of each step."""
        step, steps = 0, self.recipe.steps(len(self.images))
        for epoch in range(1, self.recipe.epochs + 1):
            for indices in batches(len(self.images), self.recipe.batch_size, self.recipe.seed, epoch):
                yield self.sgd.learning_rate * self.recipe.schedule.factor(step / steps), indices
                step += 1


Predict = Callable[[Floats], Array]


def main(description: str | None, trained: Callable[[Run], Predict]) -> None:
    """Train with the seed on the command line, test, and print the test accuracy as JSON."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    mnist = load_mnist()
    data, _ = mnist.train.split(len(mnist.train) // 12, seed)
    run = Run(
        Network(compact(), data.image_shape, seed=seed), replace(COMPACT, seed=seed), floats(data.images), data.labels
    )
    predict, images = trained(run), floats(mnist.test.images)
    outputs = np.concatenate([predict(images[start : start + TESTED]) for start in range(0, len(images), TESTED)])
    print(json.dumps({"test_accuracy": float((outputs.argmax(axis=1) == mnist.test.labels).mean())}))


def floats(images: Images) -> Floats:
    """Return bytes as numbers from 0 to 1."""
    return images.astype(np.float32) / np.float32(255)
