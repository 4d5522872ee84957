"""The ledger: what each layer of a network costs in one training step, recorded in a dry run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lowered_cnn.arrays import Array, Shape
from lowered_cnn.gemm import ROLES, Product, Role, listen
from lowered_cnn.layers.container import Stage, Tap, stages_of
from lowered_cnn.network import Network, check_network
from lowered_cnn.workspace import BLOCK_BYTES


@dataclass(frozen=True)
class Row:
    """One layer: its output shape without the batch, its number of parameters, its products, and its buffers' bytes."""

    name: str
    output_shape: Shape
    parameters: int
    products: tuple[Product, ...]
    bytes: int

    @property
    def flops(self) -> int:
        """The number of multiplications and additions in all products."""
        return sum(product.flops for product in self.products)

    def whole(self, role: Role) -> Product | None:
        """Return the product of this role with its blocks merged again, or None if there is none.

        Blocks are runs of positions: they split N in the forward product and in dx, and K, which is summed, in dweight.
        The sums of a normalization are merged along M.
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
    """The rows of all layers for one batch size; `bytes` counts every buffer, the gradient vector included."""

    batch: int
    input_shape: Shape
    rows: tuple[Row, ...]
    bytes: int

    @property
    def flops(self) -> int:
        """The number of multiplications and additions in one training step."""
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
    """Lower the network for training on `batch` examples, run it once on zeros, and record every product.

    The layers are lowered one by one, in their readable form, for the batch as a whole: this is what the equations
    cost. `train` uses shards of the batch and fused layers, which take other products and less memory.
    """
    check_network("summary: network", network)
    lowered = network.lower(batch, block_bytes=block_bytes, fused=False)
    with listen() as heard, lowered.tapped(bill := Bill(heard)):
        lowered.layers.backward(np.zeros_like(lowered.layers.forward(lowered.x)))
    rows = tuple(_row(stage, bill.products[stage.site.name]) for stage in stages_of(lowered.layers))
    return Ledger(batch, network.input_shape, rows, lowered.workspace.bytes + lowered.gradients.vector.nbytes)


class Bill(Tap):
    """Charges each layer for the products recorded while it ran."""

    def __init__(self, heard: list[Product]) -> None:
        self.heard = heard
        self.products: dict[str, list[Product]] = {}

    def forward(self, stage: Stage, x: Array, y: Array) -> None:
        """Charge the layer."""
        self._charge(stage)

    def backward(self, stage: Stage, dy: Array, dx: Array | None) -> None:
        """Charge the layer."""
        self._charge(stage)

    def _charge(self, stage: Stage) -> None:
        self.products.setdefault(stage.site.name, []).extend(self.heard)
        self.heard.clear()


def _row(stage: Stage, products: Sequence[Product]) -> Row:
    owned = stage.layer.parameters(stage.site.input_shape)
    shape = stage.layer.output_shape(stage.site.input_shape, stage.site.name)
    return Row(stage.site.name, shape, sum(math.prod(p.shape) for p in owned), tuple(products), stage.bytes)


def _shape(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    left = (0, 1, 3)
    return "  ".join(
        cell.ljust(width) if column in left else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ).rstrip()
