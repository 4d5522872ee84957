"""The ledger: what each layer of a network costs in one training step, written down in a dry run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lowered_cnn.arrays import Array, Shape
from lowered_cnn.gemm import ROLES, Product, Role, listen
from lowered_cnn.layers import Lowered
from lowered_cnn.layers.container import Stage, places
from lowered_cnn.network import Network
from lowered_cnn.workspace import BLOCK_BYTES


@dataclass(frozen=True)
class Row:
    """One layer: its output without the batch, its parameters, its products by role, and the bytes it asked for."""

    name: str
    output_shape: Shape
    parameters: int
    products: tuple[Product, ...]
    bytes: int

    @property
    def flops(self) -> int:
        """Multiplications and additions in all products."""
        return sum(product.flops for product in self.products)

    def whole(self, role: Role) -> Product | None:
        """Return the product of this role with its blocks put together again, or None if there is none.

        Blocks are runs of positions: they cut N in the forward product and in dx, and the summed K in dweight. Those of
        a batch normalization are runs of channels, M.
        """
        parts = [product for product in self.products if product.role == role]
        if not parts:
            return None
        first = parts[0]
        if role == "dweight":
            return Product(role, first.m, sum(part.k for part in parts), first.n, first.count)
        if role == "sum":
            return Product(role, sum(part.m for part in parts), first.k, first.n, first.count)
        if role == "dbias":
            return first
        return Product(role, first.m, first.k, sum(part.n for part in parts), first.count)


@dataclass(frozen=True)
class Ledger:
    """The rows of all layers for one batch size; `bytes` counts every buffer, the gradients' vector included."""

    batch: int
    input_shape: Shape
    rows: tuple[Row, ...]
    bytes: int

    @property
    def flops(self) -> int:
        """Multiplications and additions of one training step."""
        return sum(row.flops for row in self.rows)

    def __str__(self) -> str:
        header = ("layer", "output", "parameters", "product", "M x K x N", "MFLOP", "bytes")
        lines: list[Sequence[str]] = [header, ("input", _shape(self.input_shape), "", "", "", "", "")]
        for row in self.rows:
            line = [row.name, _shape(row.output_shape), f"{row.parameters:,}", "", "", "", f"{row.bytes:,}"]
            wholes = [whole for role in ROLES if (whole := row.whole(role))]
            for whole in wholes:
                times = f"{whole.count} * " if whole.count > 1 else ""
                line[3:6] = (
                    whole.role,
                    f"{times}{whole.m} x {whole.k} x {whole.n}",
                    f"{whole.flops / 1e6:,.2f}",
                )
                lines.append(tuple(line))
                line[:3], line[6] = ("", "", ""), ""
            if not wholes:
                lines.append(tuple(line))
        parameters = sum(row.parameters for row in self.rows)
        lines.append(("total", "", f"{parameters:,}", "", "", f"{self.flops / 1e6:,.2f}", f"{self.bytes:,}"))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [_line(line, widths) for line in lines]
        rule = "-" * len(table[0])
        return "\n".join([*table[:1], rule, *table[1:-1], rule, table[-1]])


def summary(network: Network, batch: int = 1, block_bytes: int | None = BLOCK_BYTES) -> Ledger:
    """Lower the network for training on `batch` examples, run it once on zeros, and write down every product.

    The layers are lowered one by one, in their readable form, and the batch as a whole: what the equations cost.
    `train` does the same on shards of the batch and with fused layers, which take other products and less memory.
    """
    lowered = network.lower(batch, block_bytes=block_bytes, fused=False)
    heard = [_Heard(stages, place) for stages, place in list(places(lowered.layers))]
    lowered.layers.backward(np.zeros_like(lowered.layers.forward(lowered.x)))
    rows = tuple(
        Row(
            ear.stage.site.name,
            ear.stage.layer.output_shape(ear.stage.site.input_shape, ear.stage.site.name),
            sum(math.prod(p.shape) for p in ear.stage.layer.parameters(ear.stage.site.input_shape)),
            tuple(ear.products),
            ear.stage.bytes,
        )
        for ear in heard
    )
    return Ledger(batch, network.input_shape, rows, lowered.workspace.bytes + lowered.gradients.vector.nbytes)


class _Heard(Lowered):
    """A layer in its place whose products are written down."""

    def __init__(self, stages: list[Stage], place: int) -> None:
        self.stage = stages[place]
        self.products: list[Product] = []
        stages[place] = replace(self.stage, lowered=self)

    def forward(self, x: Array) -> Array:
        """Y is that of the layer."""
        with listen() as products:
            y = self.stage.lowered.forward(x)
        self.products += products
        return y

    def backward(self, dy: Array) -> Array | None:
        """dX is that of the layer."""
        with listen() as products:
            dx = self.stage.lowered.backward(dy)
        self.products += products
        return dx


def _shape(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    left = (0, 1, 3)
    return "  ".join(
        cell.ljust(width) if column in left else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ).rstrip()
