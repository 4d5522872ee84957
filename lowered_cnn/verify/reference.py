"""What each layer should compute, one number at a time: its docstring's equation, as loops and Python's own math."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from lowered_cnn.arrays import Array, Shape
from lowered_cnn.layers import (
    ELU,
    GELU,
    AvgPool,
    BatchNorm,
    Concatenate,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    LayerNorm,
    LeakyReLU,
    MaxPool,
    Pad,
    ReLU,
    Residual,
    Sigmoid,
    SiLU,
    Softmax,
    Standardize,
    Tanh,
)
from lowered_cnn.layers.container import LoweredBranches, Stage
from lowered_cnn.layers.conv import Conv
from lowered_cnn.layers.conv_transpose import ConvTranspose
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
            return (layer.units,), lambda at: bias[at] + sum(w * x[f] for f, w in enumerate(weight[at[0]]))
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
        case BatchNorm() | LayerNorm():
            return x.shape[:-1], lambda at: _normalized(stage, x, at)
        case Standardize():
            means, deviations = (site.parameter(name).tolist() for name in ("mean", "deviation"))
            return x.shape[:-1], lambda at: (x[at] - means[at[0]]) / deviations[at[0]]
        case Softmax():
            return x.shape[:-1], lambda at: _scalars(lambda n: _softmax(x[:, *at[1:], n].tolist(), at[0]), x)
        case Flatten():
            return (math.prod(x.shape[:-1]),), lambda at: next(
                x[place] for number, place in enumerate(np.ndindex(x.shape[:-1])) if number == at[0]
            )
        case Pad():
            pads = layer.pads(len(size), site.name)
            shape = tuple(h + before + after for h, (before, after) in zip(size, pads, strict=True))
            return (x.shape[0], *shape), lambda at: _padded(layer, x, at, [before for before, _ in pads])
        case Residual() | Concatenate():
            return _branches(stage, x)
        case Dropout():
            draws = site.noise.generator(site.name).random(x.shape, dtype=np.float32)
            return x.shape[:-1], lambda at: np.where(draws[at] < layer.rate, 0, x[at] / (1 - layer.rate))
        case _ if (function := scalar(layer)) is not None:
            return x.shape[:-1], lambda at: _scalars(lambda n: function(float(x[*at, n])), x)
    return None


def scalar(layer: object) -> Callable[[float], float] | None:
    """Return an activation as a function of one number; None for other layers."""
    match layer:
        case ReLU():
            return lambda x: x if x > 0 else 0.0
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
    assert isinstance(layer, BatchNorm | LayerNorm)
    weight, bias = (float(stage.site.parameter(name)[channel]) for name in ("weight", "bias"))

    def value(n: int) -> float:
        over = x[channel].ravel() if isinstance(layer, BatchNorm) else np.array([each[*at[1:], n] for each in x])
        mean = math.fsum(over) / len(over)
        # The mean is rounded: where the deviation is much smaller than the mean, that error matters.
        rest = math.fsum(float(number) - mean for number in over) / len(over)
        variance = math.fsum((float(number) - mean - rest) ** 2 for number in over) / len(over)
        return weight * (float(x[*at, n]) - mean - rest) / math.sqrt(variance + layer.epsilon) + bias

    return _scalars(value, x)


def _softmax(z: list[float], k: int) -> float:
    most = max(z)
    return math.exp(z[k] - most) / math.fsum(math.exp(other - most) for other in z)


def _sigmoid(x: float) -> float:
    power = math.exp(-abs(x))
    return (1.0 if x >= 0 else power) / (1 + power)


def _padded(layer: Pad, x: Array, at: Shape, before: list[int]) -> Array:
    place = tuple(i - b for i, b in zip(at[1:], before, strict=True))
    return x[at[0], *place] if inside(place, x.shape[1:-1]) else np.full(x.shape[-1], layer.value)


def _branches(stage: Stage, x: Array) -> tuple[Shape, Values]:
    """Combine the outputs of the branches; the layers in them are checked by themselves."""
    assert isinstance(stage.lowered, LoweredBranches)
    outputs = [branch.lowered.forward(x).copy() for branch in stage.lowered.stages]
    if isinstance(stage.layer, Residual):
        return outputs[0].shape[:-1], lambda at: outputs[0][at] + outputs[1][at]
    channels = [channel for output in outputs for channel in output]
    return (len(channels), *outputs[0].shape[1:-1]), lambda at: channels[at[0]][at[1:]]


def _scalars(value: Callable[[int], float], x: Array) -> Array:
    return np.array([value(n) for n in range(x.shape[-1])])


def sample(shape: Shape, most: int) -> Iterator[Shape]:
    """Yield every place of an activation, or `most` of them drawn at random, the same each time."""
    count = math.prod(shape)
    chosen = range(count) if count <= most else np.random.default_rng(count).choice(count, most, replace=False)
    for number in chosen:
        yield tuple(int(i) for i in np.unravel_index(int(number), shape))
