"""What each layer should compute, one number at a time: its docstring's equation, as loops and Python's own math."""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from lowered_cnn.arrays import Array, Shape
from lowered_cnn.layers import (
    ELU,
    GELU,
    LRN,
    AdaptiveAvgPool,
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    Clip,
    Concat,
    Concatenate,
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
    Join,
    Layer,
    LayerNorm,
    LeakyReLU,
    LogSoftmax,
    MaxPool,
    Multiply,
    Pad,
    PixelShuffle,
    PReLU,
    ReLU,
    Reshape,
    Residual,
    Resize,
    Scale,
    Sigmoid,
    SiLU,
    Slice,
    Softmax,
    Standardize,
    Tanh,
    Transpose,
)
from lowered_cnn.layers.container import Stage
from lowered_cnn.layers.conv import Conv
from lowered_cnn.layers.conv_transpose import ConvTranspose
from lowered_cnn.layers.graph import LoweredGraph, X
from lowered_cnn.layers.layer import is_stock
from lowered_cnn.verify.direct import Slide, convolution_at, inside, patch, same_padding, transposed_at
from lowered_cnn.window import Window

Values: TypeAlias = Callable[[Shape], Array]
"""The numbers (N) of an activation at one place (k, *i)."""


def reference(stage: Stage, x: Array) -> tuple[Shape, Values] | None:
    """Return the shape of y without the batch, and y as a function of the place, for x (C, *size, N) in float64.

    None for a layer that this file does not know: a custom layer.
    """
    if not is_stock(stage.layer):
        return None
    layer, site = stage.layer, stage.site
    size = x.shape[1:-1]
    match layer:
        case Conv():
            weight, bias = site.parameter("weight"), _bias(stage, layer.filters)
            slide = slide_of(layer.window(site.name), size)
            return (layer.filters, *slide.output(size)), lambda at: convolution_at(
                x, weight, bias, slide, layer.groups, at
            )
        case ConvTranspose():
            weight, bias = site.parameter("weight"), _bias(stage, layer.filters)
            output, slide = _transposed(layer, size)
            return (layer.filters, *output), lambda at: transposed_at(x, weight, bias, slide, layer.groups, at)
        case Dense():
            weight, bias = site.parameter("weight"), _bias(stage, layer.units)
            axis = _axis(layer.axis or 0, x)
            shape = (*x.shape[:axis], layer.units, *x.shape[axis + 1 : -1])
            return (
                shape,
                lambda at: (
                    bias[at[axis]] + sum(w * x[*at[:axis], f, *at[axis + 1 :]] for f, w in enumerate(weight[at[axis]]))
                ),
            )
        case MaxPool() | AvgPool():
            window = layer.window(len(size), site.name)
            slide = slide_of(window, size)
            output = tuple(
                map(_positions, size, _extent(window), window.stride, slide.padding, itertools.repeat(layer.ceil_mode))
            )
            return (x.shape[0], *output), lambda at: _pooled(layer, x, slide, at)
        case GlobalMaxPool() | GlobalAvgPool():
            pool = _maximum if isinstance(layer, GlobalMaxPool) else _mean
            return x.shape[:1], lambda at: pool([x[*at, *i] for i in np.ndindex(size)])
        case AdaptiveAvgPool():
            parts = layer.output_shape(x.shape[:-1], site.name)[1:]
            return (x.shape[0], *parts), lambda at: _mean(
                [x[at[0], *i] for i in itertools.product(*map(_part, at[1:], parts, size))]
            )
        case Resize():
            output = layer.output_shape(x.shape[:-1], site.name)
            return output, lambda at: _resized(layer, x, output[1:], at)
        case BatchNorm() | LayerNorm() | GroupNorm() | InstanceNorm():
            return x.shape[:-1], lambda at: _normalized(stage, x, at)
        case Standardize():
            means, deviations = (site.parameter(name).tolist() for name in ("mean", "deviation"))
            return x.shape[:-1], lambda at: (x[at] - means[at[0]]) / deviations[at[0]]
        case LRN():
            return x.shape[:-1], lambda at: _scalars(lambda n: _local_response(layer, x[:, *at[1:], n], at[0]), x)
        case Softmax() | LogSoftmax():
            axis = _axis(layer.axis, x)
            share = _softmax if isinstance(layer, Softmax) else _log_softmax
            return x.shape[:-1], lambda at: _scalars(
                lambda n: share(x[*at[:axis], :, *at[axis + 1 :], n].tolist(), at[axis]), x
            )
        case PReLU():
            weight = site.parameter("weight")
            slopes = [float(weight[0 if layer.shared else channel]) for channel in range(x.shape[0])]
            return x.shape[:-1], lambda at: _scalars(
                lambda n: float(x[*at, n]) * (1 if x[*at, n] > 0 else slopes[at[0]]), x
            )
        case Scale():
            names = [parameter.name for parameter in layer.parameters(site.input_shape)]
            return (
                x.shape[:-1],
                lambda at: (
                    x[at] * (_broadcast(site.parameter("weight"), at) if "weight" in names else 1)
                    + (_broadcast(site.parameter("bias"), at) if "bias" in names else 0)
                ),
            )
        case Reshape():
            shape = layer.output_shape(x.shape[:-1], site.name)
            return shape, lambda at: x[_place(_number(at, shape), x.shape[:-1])]
        case Transpose():
            return tuple(x.shape[axis] for axis in layer.axes), lambda at: x[
                tuple(at[layer.axes.index(axis)] for axis in range(len(at)))
            ]
        case Slice():
            axis = _axis(layer.axis, x)
            taken = list(range(x.shape[axis]))[layer.start : layer.stop : layer.step]
            return (*x.shape[:axis], len(taken), *x.shape[axis + 1 : -1]), lambda at: x[
                *at[:axis], taken[at[axis]], *at[axis + 1 :]
            ]
        case ChannelShuffle(groups=groups):
            return x.shape[:-1], lambda at: x[at[0] % groups * (x.shape[0] // groups) + at[0] // groups, *at[1:]]
        case PixelShuffle(factor=r):
            return (x.shape[0] // r ** len(size), *(h * r for h in size)), lambda at: x[
                _number((at[0], *(i % r for i in at[1:])), (1, *(r for _ in size))), *(i // r for i in at[1:])
            ]
        case Flatten():
            return (math.prod(x.shape[:-1]),), lambda at: next(
                x[place] for number, place in enumerate(np.ndindex(x.shape[:-1])) if number == at[0]
            )
        case Pad():
            pads = layer.pads(len(size), site.name)
            shape = tuple(h + before + after for h, (before, after) in zip(size, pads, strict=True))
            return (x.shape[0], *shape), lambda at: _padded(layer, x, at, [before for before, _ in pads])
        case Residual() | Concatenate():
            return _graph(stage, layer.graph, x)
        case Graph():
            return _graph(stage, layer, x)
        case Dropout():
            alike = (x.shape[0], *(1 for _ in size), x.shape[-1]) if layer.channels else x.shape
            draws = np.broadcast_to(site.noise.generator(site.name).random(alike, dtype=np.float32), x.shape)
            return x.shape[:-1], lambda at: np.where(draws[at] < layer.rate, 0, x[at] / (1 - layer.rate))
        case _ if (function := scalar(layer)) is not None:
            return x.shape[:-1], lambda at: _scalars(lambda n: function(float(x[*at, n])), x)
    return None


def scalar(layer: object) -> Callable[[float], float] | None:
    """Return an activation as a function of one number; None for other layers."""
    match layer:
        case ReLU():
            return lambda x: x if x > 0 else 0.0
        case Clip(low=low, high=high):
            return lambda x: min(max(x, low), high)
        case HardSigmoid(alpha=alpha, beta=beta):
            return lambda x: min(max(alpha * x + beta, 0.0), 1.0)
        case HardSwish():
            return lambda x: x * min(max(x + 3, 0.0), 6.0) / 6
        case LeakyReLU(slope=slope):
            return lambda x: x if x > 0 else slope * x
        case ELU(alpha=alpha):
            return lambda x: x if x > 0 else alpha * math.expm1(x)
        case Sigmoid():
            return _sigmoid
        case Tanh():
            return math.tanh
        case SiLU():
            return lambda x: x * _sigmoid(x)
        case GELU(approximate=True):
            return lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
        case GELU():
            return lambda x: x * math.erfc(-x / math.sqrt(2)) / 2
    return None


def statistics(stage: Stage, x: Array) -> dict[str, list[float]]:
    """Return what a batch normalization measures for each channel: the mean, and the unbiased variance.

    A single number has no variance; the running variance then stays as it is.
    """
    means: list[float] = []
    variances: list[float] = []
    for channel, running in zip(x, stage.site.parameter("running_var").tolist(), strict=True):
        numbers = channel.ravel().tolist()
        means.append(math.fsum(numbers) / len(numbers))
        squares = math.fsum((number - means[-1]) ** 2 for number in numbers)
        variances.append(squares / (len(numbers) - 1) if len(numbers) > 1 else running)
    return {"running_mean": means, "running_var": variances}


def inferred(stage: Stage, x: Array) -> Array:
    """Return the output of a batch normalization or a dropout for x at inference."""
    if isinstance(stage.layer, Dropout):
        return x
    assert isinstance(stage.layer, BatchNorm)
    names = ("weight", "bias", "running_mean", "running_var")
    y = np.empty_like(x)
    for channel, (weight, bias, mean, variance) in enumerate(zip(*map(stage.site.parameter, names), strict=True)):
        y[channel] = weight * (x[channel] - mean) / math.sqrt(variance + stage.layer.epsilon) + bias
    return y


def _bias(stage: Stage, count: int) -> Array:
    names = [parameter.name for parameter in stage.layer.parameters(stage.site.input_shape)]
    return stage.site.parameter("bias") if "bias" in names else np.zeros(count)


def _extent(window: Window) -> Shape:
    return tuple(d * (k - 1) + 1 for k, d in zip(window.kernel, window.dilation, strict=True))


def slide_of(window: Window, size: Shape) -> Slide:
    """Return a window over an input of this size in the form that the loops take."""
    padding = window.padding
    if padding is None:
        padding = same_padding(size, window.kernel, window.stride, window.dilation)
    return Slide(window.kernel, window.stride, padding, window.dilation)


def _positions(size: int, extent: int, stride: int, pads: tuple[int, int], ceil: bool) -> int:
    """Count the windows that end within the padded input; with `ceil`, one more if it begins before the end padding."""
    count = len(range(-pads[0], size + pads[1] - extent + 1, stride))
    ends = -pads[0] + (count - 1) * stride + extent
    return count + (ceil and ends < size + pads[1] and -pads[0] + count * stride < size)


def _transposed(layer: ConvTranspose, size: Shape) -> tuple[Shape, Slide]:
    """Return the output size (every tap of every input fits, less the padding; for "same", H SH) and the window."""
    window = layer.window("transposed")
    more = layer.output_padding
    behind = (more,) * len(size) if isinstance(more, int) else tuple(more)
    if window.padding is None:
        output = tuple(h * s for h, s in zip(size, window.stride, strict=True))
    else:
        axes = zip(size, window.stride, _extent(window), window.padding, behind, strict=True)
        output = tuple((h - 1) * s + e - sum(p) + b for h, s, e, p, b in axes)
    return output, slide_of(window, output)


def _pooled(layer: MaxPool | AvgPool, x: Array, slide: Slide, at: Shape) -> Array:
    size = x.shape[1:-1]
    values = [x[at[0], *p] for p in patch(slide, at[1:], size)]
    if isinstance(layer, MaxPool):
        return _maximum(values)
    bordered = tuple(h + sum(pads) for h, pads in zip(size, slide.padding, strict=True))
    unpadded = replace(slide, padding=((0, 0),) * len(size))
    count = len(patch(unpadded, at[1:], bordered)) if layer.count_include_pad else len(values)
    return np.asarray(sum(values) / count) if count else np.zeros(x.shape[-1])


def _maximum(values: list[Array]) -> Array:
    return np.array([max(each) for each in zip(*values, strict=True)])


def _mean(values: list[Array]) -> Array:
    return np.array([math.fsum(each) / len(values) for each in zip(*values, strict=True)])


def _normalized(stage: Stage, x: Array, at: Shape) -> Array:
    layer, channel = stage.layer, at[0]
    assert isinstance(layer, BatchNorm | LayerNorm | GroupNorm | InstanceNorm)
    weight, bias = 1.0, 0.0
    if not isinstance(layer, InstanceNorm) or layer.affine:
        weight, bias = (float(stage.site.parameter(name)[channel]) for name in ("weight", "bias"))

    def value(n: int) -> float:
        over = _normalized_with(layer, x, at, n)
        mean = math.fsum(over) / len(over)
        # The mean is rounded: where the deviation is much smaller than the mean, that error matters.
        rest = math.fsum(float(number) - mean for number in over) / len(over)
        variance = math.fsum((float(number) - mean - rest) ** 2 for number in over) / len(over)
        return weight * (float(x[*at, n]) - mean - rest) / math.sqrt(variance + layer.epsilon) + bias

    return _scalars(value, x)


def _normalized_with(layer: Layer, x: Array, at: Shape, n: int) -> Array:
    """Return the numbers whose mean and variance normalize the one at this place of example n."""
    over: Array
    match layer:
        case LayerNorm():
            over = np.array([each[*at[1:], n] for each in x])
        case GroupNorm(groups=groups):
            together = len(x) // groups
            first = at[0] // together * together
            over = x[first : first + together, ..., n]
        case InstanceNorm():
            over = x[at[0], ..., n]
        case _:
            over = x[at[0]]
    return over.reshape(-1)


def _local_response(layer: LRN, channels: Array, k: int) -> float:
    around = channels[max(0, k - layer.size // 2) : k + layer.size // 2 + 1].tolist()
    base = layer.k + layer.alpha / layer.size * math.fsum(value**2 for value in around)
    return float(channels[k]) / math.pow(base, layer.beta)


def _part(part: int, parts: int, size: int) -> range:
    """Return the positions of a part of an adaptive pooling."""
    return range(math.floor(part * size / parts), math.ceil((part + 1) * size / parts))


def _resized(layer: Resize, x: Array, output: Shape, at: Shape) -> Array:
    """Sum, over the taps around the place on every axis, the products of their weights times the number there."""
    size = x.shape[1:-1]
    scale: Any = layer.scale
    scales = scale if np.iterable(scale) else [scale] * len(size)
    axes = [_interpolated(layer, *axis) for axis in zip(at[1:], size, output, scales, strict=True)]
    total: Array = np.zeros(x.shape[-1])
    for taps in itertools.product(*axes):
        total += math.prod(weight for _, weight in taps) * x[at[0], *(place for place, _ in taps)]
    return total


def _interpolated(layer: Resize, i: int, size: int, output: int, scale: float | None) -> list[tuple[int, float]]:
    """Return the places on an axis that are read for output i, and their weights."""
    start = float(i) if layer.coordinates == "asymmetric" else i + 0.5
    place = start * size / output if scale is None else start / scale
    match layer.coordinates:
        case "half_pixel":
            place -= 0.5
        case "pytorch_half_pixel":
            place = place - 0.5 if output > 1 else 0.0
        case "align_corners":
            place = i * (size - 1) / (output - 1) if output > 1 else 0.0
    if layer.mode == "nearest":
        down = layer.rounding == "floor" or place - math.floor(place) <= 0.5
        taps = {math.floor(place) if down else math.ceil(place): 1.0}
    elif layer.mode == "linear":
        taps = {k: max(0.0, 1 - abs(place - k)) for k in range(math.floor(place), math.floor(place) + 2)}
    else:
        taps = {k: _cubic(abs(place - k)) for k in range(math.floor(place) - 1, math.floor(place) + 3)}
    return [(min(max(k, 0), size - 1), weight) for k, weight in taps.items()]


def _cubic(d: float) -> float:
    if d <= 1:
        return 1.25 * d**3 - 2.25 * d**2 + 1
    return -0.75 * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def _axis(axis: int, x: Array) -> int:
    return axis if axis >= 0 else x.ndim - 1 + axis


def _broadcast(numbers: Array, at: Shape) -> float:
    """Return the number that belongs to a place."""
    ends = at[len(at) - numbers.ndim :]
    return float(numbers[tuple(0 if n == 1 else i for i, n in zip(ends, numbers.shape, strict=True))])


def _number(at: Shape, shape: Shape) -> int:
    """Count the places before this one, in row-major order."""
    number = 0
    for i, n in zip(at, shape, strict=True):
        number = number * n + i
    return number


def _place(number: int, shape: Shape) -> Shape:
    """Return the place with this many places before it."""
    at: list[int] = []
    for n in reversed(shape):
        number, i = divmod(number, n)
        at.insert(0, i)
    return tuple(at)


def _log_softmax(z: list[float], k: int) -> float:
    most = max(z)
    return z[k] - most - math.log(math.fsum(math.exp(other - most) for other in z))


def _softmax(z: list[float], k: int) -> float:
    most = max(z)
    return math.exp(z[k] - most) / math.fsum(math.exp(other - most) for other in z)


def _sigmoid(x: float) -> float:
    power = math.exp(-abs(x))
    return (1.0 if x >= 0 else power) / (1 + power)


def _padded(layer: Pad, x: Array, at: Shape, before: list[int]) -> Array:
    place = tuple(i - b for i, b in zip(at[1:], before, strict=True))
    if layer.mode == "edge":
        place = tuple(min(max(i, 0), h - 1) for i, h in zip(place, x.shape[1:-1], strict=True))
    elif layer.mode == "reflect":
        place = tuple(h - 1 - abs(h - 1 - abs(i)) for i, h in zip(place, x.shape[1:-1], strict=True))
    return x[at[0], *place] if inside(place, x.shape[1:-1]) else np.full(x.shape[-1], layer.value)


def _graph(stage: Stage, graph: Graph, x: Array) -> tuple[Shape, Values]:
    """Combine the outputs of the layers, which are checked by themselves."""
    assert isinstance(stage.lowered, LoweredGraph)
    stages = iter(stage.lowered.stages)
    outputs, start = dict[str, Array](), 0
    for entry in graph.inputs:
        end = start + math.prod(entry.shape)
        outputs[entry.name] = x[start:end].reshape(*entry.shape, -1)
        start = end
    outputs = outputs or {X: x}
    for node in graph.nodes:
        taken = [outputs[name] for name in node.inputs]
        if isinstance(node.layer, Layer):
            outputs[node.name] = next(stages).lowered.forward(taken[0]).copy()
        else:
            outputs[node.name] = joined(node.layer, taken)
    ends = [outputs[name] for name in graph.outputs]
    y = ends[0] if len(ends) == 1 else np.array([number for end in ends for number in end.reshape(-1, x.shape[-1])])
    return y.shape[:-1], lambda at: y[at]


def joined(join: Join, inputs: Sequence[Array]) -> Array:
    """Return the join of some arrays, element by element."""
    if isinstance(join, Concat):
        shape = list(inputs[0].shape)
        shape[join.axis] = sum(each.shape[join.axis] for each in inputs)
        rows = [row for each in inputs for row in np.moveaxis(each, join.axis, 0)]
        return np.moveaxis(np.array(rows), 0, join.axis).reshape(shape)
    combine = operator.mul if isinstance(join, Multiply) else operator.add
    shape = [max(lengths) for lengths in zip(*(each.shape for each in inputs), strict=True)]
    y = np.empty(shape)
    for at in np.ndindex(*shape):
        values = (each[tuple(min(i, length - 1) for i, length in zip(at, each.shape, strict=True))] for each in inputs)
        y[at] = functools.reduce(combine, map(float, values))
    return y


def _scalars(value: Callable[[int], float], x: Array) -> Array:
    return np.array([value(n) for n in range(x.shape[-1])])


def sample(shape: Shape, most: int) -> Iterator[Shape]:
    """Yield every place of an activation, or `most` of them drawn at random, the same each time."""
    count = math.prod(shape)
    chosen = range(count) if count <= most else np.random.default_rng(count).choice(count, most, replace=False)
    for number in chosen:
        yield tuple(int(i) for i in np.unravel_index(int(number), shape))
