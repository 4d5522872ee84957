"""Three steps of the training of a small network, against the derivation's equations written out by hand."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from running import assert_close

from lowered_cnn import (
    SGD,
    Constant,
    Conv2D,
    Dataset,
    Dense,
    Flatten,
    MaxPool,
    Network,
    Recipe,
    ReLU,
    Sequential,
    train,
)
from lowered_cnn.arrays import Array

EXAMPLES, HEIGHT, WIDTH, CLASSES, FILTERS = 40, 7, 6, 4, 3
LEARNING_RATE, MOMENTUM, L2 = 0.1, 0.9, 0.05


@dataclass
class ByHand:
    """The network conv 3x3 - ReLU - max pool 2x2 - dense - softmax, as the derivation has it: one letter an array."""

    w1: Array
    b1: Array
    w2: Array
    b2: Array

    def gradients(self, x: Array, y: Array) -> tuple[float, list[Array]]:
        """Return J and its gradients for images x (m, H, W) and one-hot rows y (m, classes)."""
        m = len(x)
        z1 = np.zeros((m, FILTERS, HEIGHT - 2, WIDTH - 2))
        for a, b in np.ndindex(3, 3):  # S1
            z1 += np.einsum("nij,k->nkij", x[:, a : a + HEIGHT - 2, b : b + WIDTH - 2], self.w1[:, 0, a, b])
        z1 += self.b1[:, None, None]
        a1 = np.where(z1 > 0, z1, 0)  # S5
        patches = np.stack([a1[:, :, a:4:2, b:4:2] for a, b in np.ndindex(2, 2)])  # S6; the odd row is not covered
        a2 = patches.max(axis=0).reshape(m, -1)
        z2 = np.einsum("nf,kf->nk", a2, self.w2) + self.b2  # S8
        yhat = np.exp(z2) / np.exp(z2).sum(axis=1, keepdims=True)
        cost = -np.sum(y * np.log(yhat)) / m  # S9
        dz2 = (yhat - y) / m
        dw2, db2 = np.einsum("nk,nf->kf", dz2, a2), dz2.sum(axis=0)
        da2 = np.einsum("nk,kf->nf", dz2, self.w2).reshape(m, FILTERS, 2, 2)
        da1 = np.zeros_like(a1)
        first = patches.argmax(axis=0)
        for number, (a, b) in enumerate(np.ndindex(2, 2)):
            da1[:, :, a:4:2, b:4:2] = np.where(first == number, da2, 0)
        dz1 = np.where(z1 > 0, da1, 0)
        dw1, db1 = np.zeros_like(self.w1), dz1.sum(axis=(0, 2, 3))  # S3
        for a, b in np.ndindex(3, 3):  # S2
            dw1[:, 0, a, b] = np.einsum("nkij,nij->k", dz1, x[:, a : a + HEIGHT - 2, b : b + WIDTH - 2])
        return float(cost), [dw1, db1, dw2, db2]

    def train(self, x: Array, y: Array, steps: int) -> list[float]:
        """Take steps of descent with momentum, and L2 on the weights; return J before each of them (S10)."""
        parameters = [self.w1, self.b1, self.w2, self.b2]
        velocities = [np.zeros_like(p) for p in parameters]
        costs = []
        for _ in range(steps):
            cost, gradients = self.gradients(x, y)
            costs.append(cost)
            for p, v, g in zip(parameters, velocities, gradients, strict=True):
                v[...] = MOMENTUM * v + g + (L2 * p if p.ndim > 1 else 0)
                p -= LEARNING_RATE * v
        return costs


@pytest.fixture
def data() -> Dataset:
    """Forty random images in four classes."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (EXAMPLES, 1, HEIGHT, WIDTH), np.uint8)
    return Dataset(images, generator.integers(0, CLASSES, EXAMPLES), tuple("abcd"))


def one_hot(labels: npt.NDArray[np.int64]) -> Array:
    return np.eye(CLASSES)[labels]


def test_training_takes_the_steps_of_the_derivation(data: Dataset) -> None:
    model = Sequential(Conv2D(FILTERS, 3), ReLU(), MaxPool(2), Flatten(), Dense(CLASSES))
    network = Network(model, data.image_shape, dtype=np.float64)
    names = ["conv1.weight", "conv1.bias", "dense1.weight", "dense1.bias"]
    assert list(network.parameters) == names
    by_hand = ByHand(*(network.parameters[name].copy() for name in names))

    sgd = SGD(LEARNING_RATE, momentum=MOMENTUM, l2=L2)
    recipe = Recipe(epochs=3, batch_size=EXAMPLES, optimizer=sgd, schedule=Constant())
    records = list(train(network, data, recipe))

    costs = by_hand.train(data.images[:, 0] / 255, one_hot(data.labels), steps=3)
    assert [record.loss for record in records] == pytest.approx(costs, rel=1e-12)
    for name, expected in zip(names, [by_hand.w1, by_hand.b1, by_hand.w2, by_hand.b2], strict=True):
        assert_close(network.parameters[name], expected)
