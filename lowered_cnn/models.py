"""The named networks: well-known small CNNs for images, as descriptions."""

from collections.abc import Callable

from lowered_cnn.arrays import InputError, Shape, check_rank
from lowered_cnn.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    MaxPool,
    ReLU,
    Sequential,
    Standardize,
)

POOLED = 8
"""The most positions along an axis of the last maps in `adaptive`."""

STAGES = 3
"""The least number of convolutions in `adaptive`."""

FILTERS = 64
"""The filters of the last convolution in `adaptive`; each one before has half as many, but no fewer than 8."""


def compact(classes: int = 10) -> Sequential:
    """The default: LeNet's layout, with batch normalization after pooling, which leaves it a fraction of the work."""
    return Sequential(
        Conv2D(8, 5, bias=False), MaxPool(3), BatchNorm(), ReLU(),
        Conv2D(48, 3, bias=False), MaxPool(2), BatchNorm(), ReLU(),
        Flatten(), Dense(128), ReLU(), Dense(classes),
    )  # fmt: skip


def lenet5(classes: int = 10) -> Sequential:
    """LeNet-5 (LeCun et al., 1998) in its modern form: with ReLU and max pooling."""
    return Sequential(
        Conv2D(6, 5, padding=2), ReLU(), MaxPool(2),
        Conv2D(16, 5), ReLU(), MaxPool(2),
        Flatten(), Dense(120), ReLU(), Dense(84), ReLU(), Dense(classes),
    )  # fmt: skip


def caffe_lenet(classes: int = 10) -> Sequential:
    """The LeNet of Caffe's MNIST example, with ReLU after each convolution."""
    return Sequential(
        Conv2D(20, 5), ReLU(), MaxPool(2),
        Conv2D(50, 5), ReLU(), MaxPool(2),
        Flatten(), Dense(500), ReLU(), Dense(classes),
    )  # fmt: skip


def keras_mnist(classes: int = 10) -> Sequential:
    """The network of Keras' MNIST example, without its dropout."""
    return Sequential(
        Conv2D(32, 3), ReLU(), MaxPool(2),
        Conv2D(64, 3), ReLU(), MaxPool(2),
        Flatten(), Dense(classes),
    )  # fmt: skip


def pytorch_mnist(classes: int = 10) -> Sequential:
    """The network of PyTorch's MNIST example, without its dropout."""
    return Sequential(
        Conv2D(32, 3), ReLU(), Conv2D(64, 3), ReLU(), MaxPool(2),
        Flatten(), Dense(128), ReLU(), Dense(classes),
    )  # fmt: skip


def notebook(classes: int = 10) -> Sequential:
    """The network of the derivation's notebook (S11)."""
    return Sequential(
        Conv2D(4, 5, padding="same"), ReLU(), Conv2D(4, 5, padding="same"), ReLU(), MaxPool(2),
        Conv2D(8, 3, padding="same"), ReLU(), Conv2D(16, 3, padding="same"), ReLU(), MaxPool(2),
        Flatten(), Dense(128), ReLU(), Dense(classes),
    )  # fmt: skip


def deep(classes: int = 10) -> Sequential:
    """The network of the best recipe: six convolutions with batch normalization, which follows the pooling."""
    return _six_convolutions((32, 32, 64, 64, 128, 128), 0.3, classes)


def wide(classes: int = 10) -> Sequential:
    """The network of the recipe for objects: the layout of `deep` with more filters, and more dropout."""
    return _six_convolutions((32, 48, 96, 96, 192, 192), 0.4, classes)


def adaptive(classes: int = 10, input_shape: Shape = (1, 28, 28)) -> Sequential:
    """A network for images (C, H, W) of any size and on any scale: the larger they are, the more stages it has.

    The inputs are standardized. Each stage is a 3x3 convolution, max pooling along the axes that are still longer than
    8, batch normalization and ReLU; a dense layer classifies the mean over all positions.
    """
    check_rank("adaptive: input shape", "C H W", input_shape)
    size, pools = input_shape[1:], list[Shape]()
    while max(size) > POOLED:
        pools.append(tuple(2 if length > POOLED else 1 for length in size))
        size = tuple(length // pool for length, pool in zip(size, pools[-1], strict=True))
    layers: list[Layer] = [Standardize()]
    stages = max(len(pools) + 1, STAGES)
    for stage in range(stages):
        layers.append(Conv2D(max(FILTERS >> (stages - 1 - stage), 8), 3, padding="same", bias=False))
        layers += map(MaxPool, pools[stage : stage + 1])
        layers += BatchNorm(), ReLU()
    return Sequential(*layers, GlobalAvgPool(), Dense(classes))


MODELS: dict[str, Callable[..., Sequential]] = {
    model.__name__: model
    for model in (compact, lenet5, caffe_lenet, keras_mnist, pytorch_mnist, notebook, deep, wide, adaptive)
}
"""The networks by name; all take the number of classes, and `adaptive` the shape of the images too."""


def model_for(name: str, classes: int, input_shape: Shape) -> Sequential:
    """Return a named network for images of this shape; raises InputError if they are too small for it."""
    if name == adaptive.__name__:
        return adaptive(classes, input_shape)
    model = MODELS[name](classes)
    check_rank(f"{name}: images", "C H W", input_shape)
    try:
        model.output_shape(input_shape, "")
    except InputError as error:
        smaller = "larger images (the network that fits any size is adaptive)"
        raise InputError(f"{name}: images", smaller, "{}x{} pixels (HxW)".format(*input_shape[1:])) from error
    return model


def _six_convolutions(filters: Shape, dropout: float, classes: int) -> Sequential:
    a, b, c, d, e, f = filters
    return Sequential(
        Conv2D(a, 3, bias=False), BatchNorm(), ReLU(),
        Conv2D(b, 3, bias=False), MaxPool(2), BatchNorm(), ReLU(),
        Conv2D(c, 3, bias=False), BatchNorm(), ReLU(),
        Conv2D(d, 3, bias=False), MaxPool(2), BatchNorm(), ReLU(),
        Conv2D(e, 3, bias=False, padding="same"), BatchNorm(), ReLU(),
        Conv2D(f, 3, bias=False, padding="same"), BatchNorm(), ReLU(),
        Flatten(), Dropout(dropout), Dense(classes),
    )  # fmt: skip
