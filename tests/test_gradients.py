"""Every layer, in its readable form, and every loss, in a network: against finite differences in float64."""

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import pytest
from differences import STEP, relative_error
from running import as_images, normal, run

from lowered_cnn import (
    ELU,
    GELU,
    AvgPool,
    BatchNorm,
    Concatenate,
    Conv1D,
    Conv2D,
    Conv3D,
    ConvTranspose1D,
    ConvTranspose2D,
    ConvTranspose3D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    Layer,
    LayerNorm,
    LeakyReLU,
    MaxPool,
    MeanSquaredError,
    Network,
    Pad,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    SoftmaxCrossEntropy,
    Tanh,
)
from lowered_cnn.arrays import Array, Shape
from lowered_cnn.layers.container import Stage
from lowered_cnn.losses import Loss
from lowered_cnn.network import LoweredNetwork

EXAMPLES = 3
CROSS_ENTROPY = SoftmaxCrossEntropy()
CLASSES = np.array([2, 0, 1])
SIGNAL: Shape = (2, 9)
IMAGE: Shape = (2, 6, 5)
VOLUME: Shape = (2, 3, 4, 3)


@dataclass(frozen=True)
class Trial:
    """A network, a batch and a loss: J as a function of any parameter or of the input."""

    model: Sequential
    input_shape: Shape
    loss: Loss
    targets: Any
    branches: set[bytes] = field(default_factory=set, repr=False)

    @cached_property
    def network(self) -> Network:
        """The network, with biases that are not zero."""
        network = Network(self.model, self.input_shape, seed=1, dtype=np.float64)
        network.parameters.vector += 0.1 * normal(network.parameters.vector.size)
        return network

    @cached_property
    def lowered(self) -> LoweredNetwork:
        """The same, lowered for training and for the gradient of its input."""
        return self.network.lower(EXAMPLES, wants_dx=True, seed=1, fused=False)

    @cached_property
    def images(self) -> Array:
        """The batch (N, C, *size)."""
        return normal(EXAMPLES, *self.input_shape, seed=6)

    def value(self, images: Array) -> float:
        """Return J for images and the parameters as they are, and note the branch that was taken at each kink."""
        z = self.lowered.forward(images)
        self.branches.add(b"".join(map(branch, self.lowered.layers.stages)))
        return self.loss.value_and_gradient(z, self.targets, EXAMPLES)[0]

    def value_with(self, name: str, values: Array) -> float:
        """Return J for other values of one parameter."""
        before = self.network.parameters[name].copy()
        self.network.parameters.assign(name, values, "test")
        value = self.value(self.images)
        self.network.parameters.assign(name, before, "test")
        return value

    def input_gradient(self) -> Array:
        """Run forward and backward, which leaves the parameters' gradients, and return dJ/dX (N, C, *size)."""
        z = self.lowered.forward(self.images)
        dx = self.lowered.backward(self.loss.value_and_gradient(z, self.targets, EXAMPLES)[1])
        assert dx is not None
        return as_images(dx)


def branch(stage: Stage) -> bytes:
    """Say which rectifiers were on, and which inputs were the largest under their window."""
    if not isinstance(stage.layer, ReLU | LeakyReLU | MaxPool | GlobalMaxPool):
        return b""
    shape = stage.layer.output_shape(stage.site.input_shape, stage.site.name)
    routes = stage.lowered.backward(np.ones((*shape, EXAMPLES)))
    assert routes is not None
    return routes.tobytes()


def spatial(layer: Layer, input_shape: Shape = IMAGE) -> Trial:
    """Put a layer between a convolution and a dense layer."""
    kind = (Conv1D, Conv2D, Conv3D)[len(input_shape) - 2]
    return Trial(
        Sequential(kind(4, 2, padding="same"), layer, Flatten(), Dense(3)), input_shape, CROSS_ENTROPY, CLASSES
    )


def flat(layer: Layer, loss: Loss = CROSS_ENTROPY, targets: Any = CLASSES) -> Trial:
    """Put a layer between two dense layers."""
    return Trial(Sequential(Flatten(), Dense(8), layer, Dense(3)), IMAGE, loss, targets)


def trials() -> dict[str, Trial]:
    """Name all networks; new ones each time, since a trial keeps its state."""
    inner = Sequential(Conv2D(3, 3), ReLU(), Sequential(MaxPool(2, 1), Dropout(0.3)), Conv2D(2, 1))
    measured = normal(EXAMPLES, 3, seed=7)
    return {
        "conv1d": spatial(Conv1D(3, 3), SIGNAL),
        "conv1d, every option": spatial(Conv1D(4, 3, 2, ((2, 1),), 2, groups=2), SIGNAL),
        "conv2d": spatial(Conv2D(3, 3)),
        "conv2d without bias": spatial(Conv2D(3, 3, bias=False)),
        "conv2d, same": spatial(Conv2D(3, (2, 3), padding="same")),
        "conv2d, every option": spatial(Conv2D(6, (3, 2), (2, 1), ((1, 2), (0, 1)), (1, 2), groups=2)),
        "conv2d, depthwise": spatial(Conv2D(8, 3, padding=1, groups=4)),
        "batch norm": Trial(
            Sequential(Conv2D(4, 2, bias=False), BatchNorm(epsilon=0.1), Flatten(), Dense(3)),
            IMAGE,
            CROSS_ENTROPY,
            CLASSES,
        ),
        "batch norm of features": Trial(
            Sequential(Flatten(), Dense(6, bias=False), BatchNorm(), Dense(3)), IMAGE, CROSS_ENTROPY, CLASSES
        ),
        "conv3d": spatial(Conv3D(3, 2), VOLUME),
        "conv3d, every option": spatial(Conv3D(4, (1, 2, 2), (2, 1, 1), 1, (1, 2, 1), groups=4), VOLUME),
        "dense": flat(Dense(5)),
        "dense without bias": flat(Dense(5, bias=False)),
        "relu": flat(ReLU()),
        "relu of maps": spatial(ReLU()),
        "dropout": flat(Dropout(0.4)),
        "dropout of maps": spatial(Dropout(0.4)),
        "flatten": spatial(Flatten()),
        "max pool": spatial(MaxPool(2)),
        "max pool, overlapping": spatial(MaxPool(3, (2, 1), padding=1)),
        "max pool 1d": spatial(MaxPool(3), SIGNAL),
        "max pool 3d": spatial(MaxPool(2), VOLUME),
        "avg pool": spatial(AvgPool(2)),
        "avg pool, overlapping": spatial(AvgPool(3, (2, 1), padding=1)),
        "avg pool without its border": spatial(AvgPool(3, 2, padding=1, count_include_pad=False)),
        "avg pool 3d": spatial(AvgPool((1, 2, 3)), VOLUME),
        "global avg pool": spatial(GlobalAvgPool()),
        "sequential in sequential": spatial(inner),
        "leaky relu": spatial(LeakyReLU(0.2)),
        "elu": spatial(ELU(0.7)),
        "gelu": spatial(GELU()),
        "gelu, approximate": flat(GELU(approximate=True)),
        "silu": spatial(SiLU()),
        "sigmoid": flat(Sigmoid()),
        "tanh": spatial(Tanh()),
        "softmax of channels": spatial(Softmax()),
        "global max pool": spatial(GlobalMaxPool()),
        "max pool, dilated, ceil": spatial(MaxPool((2, 3), 2, 0, (1, 2), ceil_mode=True)),
        "avg pool, dilated, ceil": spatial(AvgPool(2, 2, 1, 2, ceil_mode=True)),
        "layer norm": spatial(LayerNorm(0.1)),
        "layer norm of features": flat(LayerNorm()),
        "pad": spatial(Pad(((1, 0), (0, 2)), 0.5)),
        "conv transpose 1d": spatial(ConvTranspose1D(3, 3, 2, 1, 1), SIGNAL),
        "conv transpose 2d": spatial(ConvTranspose2D(4, (2, 3), (2, 1), ((1, 0), 1), (1, 0), (1, 2), groups=2)),
        "conv transpose 3d": spatial(ConvTranspose3D(2, 2, bias=False), VOLUME),
        "residual": spatial(Residual(Sequential(Conv2D(4, 3, padding=1), Tanh(), Residual(Conv2D(4, 1))))),
        "residual with a shortcut": spatial(Residual(Conv2D(3, 2, 2), Sequential(AvgPool(2), Conv2D(3, 1)))),
        "concatenate": spatial(Concatenate(Conv2D(2, 1), Sequential(), Sequential(Dropout(0.3), AvgPool(3, 1, 1)))),
        "label smoothing": flat(Tanh(), SoftmaxCrossEntropy(0.2)),
        "mean squared error": flat(ReLU(), MeanSquaredError(), measured),
        "mean squared error of classes": flat(ReLU(), MeanSquaredError()),
    }


every = pytest.mark.parametrize("name", trials())


@every
def test_parameter_gradients_are_derivatives(name: str) -> None:
    trial = trials()[name]
    trial.input_gradient()
    learned = [parameter.name for parameter in trial.network.parameters.parameters if not parameter.statistic]
    gradients = {name: trial.lowered.gradients[name].copy() for name in learned}
    errors = {
        name: relative_error(partial(trial.value_with, name), trial.network.parameters[name].copy(), gradient)
        for name, gradient in gradients.items()
    }
    assert len(trial.branches) == 1, "a kink lies within the step: choose another seed"
    assert max(errors.values()) < 1e-9, errors


@every
def test_input_gradients_are_derivatives(name: str) -> None:
    trial = trials()[name]
    error = relative_error(trial.value, trial.images, trial.input_gradient().copy())
    assert len(trial.branches) == 1, "a kink lies within the step: choose another seed"
    assert error < 1e-9


def test_the_gradient_of_relu_is_0_at_0() -> None:
    x = np.array([[-1.0, -0.0, 0.0, 5e-324, 1.0]])
    ours = run(ReLU(), x)
    assert ours.y.tolist() == [[0, 0, 0, 5e-324, 1]]
    assert ours.dx.tolist() == [[0, 0, 0, 1, 1]]


def test_the_gradient_of_a_tie_is_a_derivative_to_one_side() -> None:
    x = np.zeros((1, 2, 2, 1))
    ours = run(MaxPool(2), x)
    up = run(MaxPool(2), np.where(ours.dx, STEP, 0.0)).y
    assert ours.dx.ravel().tolist() == [1, 0, 0, 0]
    assert ours.y == 0
    assert up == STEP


@pytest.mark.parametrize("last", [ReLU(), MaxPool(2), AvgPool(2), Conv2D(2, 3), Dropout(0.5)])
def test_a_network_may_end_with_any_layer(last: Layer) -> None:
    """The loss must not overwrite the outputs: the last layer may need them in backward."""
    network = Network(Sequential(Conv2D(2, 3, padding="same"), last, Flatten()), IMAGE, dtype=np.float64)
    images, targets = normal(EXAMPLES, *IMAGE), normal(EXAMPLES, *network.output_shape)
    lowered = network.lower(EXAMPLES)

    def gradient_of(z: Array) -> Array:
        lowered.backward(MeanSquaredError().value_and_gradient(z, targets, EXAMPLES)[1])
        return lowered.gradients.vector.copy()

    expected = gradient_of(lowered.forward(images).copy())
    np.testing.assert_array_equal(gradient_of(lowered.forward(images)), expected)
