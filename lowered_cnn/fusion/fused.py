"""A convolution with the normalization, the max pooling and the ReLU that follow it, as one layer.

ReLU and adding the bias are monotone, so the maximum can be taken before either. They then run on as few numbers as the
pooling leaves. Outputs that the pooling drops are not computed. At inference, a normalization is a scale and a shift of
each filter's outputs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, TypeAlias, TypeVar, cast

import numpy as np

from lowered_cnn.arrays import Array, Shape
from lowered_cnn.fusion.columns import ColumnEngine
from lowered_cnn.fusion.depthwise import Depthwise
from lowered_cnn.fusion.engine import Engine, Plan
from lowered_cnn.fusion.maxima import Maxima
from lowered_cnn.fusion.patches import PatchEngine
from lowered_cnn.fusion.predicted import PredictedConv, PredictionEngine
from lowered_cnn.fusion.product import ProductEngine
from lowered_cnn.fusion.rows import RowEngine
from lowered_cnn.fusion.tiles import TileEngine
from lowered_cnn.fusion.winograd import WinogradEngine
from lowered_cnn.gemm import SMALL, row_sums
from lowered_cnn.layers import (
    BatchNorm,
    Conv2D,
    Graph,
    Layer,
    Lowered,
    MaxPool,
    Node,
    ReLU,
    Sequential,
    Site,
)
from lowered_cnn.layers.branches import Branches
from lowered_cnn.layers.layer import is_stock
from lowered_cnn.parameters import Parameter

WINOGRAD_CHANNELS = 16
"""With fewer channels or filters, Winograd's 16 products are too small to pay off."""

FEW_POSITIONS = 512
"""With fewer positions, those of all examples together, transforming the weight takes longer than it saves.

In training, products by rows are then too small as well. In prediction, the limit is twice as high where products by
rows are so small that BLAS takes their factors as they are.
"""

GATE = 32_768
"""How many numbers at least ReLU's gradient takes at a time: some filters, which stay in cache."""

SHORT_LINE = 128
"""With fewer numbers in a row of outputs, products by rows take longer to pack the weight than to multiply."""

Named: TypeAlias = tuple[str, Layer]
"""A layer and its name."""

Model = TypeVar("Model", bound=Sequential | Graph)


def fuse(model: Model, *, fold: bool) -> Model:
    """Return the same model with its 2-D convolutions fused, unless they have stride, dilation or groups.

    With `fold`, for inference without gradients, all of them are, and each with the batch normalization after it.
    Subclasses that change how our layers behave are left as they are.
    """
    return cast(Model, _together(model, [], fold))


def _chain(rest: list[Named], fold: bool) -> Iterator[Named]:
    """Fuse layers one after the other; each keeps the name that it, or its convolution, had before."""
    while rest:
        name, layer = rest.pop(0)
        yield name, _together(layer, rest, fold)


def _graph(graph: Graph, fold: bool) -> Graph:
    """Fuse the nodes of a graph that follow each other without branches between them."""
    nodes: list[Node] = []
    renamed: dict[str, str] = {}
    for chain in _chains(graph):
        inputs = tuple(renamed.get(name, name) for name in chain[0].inputs)
        if isinstance(chain[0].layer, Layer):
            for name, layer in _chain(
                [(node.name, node.layer) for node in chain if isinstance(node.layer, Layer)], fold
            ):
                nodes.append(Node(name, layer, inputs, chain[0].shares))
                inputs = (name,)
        else:
            nodes.append(replace(chain[0], inputs=inputs))
        renamed[chain[-1].name] = nodes[-1].name
    outputs = [renamed.get(name, name) for name in graph.outputs]
    return Graph(*nodes, inputs=graph.inputs, outputs=outputs)


def _chains(graph: Graph) -> list[list[Node]]:
    """Return the nodes in runs of layers, each taking the one before, which nothing else takes or shares."""
    shared = {name for node in graph.nodes if node.shares for name in (node.name, node.shares)}
    chains: dict[str, list[Node]] = {}
    for node in graph.nodes:
        before = chains.get(node.inputs[0], [])
        follows = before and isinstance(node.layer, Layer) and isinstance(before[-1].layer, Layer)
        if follows and graph.uses[before[-1].name] == 1 and not shared & {node.name, before[-1].name}:
            before.append(node)
            chains[node.name] = chains.pop(node.inputs[0])
        else:
            chains[node.name] = [node]
    place = {node.name: number for number, node in enumerate(graph.nodes)}
    return sorted(chains.values(), key=lambda chain: place[chain[0].name])


def _together(layer: Layer, rest: list[Named], fold: bool) -> Layer:
    """Return a layer together with those that it takes from the front of `rest`."""
    if not is_stock(layer):
        return layer
    match layer:
        case Sequential():
            fused = list(_chain(list(zip(layer.names, layer.layers, strict=True)), fold))
            return Sequential([inner for _, inner in fused], given=[name for name, _ in fused])
        case Graph():
            return _graph(layer, fold)
        case Branches():
            return _graph(layer.graph, fold)
    if not (isinstance(layer, Conv2D) and (fold or _is_plain(layer))):
        return layer
    norm = _take_norm(rest) if fold else None
    relu = _take_relu(rest)
    pool = _take_pool(rest)
    return FusedConv(layer, pool, _take_relu(rest) or relu, norm)


def _is_plain(conv: Conv2D) -> bool:
    window = conv.window(conv.kind)
    return conv.groups == 1 and window.stride == window.dilation == (1, 1)


def _take_norm(rest: list[Named]) -> tuple[str, BatchNorm] | None:
    if rest and isinstance(norm := rest[0][1], BatchNorm) and is_stock(norm):
        return rest.pop(0)[0], norm
    return None


def _take_relu(rest: list[Named]) -> bool:
    found = bool(rest) and rest[0][1] == ReLU()
    del rest[: int(found)]
    return found


def _take_pool(rest: list[Named]) -> MaxPool | None:
    """Take the next layer if it is a max pooling whose windows tile the input: no overlap, gaps or padding."""
    if rest and isinstance(pool := rest[0][1], MaxPool) and is_stock(pool):
        window = pool.window(2, pool.kind)
        tiled = window.stride == window.kernel and window.dilation == (1, 1)
        if tiled and window.padding == ((0, 0), (0, 0)) and not pool.ceil_mode:
            del rest[0]
            return pool
    return None


@dataclass(frozen=True)
class FusedConv(Layer):
    """y = max(0, max over each PH x PW patch of conv(x)): the outer maximum if `relu`, the inner one if `pool`.

    With `norm`, a normalization and its name, the patches are of norm(conv(x)).
    """

    conv: Conv2D
    pool: MaxPool | None
    relu: bool
    norm: tuple[str, BatchNorm] | None = None

    kind: ClassVar[str] = Conv2D.kind

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the layers that it computes, in the order of the equation."""
        norm = () if self.norm is None else (self.norm[1].kind,)
        pool = () if self.pool is None else (self.pool.kind,)
        return (self.conv.kind, *norm, *pool, *(ReLU.kind,) * self.relu)

    def output_shape(self, input_shape: Shape, name: str) -> Shape:
        """Return the pooling's output shape or, without one, the convolution's."""
        shape = self.conv.output_shape(input_shape, name)
        return shape if self.pool is None else self.pool.output_shape(shape, name)

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return the convolution's weight and bias."""
        return self.conv.parameters(input_shape)

    def lower(self, site: Site) -> Lowered:
        """Return the layers as one pass over blocks of rows."""
        if self.conv.groups == self.conv.filters == site.input_shape[0] > 1 and self.pool is None:
            return _LoweredDepthwise(self, site)
        return _LoweredFusedConv(self, site) if site.wants_gradients else self._predicted(site)

    def _predicted(self, site: Site) -> Lowered:
        plan = self.plan(site)
        y = site.workspace.output((*self.output_shape(site.input_shape, site.name), site.batch))
        fold = None if self.norm is None else partial(self.scale_and_bias, site)
        return PredictedConv(plan, _prediction_engine(plan, self.conv, y), y, self.relu, self.bias(site), fold)

    def plan(self, site: Site) -> Plan:
        """Return what an engine is to compute."""
        filters, *size = self.output_shape(site.input_shape, site.name)
        down, across = (1, 1) if self.pool is None else self.pool.window(2, site.name).kernel
        sweep = self.conv.sweep(site.input_shape, site.name)
        return Plan(site, sweep, (filters, size[0] * down, size[1] * across), (down, across))

    def bias(self, site: Site) -> Array | None:
        """Return the convolution's bias, if it has one."""
        return site.parameter("bias") if self.conv.bias else None

    def scale_and_bias(self, site: Site) -> tuple[Array | None, Array | None]:
        """Return what each filter's outputs are multiplied by, and what is added to them."""
        bias = self.bias(site)
        if self.norm is None:
            return None, bias
        name, norm = self.norm
        scale, shift = norm.scale_and_shift(site.sibling(name))
        return scale, shift if bias is None else bias * scale + shift


class _LoweredFusedConv(Lowered):
    def __init__(self, fused: FusedConv, site: Site) -> None:
        new = site.workspace.array
        filters, *size = fused.output_shape(site.input_shape, site.name)
        plan = fused.plan(site)
        self.patch = plan.patch
        self.engine = _engine(plan)
        most = max(last - first for first, last in self.engine.blocks)
        self.maxima = Maxima(self.patch, plan.output, most, site)
        self.relu, self.bias = fused.relu, fused.bias(site)
        self.zeros = site.workspace.zeros((most // self.patch[0], 1, size[1], site.batch))
        self.y = site.workspace.output((filters, *size, site.batch))
        self.dbias = site.gradient("bias") if fused.conv.bias else None
        self.active = site.workspace.mask(self.y.shape)
        self.gate = new((min(filters, -(-GATE // self.y[0].size)), *self.y.shape[1:]))
        self.ones = site.workspace.ones(self.y[0].size)

    def forward(self, x: Array) -> Array:
        """Y = max(0, max over a patch of Z + bias)."""
        self.engine.read(x)
        for first, last in self.engine.blocks:
            highest = self.maxima.forward(self.engine.forward(first, last), first)
            y = self._block(self.y, first, last).swapaxes(0, 1)
            if self.bias is not None:
                highest = np.add(highest, self.bias[:, None, None], out=y)
            if self.relu:
                np.maximum(highest, self.zeros[: len(y)] if self.zeros.ndim > 2 else self.zeros, out=y)
            elif self.bias is None:
                np.copyto(y, highest)
        return self.y

    def backward(self, dy: Array) -> Array | None:
        """dbias = dY 1 where ReLU is active; dZ is dY where the maxima came from, else 0; then as for a convolution."""
        if self.relu:
            self._rectify(dy)
        if self.dbias is not None:
            row_sums("dbias", dy.reshape(len(dy), -1), self.ones, out=self.dbias)
        self.engine.start()
        for first, last in self.engine.blocks:
            self.maxima.backward(self._block(dy, first, last).swapaxes(0, 1), first, self.engine.dz(last - first))
            self.engine.backward(first, last)
        return self.engine.finish()

    def _rectify(self, dy: Array) -> None:
        """Set dY to 0 where ReLU is inactive, in cache; NumPy multiplies by numbers faster than by booleans."""
        np.greater(self.y, 0, out=self.active)
        for start in range(0, len(dy), len(self.gate)):
            part = dy[start : start + len(self.gate)]
            gate = self.gate[: len(part)]
            np.copyto(gate, self.active[start : start + len(part)])
            np.multiply(part, gate, out=part)

    def _block(self, pooled: Array, first: int, last: int) -> Array:
        """View the rows of (K, *pooled size, N) that belong to a block."""
        return pooled[:, first // self.patch[0] : last // self.patch[0]]


class _LoweredDepthwise(Lowered):
    def __init__(self, fused: FusedConv, site: Site) -> None:
        self.fused, self.site = fused, site
        plan = fused.plan(site)
        self.depthwise = Depthwise(plan)
        self.y = site.workspace.output((*plan.output, site.batch))

    def forward(self, x: Array) -> Array:
        """Y = max(0, scale Z + bias)."""
        scale, bias = self.fused.scale_and_bias(self.site)
        weight = self.site.parameter("weight").reshape(len(x), 1, -1)
        if scale is not None:
            weight = weight * scale[:, None, None]
        self.depthwise.forward(x, weight, bias, self.fused.relu, self.y)
        return self.y

    def backward(self, dy: Array) -> Array | None:
        """Not available: this form is for inference without gradients."""
        raise NotImplementedError


def _engine(plan: Plan) -> Engine:
    """Return the lowering that pays off: by columns with few positions, Winograd's with enough channels, or by rows."""
    _, height, width = plan.output
    if height * width * plan.site.batch < FEW_POSITIONS and ColumnEngine.fits(plan):
        return ColumnEngine(plan)
    return WinogradEngine(plan) if _suits_winograd(plan) else RowEngine(plan)


def _prediction_engine(plan: Plan, conv: Conv2D, y: Array) -> PredictionEngine:
    """Return the lowering that pays off for inference, where every window and few positions have one."""
    if not _is_plain(conv) or plan.sweep.window.kernel == (1, 1):
        return ProductEngine(plan, conv.groups, y)
    filters, height, width = plan.output
    line = width * plan.site.batch
    positions, unpacked = height * line, plan.site.parameter("weight").size * line <= SMALL
    few = 2 * FEW_POSITIONS if unpacked else FEW_POSITIONS
    if _suits_winograd(plan) and plan.patch in ((1, 1), (2, 2)) and positions >= few:
        return TileEngine(plan, y)
    # By rows, fewer columns are copied, but the weight is.
    if filters < positions and (unpacked or line >= SHORT_LINE):
        return PatchEngine(plan, y)
    return ProductEngine(plan, 1, y)


def _suits_winograd(plan: Plan) -> bool:
    filters, height, width = plan.output
    enough = min(plan.site.input_shape[0], filters) >= WINOGRAD_CHANNELS
    return enough and plan.sweep.window.kernel == (3, 3) and height % 2 == width % 2 == 0
