"""How the tests run a layer, alone and in the engine's layout (C, *size, N), and the networks that they share."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lowered_cnn import Conv2D, Dataset, Dense, Dropout, Flatten, Layer, MaxPool, Network, ReLU, Sequential, evaluate
from lowered_cnn.arrays import Array, Shape
from lowered_cnn.parameters import ParameterVector
from lowered_cnn.workspace import BLOCK_BYTES


@dataclass(frozen=True)
class Pass:
    """What came out of one forward and one backward pass."""

    y: Array
    dx: Array
    gradients: ParameterVector


def run(
    layer: Layer, x: Array, dy: Array | None = None, block_bytes: int | None = BLOCK_BYTES, **parameters: Array
) -> Pass:
    """Run one layer, in its readable form, on x (C, *size, N), forward and, for dy (ones if None), backward."""
    network = Network(Sequential(layer), x.shape[:-1], dtype=x.dtype)
    for name, values in parameters.items():
        network.parameters.assign(f"{layer.kind}1.{name}", values, "test")
    lowered = network.lower(x.shape[-1], wants_dx=True, block_bytes=block_bytes, fused=False)
    y = as_activation(lowered.forward(as_images(x))).copy()
    dx = lowered.backward(as_images(np.ones_like(y) if dy is None else dy))
    assert dx is not None
    return Pass(y, as_activation(dx).copy(), lowered.gradients)


def disturbed(model: Sequential, shape: Shape, dtype: type[np.floating] = np.float32) -> Network:
    """Return a network whose statistics and biases are not those of the start; no variance is negative."""
    network = Network(model, shape, dtype=dtype)
    network.parameters.vector += np.abs(0.1 * normal(network.parameters.vector.size)).astype(dtype)
    return network


def noisy_network(input_shape: Shape = (1, 28, 28), seed: int = 0, dtype: type[np.floating] = np.float32) -> Network:
    """Return a small network of ten classes whose outputs in training depend on random numbers."""
    model = Sequential(Conv2D(4, 5, 2), ReLU(), MaxPool(2), Dropout(0.25), Flatten(), Dense(20), Dropout(), Dense(10))
    return Network(model, input_shape, dtype=dtype, seed=seed)


def as_images(x: Array) -> Array:
    """Return an activation (C, *size, N) as it comes through the public door: (N, C, *size)."""
    return np.moveaxis(x, -1, 0)


def as_activation(images: Array) -> Array:
    """Return what comes through the public door, (N, C, *size), in the engine's layout: (C, *size, N)."""
    return np.moveaxis(images, 0, -1)


def normal(*shape: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """Draw an array from N(0, 1)."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def assert_close(actual: Array, expected: Array, tolerance: float = 1e-10) -> None:
    """Compare all entries within ``tolerance`` of the largest one; the shapes must be the same."""
    assert actual.shape == expected.shape
    scale = np.max(np.abs(expected), initial=np.finfo(float).tiny)
    assert np.max(np.abs(actual - expected), initial=0.0) <= tolerance * scale


def accuracy(network: Network, data: Dataset) -> float:
    """Return the share of right answers, for data that have class numbers."""
    found = evaluate(network, data).accuracy
    assert found is not None
    return found
