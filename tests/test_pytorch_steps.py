"""200 steps of SGD and of Adam beside PyTorch's, from the same weights, on the same batches, in float64."""

from typing import Any

import numpy as np
import pytest

from lowered_cnn import SGD, Adam, Constant, Dataset, Network, Recipe, Sequential, load_mnist, train
from lowered_cnn.data.batches import batches
from lowered_cnn.interop.pytorch import pytorch_names
from lowered_cnn.layers import BatchNorm, Conv2D, Dense, Flatten, MaxPool, ReLU
from lowered_cnn.models import keras_mnist
from lowered_cnn.optimizers import Optimizer

STEPS = 200
BATCH = 16
"""One shard, so that a batch normalization sees the same examples here and there."""

TOLERANCE = 1e-9


def normalized() -> Sequential:
    return Sequential(
        Conv2D(8, 3, bias=False), BatchNorm(), ReLU(), MaxPool(2),
        Conv2D(16, 3, bias=False), BatchNorm(), ReLU(), MaxPool(2),
        Flatten(), Dense(10),
    )  # fmt: skip


def module(torch: Any, model: Sequential) -> Any:
    """Build the same network of PyTorch's modules."""
    nn = torch.nn
    modules, shape = [], (1, 28, 28)
    for _, layer, given in model.steps(shape):
        match layer:
            case Conv2D(filters=filters, kernel=kernel, bias=bias):
                modules.append(nn.Conv2d(given[0], filters, kernel, bias=bias))
            case Dense(units=units):
                modules.append(nn.Linear(given[0], units))
            case BatchNorm():
                modules.append(nn.BatchNorm2d(given[0]))
            case MaxPool():
                modules.append(nn.MaxPool2d(2))
            case ReLU() | Flatten():
                modules.append(nn.ReLU() if layer == ReLU() else nn.Flatten())
    return nn.Sequential(*modules).double()


@pytest.mark.slow
@pytest.mark.parametrize("model", [keras_mnist(), normalized()], ids=["keras_mnist", "batch norm"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (SGD(learning_rate=0.02, momentum=0.9, l2=1e-3), {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3}),
        (Adam(learning_rate=1e-3), {"lr": 1e-3}),
    ],
    ids=["SGD", "Adam"],
)
def test_loss_and_weights_are_those_of_pytorch_at_every_step(
    model: Sequential, ours: Optimizer, theirs: dict[str, float], torch: Any
) -> None:
    mnist = load_mnist().train
    data = Dataset(mnist.images[: STEPS * BATCH], mnist.labels[: STEPS * BATCH], mnist.classes)
    network = Network(model, (1, 28, 28), seed=0, dtype=np.float64)
    names = pytorch_names(model, (1, 28, 28))
    peer = module(torch, model)
    state = peer.state_dict()
    for name in network.parameters:
        state[names[name]].copy_(torch.from_numpy(network.parameters[name].copy()))
    optimizer = peer_optimizer(torch, peer, theirs)
    recipe = Recipe(epochs=1, batch_size=BATCH, shard_size=BATCH, optimizer=ours, schedule=Constant())
    order = list(batches(len(data), BATCH, recipe.seed, 1))
    worst = 0.0
    for record, indices in zip(train(network, data, recipe), order, strict=True):
        images = torch.from_numpy(data.images[indices].reshape(-1, 1, 28, 28) / 255)
        loss = torch.nn.functional.cross_entropy(peer(images), torch.from_numpy(data.labels[indices]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = peer.state_dict()
        errors = [float(np.abs(network.parameters[name] - state[names[name]].numpy()).max()) for name in names]
        worst = max(worst, abs(record.loss - loss.item()), *errors)
        assert worst <= TOLERANCE, f"step {record.step}"
    assert record.step == STEPS
    print(f"largest deviation: {worst:.1e}")  # shown by pytest -s


def peer_optimizer(torch: Any, peer: Any, settings: dict[str, float]) -> Any:
    """Return PyTorch's optimizer; weight decay is for weights of products only, as L2 is here."""
    weights = [p for p in peer.parameters() if p.ndim > 1]
    others = [p for p in peer.parameters() if p.ndim == 1]
    kind = torch.optim.SGD if "momentum" in settings else torch.optim.Adam
    return kind([{"params": weights}, {"params": others, "weight_decay": 0.0}], **settings)
