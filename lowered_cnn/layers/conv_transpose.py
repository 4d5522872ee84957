"""Transposed convolution in 1, 2 and 3 dimensions: the adjoint of a convolution, as a matrix product and col2im."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lowered_cnn.arrays import Array, InputError, Shape, check_flag, check_rank, whole_number
from lowered_cnn.gemm import multiply, multiply_a_bt, multiply_at_b, row_sums
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.lowering import Columns
from lowered_cnn.parameters import Parameter, he_deviation
from lowered_cnn.window import Lengths, Padding, Sweep, Window


@dataclass(frozen=True)
class ConvTranspose(Layer):
    """Y[k, p] = bias[k] + sum over c and those i, a with p = i S + a D - P of weight[c, k, a] X[c, i].

    That is S4, the input gradient of a convolution, as a layer. Input (C, *size), output (filters, *output size), with
    OH = (H - 1) SH + DH (KH - 1) + 1 - PH before - PH after + output_padding, weight (C, filters / groups, *kernel),
    bias (filters). With "same" padding OH is H SH. Raises InputError if channels and filters do not divide into
    groups, or if the output would be empty.
    """

    filters: int
    kernel: Lengths
    stride: Lengths = 1
    padding: Padding = "valid"
    output_padding: Lengths = 0
    dilation: Lengths = 1
    groups: int = 1
    bias: bool = True

    kind: ClassVar[str] = "conv_transpose"
    axes: ClassVar[str]

    def __post_init__(self) -> None:
        where = type(self).__name__
        window = self.window(where)
        whole_number(f"{where}: filters", self.filters, 1)
        whole_number(f"{where}: groups", self.groups, 1)
        check_flag(f"{where}: bias", self.bias)
        if self.filters % self.groups:
            raise InputError(where, f"filters to be a multiple of groups ({self.groups})", self.filters)
        more = self._output_padding(where)
        if any(m >= s for m, s in zip(more, window.stride, strict=True)):
            raise InputError(f"{where}: output_padding", f"less than the stride {window.stride}", more)
        if any(more) and window.padding is None:
            raise InputError(f"{where}: output_padding", "none with 'same' padding", more)

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return (filters, *output size)."""
        return (self.filters, *self.sweep(input_shape, name).size)

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return weight (C, filters / groups, *kernel), and bias (filters) if there is one."""
        window, channels = self.window(self.kind), input_shape[0]
        # Each output is a sum of this many terms: the channels of its group, times 1 / stride of the taps.
        fan_in = max(1, channels // self.groups * math.prod(window.kernel) // math.prod(window.stride))
        shape = (channels, self.filters // self.groups, *window.kernel)
        weight = Parameter("weight", shape, deviation=he_deviation(fan_in), decays=True)
        return (weight, Parameter("bias", (self.filters,))) if self.bias else (weight,)

    def sweep(self, input_shape: Shape, name: str) -> Sweep:
        """Lay the window over the output, so that it has one position for each position of the input."""
        check_rank(f"{name}: input", self.axes, input_shape)
        if input_shape[0] % self.groups:
            raise InputError(name, f"channels to be a multiple of groups ({self.groups})", input_shape[0])
        window, size = self.window(name), input_shape[1:]
        if window.padding is None:
            return window.over(tuple(h * s for h, s in zip(size, window.stride, strict=True)), name)
        axes = zip(size, window.stride, window.extent, window.padding, self._output_padding(name), strict=True)
        output = tuple((h - 1) * s + extent - sum(pads) + more for h, s, extent, pads, more in axes)
        if min(output) < 1:
            raise InputError(name, "an output of at least one position", output)
        return window.over(output, name)

    def lower(self, site: Site) -> Lowered:
        """Return the transposed convolution as matrix products."""
        return _LoweredConvTranspose(self, site)

    def window(self, where: str) -> Window:
        """Return the window; raises InputError, starting with `where`, for invalid lengths."""
        return Window.of(self._rank, self.kernel, self.stride, self.padding, self.dilation, where)

    def _output_padding(self, where: str) -> Shape:
        more = self.output_padding
        lengths = tuple(more) if np.iterable(more) else (more,) * self._rank
        if len(lengths) != self._rank:
            raise InputError(f"{where}: output_padding", f"a number, or {self._rank} of them", repr(more))
        return tuple(whole_number(f"{where}: output_padding", length, 0) for length in lengths)

    @property
    def _rank(self) -> int:
        return len(self.axes.split()) - 1


class ConvTranspose1D(ConvTranspose):
    """A transposed convolution over (C, W); equation, fields and errors are those of ConvTranspose."""

    axes = "C W"


class ConvTranspose2D(ConvTranspose):
    """A transposed convolution over (C, H, W); equation, fields and errors are those of ConvTranspose."""

    axes = "C H W"


class ConvTranspose3D(ConvTranspose):
    """A transposed convolution over (C, D, H, W); equation, fields and errors are those of ConvTranspose."""

    axes = "C D H W"


class _LoweredConvTranspose(Lowered):
    """The matrices, for each of G groups: weight (C, M), x (C, P N), columns (M, P N).

    C is channels / G, M is filters KH KW / G, and the P = H W positions are taken in blocks.
    """

    def __init__(self, conv: ConvTranspose, site: Site) -> None:
        sweep, channels = conv.sweep(site.input_shape, site.name), site.input_shape[0]
        groups, new = conv.groups, site.workspace.array
        self.batch = site.batch
        self.columns = Columns(sweep, conv.filters, site.batch, site.workspace)
        self.weight = site.parameter("weight").reshape(groups, channels // groups, -1)
        self.bias = site.parameter("bias")[:, *(None,) * len(site.input_shape)] if conv.bias else None
        self.matrix = (groups, channels // groups, math.prod(site.input_shape[1:]) * site.batch)
        self.x = self.dx = new((*site.input_shape, site.batch) if site.wants_dx else (0,))
        self.wants_dx = site.wants_dx
        if site.wants_gradients:
            self.dweight = site.gradient("weight").reshape(self.weight.shape)
            self.dbias = site.gradient("bias") if conv.bias else None
            self.ones = site.workspace.ones(math.prod(sweep.size) * site.batch)
            self.part = new(self.weight.shape)

    def forward(self, x: Array) -> Array:
        """Y = col2im(weight^T X) + bias."""
        self.x = x
        matrix = x.reshape(self.matrix)
        self.columns.clear()
        for block in self.columns.blocks:
            columns = self.columns.empty(block)
            multiply_at_b("forward", self.weight, block.of(matrix, self.batch), out=self._matrix(columns))
            self.columns.col2im(block, columns)
        y = self.columns.dx()
        return y if self.bias is None else np.add(y, self.bias, out=y)

    def backward(self, dy: Array) -> Array | None:
        """dX = weight im2col(dY), dweight = X im2col(dY)^T, dbias = dY 1."""
        self.columns.read(dy)
        x, dx = self.x.reshape(self.matrix), self.dx.reshape(self.matrix if self.wants_dx else (0,))
        self.dweight.fill(0)
        for block in self.columns.blocks:
            columns = self._matrix(self.columns.im2col(block))
            multiply_a_bt("dweight", block.of(x, self.batch), columns, out=self.part)
            self.dweight += self.part
            if self.wants_dx:
                multiply("dx", self.weight, columns, out=block.of(dx, self.batch))
        if self.dbias is not None:
            row_sums("dbias", dy.reshape(len(dy), -1), self.ones, out=self.dbias)
        return self.dx if self.wants_dx else None

    def _matrix(self, columns: Array) -> Array:
        return columns.reshape(*self.weight.shape[::2], -1)
