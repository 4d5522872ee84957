"""How good a network is on labelled images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lowered_cnn.arrays import Images, InputError
from lowered_cnn.data.dataset import Examples, LabelledImages, as_dataset, in_order
from lowered_cnn.losses import Loss, SoftmaxCrossEntropy, check_is_loss
from lowered_cnn.network import Network, as_batch, check_network, has_softmax_twice
from lowered_cnn.prediction import CHUNK

GATHERED_BYTES = 2**26
"""How many bytes of images are in memory at once, unless that is too few to keep several cores busy."""

LEAST_GATHERED = 4 * CHUNK


@dataclass(frozen=True)
class Evaluation:
    """The mean loss, and the share of images whose largest output is the one of their class."""

    loss: float
    accuracy: float


def evaluate(
    network: Network, data: LabelledImages, loss: Loss = SoftmaxCrossEntropy(), *, workers: int | None = None
) -> Evaluation:
    """Return the loss and accuracy on all images, run on `workers` threads (by default one per usable core).

    `data` is a data set or a pair (images, labels). The network may end in Softmax(). Raises InputError if the data
    do not fit the network.
    """
    check_network("evaluate: network", network)
    check_is_loss(loss)
    data = as_dataset("evaluate: data", data)
    check_data(network, data)
    outputs = np.empty((len(data), *network.output_shape), network.parameters.vector.dtype)
    start = 0
    for images in chunks(data):
        outputs[start : start + len(images)] = network.predict(images, workers=workers)
        start += len(images)
    accuracy = float(np.mean(outputs.argmax(axis=1) == data.labels))
    if has_softmax_twice(network, loss):  # the softmax of log probabilities gives the probabilities
        with np.errstate(divide="ignore"):
            np.log(outputs, out=outputs)
    value, _ = loss.value_and_gradient(outputs, data.labels, len(data))
    return Evaluation(value, accuracy)


def chunks(data: Examples) -> Iterator[Images]:
    """Yield all images in order, as many at a time as memory can spare; they are valid until the next ones.

    These are whole chunks of `predict`, so the bits of its outputs are the same as for all images at once.
    """
    bytes_per_image = data.dtype.itemsize * math.prod(data.image_shape)
    return in_order(data, max(GATHERED_BYTES // bytes_per_image // CHUNK * CHUNK, LEAST_GATHERED))


def check_data(network: Network, data: Examples) -> None:
    """Raise InputError unless the images have the network's input shape and there is one output per class."""
    as_batch(np.empty((0, *data.image_shape), data.dtype), network.input_shape, "data: images")
    if len(network.output_shape) != 1 or network.output_shape[0] < len(data.classes):
        raise InputError("network: outputs", f"one for each of {len(data.classes)} classes", network.output_shape)
