"""Networks drawn at random: any layers with any options in any order that fits, of sizes that do not divide evenly."""

import math
from typing import TypeVar

import numpy as np

from lowered_cnn.arrays import InputError, Shape
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
from lowered_cnn.layers.conv import Conv
from lowered_cnn.layers.graph import X
from lowered_cnn.layers.resize import Coordinates, Mode, Rounding
from lowered_cnn.lowering import im2col
from lowered_cnn.verify.specimens import CLASSES, Specimen
from lowered_cnn.window import Lengths, Padding

LARGEST = (300, 3000, 3000, 3000)
"""The most features, or numbers in maps of 1 to 3 axes, in a layer's output: so a network takes about a second."""

CHANNELS = (1, 2, 3, 15, 16, 16, 16, 17, 17, 17, 18, 18)
"""On both sides of `WINOGRAD_CHANNELS`."""

SIZES = ((), (9, 18), (5, 11), (3, 6))
"""The range of lengths, its end not included, for inputs of 0 to 3 axes."""

Option = TypeVar("Option")


def draw(seed: int) -> Specimen:
    """Draw a network, its input shape and its batch size, the same for the same seed."""
    return _Drawing(np.random.default_rng(seed)).specimen()


class _Drawing:
    """Draws layers for the shapes that reach them; what does not fit is drawn again."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        self.depth = 0

    def specimen(self) -> Specimen:
        """Draw some layers for inputs of 0 to 3 axes, then those that lead to the classes."""
        rank = self.one_of(0, 1, 2, 2, 2, 2, 2, 3)
        size = (self.number(*SIZES[rank]) for _ in range(rank))
        input_shape = (self.number(3, 18) if rank == 0 else self.one_of(*CHANNELS), *size)
        layers, shape = self.run(input_shape, self.number(1, 7))
        if len(shape) > 1:
            layers.append(self.one_of(Flatten(), Flatten(), GlobalAvgPool(), GlobalMaxPool()))
            shape = layers[-1].output_shape(shape, "sampled")
        layers += self.run(shape, self.number(0, 2))[0]
        return Specimen(Sequential(*layers, Dense(CLASSES)), input_shape, examples=self.number(1, 5))

    def run(self, shape: Shape, count: int) -> tuple[list[Layer], Shape]:
        """Draw `count` layers in sequence, or a few more, and return them with their output shape."""
        layers: list[Layer] = []
        while len(layers) < count:
            try:
                more = self.stretch(shape)
                after = Sequential(*more).output_shape(shape, "sampled")
            except InputError:
                continue
            if math.prod(after) <= LARGEST[len(after) - 1]:
                layers, shape = layers + more, after
        return layers, shape

    def stretch(self, shape: Shape) -> list[Layer]:
        """Draw a layer, or several that are lowered together; they may not fit."""
        if len(shape) == 1:
            return [self.one_of(self.dense, self.dense, self.pointwise, self.norm, self.branches)(shape)]
        if self.chance(0.6):
            return self.convolved(shape)
        kinds = (self.convolution, self.transposed, self.pool, self.pointwise, self.norm, self.pad, self.branches)
        return [
            self.one_of(*kinds, *kinds, self.collapsed, self.rearranged, self.rearranged, self.resized, self.dense)(
                shape
            )
        ]

    def convolved(self, shape: Shape) -> list[Layer]:
        """Draw what is fused, in whole or in part: (1 x 1,) (norm,) convolution, (norm,) (ReLU,) (pool,) (ReLU)."""
        kernel: Lengths = 3 if self.chance(0.8) else self.lengths(shape, 3)
        convolution = _convolution(shape)
        before = convolution(self.one_of(*CHANNELS), 1)
        middle = convolution(self.one_of(*CHANNELS), kernel, padding=self.padding(shape, 2), bias=self.chance(0.5))
        patch: Lengths = 2 if self.chance(0.5) else self.lengths(shape, 3)
        around: list[tuple[float, Layer]] = [
            (0.3, before), (0.5, self.norm(shape)), (1, middle), (0.3, self.norm(shape)), (0.4, ReLU()),
            (0.7, MaxPool(patch)), (0.4, ReLU()),
        ]  # fmt: skip
        return [layer for probability, layer in around if self.chance(probability)]

    def convolution(self, shape: Shape) -> Layer:
        """Draw a convolution with any options."""
        groups = self.one_of(1, 1, 2, 3, shape[0])
        return _convolution(shape)(
            groups * self.number(1, 3),
            self.lengths(shape, 3),
            self.lengths(shape, 2),
            self.padding(shape, 2),
            self.lengths(shape, 2),
            groups,
            self.chance(0.5),
        )

    def transposed(self, shape: Shape) -> Layer:
        """Draw a transposed convolution with any options."""
        groups, stride = self.one_of(1, 1, 2, 3, shape[0]), self.lengths(shape, 2)
        return (ConvTranspose1D, ConvTranspose2D, ConvTranspose3D)[len(shape) - 2](
            groups * self.number(1, 3),
            self.lengths(shape, 3),
            stride,
            self.padding(shape, 1),
            tuple(self.number(0, s) for s in stride),
            self.lengths(shape, 2),
            groups,
            self.chance(0.5),
        )

    def pool(self, shape: Shape) -> Layer:
        """Draw a pooling with any options, unless a window lies in the padding alone: that has no maximum."""
        stride = self.one_of(None, self.lengths(shape, 3))
        options = (self.lengths(shape, 3), stride, self.padding(shape, 1), self.lengths(shape, 2), self.chance(0.5))
        pool = self.one_of(MaxPool(*options), AvgPool(*options, count_include_pad=self.chance(0.5)))
        sweep = pool.sweep(shape, "sampled")
        inside = im2col(np.ones((1, *sweep.size, 1)), sweep)
        return pool if inside.any(axis=tuple(range(1, len(shape)))).all() else self.pool(shape)

    def pad(self, shape: Shape) -> Layer:
        """Draw a border."""
        padding = tuple((self.number(0, 3), self.number(0, 3)) for _ in shape[1:])
        return Pad(padding, self.one_of(0.0, 0.5, -1.0), self.one_of("constant", "constant", "edge", "reflect"))

    def rearranged(self, shape: Shape) -> Layer:
        """Draw a layer that moves the numbers of maps to other places, or leaves some out; its output is maps too."""
        rank = len(shape)
        axis, order = self.number(0, rank), tuple(int(axis) for axis in self.generator.permutation(rank))
        merged = (*shape[: rank - 2], -1)
        split = (shape[0], 1, *shape[1:])
        return self.one_of(
            Transpose(order), ChannelShuffle(self.one_of(1, 2, 3, shape[0])), PixelShuffle(self.one_of(1, 2)),
            Reshape(merged if rank > 2 else split), Slice(axis, self.number(-3, 2), None, self.number(1, 3)),
            Slice(axis, 0, self.one_of(-1, 2, 4)),
        )  # fmt: skip

    def resized(self, shape: Shape) -> Layer:
        """Draw an interpolation, or means over parts."""
        size = tuple(self.number(1, h + 4) for h in shape[1:])
        scale = tuple(self.one_of(0.5, 1.0, 1.5, 2.0) for _ in shape[1:])
        options: tuple[Mode, Coordinates, Rounding] = (
            self.one_of("nearest", "linear", "cubic"),
            self.one_of("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"),
            self.one_of("round_prefer_floor", "floor"),
        )
        return self.one_of(Resize(scale, None, *options), Resize(None, size, *options), AdaptiveAvgPool(size))

    def collapsed(self, shape: Shape) -> Layer:
        """Draw a layer that leaves only features."""
        return self.one_of(Flatten(), GlobalAvgPool(), GlobalMaxPool())

    def dense(self, shape: Shape) -> Layer:
        """Draw a dense layer."""
        axis = self.number(-len(shape), len(shape)) if len(shape) > 1 else self.one_of(None, 0, -1)
        return Dense(self.number(2, 9), self.chance(0.5), axis)

    def norm(self, shape: Shape) -> Layer:
        """Draw a normalization; not over a single channel, which would leave a constant, and ties after it."""
        batch = BatchNorm(self.one_of(0.1, 1.0), self.one_of(0.1, 1e-5))
        norm = self.one_of(batch, batch, LayerNorm(self.one_of(0.1, 1e-5)))
        groups = self.one_of(1, 2, shape[0])
        if math.prod(shape) > 2 * groups and self.chance(0.3):
            epsilon = self.one_of(0.1, 1e-5)
            one_each = len(shape) > 1 and groups == shape[0]
            return InstanceNorm(epsilon, self.chance(0.5)) if one_each else GroupNorm(groups, epsilon)
        return norm if shape[0] > 1 else batch

    def pointwise(self, shape: Shape) -> Layer:
        """Draw an activation, or noise."""
        return self.one_of(
            ReLU(), ReLU(), LeakyReLU(self.one_of(0.01, -0.5, 1.5)), ELU(self.one_of(0.7, 1.0)), GELU(), GELU(True),
            SiLU(), Sigmoid(), Tanh(),
            Softmax(self.number(-len(shape), len(shape))), LogSoftmax(self.number(0, len(shape))),
            Dropout(self.one_of(0.0, 0.3, 0.6), self.chance(0.2)), HardSigmoid(self.one_of(1 / 6, 0.25)), HardSwish(),
            Clip(self.one_of(0.0, -math.inf), self.one_of(1.0, 6.0)), PReLU(self.chance(0.3)),
            LRN(self.one_of(1, 3, 5), 0.5),
            self.scale(shape), Standardize(),
        )  # fmt: skip

    def scale(self, shape: Shape) -> Layer:
        """Draw a scale, a shift, or both."""
        alike = tuple(self.one_of(1, n) for n in shape)
        own = self.one_of(None, alike, alike[self.number(0, len(alike)) :])
        weight, bias = self.one_of((True, True), (True, False), (False, True))
        return Scale(own, weight, bias, self.chance(0.7), self.one_of(1.0, 0.1))

    def branches(self, shape: Shape) -> Layer:
        """Draw a container of some layers; a branch beside them has a window that leads to the same size."""
        if self.depth == 2:
            return self.pointwise(shape)
        self.depth += 1
        inner, after = self.run(shape, self.number(0, 3))
        graph = self.graph(shape) if self.chance(0.25) else None
        self.depth -= 1
        if graph is not None:
            return graph
        body = Sequential(*inner)
        kind = self.one_of(Sequential, Residual, Concatenate)
        if kind is Sequential or len(after) != len(shape):
            return body
        if kind is Residual:
            return Residual(body) if after == shape else Residual(body, self.beside(shape, after))
        other = self.beside(shape, (self.one_of(*CHANNELS), *after[1:]))
        return Concatenate(*self.one_of((body, other), (other, body), (other, body, self.beside(shape, after))))

    def graph(self, shape: Shape) -> Layer:
        """Draw nodes that take any earlier ones; what nothing takes meets in the last one, as features."""
        nodes: list[Node] = []
        shapes = {X: shape}
        for number in range(self.number(2, 6)):
            node, after = self.node(f"node{number}", self.one_of(*shapes) if nodes else X, nodes, shapes)
            nodes, shapes = [*nodes, node], {**shapes, node.name: after}
        taken = {name for node in nodes for name in node.inputs}
        for name in shapes.keys() - taken:
            flat = GlobalAvgPool() if len(shapes[name]) > 1 else Flatten()
            nodes.append(Node(f"end of {name}", flat, name))
        ends = sorted(node.name for node in nodes if node.name.startswith("end"))
        return Graph(*nodes, Node("ends", Concat(), ends))

    def node(self, name: str, taken: str, nodes: list[Node], shapes: dict[str, Shape]) -> tuple[Node, Shape]:
        """Draw some layers, layers that are there once more, or a join with another tensor of the same shape."""
        shape, layers = shapes[taken], [node for node in nodes if isinstance(node.layer, Layer) and not node.shares]
        again = [node for node in layers if shapes[node.inputs[0]] == shape]
        if again and self.chance(0.3):
            node = self.one_of(*again)
            return Node(name, node.layer, taken, shares=node.name), shapes[node.name]
        if self.chance(0.5):
            join = self.one_of(Add(), Multiply(), Concat(self.number(0, len(shape))))
            alike = [other for other, theirs in shapes.items() if theirs == shape]
            inputs = (taken, *(self.one_of(*alike) for _ in range(self.number(1, 3))))
            after = join.output_shape([shape] * len(inputs), name)
            if math.prod(after) <= LARGEST[len(after) - 1]:
                return Node(name, join, inputs), after
        inner, after = self.run(shape, self.number(1, 3))
        return Node(name, Sequential(*inner), taken), after

    def beside(self, shape: Shape, after: Shape) -> Layer:
        """Return a layer, or two, that turn `shape` into `after`."""
        if len(shape) == 1:
            return Dense(after[0])
        kernel = tuple(max(1, before - behind + 1) for before, behind in zip(shape[1:], after[1:], strict=True))
        padding = tuple((0, max(0, behind - before)) for before, behind in zip(shape[1:], after[1:], strict=True))
        if self.chance(0.5):
            return _convolution(shape)(after[0], kernel, padding=padding)
        pool = self.one_of(MaxPool(kernel, 1), AvgPool(kernel, 1))
        return Sequential(pool, _convolution(shape)(after[0], 1, padding=padding))

    def padding(self, shape: Shape, most: int) -> Padding:
        """Draw a padding, written in any of the ways that are allowed."""
        pairs = tuple((self.number(0, most + 1), self.number(0, most + 1)) for _ in shape[1:])
        return self.one_of("same", "valid", self.number(0, most + 1), pairs)

    def lengths(self, shape: Shape, most: int) -> Shape:
        """Draw a length for each axis."""
        return tuple(self.number(1, most + 1) for _ in shape[1:])

    def number(self, least: int, end: int) -> int:
        """Draw a whole number, from the least up to, but not including, the end."""
        return int(self.generator.integers(least, end))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return bool(self.generator.random() < probability)

    def one_of(self, *options: Option) -> Option:
        """Draw one of the options."""
        return options[self.number(0, len(options))]


def _convolution(shape: Shape) -> type[Conv]:
    return (Conv1D, Conv2D, Conv3D)[len(shape) - 2]
