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
    Mutant("losses:SoftmaxCrossEntropy.value_and_gradient", "] -= sharp / m", "] += sharp / m", "cross-entropy"),
    Mutant("losses:MeanSquaredError.value_and_gradient", "difference / m", "-difference / m", "mean squared error"),
    Mutant("fusion.winograd:_gather", "np.subtract(np.subtract", "np.add(np.subtract", "fused by winograd"),
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
    Mutant("fusion.winograd:WinogradEngine._add_dx", "views.after.fill(0)", "pass", "fused by winograd"),
    Mutant("fusion.winograd:WinogradEngine.start", "self.sum.fill(0)", "pass", "fused by winograd"),
    Mutant("fusion.winograd:WinogradEngine.start", "self.gradient.rows.fill(0)", "pass", "fused by winograd"),
    Mutant("layers.join:_LoweredAdd.backward", "np.copyto(dx, dy)", "pass", "residual"),
    # left over from the step before
    Mutant("fusion.winograd:WinogradEngine.finish", "rest.fill(0)", "pass", "fused by winograd, not all seen"),
    Mutant("fusion.winograd:WinogradEngine.finish", "rest.fill(0)", "pass", "sampled 21"),
    Mutant("fusion.winograd:WinogradEngine._add_dx", "views.v.fill(0)", "pass", "fused by winograd"),
    Mutant("fusion.rows:RowEngine._runs", "source = max(0, above)", "source = above", "fused by rows"),
    Mutant(
        "fusion.maxima:_fold",
        "np.less(highest, tap, out=gates[number])",
        "np.logical_or(gates[number], np.less(highest, tap), out=gates[number])",
        "sampled 3",
    ),
    Mutant(
        "layers.reshape:_LoweredPad.backward",
        "dy[:, *self.interior]",
        "np.add(dy, 0, out=self.y)[:, *self.interior]",
        "sampled 14",
    ),
    Mutant(
        "lowering:Border.inside",
        "np.copyto(self._dx,",
        "np.copyto(self._padded, self.gradient); np.copyto(self._dx,",
        "sampled 1",
    ),
    Mutant("layers.graph:LoweredGraph.backward", "step.dy = None", "pass", "residual"),
    Mutant("layers.pool:_LoweredGlobalMaxPool.backward", "self.dx.fill(0)", "pass", "global max pool"),
    Mutant("layers.pool:_LoweredMaxPool.backward", "self.border.gradient.fill(0)", "pass", "max pool"),
    Mutant("layers.conv_transpose:_LoweredConvTranspose.backward", "self.dweight.fill(0)", "pass", "conv transpose 2d"),
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
    Mutant("layers.activation:_LoweredSoftmax.backward", ".sum(axis=0)", ".max(axis=0)", "softmax"),
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
        "lowering:Border.around",
        "np.copyto(self._padded[self._interior], x)",
        "np.copyto(self._padded, np.resize(x, self._padded.shape))",
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
    Mutant("layers.normalization:_LoweredScale.backward", "scale[:, None], out=dx", "1, out=dx", "batch norm"),
    Mutant("layers.normalization:_LoweredScale.backward", "mean[:, None], out", "0, out", "batch norm"),
    Mutant("layers.normalization:_LoweredScale.backward", "/= np.sqrt", "*= np.sqrt", "batch norm"),
    Mutant("network:LoweredNetwork.backward", "np.moveaxis(dy, 0", "np.moveaxis(dy[::-1], 0", "dense"),
    # prediction: memory that layers share, and the lowerings of its own
    Mutant("lowering:Border.around", "self._padded[margin] = self._value", "pass", "conv2d, same"),
    Mutant("layers.pool:_MaxPoolByAxis._along", "out.fill(-math.inf)", "pass", "max pool"),
    Mutant("layers.pool:_MaxPoolByAxis._along", "range(window.kernel[axis])", "range(1)", "max pool, padded"),
    Mutant("fusion.depthwise:Depthwise._split", "phase.fill(0)", "pass", "conv2d, depthwise, strided"),
    Mutant("fusion.depthwise:Depthwise._columns", "shift : shift + length", ": length", "conv2d, depthwise, strided"),
    Mutant("fusion.depthwise:Depthwise.forward", "bias[block", "-bias[block", "conv2d, depthwise, strided"),
    Mutant("fusion.product:ProductEngine.forward", "(columns, part)", "(columns, part[:, ::-1])", "fused by rows"),
    Mutant(
        "fusion.product:ProductEngine.read",
        "np.multiply(self.parameter, scale",
        "np.add(self.parameter, 0",
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
