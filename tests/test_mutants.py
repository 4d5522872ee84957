"""Faults planted in the kernels, one at a time: the certificate finds every one of them."""

import importlib
import inspect
import textwrap
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import pytest

from lowered_cnn.arrays import InputError
from lowered_cnn.verify import Certificate, verify_loss, verify_sampled, verify_specimen
from lowered_cnn.verify.specimens import LOSSES, specimens

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Mutant:
    """A fault: in the function `where`, `old` becomes `new`; the certificate of `specimen` must fail.

    That is a specimen, a loss, or a network drawn at random, as "sampled 21".
    """

    where: str
    old: str
    new: str
    specimen: str


MUTANTS = [
    # signs
    Mutant("gemm:affine", "np.add(out, bias", "np.subtract(out, bias", "dense"),
    Mutant("layers.activation:_LoweredSoftmax.backward", "np.subtract(dy", "np.add(dy", "softmax"),
    Mutant("layers.activation:Tanh.derivative", "np.square(", "-np.square(", "tanh"),
    Mutant("layers.activation:Sigmoid.derivative", "_bell(x)", "-_bell(x)", "sigmoid"),
    Mutant("layers.normalization:_LoweredBatchNorm.backward", "running - measured", "measured - running", "batch norm"),
    Mutant(
        "layers.normalization:_LoweredLayerNorm.forward",
        "np.divide(z, self.deviation",
        "np.multiply(z, self.deviation",
        "layer norm",
    ),
    Mutant("layers.standardize:_LoweredStandardize.forward", "np.subtract(x", "np.add(x", "standardize"),
    Mutant("layers.standardize:_LoweredStandardize.forward", "np.divide(", "np.multiply(", "standardize"),
    Mutant("layers.standardize:_LoweredStandardize.backward", "np.divide(", "np.multiply(", "standardize features"),
    Mutant("layers.standardize:_LoweredStandardize.backward", "off.fill(0)", "off.fill(1)", "standardize"),
    Mutant("losses:SoftmaxCrossEntropy.value_and_gradient", "] -= sharp / m", "] += sharp / m", "cross-entropy"),
    Mutant("losses:MeanSquaredError.value_and_gradient", "slope / m", "-slope / m", "mean squared error"),
    Mutant("fusion.winograd:_gather", "np.subtract(m[2]", "np.add(m[2]", "fused by winograd"),
    Mutant("fusion.winograd:_add_adjoint", "np.add(out[i]", "np.subtract(out[i]", "fused by winograd"),
    # transposed
    Mutant(
        "layers.conv_transpose:_LoweredConvTranspose.__init__",
        "(groups, channels // groups, -1)",
        "(groups, -1, channels // groups).swapaxes(1, 2)",
        "conv transpose 2d",
    ),
    Mutant(
        "layers.conv:_LoweredConv.__init__",
        "reshape(groups, filters, -1)",
        "reshape(groups, -1, filters).swapaxes(1, 2)",
        "conv2d",
    ),
    Mutant(
        "layers.conv:_LoweredConv.backward",
        "self.dweight[...] = self.sum",
        "self.dweight[...] = self.sum.reshape(self.sum.shape[0], self.sum.shape[2], -1).swapaxes(1, 2)",
        "conv2d",
    ),
    Mutant(
        "gemm:multiply_a_bt",
        "_multiply_in_rows(a, b.swapaxes(-1, -2), out)",
        "_multiply_in_rows(b, a.swapaxes(-1, -2), out.reshape(out.shape[:-2] + out.shape[:-3:-1]))",
        "dense",
    ),
    Mutant("layers.reshape:_View.forward", "x.reshape(self.y_shape)", "x[::-1].reshape(self.y_shape)", "flatten"),
    # off by one
    Mutant(
        "window:_same", "return total // 2, total - total // 2", "return total - total // 2, total // 2", "conv2d, same"
    ),
    Mutant("window:Window.over", "(r + m) // s + 1", "max(1, (r + m) // s)", "conv2d, every option"),
    Mutant("window:Window.over", "-r % s for r", "0 * r % s for r", "max pool, dilated, ceil"),
    Mutant("window:Sweep.interior", "slice(p[0], p[0] + h)", "slice(p[1], p[1] + h)", "conv2d, every option"),
    Mutant(
        "layers.reshape:_LoweredPad.backward", "dy[:, *self.interior]", "np.roll(dy, 1, 1)[:, *self.interior]", "pad"
    ),
    Mutant("lowering:windows", "d * stride for d", "stride for d", "conv2d, every option"),
    Mutant("lowering:windows", "s * stride for s", "stride for s", "conv2d, every option"),
    Mutant("layers.pool:_LoweredMaxPool.forward", "self.taps[1:]", "self.taps[1:-1]", "max pool"),
    Mutant(
        "fusion.rows:RowEngine.backward",
        "self.memory[count : count + self.above]",
        "self.memory[count - 1 : count - 1 + self.above]",
        "fused by rows",
    ),
    Mutant("fusion.winograd:WinogradEngine._add_dx", "rest.fill(0)", "pass", "fused by winograd"),
    Mutant("fusion.winograd:WinogradEngine.start", "self.sum.fill(0)", "pass", "fused by winograd"),
    Mutant("fusion.winograd:WinogradEngine.start", "self.gradient.rows[:2].fill(0)", "pass", "fused by winograd"),
    Mutant("layers.join:_LoweredAdd.backward", "np.copyto(dx, dy)", "None", "residual"),
    # left over from the step before
    Mutant("fusion.winograd:WinogradEngine.finish", "rest.fill(0)", "pass", "fused by winograd, not all seen"),
    Mutant("fusion.winograd:WinogradEngine.finish", "rest.fill(0)", "pass", "sampled 21"),
    Mutant("fusion.winograd:WinogradEngine._add_dx", "new=a < 2", "new=a < 1", "fused by winograd"),
    Mutant("fusion.rows:RowEngine._runs", "source = max(0, above)", "source = above", "fused by rows"),
    Mutant(
        "fusion.maxima:_fold",
        "np.less(highest, tap, out=gate)",
        "np.logical_or(gate, np.less(highest, tap), out=gate)",
        "sampled 0",
    ),
    Mutant(
        "layers.reshape:_LoweredPad.backward",
        "dy[:, *self.interior]",
        "np.add(dy, 0, out=self.y)[:, *self.interior]",
        "sampled 29",
    ),
    Mutant(
        "lowering:Border.inside",
        "np.copyto(self._dx,",
        "np.copyto(self._padded, self.gradient); np.copyto(self._dx,",
        "sampled 0",
    ),
    Mutant("layers.graph:LoweredGraph.backward", "step.dy = None", "pass", "residual"),
    Mutant("layers.pool:_LoweredGlobalMaxPool.backward", "self.dx.fill(0)", "pass", "global max pool"),
    Mutant("layers.pool:_LoweredMaxPool.backward", "self.border.gradient.fill(0)", "pass", "max pool"),
    Mutant("layers.conv_transpose:_LoweredConvTranspose.backward", "self.dweight.fill(0)", "pass", "conv transpose 2d"),
    Mutant("layers.join:_LoweredMultiply._times_others", "if other != place", "if other > place", "graph"),
    Mutant("layers.join:_LoweredMultiply.forward", "for x in xs[2:]", "for x in xs[3:]", "graph"),
    Mutant("layers.join:_LoweredAdd.forward", "for x in xs[2:]", "for x in xs[3:]", "graph"),
    Mutant("layers.graph:LoweredGraph._add_shared", "total += apart", "total -= apart", "graph, one layer used twice"),
    Mutant("layers.graph:LoweredGraph._add_shared", "total /= 1 +", "total /= 2 +", "graph, one layer used twice"),
    Mutant("layers.join:_LoweredConcat.backward", "(dy[part])", "(dy[part][::-1])", "graph, one layer used twice"),
    Mutant(
        "layers.graph:LoweredGraph._packed_dx",
        "step.dy.reshape",
        "-step.dy.reshape",
        "graph, packed",
    ),
    # missing sums
    Mutant(
        "lowering:Columns.col2im",
        "np.add(target[index], columns[index], out=target[index])",
        "np.copyto(target[index], columns[index])",
        "conv2d",
    ),
    Mutant("layers.conv:_LoweredConv.backward", "self.sum += self.part", "self.sum[...] = self.part", "conv2d"),
    Mutant("layers.conv:_LoweredConv.backward", "self.sum.fill(0)", "pass", "conv2d"),
    Mutant("layers.conv:_LoweredConv.backward", "self.columns.clear()", "pass", "conv2d"),
    Mutant("layers.conv_transpose:_LoweredConvTranspose.forward", "self.columns.clear()", "pass", "conv transpose 2d"),
    Mutant(
        "layers.conv_transpose:_LoweredConvTranspose.backward",
        "self.dweight += self.part",
        "self.dweight[...] = self.part",
        "conv transpose 2d",
    ),
    Mutant(
        "layers.graph:LoweredGraph._add",
        "np.add(step.dy, dx, out=step.dy)",
        "dx",
        "residual",
    ),
    Mutant(
        "layers.pool:_LoweredMaxPool.backward",
        "np.add(target, self.routed, out=target)",
        "np.copyto(target, self.routed)",
        "max pool, overlapping",
    ),
    Mutant(
        "layers.normalization:_LoweredBatchNorm.backward",
        "np.subtract(dx[block], self.dbias[block] / self.matrix[1], out=dx[block])",
        "pass",
        "batch norm",
    ),
    Mutant(
        "layers.normalization:_LoweredBatchNorm.backward",
        "np.subtract(dx[block], spare, out=dx[block])",
        "pass",
        "batch norm",
    ),
    Mutant("layers.normalization:_LoweredLayerNorm.backward", "np.subtract(dx, self.mean, out=dx)", "dx", "layer norm"),
    Mutant("layers.activation:_LoweredSoftmax.backward", ".sum(axis", ".max(axis", "softmax"),
    Mutant(
        "losses:SoftmaxCrossEntropy.value_and_gradient",
        "losses -= smooth * shifted.sum(axis=1)",
        "pass",
        "label smoothing",
    ),
    Mutant("losses:MeanSquaredError.value_and_gradient", "(2 * m)", "m", "mean squared error"),
    Mutant("fusion.rows:RowEngine.backward", "self.sum += ", "", "fused by rows"),
    Mutant("fusion.rows:RowEngine.start", "self.border.gradient.fill(0)", "pass", "fused by rows"),
    # wrong ties and kinks
    Mutant(
        "layers.pool:_LoweredMaxPool.backward", "np.logical_and(self.hit, self.free, out=self.hit)", "pass", "max pool"
    ),
    Mutant("layers.pool:_LoweredMaxPool.backward", "for tap in self.taps:", "for tap in self.taps[::-1]:", "max pool"),
    Mutant(
        "layers.pool:_LoweredGlobalMaxPool.backward", ".argmax(axis=1)", "[:, ::-1].argmax(axis=1)", "global max pool"
    ),
    Mutant("layers.activation:_LoweredReLU.backward", "np.greater(self.y, 0", "np.greater_equal(self.y, 0", "relu"),
    Mutant("layers.activation:_one_or", "(x > 0)", "(x >= 0)", "leaky relu"),
    Mutant("layers.activation:_one_or", "(x > 0)", "(x >= 0)", "elu"),
    Mutant("fusion.maxima:_fold", "np.less(highest, tap", "np.greater(highest, tap", "fused by rows"),
    Mutant("fusion.fused:_LoweredFusedConv._rectify", "np.greater(self.y, 0", "np.less(self.y, 0", "fused by rows"),
    Mutant("fusion.maxima:_fold", "np.less(highest, tap", "np.less_equal(highest, tap", "fused by rows"),
    Mutant("losses:softmax", "z - z.max(axis=1, keepdims=True)", "z", "softmax"),
    Mutant("losses:softmax", "powers /= powers.sum(axis=1, keepdims=True)", "pass", "softmax"),
    Mutant("layers.activation:_sigmoid", "1 + power", "2 + power", "silu"),
    Mutant("layers.erf:erfc", "np.exp(-size * size)", "np.exp(-size)", "gelu"),
    # fused or folded where it must not be
    Mutant(
        "fusion.fused:FusedConv.scale_and_bias",
        "bias * scale + shift",
        "bias + shift",
        "batch norm behind a bias",
    ),
    Mutant(
        "fusion.fused:_is_plain",
        "window.stride == window.dilation == (1, 1)",
        "window.dilation == (1, 1)",
        "conv2d, strided",
    ),
    Mutant(
        "fusion.fused:_is_plain",
        "window.stride == window.dilation == (1, 1)",
        "window.stride == (1, 1)",
        "conv2d, dilated",
    ),
    Mutant("fusion.fused:_take_pool", "window.padding == ((0, 0), (0, 0)) and ", "", "max pool, padded"),
    Mutant("fusion.fused:_take_pool", " and not pool.ceil_mode", "", "max pool, ceil"),
    # no number
    Mutant(
        "layers.dense:_LoweredDense.backward",
        'row_sums("dbias", dy, self.ones, out=self.dbias)',
        "self.dbias.fill(float('nan'))",
        "dense",
    ),
    Mutant("layers.pool:_LoweredGlobalMaxPool.backward", "self.dx.fill(0)", "self.dx.fill(np.nan)", "global max pool"),
    Mutant(
        "fusion.fused:_LoweredFusedConv.backward",
        'row_sums("dbias", dy.reshape(len(dy), -1), self.ones, out=self.dbias)',
        "self.dbias.fill(np.nan)",
        "conv2d",
    ),
    # forgotten padding, bias, scale
    Mutant(
        "lowering:Border.steps",
        "np.copyto, self._padded[self._interior], x",
        "np.copyto, self._padded, np.resize(x, self._padded.shape)",
        "conv2d, same",
    ),
    Mutant(
        "lowering:Border.inside",
        "self.gradient[self._interior]",
        "self.gradient[tuple(slice(n) for n in self._dx.shape)]",
        "conv2d, same",
    ),
    Mutant("gemm:row_sums", "np.matmul(a, ones, out=out)", "np.copyto(out, a[..., 0])", "conv2d"),
    Mutant("layers.dense:_LoweredDense.backward", 'row_sums("dbias", dy, self.ones, out=self.dbias)', "pass", "dense"),
    Mutant(
        "layers.pool:_LoweredAvgPool.backward",
        "np.multiply(dy, self.scale, out=dy)",
        "pass",
        "avg pool without its border",
    ),
    Mutant(
        "layers.pool:_LoweredAvgPool.forward",
        "self.y if self.scale is None",
        "self.y if True",
        "avg pool, dilated, ceil",
    ),
    Mutant("layers.dropout:_LoweredDropout.forward", "self.mask /= 1 - self.rate", "pass", "dropout"),
    Mutant("layers.dropout:_LoweredDropout.backward", "np.multiply(dy, self.mask, out=dy)", "dy", "dropout"),
    Mutant("layers.normalization:_LoweredBatchNorm.backward", "count / (count - 1)", "1", "batch norm"),
    Mutant("layers.normalization:BatchNorm.scale_and_shift", 'running_mean") * scale', 'running_mean")', "batch norm"),
    Mutant("fusion.fused:FusedConv.scale_and_bias", "shift if bias is None", "scale if bias is None", "batch norm"),
    Mutant("layers.activation:GELU.derivative", "x * density", "density", "gelu"),
    Mutant("layers.activation:SiLU.derivative", "x * _bell(x)", "_bell(x)", "silu"),
    Mutant("losses:SoftmaxCrossEntropy.value_and_gradient", "totals[:, None] * m", "totals[:, None]", "cross-entropy"),
    Mutant(
        "losses:SoftmaxCrossEntropy.value_and_gradient",
        "z - z.max(axis=1, keepdims=True)",
        "z - z.mean()",
        "cross-entropy",
    ),
    # at the edges
    Mutant("layers.activation:_sigmoid", "np.minimum(x, np.full_like(x, 40))", "x", "sigmoid"),
    Mutant("layers.activation:_bell", "0.5, x / 2", "0.5, x", "sigmoid"),
    Mutant("layers.activation:_twice_inner", "x * x * x", "x * x", "gelu, approximate"),
    Mutant("layers.erf:erfc", "2 * beyond + ", "", "gelu"),
    Mutant("gemm:row_dots", "b[..., None], out", "a[..., None], out", "batch norm"),
    Mutant(
        "layers.pool:_LoweredAvgPool.__init__",
        "np.where(counts > 0, taps / np.maximum(counts, 1), 0)",
        "taps / counts",
        "avg pool, windows of nothing",
    ),
    # gradients at inference, and the network's door
    Mutant(
        "layers.normalization:_InferenceBatchNorm.backward",
        "scale[:, None], out=dx",
        "1, out=dx",
        "batch norm",
    ),
    Mutant("layers.normalization:_InferenceBatchNorm.backward", "mean[:, None], out", "0, out", "batch norm"),
    Mutant("layers.normalization:_InferenceBatchNorm.backward", "/= np.sqrt", "*= np.sqrt", "batch norm"),
    Mutant("network:LoweredNetwork.backward", "np.moveaxis(dy, 0", "np.moveaxis(dy[::-1], 0", "dense"),
    # losses of values, and what counts
    Mutant("losses:MeanAbsoluteError.terms", "np.sign(difference)", "difference", "mean absolute error"),
    Mutant("losses:Huber.terms", "near / 2", "near", "huber"),
    Mutant("losses:BinaryCrossEntropy.terms", "np.exp(-np.abs(z))", "np.exp(-z)", "binary cross-entropy"),
    Mutant("losses:BinaryCrossEntropy.terms", "- true * np.where", "- y * np.where", "binary cross-entropy"),
    Mutant("losses:BinaryCrossEntropy._positive_weight", "factors, z", "factors[::-1], z", "binary cross-entropy"),
    Mutant("losses:ElementwiseLoss.value_and_gradient", "slopes * each", "slopes", "huber"),
    Mutant("losses:SoftmaxCrossEntropy._counts", "] = 0", "] = 1", "class weights"),
    Mutant("losses:SoftmaxCrossEntropy.total", "counts *= np", "counts = np", "class weights"),
    Mutant(
        "losses:SoftmaxCrossEntropy.value_and_gradient", "y.sum(axis=1, keepdims=True) - y", "1 - y", "class weights"
    ),
    # limits and slopes
    Mutant("layers.activation:_LoweredClip.forward", "self.high", "2 * self.high", "clip"),
    Mutant("layers.activation:_LoweredClip.backward", "np.greater(", "np.greater_equal(", "clip"),
    Mutant("layers.activation:_LoweredClip.backward", "np.less(", "np.less_equal(", "clip from above"),
    Mutant("layers.activation:_LoweredClip.backward", "np.logical_and(", "np.logical_or(", "clip"),
    Mutant("layers.activation:_LoweredPReLU.backward", "np.greater(", "np.greater_equal(", "prelu"),
    Mutant("layers.activation:_LoweredPReLU.backward", "np.multiply(dx, self.weight", "np.multiply(dx, 0.25", "prelu"),
    Mutant("layers.activation:_LoweredPReLU.forward", "np.minimum(x, self.zeros", "np.minimum(x, x", "prelu, shared"),
    Mutant("layers.activation:HardSigmoid.sides", "line >= 1", "line > 1", "hard sigmoid"),
    Mutant("layers.activation:HardSigmoid._line", "+ self.beta", "+ 0.5", "hard sigmoid, every option"),
    Mutant("layers.activation:HardSwish.derivative", "2 * np.clip", "np.clip", "hard swish"),
    Mutant("layers.activation:HardSwish.sides", "x >= 3, dtype", "x > 3, dtype", "hard swish"),
    Mutant("layers.activation:_LoweredLogSoftmax.forward", "np.log(total)", "np.log2(total)", "log softmax"),
    Mutant("layers.activation:_LoweredLogSoftmax.backward", "dy.sum(", "dy.mean(", "log softmax, along an axis"),
    # numbers that are shared, or constants
    Mutant("layers.scale:_LoweredScale.backward", "gradient.fill(0)", "gradient.fill(1)", "scale by constants"),
    Mutant("layers.scale:_LoweredScale.backward", "np.multiply(self.x, dy", "np.multiply(self.y, dy", "scale"),
    Mutant(
        "layers.scale:_LoweredScale._sum", ".sum(axis=self.others)", ".max(axis=self.others)", "scale, every option"
    ),
    # in another place
    Mutant(
        "layers.reshape:_LoweredPermutation.forward", ".transpose(self.order)", ".reshape(self.y_shape)", "transpose"
    ),
    Mutant(
        "layers.reshape:_LoweredPermutation.backward",
        "self.dx.reshape(self.x_shape).transpose(self.order)",
        "self.dx.reshape(self.y_shape)",
        "channel shuffle",
    ),
    Mutant(
        "layers.reshape:PixelShuffle.permutation", "(rank + number, number)", "(number, rank + number)", "pixel shuffle"
    ),
    Mutant("layers.reshape:ChannelShuffle.permutation", "(1, 0, 2)", "(0, 1, 2)", "channel shuffle"),
    Mutant("layers.reshape:_LoweredSlice.backward", "self.dx.fill(0)", "pass", "slice behind softmax"),
    Mutant("layers.reshape:_LoweredSlice.forward", "x[self.part]", "x[self.part][::-1]", "slice, every option"),
    Mutant("layers.reshape:_LoweredPad.backward", "dy[source] +=", "dy[source] =", "pad by reflection"),
    Mutant("layers.reshape:_LoweredPad.backward", ".sum(axis", ".max(axis", "pad by its edge"),
    Mutant(
        "layers.reshape:_sides",
        "slice(2 * before, before, -1)",
        "slice(2 * before - 1, before - 1, -1)",
        "pad by reflection",
    ),
    Mutant("layers.dense:_Matrix._in_place", ".swapaxes(0, 1)", ".reshape(self.parts)", "dense, along an axis"),
    Mutant("layers.dense:_Matrix.written", "if self.buffer is not None", "if False", "dense, along an axis"),
    Mutant(
        "layers.dropout:_LoweredDropout.__init__",
        "if dropout.channels else shape",
        "if False else shape",
        "dropout of channels",
    ),
    # between the places, and around the channels
    Mutant("layers.resize:Resize._matrix", "number + 0.5", "number", "resize, linear"),
    Mutant("layers.resize:Resize._matrix", "max(1, after - 1)", "after", "resize, of corners"),
    Mutant("layers.resize:Resize._matrix", "or after > 1", "or True", "resize to one"),
    Mutant("layers.resize:Resize._matrix", "np.clip(tap, 0, before - 1)", "(tap % before)", "resize, cubic"),
    Mutant(
        "layers.resize:Resize._taps",
        "np.floor(place), np.ones(1)",
        "np.rint(place), np.ones(1)",
        "resize, nearest, asymmetric",
    ),
    Mutant(
        "layers.resize:Resize._taps",
        "(first, 1 - t), (first + 1, t)",
        "(first, t), (first + 1, 1 - t)",
        "resize, linear",
    ),
    Mutant("layers.resize:_far", "+ 8)", "+ 7)", "resize, cubic"),
    Mutant("layers.resize:_bands", "int(used[-1]) + 1", "int(used[-1])", "resize, in bands"),
    Mutant("layers.resize:_means", "1 / (end - first)", "after / before", "adaptive avg pool"),
    Mutant("layers.lrn:_LoweredLRN.backward", "2 * self.lrn.beta", "self.lrn.beta", "lrn"),
    Mutant("layers.lrn:_LoweredLRN.__init__", "distance <= lrn.size // 2", "distance < lrn.size // 2", "lrn"),
    Mutant(
        "layers.normalization:GroupNorm.lower", "(self.groups, -1, site.batch)", "(1, -1, site.batch)", "group norm"
    ),
    Mutant(
        "layers.normalization:_LoweredLayerNorm._affine_backward",
        "np.multiply(dy, self.numbers[0], out=dy)",
        "dy",
        "instance norm, affine",
    ),
    # prediction: memory that layers share, and the lowerings of its own
    Mutant("lowering:Border.steps", "yield partial(self._padded[margin].fill, self._value)", "pass", "conv2d, same"),
    Mutant("layers.pool:_MaxPoolByAxis._along", "out.fill(-math.inf)", "pass", "max pool"),
    Mutant("layers.pool:_MaxPoolByAxis._along", "range(window.kernel[axis])", "range(1)", "max pool, padded"),
    Mutant("fusion.depthwise:Depthwise._split", "phase.fill(0)", "pass", "conv2d, depthwise, strided"),
    Mutant("fusion.depthwise:Depthwise._columns", "shift : shift + length", ": length", "conv2d, depthwise, strided"),
    Mutant("fusion.depthwise:Depthwise.forward", "bias[block", "-bias[block", "conv2d, depthwise, strided"),
    Mutant("fusion.product:ProductEngine.forward", "(columns, parts)", "(columns, parts[:, ::-1])", "conv2d, strided"),
    Mutant(
        "fusion.patches:PatchEngine.read",
        "np.multiply, self.parameter, scale",
        "np.add, self.parameter, 0 * scale",
        "batch norm",
    ),
]


def planted(mutant: Mutant) -> tuple[Any, CodeType]:
    """Return the function, and its code with the fault in it."""
    module_name, _, path = mutant.where.partition(":")
    module = importlib.import_module(f"lowered_cnn.{module_name}")
    found: Any = module
    for name in path.split("."):
        found = inspect.getattr_static(found, name)
    function: Any = found.fget if isinstance(found, property) else found
    source = textwrap.dedent(inspect.getsource(function)).removeprefix("@property\n")
    assert mutant.old in source, "there is nothing to be changed"
    scope = dict(vars(module))
    exec(compile(source.replace(mutant.old, mutant.new, 1), mutant.where, "exec"), scope)
    code: CodeType = scope[function.__name__].__code__
    return function, code


def certificate(name: str) -> Certificate:
    """Return the certificate of a specimen, of a loss or of a drawn network, which is a part of that of `all`."""
    if name.startswith("sampled "):
        return verify_sampled(int(name.removeprefix("sampled ")))
    return verify_loss(name, LOSSES[name]) if name in LOSSES else verify_specimen(name, specimens()[name])


def passes(name: str) -> bool:
    """Say whether all holds; what would leave its memory is refused when it is lowered."""
    try:
        return certificate(name).passed
    except InputError:
        return False


def test_there_are_at_least_forty_of_them_and_each_is_another_one() -> None:
    assert len(set(MUTANTS)) == len(MUTANTS) >= 40
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    assert f"The tests plant {len(MUTANTS)} faults in the kernels" in readme


@pytest.mark.parametrize("name", sorted({mutant.specimen for mutant in MUTANTS}))
def test_without_a_fault_the_same_certificate_passes(name: str) -> None:
    assert certificate(name).passed


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.where} {mutant.old}")
def test_a_planted_fault_is_found(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    function, code = planted(mutant)
    monkeypatch.setattr(function, "__code__", code)
    with np.errstate(all="ignore"):
        assert not passes(mutant.specimen)
