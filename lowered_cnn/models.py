"""The named networks: well-known small CNNs for images, as descriptions."""

from collections.abc import Callable

from lowered_cnn.layers import BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool, ReLU, Sequential


def compact(classes: int = 10) -> Sequential:
    """The default: LeNet's layout, with ReLU after pooling, which gives the same values for a quarter of the work."""
    return Sequential(
        Conv2D(8, 5), MaxPool(2), ReLU(),
        Conv2D(24, 5), MaxPool(2), ReLU(),
        Flatten(), Dense(120), ReLU(), Dense(classes),
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
    return Sequential(
        Conv2D(32, 3, bias=False), BatchNorm(), ReLU(),
        Conv2D(32, 3, bias=False), MaxPool(2), BatchNorm(), ReLU(),
        Conv2D(64, 3, bias=False), BatchNorm(), ReLU(),
        Conv2D(64, 3, bias=False), MaxPool(2), BatchNorm(), ReLU(),
        Conv2D(128, 3, bias=False, padding="same"), BatchNorm(), ReLU(),
        Conv2D(128, 3, bias=False, padding="same"), BatchNorm(), ReLU(),
        Flatten(), Dropout(0.3), Dense(classes),
    )  # fmt: skip


MODELS: dict[str, Callable[..., Sequential]] = {
    model.__name__: model for model in (compact, lenet5, caffe_lenet, keras_mnist, pytorch_mnist, notebook, deep)
}
"""The networks by name."""
