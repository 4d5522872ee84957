"""The ledger: what each layer of a network costs in one training step, written down in a dry run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lowered_cnn.arrays import Shape
from lowered_cnn.gemm import Product, listen
from lowered_cnn.network import Network
from lowered_cnn.workspace import BLOCK_BYTES

ROLES = ("forward", "sum", "dweight", "dbias", "dx")


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

    def whole(self, role: str) -> Product | None:
        """Return the product of this role with its blocks put together again, or None if there is none.

        Blocks are runs of positions: they cut N in the forward product and in dx, and the summed K in dweight.
        """
        parts = [product for product in self.products if product.role == role]
        if not parts:
            return None
        first = parts[0]
        if role == "dweight":
            return Product(role, first.m, sum(part.k for part in parts), first.n, first.count)
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
    stages = lowered.layers.stages
    heard: dict[str, list[Product]] = {}
    x = lowered.x
    outputs = []
    for stage in stages:
        with listen() as products:
            x = stage.lowered.forward(x)
        heard[stage.site.name] = products
        outputs.append(x.shape[:-1])
    dy = np.zeros_like(x)
    for stage in reversed(stages):
        with listen() as products:
            dx = stage.lowered.backward(dy)
        heard[stage.site.name] += products
        if dx is None:
            break
        dy = dx
    rows = tuple(
        Row(
            stage.site.name,
            output,
            sum(math.prod(p.shape) for p in stage.layer.parameters(stage.site.input_shape)),
            tuple(heard[stage.site.name]),
            stage.bytes,
        )
        for stage, output in zip(stages, outputs, strict=True)
    )
    return Ledger(batch, network.input_shape, rows, lowered.workspace.bytes + lowered.gradients.vector.nbytes)


def _shape(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    left = (0, 1, 3)
    return "  ".join(
        cell.ljust(width) if column in left else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ).rstrip()
