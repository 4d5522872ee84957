"""Convolution in 1, 2 and 3 dimensions: im2col and one matrix product; for the gradients, two more and col2im."""

import math
from dataclasses import dataclass
from typing import ClassVar

from lowered_cnn.arrays import Array, InputError, Shape, check_flag, check_rank, whole_number
from lowered_cnn.gemm import affine, multiply_a_bt, multiply_at_b, row_sums
from lowered_cnn.layers.layer import Layer, Lowered, Site
from lowered_cnn.lowering import Columns
from lowered_cnn.parameters import Parameter, he_deviation
from lowered_cnn.window import Lengths, Padding, Sweep, Window


@dataclass(frozen=True)
class Conv(Layer):
    """Z[k, i, j] = sum over c, a, b of weight[k, c, a, b] X[c, i SH + a DH - PH, j SW + b DW - PW] + bias[k] (S1).

    Input (C, *size), output (filters, *output size), weight (filters, C / groups, *kernel), bias (filters). With
    `groups`, channels and filters are split into that many groups, and each group of filters sees only its group of
    channels. Raises InputError if they do not divide evenly, or if the input is too small.
    """

    filters: int
    kernel: Lengths
    stride: Lengths = 1
    padding: Padding = "valid"
    dilation: Lengths = 1
    groups: int = 1
    bias: bool = True

    axes: ClassVar[str]

    def __post_init__(self) -> None:
        where = type(self).__name__
        self.window(where)
        whole_number(f"{where}: filters", self.filters, 1)
        whole_number(f"{where}: groups", self.groups, 1)
        check_flag(f"{where}: bias", self.bias)
        if self.filters % self.groups:
            raise InputError(where, f"filters to be a multiple of groups ({self.groups})", self.filters)

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return (filters, *output size)."""
        return (self.filters, *self.sweep(input_shape, name).output)

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return weight (filters, C / groups, *kernel), and bias (filters) if there is one."""
        kernel = self.window(self.kind).kernel
        channels = input_shape[0] // self.groups
        deviation = he_deviation(channels * math.prod(kernel))
        weight = Parameter("weight", (self.filters, channels, *kernel), deviation=deviation, decays=True)
        return (weight, Parameter("bias", (self.filters,))) if self.bias else (weight,)

    def sweep(self, input_shape: Shape, name: str) -> Sweep:
        """Lay the window over an input (C, *size)."""
        check_rank(f"{name}: input", self.axes, input_shape)
        if input_shape[0] % self.groups:
            raise InputError(name, f"channels to be a multiple of groups ({self.groups})", input_shape[0])
        return self.window(name).over(input_shape[1:], name)

    def lower(self, site: Site) -> Lowered:
        """Return the convolution as matrix products."""
        return _LoweredConv(self, site)

    def window(self, where: str) -> Window:
        """Return the window; raises InputError, starting with `where`, for invalid lengths."""
        rank = len(self.axes.split()) - 1
        return Window.of(rank, self.kernel, self.stride, self.padding, self.dilation, where)


class Conv1D(Conv):
    """A convolution over (C, W); equation, fields and errors are those of Conv."""

    kind = "conv"
    axes = "C W"


class Conv2D(Conv):
    """A convolution over (C, H, W); equation, fields and errors are those of Conv."""

    kind = "conv"
    axes = "C H W"


class Conv3D(Conv):
    """A convolution over (C, D, H, W); equation, fields and errors are those of Conv."""

    kind = "conv"
    axes = "C D H W"


class _LoweredConv(Lowered):
    """The matrices, for each of G groups: weight (K, M), columns (M, P N), y (K, P N).

    K is filters / G, M is C KH KW / G, and the P = OH OW positions are taken in blocks.
    """

    def __init__(self, conv: Conv, site: Site) -> None:
        sweep = conv.sweep(site.input_shape, site.name)
        groups, filters = conv.groups, conv.filters // conv.groups
        new = site.workspace.array
        self.batch = site.batch
        self.columns = Columns(sweep, site.input_shape[0], site.batch, site.workspace, wants_dx=site.wants_dx)
        self.wants_dx = site.wants_dx
        self.weight = site.parameter("weight").reshape(groups, filters, -1)
        self.bias = site.parameter("bias").reshape(groups, filters, 1) if conv.bias else None
        self.y = site.workspace.output((conv.filters, *sweep.output, site.batch))
        self.matrix = (groups, filters, self.y.size // conv.filters)
        if site.wants_gradients:
            self.dweight = site.gradient("weight").reshape(self.weight.shape)
            self.dbias = site.gradient("bias").reshape(groups, filters) if conv.bias else None
            self.ones = site.workspace.ones(self.matrix[-1])
            # Kept transposed: columns @ dz^T is the faster product (BLAS packs the long operand once).
            transposed = (groups, self.weight.shape[-1], filters)
            self.sum, self.part = (new(transposed).swapaxes(1, 2) for _ in range(2))

    def forward(self, x: Array) -> Array:
        """Z = weight @ im2col(X) + bias (S1)."""
        self.columns.read(x)
        y = self.y.reshape(self.matrix)
        for block in self.columns.blocks:
            affine(self.weight, self._matrix(self.columns.im2col(block)), self.bias, out=block.of(y, self.batch))
        return self.y

    def backward(self, dy: Array) -> Array | None:
        """dweight = dZ im2col(X)^T (S2), dbias = dZ 1 (S3), dX = col2im(weight^T dZ) (S4)."""
        dz = dy.reshape(self.matrix)
        self.sum.fill(0)
        if self.wants_dx:
            self.columns.clear()
        for block in self.columns.blocks:
            dz_block = block.of(dz, self.batch)
            columns = self.columns.im2col(block)
            multiply_a_bt("dweight", dz_block, self._matrix(columns), out=self.part)
            self.sum += self.part
            if self.wants_dx:
                multiply_at_b("dx", self.weight, dz_block, out=self._matrix(columns))
                self.columns.col2im(block, columns)
        self.dweight[...] = self.sum
        if self.dbias is not None:
            row_sums("dbias", dz, self.ones, out=self.dbias)
        return self.columns.dx() if self.wants_dx else None

    def _matrix(self, columns: Array) -> Array:
        return columns.reshape(*self.weight.shape[::2], -1)
