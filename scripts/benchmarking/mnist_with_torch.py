"""The default command's training run in PyTorch: the same network, initial weights and recipe."""

import argparse
import json
from typing import Any

import torch
from torch.nn import functional

from benchmarking.with_torch import module
from lowered_cnn import SGD, Network, Recipe, load_mnist
from lowered_cnn.data.batches import batches
from lowered_cnn.models import compact


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    recipe, mnist = Recipe(seed=seed), load_mnist()
    data, _ = mnist.train.split(len(mnist.train) // 12, seed)
    net = module(Network(compact(), data.image_shape, seed=seed))
    train(net, recipe, tensor(data.images), torch.from_numpy(data.labels))
    with torch.inference_mode():
        answers = torch.cat([net(part).argmax(1) for part in tensor(mnist.test.images).split(500)])
    accuracy = (answers == torch.from_numpy(mnist.test.labels)).double().mean().item()
    print(json.dumps({"test_accuracy": accuracy}))


def train(net: Any, recipe: Recipe, images: Any, labels: Any) -> None:
    """Take the steps of the recipe, with L2 on weights only."""
    sgd = recipe.optimizer
    assert isinstance(sgd, SGD)
    weights = [p for p in net.parameters() if p.ndim > 1]
    biases = [p for p in net.parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": sgd.l2}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=sgd.learning_rate, momentum=sgd.momentum, nesterov=sgd.nesterov, fused=True)
    step, steps = 0, recipe.steps(len(images))
    for epoch in range(1, recipe.epochs + 1):
        for indices in batches(len(images), recipe.batch_size, recipe.seed, epoch):
            for group in optimizer.param_groups:
                group["lr"] = sgd.learning_rate * recipe.schedule.factor(step / steps)
            optimizer.zero_grad()
            chosen = torch.from_numpy(indices)
            functional.cross_entropy(net(images[chosen]), labels[chosen]).backward()
            optimizer.step()
            step += 1


def tensor(images: Any) -> Any:
    """Return bytes as a tensor of numbers from 0 to 1."""
    return torch.from_numpy(images).float() / 255


if __name__ == "__main__":
    main()
