"""The checks of each layer in the middle of a network, on the numbers that reach it there."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeAlias

import numpy as np

from lowered_cnn.arrays import Array, Shape
from lowered_cnn.gemm import listen
from lowered_cnn.layers import (
    ELU,
    AvgPool,
    BatchNorm,
    Clip,
    Dropout,
    Flatten,
    GlobalMaxPool,
    HardSigmoid,
    HardSwish,
    LeakyReLU,
    LogSoftmax,
    MaxPool,
    Pad,
    PReLU,
    ReLU,
    Reshape,
    Scale,
    Slice,
    Softmax,
    Standardize,
)
from lowered_cnn.layers.activation import Elementwise
from lowered_cnn.layers.container import Stage
from lowered_cnn.layers.conv import Conv
from lowered_cnn.layers.conv_transpose import ConvTranspose
from lowered_cnn.layers.layer import is_stock
from lowered_cnn.layers.reshape import Permutation
from lowered_cnn.lowering import Columns, col2im, im2col
from lowered_cnn.tracing import Passage
from lowered_cnn.verify.certificate import Check, worst
from lowered_cnn.verify.differences import (
    UNIT_ROUNDOFF,
    Derivative,
    derivative,
    gradient_rounding,
    smooth_step,
    unit_directions,
)
from lowered_cnn.verify.direct import Slide, max_pool
from lowered_cnn.verify.probe import Probe, sides
from lowered_cnn.verify.reference import Values, inferred, reference, sample, slide_of, statistics
from lowered_cnn.workspace import Workspace

PLACES = 100
"""How many outputs of a layer are computed by loops, if it has more."""

DIRECTIONS = 3

AWAY = 1.0
"""The length of the step that moves an input off ties and zeros."""

NUDGE = 1e-6

SMALLEST_NORMAL = 2.0**-1022
"""Below it, numbers are rounded by amounts that do not shrink with them."""

LARGE = 1000.0

TINY_BLOCKS = 512
"""Bytes of a block: few enough to split even the columns of small windows."""

Reference: TypeAlias = Callable[[Array, Mapping[str, Array]], Array]
"""y (*shape, N) of a custom layer, for x (C, *size, N) and its parameters by name."""

Slope: TypeAlias = float | Array
"""The slope of an element-wise function: one for all numbers, or one for each."""


def layer_checks(probe: Probe, references: dict[str, Reference]) -> Iterator[Check]:
    """Check every layer: forward, dX, its index maps and kinks; statistics and inference; then all gradients of J."""
    for name, passage in probe.passages().items():
        yield from _forward(passage, references.get(name))
        yield _input_gradient(passage)
        yield from _index_maps(passage.stage)
        yield from _kinks(passage.stage)
    yield from _statistics(probe)
    yield from _inference(probe)
    yield from parameter_gradients(probe)


def _check(stage: Stage, prop: str, error: float, bound: float) -> Check:
    return Check(stage.site.name, stage.site.name, prop, error, bound)


def _forward(passage: Passage, own: Reference | None) -> Iterator[Check]:
    """Compare y with the loops; for activations, again on numbers whose exponentials overflow."""
    stage, x = passage.stage, passage.x
    yield from _compared_with_loops(stage, x, own)
    if isinstance(stage.layer, Elementwise | Clip | PReLU | Softmax | LogSoftmax):
        yield from _compared_with_loops(stage, LARGE * x, own)


def _compared_with_loops(stage: Stage, x: Array, own: Reference | None) -> Iterator[Check]:
    """Compare y: n terms are off by at most n u, relative to the output, or to the input times the layer's gain."""
    expected = reference(stage, x) if own is None else _given(own(x, _parameters(stage)))
    if expected is None:
        return
    direction = unit_directions(x.shape, 1)[0]
    with listen() as products:
        moved = stage.lowered.forward(x + direction * NUDGE).copy()
    y = stage.lowered.forward(x)
    terms = max((product.k for product in products), default=1) + 8
    gain = np.abs(moved - y).max() / (NUDGE * np.abs(direction).max())
    bound = float(2 * terms * UNIT_ROUNDOFF * max(np.abs(y).max(), gain * np.abs(x).max())) + SMALLEST_NORMAL
    shape, value_at = expected
    if shape != y.shape[:-1] or not np.isfinite(x).all():
        yield _check(stage, "forward", float("inf"), bound)
        return
    errors = [np.abs(value_at(place) - y[place]).max() for place in sample(shape, PLACES)]
    yield _check(stage, "forward", float(np.max(errors)), bound)


def _parameters(stage: Stage) -> dict[str, Array]:
    names = [parameter.name for parameter in stage.layer.parameters(stage.site.input_shape)]
    return {name: stage.site.parameter(name) for name in names}


def _given(values: Array) -> tuple[Shape, Values]:
    return values.shape[:-1], lambda at: values[at]


def _input_gradient(passage: Passage) -> Check:
    """Compare <dX, direction> with the derivative of <dY, layer(X + t direction)>.

    X is moved a little, off the kinks: after a ReLU, all numbers under a window may be 0.
    """
    stage, dy = passage.stage, passage.dy
    assert dy is not None
    x = passage.x + AWAY * unit_directions(passage.x.shape, 1)[0]
    y = stage.lowered.forward(x).copy()
    dx = stage.lowered.backward(dy.copy())
    assert dx is not None

    def value(direction: Array, t: float) -> float:
        return float(np.sum(stage.lowered.forward(x + t * direction) * dy))

    def branch(direction: Array, t: float) -> bytes:
        stage.lowered.forward(x + t * direction)
        return sides(stage.lowered)

    return _compared(stage.site.name, "dx", dx.copy(), value, branch, float(np.sum(np.abs(y * dy))))


def _compared(
    name: str,
    prop: str,
    gradient: Array,
    value: Callable[[Array, float], float],
    branch: Callable[[Array, float], bytes],
    size: float,
) -> Check:
    """Compare a gradient with derivatives along some directions; the worst one, relative to its bound, counts.

    The bound is that of the derivative plus the rounding of the gradient itself. It is sharp if it is small compared
    with the gradient or, where that is 0, with the `size` of the value.
    """
    length = float(np.sqrt(np.sum(gradient**2)))
    checks: list[Check] = []
    for direction in unit_directions(gradient.shape, DIRECTIONS):
        along = partial(value, direction)
        found: Derivative = derivative(along, smooth_step(partial(branch, direction)))
        error = abs(found.value - float(np.sum(gradient * direction)))
        bound = found.bound + gradient_rounding(length)
        checks.append(Check(name, name, prop, error, bound, sharp=bound <= 1e-4 * length + 1e-6 * size))
    return next((check for check in checks if not check.sharp), worst(checks))


def parameter_gradients(probe: Probe) -> Iterator[Check]:
    """Compare the gradients of each parameter and of the images with derivatives of J, through the whole network."""
    lowered = probe.lower()
    results = probe.results(lowered)

    def moved(name: str, direction: Array, t: float) -> float:
        if name == "images":
            return probe.value(lowered, probe.images + t * direction)
        with probe.moved(name, t * direction):
            return probe.value(lowered)

    def branch(name: str, direction: Array, t: float) -> bytes:
        moved(name, direction, t)
        return sides(lowered.layers)

    for name, gradient in results.gradients.items():
        layer, _, own = name.rpartition(".")
        yield _compared(
            layer or name,
            f"d{own}" if layer else "dx",
            gradient,
            partial(moved, name),
            partial(branch, name),
            abs(results.loss),
        )


def _statistics(probe: Probe) -> Iterator[Check]:
    """Check what is written as the gradients of statistics: momentum N (running - measured), and 0 for constants.

    If a BatchNorm is used in several places, this is the mean over them.
    """
    uses: dict[str, list[Passage]] = {}
    for passage in probe.passages().values():
        layer, site = passage.stage.layer, passage.stage.site
        if is_stock(layer) and (isinstance(layer, Standardize) or (isinstance(layer, Scale) and not layer.learned)):
            for parameter in layer.parameters(site.input_shape):
                yield _check(passage.stage, "statistics", float(np.abs(site.gradient(parameter.name)).max()), 0.0)
        if isinstance(layer, BatchNorm) and is_stock(layer):
            uses.setdefault(passage.stage.site.owner, []).append(passage)
    for passages in uses.values():
        stage = passages[0].stage  # that of the owner, which comes first
        layer, site = stage.layer, stage.site
        assert isinstance(layer, BatchNorm)
        scale = max(float(np.abs(each.x).max()) + float(np.square(each.x).max()) + 1 for each in passages)
        measured = [statistics(each.stage, each.x) for each in passages]
        for name in measured[0]:
            mean = np.mean([each[name] for each in measured], axis=0)
            off = layer.momentum * site.batch * (site.parameter(name) - mean)
            error = float(np.abs(site.gradient(name) - off).max())
            bound = 4 * (passages[0].x[0].size + 8) * UNIT_ROUNDOFF * scale * site.batch
            yield _check(stage, "statistics", error, bound)


def _inference(probe: Probe) -> Iterator[Check]:
    """Check the layers that compute something else at inference: their outputs and gradients there."""
    for passage in probe.passages(training=False).values():
        stage, x, y = passage.stage, passage.x, passage.y
        if isinstance(stage.layer, BatchNorm | Dropout) and is_stock(stage.layer):
            error = float(np.abs(y - inferred(stage, x)).max())
            bound = 32 * UNIT_ROUNDOFF * float(np.abs(y).max() + np.abs(x).max())
            yield _check(stage, "inference", error, bound)
            yield _input_gradient(passage)
            for parameter in stage.layer.parameters(stage.site.input_shape):
                if not parameter.statistic:
                    yield _gradient_at_inference(probe, passage, parameter.name)


def _gradient_at_inference(probe: Probe, passage: Passage, name: str) -> Check:
    """Compare the gradient of a layer's parameter with the derivative of <dY, layer(X)>."""
    stage, x, dy = passage.stage, passage.x, passage.dy
    assert dy is not None
    y = stage.lowered.forward(x).copy()
    stage.lowered.backward(dy.copy())

    def value(direction: Array, t: float) -> float:
        with probe.moved(f"{stage.site.owner}.{name}", t * direction):
            return float(np.sum(stage.lowered.forward(x) * dy))

    gradient, size = stage.site.gradient(name).copy(), float(np.sum(np.abs(y * dy)))
    return _compared(stage.site.name, f"d{name}", gradient, value, lambda direction, t: b"", size)


def _integers(shape: Shape, least: int, most: int, seed: int) -> Array:
    """Draw small integers: sums of their products are exact, in any order."""
    return np.random.default_rng([seed, *shape]).integers(least, most, shape, endpoint=True).astype(np.float64)


def _index_maps(stage: Stage) -> Iterator[Check]:
    """<M x, c> = <x, M^T c>, to the last bit, for im2col, in one block and in many, and for layers that are maps."""
    layer, site = stage.layer, stage.site
    if not is_stock(layer):
        return
    if isinstance(layer, Conv | ConvTranspose | AvgPool | MaxPool):
        sweep = layer.sweep(site.input_shape, site.name)
        channels = layer.filters if isinstance(layer, ConvTranspose) else site.input_shape[0]
        x = _integers((channels, *sweep.size, site.batch), -4, 4, 1)
        c = _integers((channels, *sweep.window.kernel, *sweep.output, site.batch), -4, 4, 2)
        whole = np.sum(im2col(x, sweep) * c) - np.sum(x * col2im(c, sweep))
        columns = Columns(sweep, channels, site.batch, Workspace(np.float64, TINY_BLOCKS))
        columns.read(x)
        columns.clear()
        there = 0.0
        for block in columns.blocks:
            part = c[(slice(None),) * (x.ndim - 1) + block.positions]
            there += float(np.sum(columns.im2col(block) * part))
            columns.col2im(block, part)
        blocked = there - np.sum(x * columns.dx())
        yield _check(stage, "adjoint", float(np.max(np.abs([whole, blocked]))), 0.0)
    if isinstance(layer, ReLU | MaxPool | GlobalMaxPool | Flatten | Reshape | Permutation | Slice | Pad):
        shape = layer.output_shape(site.input_shape, site.name)
        x = _integers((*site.input_shape, site.batch), -4, 4, 3)
        dy = _integers((*shape, site.batch), -4, 4, 4)
        constant = stage.lowered.forward(np.zeros_like(x)).copy()
        y = stage.lowered.forward(x) - constant
        dx = stage.lowered.backward(dy.copy())
        assert dx is not None
        yield _check(stage, "adjoint", float(abs(np.sum(y * dy) - np.sum(x * dx))), 0.0)


def _kinks(stage: Stage) -> Iterator[Check]:
    """Check the gradient where it is not unique: it must be a subgradient, the one that the layer's docstring names."""
    layer, site = stage.layer, stage.site
    if not is_stock(layer):
        return
    for kink, before, there, after in _kinks_of(stage):
        x = np.full((*site.input_shape, site.batch), kink)
        dy = _integers(x.shape, 1, 4, 6)
        stage.lowered.forward(x)
        dx = stage.lowered.backward(dy.copy())
        assert dx is not None
        outside = np.maximum(np.minimum(before, after) * dy - dx, dx - np.maximum(before, after) * dy)
        yield _check(stage, "subgradient", float(np.maximum(0.0, outside).max()), 0.0)
        yield _check(stage, "tie rule", float(np.sum(dx != there * dy)), 0.0)
    if not isinstance(layer, MaxPool | GlobalMaxPool):
        return
    shape = layer.output_shape(site.input_shape, site.name)
    x = _integers((*site.input_shape, site.batch), -1, 1, 5)
    dy = _integers((*shape, site.batch), 1, 4, 6)
    y = stage.lowered.forward(x).copy()
    dx = stage.lowered.backward(dy.copy())
    assert dx is not None
    dx = dx.copy()
    # The maximum is convex: <dY, f(X + D)> >= <dY, f(X)> + <dX, D>, for every D.
    below = [0.0]
    for seed in range(8):
        direction = _integers(x.shape, -2, 2, 7 + seed)
        there = np.sum(stage.lowered.forward(x + direction) * dy)
        below.append(np.sum(y * dy) + np.sum(dx * direction) - there)
    yield _check(stage, "subgradient", float(np.max(below)), 0.0)
    yield _check(stage, "tie rule", float(np.sum(dx != _first_of_equals(layer, x, dy))), 0.0)


def _kinks_of(stage: Stage) -> list[tuple[float, Slope, Slope, Slope]]:
    """Return the kinks of an element-wise function: where each is, and the slopes before, on and after it."""
    match stage.layer:
        case ReLU():
            return [(0.0, 0.0, 0.0, 1.0)]
        case LeakyReLU(slope=slope) | ELU(alpha=slope):
            return [(0.0, slope, slope, 1.0)]
        case PReLU():
            weight = stage.site.parameter("weight")
            slopes = weight.reshape(-1, *(1 for _ in stage.site.input_shape))
            return [(0.0, slopes, slopes, 1.0)]
        case Clip(low=low, high=high):
            kinks = [(low, 0.0, 0.0, 1.0), (high, 1.0, 0.0, 0.0)]
            return [kink for kink in kinks if np.isfinite(kink[0])]
        case HardSigmoid(alpha=alpha, beta=0.5) if alpha != 0:
            return [(-0.5 / alpha, 0.0, 0.0, alpha), (0.5 / alpha, alpha, 0.0, 0.0)]
        case HardSwish():
            return [(-3.0, 0.0, 0.0, -0.5), (3.0, 1.5, 1.0, 1.0)]
    return []


def _first_of_equals(layer: MaxPool | GlobalMaxPool, x: Array, dy: Array) -> Array:
    size = x.shape[1:-1]
    if isinstance(layer, GlobalMaxPool):
        one = (1,) * len(size)
        whole = Slide(size, one, ((0, 0),) * len(size), one)
        return max_pool(x, whole, dy.reshape(len(x), *one, -1))[1]
    return max_pool(x, slide_of(layer.window(len(size), "pool"), size), dy)[1]
