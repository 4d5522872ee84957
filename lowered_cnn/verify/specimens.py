"""The specimens of `verify all`: every layer with its options in the middle of a small network, and every loss."""

import math
from dataclasses import dataclass

from lowered_cnn.arrays import Shape
from lowered_cnn.layers import (
    ELU,
    GELU,
    LRN,
    AdaptiveAvgPool,
    Add,
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    Clip,
    Concat,
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
    Graph,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    InstanceNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    LogSoftmax,
    MaxPool,
    Multiply,
    Node,
    Pad,
    PixelShuffle,
    PReLU,
    ReLU,
    Reshape,
    Residual,
    Resize,
    Scale,
    Sequential,
    Sigmoid,
    SiLU,
    Slice,
    Softmax,
    Standardize,
    Tanh,
    Transpose,
)
from lowered_cnn.layers.graph import X
from lowered_cnn.losses import (
    BinaryCrossEntropy,
    Huber,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    SoftmaxCrossEntropy,
)

FEATURES: Shape = (8,)
SIGNAL: Shape = (2, 9)
IMAGE: Shape = (2, 6, 5)
VOLUME: Shape = (2, 3, 4, 3)

CLASSES = 3


@dataclass(frozen=True)
class Specimen:
    """A network for inputs of one shape, and the number of examples to check it with."""

    model: Sequential
    input_shape: Shape
    examples: int = 3


def in_the_middle(layer: Layer, input_shape: Shape = IMAGE) -> Specimen:
    """Put a layer between two that have parameters; its inputs have this shape, but 4 channels if they have a size."""
    if len(input_shape) == 1:
        return Specimen(Sequential(Dense(input_shape[0]), layer, Flatten(), Dense(CLASSES)), input_shape)
    before = (Conv1D, Conv2D, Conv3D)[len(input_shape) - 2](4, 2, padding="same")
    return Specimen(Sequential(before, layer, Flatten(), Dense(CLASSES)), input_shape)


def specimens() -> dict[str, Specimen]:
    """Return all specimens by name."""
    nested = Sequential(Conv2D(3, 3), ReLU(), Sequential(MaxPool(2, 1), Dropout(0.3)), Conv2D(2, 1))
    normalized = Sequential(
        Conv2D(4, 2, bias=False), BatchNorm(epsilon=0.1), ReLU(), MaxPool(2), Flatten(), Dense(CLASSES)
    )
    winograd = Sequential(
        Conv2D(16, 3), ReLU(), Conv2D(16, 3, padding="same"), MaxPool(2), ReLU(), Flatten(), Dense(CLASSES)
    )
    fused = Sequential(Conv2D(4, (3, 2), bias=False), MaxPool((2, 1)), Conv2D(3, 2), ReLU(), Flatten(), Dense(CLASSES))
    odd = Sequential(Conv2D(16, 3), Conv2D(16, 3), ReLU(), Conv2D(16, 2), MaxPool(2), ReLU(), Flatten(), Dense(CLASSES))
    unseen = Sequential(
        Conv2D(16, 1), BatchNorm(), Conv2D(17, 3, padding=((1, 0), (0, 0))), MaxPool((2, 4)), Flatten(), Dense(CLASSES)
    )
    return {
        "conv1d": in_the_middle(Conv1D(3, 3), SIGNAL),
        "conv1d, every option": in_the_middle(Conv1D(4, 3, 2, ((2, 1),), 2, groups=2), SIGNAL),
        "conv2d": in_the_middle(Conv2D(3, 3)),
        "conv2d without bias": in_the_middle(Conv2D(3, 3, bias=False)),
        "conv2d, same": in_the_middle(Conv2D(3, (2, 3), padding="same")),
        "conv2d, every option": in_the_middle(Conv2D(6, (3, 2), (2, 1), ((1, 2), (0, 1)), (1, 2), groups=2)),
        "conv2d, strided": in_the_middle(Conv2D(3, 3, 2)),
        "conv2d, dilated": in_the_middle(Conv2D(3, 2, dilation=2)),
        "conv2d, in groups": in_the_middle(Conv2D(4, 3, groups=2)),
        "conv2d, depthwise": in_the_middle(Conv2D(8, 3, padding=1, groups=4)),
        "conv2d, depthwise, strided": in_the_middle(Conv2D(4, 3, 2, 1, groups=4)),
        "conv3d": in_the_middle(Conv3D(3, 2), VOLUME),
        "conv3d, every option": in_the_middle(Conv3D(4, (1, 2, 2), (2, 1, 1), 1, (1, 2, 1), groups=4), VOLUME),
        "conv transpose 1d": in_the_middle(ConvTranspose1D(3, 3, 2, 1, 1), SIGNAL),
        "conv transpose 2d": in_the_middle(ConvTranspose2D(4, (2, 3), (2, 1), ((1, 0), 1), (1, 0), (1, 2), groups=2)),
        "conv transpose 2d, same": in_the_middle(ConvTranspose2D(2, 3, 2, "same")),
        "conv transpose 3d": in_the_middle(ConvTranspose3D(2, 2, bias=False), VOLUME),
        "dense": in_the_middle(Dense(5), FEATURES),
        "dense without bias": in_the_middle(Dense(5, bias=False), FEATURES),
        "max pool": in_the_middle(MaxPool(2)),
        "max pool, step by step": in_the_middle(MaxPool(2, 1)),
        "max pool, padded": in_the_middle(MaxPool(3, padding=1)),
        "max pool, ceil": in_the_middle(MaxPool(2, ceil_mode=True)),
        "max pool, dilated": in_the_middle(MaxPool(2, dilation=2)),
        "max pool, overlapping": in_the_middle(MaxPool(3, (2, 1), padding=1)),
        "max pool, dilated, ceil": in_the_middle(MaxPool((2, 3), 2, 0, (1, 2), ceil_mode=True), (2, 7, 6)),
        "max pool 1d": in_the_middle(MaxPool(3), SIGNAL),
        "max pool 3d": in_the_middle(MaxPool(2), VOLUME),
        "avg pool": in_the_middle(AvgPool(2)),
        "avg pool, overlapping": in_the_middle(AvgPool(3, (2, 1), padding=1)),
        "avg pool without its border": in_the_middle(AvgPool(3, 2, padding=1, count_include_pad=False)),
        "avg pool, windows of nothing": in_the_middle(
            AvgPool((2, 1), 1, (2, 0), (3, 1), count_include_pad=False), (2, 2, 3)
        ),
        "avg pool, dilated, ceil": in_the_middle(AvgPool(2, 2, 1, 2, ceil_mode=True)),
        "avg pool 3d": in_the_middle(AvgPool((1, 2, 3)), VOLUME),
        "global max pool": in_the_middle(GlobalMaxPool()),
        "global avg pool": in_the_middle(GlobalAvgPool()),
        "batch norm": Specimen(normalized, IMAGE),
        "batch norm behind a bias": Specimen(
            Sequential(Conv2D(4, 3), BatchNorm(), ReLU(), Flatten(), Dense(CLASSES)), IMAGE
        ),
        "batch norm of features": in_the_middle(BatchNorm(), FEATURES),
        "layer norm": in_the_middle(LayerNorm(0.1)),
        "layer norm of features": in_the_middle(LayerNorm(), FEATURES),
        "standardize": in_the_middle(Standardize()),
        "standardize features": in_the_middle(Standardize(), FEATURES),
        "relu": in_the_middle(ReLU()),
        "leaky relu": in_the_middle(LeakyReLU(0.2)),
        "elu": in_the_middle(ELU(0.7)),
        "gelu": in_the_middle(GELU()),
        "gelu, approximate": in_the_middle(GELU(approximate=True), FEATURES),
        "silu": in_the_middle(SiLU()),
        "sigmoid": in_the_middle(Sigmoid()),
        "tanh": in_the_middle(Tanh()),
        "softmax": in_the_middle(Softmax()),
        "dropout": in_the_middle(Dropout(0.4)),
        "flatten": in_the_middle(Flatten()),
        "pad": in_the_middle(Pad(((1, 0), (0, 2)), 0.5)),
        "dropout of channels": in_the_middle(Dropout(0.4, channels=True)),
        "dense, along an axis": in_the_middle(Dense(3, axis=1)),
        "dense, along the last axis, without bias": in_the_middle(Dense(3, bias=False, axis=-1), SIGNAL),
        "dense, at each position": in_the_middle(Dense(3, axis=0)),
        "clip": in_the_middle(Clip(-0.5, 0.75)),
        "clip from below": in_the_middle(Clip(-0.5, math.inf), FEATURES),
        "clip from above": in_the_middle(Clip(-math.inf, 0.5)),
        "hard sigmoid": in_the_middle(HardSigmoid()),
        "hard sigmoid, every option": in_the_middle(HardSigmoid(0.75, 0.25)),
        "hard swish": in_the_middle(HardSwish()),
        "prelu": in_the_middle(PReLU()),
        "prelu, shared": in_the_middle(PReLU(shared=True)),
        "prelu of features": in_the_middle(PReLU(), FEATURES),
        "softmax, along the last axis": in_the_middle(Softmax(-1)),
        "log softmax": in_the_middle(LogSoftmax()),
        "log softmax, along an axis": in_the_middle(LogSoftmax(1)),
        "scale": in_the_middle(Scale()),
        "scale of features": in_the_middle(Scale(), FEATURES),
        "scale without bias": in_the_middle(Scale((4, 1, 5), bias=False, initial=0.1)),
        "scale, every option": in_the_middle(Scale((1, 6, 1), weight=False)),
        "scale by constants": in_the_middle(Scale((5,), learned=False)),
        "reshape": in_the_middle(Reshape((6, -1, 2))),
        "transpose": in_the_middle(Transpose((2, 0, 1))),
        "slice behind softmax": in_the_middle(Sequential(Softmax(), Slice(0, 1, 3))),
        "slice, every option": in_the_middle(Slice(-1, -4, -1, 2)),
        "channel shuffle": in_the_middle(ChannelShuffle(2)),
        "pixel shuffle": in_the_middle(PixelShuffle(2)),
        "pixel shuffle 1d": in_the_middle(PixelShuffle(4), SIGNAL),
        "resize": in_the_middle(Resize(2)),
        "resize, linear": in_the_middle(Resize((1.5, 2), mode="linear")),
        "resize, cubic": in_the_middle(Resize(size=(9, 3), mode="cubic")),
        "resize, of corners": in_the_middle(Resize(size=4, mode="linear", coordinates="align_corners"), VOLUME),
        "resize, nearest, asymmetric": in_the_middle(Resize(1.6, coordinates="asymmetric", rounding="floor"), SIGNAL),
        "resize, in bands": in_the_middle(Resize(size=35, mode="linear"), SIGNAL),
        "resize, with numbers that are left out": in_the_middle(Resize(size=3), (2, 37)),
        "resize to one": in_the_middle(Resize(size=(1, 7), mode="linear", coordinates="pytorch_half_pixel")),
        "adaptive avg pool": in_the_middle(AdaptiveAvgPool((4, 7))),
        "adaptive avg pool 3d": in_the_middle(AdaptiveAvgPool(2), VOLUME),
        "lrn": in_the_middle(LRN(3, 0.5, 0.6, 2.0)),
        "group norm": in_the_middle(GroupNorm(2, 0.1)),
        "group norm of features": in_the_middle(GroupNorm(2), FEATURES),
        "instance norm": in_the_middle(InstanceNorm(0.1)),
        "instance norm, affine": in_the_middle(InstanceNorm(affine=True), SIGNAL),
        "pad by reflection": in_the_middle(Pad(((5, 0), (1, 4)), mode="reflect")),
        "pad by its edge": in_the_middle(Pad(((2, 1), (0, 3)), mode="edge")),
        "residual": in_the_middle(Residual(Sequential(Conv2D(4, 3, padding=1), Tanh(), Residual(Conv2D(4, 1))))),
        "residual with a shortcut": in_the_middle(Residual(Conv2D(3, 2, 2), Sequential(AvgPool(2), Conv2D(3, 1)))),
        "concatenate": in_the_middle(
            Concatenate(Conv2D(2, 1), Sequential(), Sequential(Dropout(0.3), AvgPool(3, 1, 1)))
        ),
        "graph": in_the_middle(excitation(4, 6, 5)),
        "graph, one layer used twice": in_the_middle(
            Graph(
                Node("conv", Conv2D(4, 3, padding=1), X),
                Node("norm", BatchNorm(), "conv"),
                Node("act", Tanh(), "norm"),
                Node("conv again", Conv2D(4, 3, padding=1), "act", shares="conv"),
                Node("norm again", BatchNorm(), "conv again", shares="norm"),
                Node("all", Concat(1), ("norm again", "act", X)),
            )
        ),
        "graph, packed": Specimen(
            Sequential(
                Graph(
                    Node("conv", Conv2D(3, 2), "image"),
                    Node("flat", Flatten(), "conv"),
                    Node("more", Dense(2), "rest"),
                    Node("sum", Add(), ("more", "more", "rest")),
                    Node("both", Concat(), ("flat", "sum")),
                    inputs={"image": (2, 3, 3), "rest": (2,)},
                    outputs=("both", "conv", "more"),
                ),
                Dense(CLASSES),
            ),
            (20,),
        ),
        "sequential in sequential": in_the_middle(nested),
        "fused by rows": Specimen(fused, (2, 9, 7)),
        "fused, of odd sizes": Specimen(odd, (2, 9, 9)),
        "fused by winograd": Specimen(winograd, (2, 8, 8)),
        "fused by winograd, not all seen": Specimen(unseen, (2, 8, 9)),
    }


def excitation(channels: int, height: int, width: int) -> Graph:
    """Return squeeze and excitation (Hu et al., 2018) with skips that cross: two sums take each other's branches."""
    return Graph(
        Node("a", Conv2D(channels, 3, padding=1), X), Node("b", Conv2D(channels, 1), X), Node("c", Tanh(), "a"),
        Node("first", Add(), ("b", "c", X)), Node("second", Add(), ("a", "b")),
        Node("squeeze", AvgPool((height, width)), "first"), Node("gate", Sigmoid(), "squeeze"),
        Node("excited", Multiply(), ("second", "gate", "c")),
    )  # fmt: skip


def together() -> Specimen:
    """Return a network with every kind of layer for images."""
    pooled = Concatenate(GlobalAvgPool(), GlobalMaxPool())
    model = Sequential(
        Standardize(), Pad(1), Conv2D(6, 3, bias=False), BatchNorm(), LeakyReLU(0.2), MaxPool(2),
        Residual(Sequential(Conv2D(6, 3, padding="same"), ELU(0.7), Dropout(0.2)), Conv2D(6, 1)),
        ConvTranspose2D(4, 2, 2), SiLU(), LayerNorm(), AvgPool(2), GELU(),
        Scale(), ChannelShuffle(2), HardSwish(), Conv2D(8, 1), PixelShuffle(2), Slice(1, 0, 7), PReLU(),
        Resize(size=6, mode="linear"), InstanceNorm(0.1), AdaptiveAvgPool(4), Reshape((4, 2, 4)), Transpose((0, 2, 1)),
        LRN(3, 0.5), HardSigmoid(), Conv2D(4, 1), excitation(4, 4, 2), GroupNorm(2, 0.1), Clip(-1.5, 1.5), LogSoftmax(),
        Concatenate(Conv2D(3, 1), Sequential(Softmax(), Conv2D(3, 3, padding="same"), ReLU())),
        pooled, Flatten(), Dense(12), Tanh(), Dense(8), Sigmoid(), Dense(CLASSES),
    )  # fmt: skip
    return Specimen(model, (2, 8, 8))


LOSSES: dict[str, Loss] = {
    "cross-entropy": SoftmaxCrossEntropy(),
    "label smoothing": SoftmaxCrossEntropy(0.2),
    "class weights": SoftmaxCrossEntropy(0.1, class_weights=(0.5, 1.0, 2.0), ignore=-1),
    "mean squared error": MeanSquaredError(),
    "mean absolute error": MeanAbsoluteError(),
    "huber": Huber(0.7),
    "binary cross-entropy": BinaryCrossEntropy((2.0, 0.5, 1.0)),
}
