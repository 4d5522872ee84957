"""Fine-tune a small ResNet from PyTorch on digits that it has never seen, a few of each, here and in PyTorch.

It is trained on MNIST's 0 to 4 and exported by PyTorch (extra `bench`). The table has the accuracy on the test images
of 5 to 9 and the seconds of the training on one core, each with its standard deviation over some seeds.
"""

import argparse
import copy
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lowered_cnn import SGD, Dataset, Dense, Network, OneCycle, Recipe, evaluate, fit, load_mnist
from lowered_cnn.data.batches import batches
from lowered_cnn.interop.onnx import from_onnx

OLD, NEW = range(5), range(5, 10)
HEAD = SGD(learning_rate=0.1, momentum=0.9, nesterov=True, l2=1e-3)
"""For a new head on frozen features."""
WHOLE = SGD(learning_rate=0.01, momentum=0.9, nesterov=True, l2=1e-3)
"""For all layers."""
WAYS = {
    "head on a frozen trunk": Recipe(20, 32, HEAD, OneCycle(0.15)),
    "the same, features once": Recipe(20, 32, HEAD, OneCycle(0.15)),
    "everything": Recipe(20, 32, WHOLE, OneCycle(0.15)),
}

PRESERVE = torch.onnx.TrainingMode.PRESERVE
"""Without it, the exporter would fold the normalizations into the convolutions before them."""

Result: TypeAlias = tuple[float, float]
"""The accuracy, and the seconds that it took."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--each", type=int, default=20, help="how many images of each new digit")
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    mnist = load_mnist()
    module = pretrained(only(mnist.train, OLD))
    network = exported(module)
    test = only(mnist.test, NEW)
    programs: dict[str, Callable[[str, Dataset, int], Result]] = {
        "lowered_cnn": lambda way, few, seed: ours(network, way, few, test, seed),
        "PyTorch": lambda way, few, seed: theirs(module, way, few, test, seed),
    }
    print(f"| {len(NEW)} x {parsed.each} images | " + " | ".join(f"{name} | seconds" for name in programs) + " |")
    print("|---|" + "---|---|" * len(programs))
    for way in WAYS:
        results: dict[str, list[Result]] = {name: [] for name in programs}
        for seed in range(parsed.seeds):
            for name, run in programs.items():
                results[name].append(run(way, some(only(mnist.train, NEW), parsed.each, seed), seed))
        cells = []
        for found in results.values():
            accuracies, seconds = zip(*found, strict=True)
            cells += [f"{mean(accuracies, 100, 1)} %", mean(seconds, 1, 2)]
        print(f"| {way} | " + " | ".join(cells) + " |", flush=True)


def only(data: Dataset, digits: range) -> Dataset:
    """Return the images of these digits, which become the classes 0, 1, ..."""
    places = np.flatnonzero(np.isin(data.labels, digits))
    return Dataset(data.images[places], data.labels[places] - digits[0], tuple(map(str, digits)))


def some(data: Dataset, each: int, seed: int) -> Dataset:
    """Draw a few images of each class."""
    rng = np.random.default_rng(seed)
    classes = range(len(data.classes))
    return data.take(np.concatenate([rng.permutation(np.flatnonzero(data.labels == c))[:each] for c in classes]))


def mean(numbers: tuple[float, ...], scale: float, digits: int) -> str:
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return f"{scale * statistics.mean(numbers):.{digits}f} ± {scale * deviation:.{digits}f}"


# --- in PyTorch ------------------------------------------------------------------------------------------------------


class Block(nn.Module):  # type: ignore[misc, unused-ignore]
    """Two convolutions beside a shortcut (He et al., 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Any) -> Any:
        """Y = max(0, body(X) + shortcut(X))."""
        return functional.relu(self.body(x) + self.shortcut(x))


def resnet(classes: int) -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        Block(16, 32, 2), Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes),
    )  # fmt: skip


def pretrained(data: Dataset) -> Any:
    torch.manual_seed(0)
    module = resnet(len(data.classes))
    trained(module, module.parameters(), tensor(data), data.labels, Recipe(1, 64))
    return module.eval()


def trained(module: Any, parameters: Any, images: Any, labels: Any, recipe: Recipe) -> None:
    """Take the steps of the recipe, with L2 on weights only."""
    sgd, parameters = recipe.optimizer, list(parameters)
    assert isinstance(sgd, SGD)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": sgd.l2},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=sgd.learning_rate, momentum=sgd.momentum, nesterov=sgd.nesterov)
    step, labels = 0, torch.from_numpy(labels)
    for epoch in range(1, recipe.epochs + 1):
        for indices in batches(len(images), recipe.batch_size, recipe.seed, epoch):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate(step, len(images), [])
            optimizer.zero_grad()
            chosen = torch.from_numpy(indices)
            functional.cross_entropy(module(images[chosen]), labels[chosen]).backward()
            optimizer.step()
            step += 1


def theirs(module: Any, way: str, few: Dataset, test: Dataset, seed: int) -> Result:
    torch.manual_seed(seed)
    module, recipe, images = copy.deepcopy(module), replace(WAYS[way], seed=seed), tensor(few)
    trunk, head = module[:-1], nn.Linear(64, len(few.classes))
    module[-1] = head
    start = time.perf_counter()
    if way == "everything":
        trained(module.train(), module.parameters(), images, few.labels, recipe)
    elif way == "head on a frozen trunk":
        trunk.requires_grad_(False)
        trained(module.eval(), head.parameters(), images, few.labels, recipe)
    else:
        with torch.no_grad():
            features = trunk(images)
        trained(head, head.parameters(), features, few.labels, recipe)
    seconds = time.perf_counter() - start
    with torch.inference_mode():
        answers = torch.cat([module.eval()(part).argmax(1) for part in tensor(test).split(500)])
    return float((answers.numpy() == test.labels).mean()), seconds


def tensor(data: Dataset) -> Any:
    return torch.from_numpy(data.images).float() / 255


def exported(module: Any) -> Network:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "resnet.onnx"
        torch.onnx.export(module, (torch.zeros(1, 1, 28, 28),), path, dynamo=False, training=PRESERVE)
        return from_onnx(path)


# --- here ------------------------------------------------------------------------------------------------------------


def ours(network: Network, way: str, few: Dataset, test: Dataset, seed: int) -> Result:
    recipe = replace(WAYS[way], seed=seed)
    network = network.with_head(Dense(len(few.classes)), seed=seed)
    trunk, head = network.split(network.model.names[-1])
    start = time.perf_counter()
    if way == "everything":
        fit(network, few, recipe)
    elif way == "head on a frozen trunk":
        fit(network, few, replace(recipe, frozen=tuple(trunk.parameters)))
    else:
        fit(head, Dataset(trunk.predict(few.images, workers=1), few.labels), recipe)
        network.parameters.copy_from(head.parameters)
    seconds = time.perf_counter() - start
    accuracy = evaluate(network, test).accuracy
    assert accuracy is not None
    return accuracy, seconds


if __name__ == "__main__":
    main()
