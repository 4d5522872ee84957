"""JAX: the whole step under `jit`."""

from itertools import cycle
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from benchmarking.framework import OPTIMIZER, Floats, Framework, Setting
from benchmarking.layers import Placed, placed, pool_size, unknown
from benchmarking.timing import Timed
from lowered_cnn import Conv2D, Dense, Flatten, MaxPool, Network, ReLU


class Measured(Framework):
    """The network with channels last, on all the cores that the process may use."""

    def __init__(self, network: Network, setting: Setting) -> None:
        super().__init__(network, setting)
        self.places = list(placed(network))
        weights = [[place.kernel, place.bias] if place.weights else [] for place in self.places]
        self.parameters = jax.tree.map(jnp.asarray, weights)
        self.velocities = jax.tree.map(jnp.zeros_like, self.parameters)

    def training(self) -> Timed:
        """Return training steps on arrays in memory; each donates its parameter buffers to the next."""
        images, labels = map(_channels_last, self.images()), map(jnp.asarray, self.labels())
        batches = cycle(list(zip(images, labels, strict=True)))
        update = jax.jit(self._update, donate_argnums=(0, 1))

        def step() -> None:
            self.parameters, self.velocities = update(self.parameters, self.velocities, *next(batches))

        return Timed(step, wait=lambda: jax.block_until_ready(self.parameters))

    def inference(self) -> Timed:
        """Return the outputs for an array in memory."""
        forward, x = jax.jit(self._forward), _channels_last(self.images(1)[0])
        return Timed(lambda: jax.block_until_ready(forward(self.parameters, x)))

    def predict(self, images: Floats) -> Floats:
        """Return the outputs."""
        return np.asarray(jax.jit(self._forward)(self.parameters, _channels_last(images)))

    def _update(self, parameters: Any, velocities: Any, images: Any, labels: Any) -> Any:
        gradients = jax.grad(self._loss)(parameters, images, labels)
        velocities = jax.tree.map(lambda v, g: OPTIMIZER.momentum * v + g, velocities, gradients)
        return jax.tree.map(lambda p, v: p - OPTIMIZER.learning_rate * v, parameters, velocities), velocities

    def _loss(self, parameters: Any, images: Any, labels: Any) -> Any:
        logs = jax.nn.log_softmax(self._forward(parameters, images))
        return -jnp.take_along_axis(logs, labels[:, None], axis=1).mean()

    def _forward(self, parameters: Any, x: Any) -> Any:
        for place, own in zip(self.places, parameters, strict=True):
            x = _apply(place, own, x)
        return x


def _channels_last(images: Floats) -> Any:
    return jnp.asarray(np.ascontiguousarray(np.moveaxis(images, 1, -1)))


def _apply(place: Placed, own: Any, x: Any) -> Any:
    match place.layer:
        case Conv2D(groups=groups) as conv:
            sweep = conv.sweep(place.input_shape, place.name)
            z = lax.conv_general_dilated(
                x, own[0], sweep.window.stride, sweep.pads, rhs_dilation=sweep.window.dilation,
                dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
            )  # fmt: skip
            return z if own[1] is None else z + own[1]
        case Dense():
            return x @ own[0] if own[1] is None else x @ own[0] + own[1]
        case MaxPool():
            window = (1, *pool_size(place), 1)
            return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
        case ReLU():
            return jax.nn.relu(x)
        case Flatten():
            return x.reshape(len(x), -1)
    raise unknown(place)
