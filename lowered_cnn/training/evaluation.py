"""Evaluation: how good a network is on examples with targets."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from lowered_cnn.arrays import Array, Images, InputError
from lowered_cnn.data.dataset import Examples, ExamplesLike, are_labels, as_dataset, described, in_order
from lowered_cnn.layers import Softmax
from lowered_cnn.losses import Loss, SoftmaxCrossEntropy, check_is_loss, check_weights, loss_and_gradient
from lowered_cnn.network import Network, applied_twice, as_batch, check_network
from lowered_cnn.prediction import CHUNK
from lowered_cnn.training.metrics import Metric, check_metrics, measured, right_answers

GATHERED_BYTES = 2**26
"""How many bytes of images are in memory at once, unless that is too few to keep several cores busy."""

LEAST_GATHERED = 4 * CHUNK


@dataclass(frozen=True)
class Evaluation:
    """The mean loss, the share of right answers, and the metrics that were asked for.

    An answer is right if the largest output is that of the example's class or, in maps, of the position's class.
    `accuracy` is None if the targets are not class numbers, or if the loss ignores all of them.
    """

    loss: float
    accuracy: float | None
    metrics: dict[str, float] = field(default_factory=dict)


def evaluate(
    network: Network,
    data: ExamplesLike,
    loss: Loss = SoftmaxCrossEntropy(),
    *,
    workers: int | None = None,
    metrics: Mapping[str, Metric] = {},
) -> Evaluation:
    """Return the loss, the accuracy and the metrics of all examples, run on `workers` threads (default: one per core).

    `data` is a data set or a pair (inputs, targets). Each of the `metrics`, by name, is a function of all outputs
    (N, ...) and targets. The network may end in the activation that the loss applies, such as Softmax(). Raises
    InputError if the data do not fit the network.
    """
    check_network("evaluate: network", network)
    check_is_loss(loss)
    check_metrics("evaluate: metrics", metrics)
    data = as_dataset("evaluate: data", data)
    check_data(network, data, loss)
    outputs = np.empty((len(data), *network.output_shape), network.parameters.vector.dtype)
    start = 0
    for images in chunks(data):
        outputs[start : start + len(images)] = network.predict(images, workers=workers)
        start += len(images)
    targets = data.targets
    right, answers = right_answers(outputs, targets, loss.ignore)
    found = measured(metrics, outputs, targets)
    _undo_activation(network, loss, outputs)
    value, _ = loss_and_gradient(loss, outputs, targets, loss.total(targets, data.weights), data.weights)
    return Evaluation(value, right / answers if answers else None, found)


def _undo_activation(network: Network, loss: Loss, outputs: Array) -> None:
    """If the network ends in an activation that the loss applies too, overwrite outputs with its inputs."""
    twice = applied_twice(network, loss)
    if twice is Softmax:  # the softmax of log probabilities gives the probabilities
        with np.errstate(divide="ignore"):
            np.log(outputs, out=outputs)
    elif twice is not None:
        limits = np.finfo(outputs.dtype)
        np.clip(outputs, limits.tiny, 1 - limits.epsneg, out=outputs)
        np.log(outputs / (1 - outputs), out=outputs)


def chunks(data: Examples) -> Iterator[Images]:
    """Yield all images in order, as many at a time as memory can spare; they are valid until the next ones.

    These are whole chunks of `predict`, so the bits of its outputs are the same as for all images at once.
    """
    bytes_per_image = data.dtype.itemsize * math.prod(data.image_shape)
    return in_order(data, max(GATHERED_BYTES // bytes_per_image // CHUNK * CHUNK, LEAST_GATHERED))


def check_data(network: Network, data: Examples, loss: Loss) -> None:
    """Raise InputError unless the inputs have the network's input shape, and the targets fit its outputs and the loss.

    Class numbers need an output for each class (in maps, at each position); other targets, one for each number.
    """
    as_batch(np.empty((0, *data.image_shape), data.dtype), network.input_shape, "data: images")
    check_weights(loss, data.weights)
    outputs, targets = network.output_shape, data.targets
    is_whole = targets.dtype.kind in "iu"
    if not is_whole and isinstance(loss, SoftmaxCrossEntropy):
        wanted = "one for values, such as MeanSquaredError(), or targets that are class numbers"
        raise InputError("loss", wanted, f"{type(loss).__name__}() for {described(targets)}")
    if is_whole and outputs[1:] == targets.shape[1:] and outputs[0] >= len(data.classes):
        return
    if are_labels(targets):
        raise InputError("network: outputs", f"one for each of {len(data.classes)} classes", outputs)
    if outputs != (targets.shape[1:] or (1,)):
        raise InputError("network: outputs", f"{targets.shape[1:] or (1,)}, as for targets {targets.shape}", outputs)
