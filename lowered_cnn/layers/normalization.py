"""Normalization to mean 0 and variance 1: over a shard, the channels of a position, or groups of channels."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lowered_cnn.arrays import Array, InputError, Shape, check_flag, is_number, whole_number
from lowered_cnn.gemm import multiply, row_dots, row_sums
from lowered_cnn.layers.axes import size_of
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.parameters import Parameter

CACHED_BYTES = 128 * 1024
"""Bytes of the channels normalized at a time: with their results, they fit in a core's L2 cache."""


@dataclass(frozen=True)
class BatchNorm(Layer):
    """y = weight (x - mean) / sqrt(variance + epsilon) + bias, for each channel (Ioffe and Szegedy, 2015).

    Input (C, *size) or (features). In training, mean and variance are taken over the examples and positions of a shard
    (the part of a batch that a worker runs at once; see `Recipe`). At inference they are `running_mean` and
    `running_var`, which each step moves by `momentum` times their difference from the mean over its shards (the
    variance unbiased, as in PyTorch). Shards are summed in the same order for any number of workers.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5

    kind: ClassVar[str] = "batch_norm"

    def __post_init__(self) -> None:
        if not (is_number(self.momentum) and 0 < self.momentum <= 1):
            raise InputError("BatchNorm: momentum", "a number above 0 and at most 1", repr(self.momentum))
        _check_epsilon("BatchNorm", self.epsilon)

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the input's shape."""
        return input_shape

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return weight, bias, running_mean and running_var, each (C)."""
        shape = input_shape[:1]
        return (
            *_weight_and_bias(input_shape),
            Parameter("running_mean", shape, statistic=True),
            Parameter("running_var", shape, initial=1.0, statistic=True),
        )

    def lower(self, site: Site) -> Lowered:
        """Return the normalization with the shard's statistics or, for inference, with the running ones."""
        return _LoweredBatchNorm(self, site) if site.training else _InferenceBatchNorm(self, site)

    def scale_and_shift(self, site: Site) -> tuple[Array, Array]:
        """Return the scale and shift of each channel at inference: y = scale x + shift."""
        scale = site.parameter("weight") / np.sqrt(site.parameter("running_var") + self.epsilon)
        return scale, site.parameter("bias") - site.parameter("running_mean") * scale


class _InferenceBatchNorm(Lowered):
    """The matrices: x, y and z = (x - running_mean) / deviation, all (channels, M)."""

    def __init__(self, norm: BatchNorm, site: Site) -> None:
        self.norm, self.site = norm, site
        self.y = site.workspace.output((*site.input_shape, site.batch))
        self.matrix = (len(self.y), self.y.size // len(self.y))
        self.x = self.y
        if site.wants_gradients:
            self.z = site.workspace.array(self.matrix)
            self.ones = site.workspace.ones(self.matrix[1])

    def forward(self, x: Array) -> Array:
        """Y = scale X + shift."""
        self.x = x
        scale, shift = (part[:, None] for part in self.norm.scale_and_shift(self.site))
        y = self.y.reshape(self.matrix)
        np.add(np.multiply(x.reshape(self.matrix), scale, out=y), shift, out=y)
        return self.y

    def backward(self, dy: Array) -> Array:
        """dX = scale dY; dweight = (Z dY) 1, dbias = dY 1; the statistics are left unchanged."""
        scale, _ = self.norm.scale_and_shift(self.site)
        mean = self.site.parameter("running_mean")
        dx, x = dy.reshape(self.matrix), self.x.reshape(self.matrix)
        np.multiply(np.subtract(x, mean[:, None], out=self.z), dx, out=self.z)
        row_sums("sum", self.z, self.ones, out=self.site.gradient("weight"))
        self.site.gradient("weight")[...] /= np.sqrt(self.site.parameter("running_var") + self.norm.epsilon)
        row_sums("sum", dx, self.ones, out=self.site.gradient("bias"))
        for name in ("running_mean", "running_var"):
            self.site.gradient(name).fill(0)
        np.multiply(dx, scale[:, None], out=dx)
        return dy


class _LoweredBatchNorm(Lowered):
    """The matrices, for a block of channels: x, z and y (channels, M), with M = positions times examples."""

    def __init__(self, norm: BatchNorm, site: Site) -> None:
        new = site.workspace.array
        channels, shape = site.input_shape[0], (*site.input_shape, site.batch)
        self.norm, self.examples = norm, site.batch
        self.y, self.z = new(shape), new(shape)
        self.matrix = (channels, self.y.size // channels)
        self.ones = site.workspace.ones(self.matrix[1])
        step = max(1, CACHED_BYTES // (self.matrix[1] * site.workspace.dtype.itemsize))
        self.blocks = [slice(start, start + step) for start in range(0, channels, step)]
        self.scratch = new((min(step, channels), self.matrix[1]))
        self.mean, self.rest, self.variance, self.deviation = new((4, channels, 1))
        self.weight, self.bias = (site.parameter(name)[:, None] for name in ("weight", "bias"))
        self.dweight, self.dbias = (site.gradient(name)[:, None] for name in ("weight", "bias"))
        self.running = [site.parameter(name)[:, None] for name in ("running_mean", "running_var")]
        self.off = [site.gradient(name)[:, None] for name in ("running_mean", "running_var")]

    def forward(self, x: Array) -> Array:
        """Z = (X - mean) / sqrt(variance + epsilon), Y = weight Z + bias, with mean = X 1 / M.

        The rounding error of X 1 is proportional to the mean, which may be many deviations from 0. So the mean is taken
        twice: the mean of X - mean, which is as small as that error, is subtracted too.
        """
        x, y, z = (each.reshape(self.matrix) for each in (x, self.y, self.z))
        for block in self.blocks:
            mean, rest, variance, deviation = (
                part[block] for part in (self.mean, self.rest, self.variance, self.deviation)
            )
            self._mean(x[block], out=mean)
            centred = np.subtract(x[block], mean, out=z[block])
            self._mean(centred, out=rest)
            np.subtract(centred, rest, out=centred)
            np.add(mean, rest, out=mean)
            row_dots("sum", centred, centred, out=variance[:, 0])
            variance /= self.matrix[1]
            np.sqrt(variance + self.norm.epsilon, out=deviation)
            np.divide(centred, deviation, out=centred)
            np.multiply(centred, self.weight[block], out=y[block])
            np.add(y[block], self.bias[block], out=y[block])
        return self.y

    def backward(self, dy: Array) -> Array:
        """dX = weight / deviation (dY - mean of dY - Z times the mean of Z dY); dweight = (Z dY) 1, dbias = dY 1."""
        dx, z = dy.reshape(self.matrix), self.z.reshape(self.matrix)
        for block in self.blocks:
            spare = self.scratch[: len(self.mean[block])]
            row_dots("sum", dx[block], z[block], out=self.dweight[block, 0])
            row_sums("sum", dx[block], self.ones, out=self.dbias[block, 0])
            np.multiply(z[block], self.dweight[block] / self.matrix[1], out=spare)
            np.subtract(dx[block], spare, out=dx[block])
            np.subtract(dx[block], self.dbias[block] / self.matrix[1], out=dx[block])
            np.multiply(dx[block], self.weight[block] / self.deviation[block], out=dx[block])
        count = self.matrix[1]
        # A single number says nothing about the variance, which is then left unchanged.
        unbiased = self.variance * (count / (count - 1)) if count > 1 else self.running[1]
        for off, running, measured in zip(self.off, self.running, (self.mean, unbiased), strict=True):
            np.multiply(running - measured, self.norm.momentum * self.examples, out=off)
        return dy

    def _mean(self, x: Array, out: Array) -> None:
        row_sums("sum", x, self.ones, out=out[:, 0])
        out /= self.matrix[1]


@dataclass(frozen=True)
class LayerNorm(Layer):
    """y = weight (x - mean) / sqrt(variance + epsilon) + bias, over the channels of each position (Ba et al., 2016).

    Input (features) or (C, *size); weight and bias have one number per feature or channel. Examples and positions are
    independent, both in training and at inference.
    """

    epsilon: float = 1e-5

    kind: ClassVar[str] = "layer_norm"

    def __post_init__(self) -> None:
        _check_epsilon("LayerNorm", self.epsilon)

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the input's shape."""
        return input_shape

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return weight and bias, each (C)."""
        return _weight_and_bias(input_shape)

    def lower(self, site: Site) -> Lowered:
        """Return the normalization of (C, positions times examples) in columns."""
        return _LoweredLayerNorm(self, site, (1, site.input_shape[0], -1))


@dataclass(frozen=True)
class GroupNorm(Layer):
    """y = weight (x - mean) / sqrt(variance + epsilon) + bias, over each group of channels (Wu and He, 2018).

    Input (C, *size) or (features), whose channels are divided into `groups`; mean and variance are taken over all
    numbers of a group in an example. Weight and bias have one number per channel.
    """

    groups: int
    epsilon: float = 1e-5

    kind: ClassVar[str] = "group_norm"

    def __post_init__(self) -> None:
        whole_number("GroupNorm: groups", self.groups, 1)
        _check_epsilon("GroupNorm", self.epsilon)

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the input's shape."""
        if input_shape[0] % self.groups:
            raise InputError(f"{name}: input", f"channels in {self.groups} groups of the same size", input_shape)
        return input_shape

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return weight and bias, each (C)."""
        return _weight_and_bias(input_shape)

    def lower(self, site: Site) -> Lowered:
        """Return the normalization of (groups, numbers of a group, examples) in columns."""
        return _LoweredLayerNorm(self, site, (self.groups, -1, site.batch))


@dataclass(frozen=True)
class InstanceNorm(Layer):
    """y = (x - mean) / sqrt(variance + epsilon), over each channel of each example (Ulyanov et al., 2016).

    Input (C, *size). With `affine`, y is weight times this plus bias, with one number each per channel.
    """

    epsilon: float = 1e-5
    affine: bool = False

    kind: ClassVar[str] = "instance_norm"

    def __post_init__(self) -> None:
        _check_epsilon("InstanceNorm", self.epsilon)
        check_flag("InstanceNorm: affine", self.affine)

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the input's shape."""
        size_of(input_shape, name)
        return input_shape

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return weight and bias, each (C), or none."""
        return _weight_and_bias(input_shape) if self.affine else ()

    def lower(self, site: Site) -> Lowered:
        """Return the normalization of (C, positions, examples) in columns."""
        return _LoweredLayerNorm(self, site, (site.input_shape[0], -1, site.batch))


class _LoweredLayerNorm(Lowered):
    """Normalizes the columns of matrices x and z (groups, K, M), whose means are products with row (1, K) of 1 / K.

    Weight and bias, if there are any, belong to the rows of x and y seen as (C, positions times examples).
    """

    def __init__(self, norm: LayerNorm | GroupNorm | InstanceNorm, site: Site, columns: Shape) -> None:
        new, channels = site.workspace.array, site.input_shape[0]
        self.norm = norm
        names = [parameter.name for parameter in norm.parameters(site.input_shape)]
        self.numbers = [site.parameter(name)[:, None] for name in names]
        shape = (*site.input_shape, site.batch)
        self.y, self.spare = site.workspace.output(shape), site.workspace.temporary(shape)
        self.z = site.workspace.temporary(shape) if self.numbers else self.y
        self.matrix = (channels, self.y.size // channels)
        self.columns = self.z.reshape(columns).shape
        self.row = new((1, self.columns[1]), 1 / self.columns[1])
        self.mean, self.deviation = new((2, self.columns[0], 1, self.columns[2]))
        if site.wants_gradients:
            self.gradients = [site.gradient(name) for name in names]
            self.ones = site.workspace.ones(self.matrix[1])

    def forward(self, x: Array) -> Array:
        """Z = (X - mean) / sqrt(variance + epsilon), Y = weight Z + bias, with mean = row @ X, twice, as above."""
        x, z, spare = (each.reshape(self.columns) for each in (x, self.z, self.spare))
        multiply("sum", self.row, x, out=self.mean)
        np.subtract(x, self.mean, out=z)
        multiply("sum", self.row, z, out=self.mean)
        np.subtract(z, self.mean, out=z)
        multiply("sum", self.row, np.multiply(z, z, out=spare), out=self.deviation)
        np.sqrt(np.add(self.deviation, self.norm.epsilon, out=self.deviation), out=self.deviation)
        np.divide(z, self.deviation, out=z)
        if self.numbers:
            (weight, bias), y = self.numbers, self.y.reshape(self.matrix)
            np.add(np.multiply(z.reshape(self.matrix), weight, out=y), bias, out=y)
        return self.y

    def backward(self, dy: Array) -> Array:
        """dX = (G - row G - Z row (Z G)) / deviation, with G = weight dY; dweight = (Z dY) 1, dbias = dY 1."""
        dx, z, spare = (each.reshape(self.columns) for each in (dy, self.z, self.spare))
        if self.numbers:
            self._affine_backward(dy.reshape(self.matrix))
        multiply("sum", self.row, np.multiply(dx, z, out=spare), out=self.mean)
        np.multiply(z, self.mean, out=spare)
        multiply("sum", self.row, dx, out=self.mean)
        np.subtract(np.subtract(dx, self.mean, out=dx), spare, out=dx)
        np.divide(dx, self.deviation, out=dx)
        return dy

    def _affine_backward(self, dy: Array) -> None:
        """Write dweight and dbias, and G in place of dY."""
        dweight, dbias = self.gradients
        spare = np.multiply(dy, self.z.reshape(self.matrix), out=self.spare.reshape(self.matrix))
        row_sums("dweight", spare, self.ones, out=dweight)
        row_sums("dbias", dy, self.ones, out=dbias)
        np.multiply(dy, self.numbers[0], out=dy)


def _weight_and_bias(input_shape: Shape) -> tuple[Parameter, Parameter]:
    """Return weight and bias, with one number each per channel or feature."""
    return Parameter("weight", input_shape[:1], initial=1.0), Parameter("bias", input_shape[:1])


def _check_epsilon(where: str, epsilon: float) -> None:
    if not (is_number(epsilon) and 0 < epsilon < float("inf")):
        raise InputError(f"{where}: epsilon", "a number above 0", repr(epsilon))
