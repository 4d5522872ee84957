"""How good a network is on labelled images."""

from dataclasses import dataclass

import numpy as np

from lowered_cnn.arrays import InputError
from lowered_cnn.data.dataset import Dataset, LabelledImages, as_dataset
from lowered_cnn.losses import Loss, SoftmaxCrossEntropy, check_is_loss
from lowered_cnn.network import Network, as_batch, check_network, has_softmax_twice


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
    outputs = network.predict(data.images, workers=workers)
    accuracy = float(np.mean(outputs.argmax(axis=1) == data.labels))
    if has_softmax_twice(network, loss):  # the softmax of log probabilities gives the probabilities
        with np.errstate(divide="ignore"):
            np.log(outputs, out=outputs)
    value, _ = loss.value_and_gradient(outputs, data.labels, len(data))
    return Evaluation(value, accuracy)


def check_data(network: Network, data: Dataset) -> None:
    """Raise InputError unless the images have the network's input shape and there is one output per class."""
    as_batch(data.images, network.input_shape, "data: images")
    if len(network.output_shape) != 1 or network.output_shape[0] < len(data.classes):
        raise InputError("network: outputs", f"one for each of {len(data.classes)} classes", network.output_shape)
