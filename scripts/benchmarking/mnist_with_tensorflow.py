"""The default command's training run in TensorFlow, as a `tf.function`: the same network, weights and recipe."""

import tensorflow as tf

from benchmarking.framework import Floats
from benchmarking.mnist import Predict, Run, main
from benchmarking.with_tensorflow import Function, channels_last
from lowered_cnn.arrays import Array


def trained(run: Run) -> Predict:
    """Take the steps of the run, and return the predictions of the function."""
    net = Function(run.network, sgd=run.sgd)
    images, labels = channels_last(run.images), tf.constant(run.labels)

    def step(indices: object, learning_rate: object) -> None:
        net.train_on_batch(tf.gather(images, indices), tf.gather(labels, indices), learning_rate)

    train = tf.function(step, autograph=False)
    for rate, indices in run.steps():
        train(tf.constant(indices), tf.constant(rate, tf.float32))

    def predict(images: Floats) -> Array:
        outputs: Array = net.predict_on_batch(channels_last(images)).numpy()
        return outputs

    return predict


if __name__ == "__main__":
    main(__doc__, trained)
