"""TensorFlow: Keras out of the box, and a `tf.function` of low-level operations, with and without XLA."""

from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarking.framework import OPTIMIZER, Floats, Framework, Setting
from benchmarking.layers import Placed, named_padding, placed, pool_size, unknown
from benchmarking.timing import Timed
from lowered_cnn import SGD, BatchNorm, Conv2D, Dense, Flatten, MaxPool, Network, ReLU


class Measured(Framework):
    """The network with channels last, the layout in which TensorFlow convolves on a CPU."""

    def __init__(self, network: Network, setting: Setting) -> None:
        super().__init__(network, setting)
        tf.config.threading.set_intra_op_parallelism_threads(setting.cores)
        tf.config.threading.set_inter_op_parallelism_threads(setting.cores)
        self.model = keras_model(network) if setting.mode == "keras" else Function(network, setting.mode == "xla")

    def training(self) -> Timed:
        """Return training steps on tensors in memory."""
        images, labels = map(channels_last, self.images()), map(tf.constant, self.labels())
        batches = cycle(list(zip(images, labels, strict=True)))
        return Timed(lambda: self.model.train_on_batch(*next(batches)))

    def inference(self) -> Timed:
        """Return the outputs for a tensor in memory."""
        x = channels_last(self.images(1)[0])
        return Timed(lambda: self.model.predict_on_batch(x))

    def predict(self, images: Floats) -> Floats:
        """Return the outputs."""
        outputs: Floats = np.asarray(self.model.predict_on_batch(channels_last(images)))
        return outputs


def channels_last(images: Floats) -> Any:
    """Return images (N, C, H, W) as a tensor (N, H, W, C)."""
    return tf.constant(np.ascontiguousarray(np.moveaxis(images, 1, -1)))


def keras_model(network: Network) -> Any:
    """Return the network as a compiled `tf.keras.Sequential`, with the same weights."""
    channels, *size = network.input_shape
    places = list(placed(network))
    layers = [_keras_layer(place) for place in places]
    model = tf.keras.Sequential([tf.keras.Input((*size, channels)), *layers])
    for place, layer in zip(places, layers, strict=True):
        if place.weights:
            layer.set_weights([place.kernel, *([] if place.bias is None else [place.bias])])
    model.compile(
        tf.keras.optimizers.SGD(OPTIMIZER.learning_rate, OPTIMIZER.momentum),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def _keras_layer(place: Placed) -> Any:
    match place.layer:
        case Conv2D(filters=filters, groups=groups, bias=bias) as conv:
            sweep = conv.sweep(place.input_shape, place.name)
            window = sweep.window
            return tf.keras.layers.Conv2D(
                filters, window.kernel, window.stride, named_padding(sweep),
                dilation_rate=window.dilation, groups=groups, use_bias=bias,
            )  # fmt: skip
        case Dense(units=units, bias=bias):
            return tf.keras.layers.Dense(units, use_bias=bias)
        case MaxPool():
            return tf.keras.layers.MaxPooling2D(pool_size(place))
        case ReLU():
            return tf.keras.layers.ReLU()
        case Flatten():
            return tf.keras.layers.Flatten()
    raise unknown(place)


class Function:
    """The network as a `tf.function`, with TensorFlow's own fused momentum, and L2 on weights only."""

    def __init__(self, network: Network, xla: bool = False, sgd: SGD = OPTIMIZER) -> None:
        self.sgd = sgd
        self.places = list(placed(network))
        self.variables = {
            place.name: [tf.Variable(place.kernel), *([] if place.bias is None else [tf.Variable(place.bias)])]
            for place in self.places
            if place.weights
        }
        self.statistics = {
            place.name: [tf.Variable(place.weights[name]) for name in ("running_mean", "running_var")]
            for place in self.places
            if isinstance(place.layer, BatchNorm)
        }
        self.velocities = {id(v): tf.Variable(tf.zeros_like(v)) for v in self._all()}
        self.train_on_batch = tf.function(self._train, autograph=False, jit_compile=xla)
        self.predict_on_batch = tf.function(partial(self._forward, training=False), autograph=False, jit_compile=xla)

    def _all(self) -> list[Any]:
        return [variable for variables in self.variables.values() for variable in variables]

    def _train(self, images: Any, labels: Any, learning_rate: Any = None) -> Any:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, self._forward(images, training=True))
            loss = tf.reduce_mean(losses)
        variables = self._all()
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            if self.sgd.l2 and variable.shape.rank > 1:
                gradient += self.sgd.l2 * variable
            tf.raw_ops.ResourceApplyMomentum(
                var=variable.handle, accum=self.velocities[id(variable)].handle, grad=gradient,
                lr=self.sgd.learning_rate if learning_rate is None else learning_rate,
                momentum=self.sgd.momentum, use_nesterov=self.sgd.nesterov,
            )  # fmt: skip
        return loss

    def _forward(self, x: Any, training: bool) -> Any:
        for place in self.places:
            if isinstance(place.layer, BatchNorm):
                x = self._normalized(place, place.layer, x, training)
            else:
                x = _apply(place, self.variables.get(place.name, []), x)
        return x

    def _normalized(self, place: Placed, norm: BatchNorm, x: Any, training: bool) -> Any:
        (scale, offset), (mean, variance) = self.variables[place.name], self.statistics[place.name]
        y, new_mean, new_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=norm.epsilon,
            exponential_avg_factor=norm.momentum, is_training=training,
        )  # fmt: skip
        if training:
            mean.assign(new_mean)
            variance.assign(new_variance)
        return y


def _apply(place: Placed, variables: list[Any], x: Any) -> Any:
    match place.layer:
        case Conv2D(groups=1) as conv:
            sweep = conv.sweep(place.input_shape, place.name)
            window, (kernel, *bias) = sweep.window, variables
            z = tf.nn.conv2d(x, kernel, window.stride, named_padding(sweep).upper(), dilations=window.dilation)
            return tf.nn.bias_add(z, *bias) if bias else z
        case Dense():
            kernel, *bias = variables
            return tf.matmul(x, kernel) + bias[0] if bias else tf.matmul(x, kernel)
        case MaxPool():
            return tf.nn.max_pool2d(x, pool_size(place), pool_size(place), "VALID")
        case ReLU():
            return tf.nn.relu(x)
        case Flatten():
            return tf.reshape(x, (tf.shape(x)[0], -1))
    raise unknown(place)
