"""Draw matrices of numbers, bars and arrows as an SVG that is readable on light and dark pages."""

import base64
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
import numpy.typing as npt

MINUS = "\N{MINUS SIGN}"
CELL = 32
BAR = 50
MARGIN = 24
TITLE = 36
"""How much room a title and the line under it take above a matrix."""

STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; fill: #1f2933 }
.card { fill: #fff; stroke: #dfe4ea } .title { font-size: 14px; font-weight: 600 } .note { font-size: 12px }
.note, .zero { fill: #5f6b78 } .cell { stroke: #8494a5; stroke-opacity: .35 } .number { font-size: 14px }
.small { font-size: 11px } .sign { font-size: 18px } .middle { text-anchor: middle } .end { text-anchor: end }
.none { fill: none } .positive { fill: #d55e00 } .negative { fill: #0072b2 }
.on { fill: #fff; font-size: 12px; font-weight: 600 }
.worker0 { fill: #0067a0 } .worker1 { fill: #b34a00 } .worker2 { fill: #00765a } .worker3 { fill: #9c4a7a }
.line { fill: none; stroke: #5f6b78; stroke-width: 1.5 } .head { fill: #5f6b78 }
.mark { fill: none; stroke: #1f2933; stroke-width: 2.5 } .lead { fill: none; stroke: #1f2933; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e8ed } .card { fill: #1e2329; stroke: #3b434d } .note, .zero { fill: #a3aeba }
  .positive { fill: #f0803c } .negative { fill: #3d9be0 } .line { stroke: #a3aeba } .head { fill: #a3aeba }
  .mark, .lead { stroke: #fff }
}
"""
"""Blue and vermilion are told apart by colour-blind readers."""

WIDTHS = {"title": 8.2, "note": 6.6}
"""About how wide a letter is, at most, of words that begin where they are written."""

Numbers = npt.NDArray[np.floating]
Rows = tuple[int, int]
"""From, to (exclusive)."""


@dataclass(frozen=True)
class Box:
    """Where a matrix stands: its left and top edge, its size, and the size of its cells."""

    x: float
    y: float
    width: float
    height: float
    cell: tuple[float, float]

    @property
    def right(self) -> float:
        """The right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The bottom edge."""
        return self.y + self.height

    @property
    def middle(self) -> float:
        """The height halfway down."""
        return self.y + self.height / 2


class Drawing:
    """A card of matrices, arrows and words; `svg` is the file's text."""

    def __init__(self, title: str, description: str) -> None:
        self.title, self.description = title, description
        self.parts: list[str] = []
        self.right = self.bottom = 0.0

    def reach(self, x: float, y: float) -> None:
        """Make the card large enough for a point."""
        self.right, self.bottom = max(self.right, x), max(self.bottom, y)

    def text(self, x: float, y: float, words: str, kind: str = "note") -> None:
        """Write words, with their baseline at y."""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>')
        if kind in WIDTHS:
            self.reach(x + WIDTHS[kind] * len(words), y)

    def heading(self, x: float, y: float, title: str, note: str = "") -> None:
        """Write the title of what stands at (x, y), and a line under it."""
        self.text(x, y - (24 if note else 9), title, "title")
        if note:
            self.text(x, y - 8, note)

    def matrix(
        self, x: float, y: float, numbers: npt.ArrayLike, title: str = "", note: str = "", *,
        cell: float = CELL, bracket: bool = True, darkest: float = 0,
    ) -> Box:  # fmt: skip
        """Draw a matrix of numbers (rows, columns); nan is an empty cell. An image has no bracket.

        The number that is filled most is the largest, or `darkest` where several matrices share a scale.
        """
        values = np.asarray(numbers, float)
        rows, columns = values.shape
        largest = darkest or np.nanmax(np.abs(values)) or 1
        for (i, j), value in np.ndenumerate(values):
            self._number(x + j * cell, y + i * cell, cell, float(value), float(value / largest))
        box = Box(x, y, columns * cell, rows * cell, (cell, cell))
        if bracket:
            for edge, into in ((box.x - 5, 5), (box.right + 5, -5)):
                path = f"M{edge + into:g} {box.y - 3:g}h{-into}v{box.height + 6:g}h{into}"
                self.parts.append(f'<path class="line" d="{path}"/>')
        self.heading(x, y, title, note)
        self.reach(box.right, box.bottom)
        return box

    def _number(self, x: float, y: float, cell: float, value: float, share: float) -> None:
        """Draw one cell, filled by its share of the largest number."""
        sign = "none" if np.isnan(value) or value == 0 else "positive" if value > 0 else "negative"
        fill = "" if sign == "none" else f' fill-opacity="{0.12 + 0.43 * abs(share):.2f}"'
        place = f'x="{x + 1:g}" y="{y + 1:g}" width="{cell - 2:g}" height="{cell - 2:g}" rx="4"'
        self.parts.append(f'<rect {place} class="cell {sign}"{fill}/>')
        if not np.isnan(value):
            words = number(value)
            kind = "small" if cell < 28 or len(words) > 3 else "number"
            self.text(x + cell / 2, y + cell / 2 + 5, words, f"{kind} middle" + (" zero" if value == 0 else ""))

    def mark(self, box: Box, rows: Rows, columns: Rows) -> None:
        """Outline some cells of a matrix."""
        wide, high = box.cell
        x, y = box.x + columns[0] * wide, box.y + rows[0] * high
        width, height = (columns[1] - columns[0]) * wide, (rows[1] - rows[0]) * high
        self.parts.append(f'<rect class="mark" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5"/>')

    def arrow(self, *points: tuple[float, float], label: str = "") -> None:
        """Draw an arrow through points; its label stands over the middle of the first stretch."""
        (x0, y0), (x1, y1) = points[:2]
        path = "L".join(f"{x:g} {y:g}" for x, y in points)
        (a, b), (x, y) = list(pairwise(points))[-1]
        head = f"{-7 if x > a else 7} -4v8z" if y == b else f"-4 {-7 if y > b else 7}h8z"
        self.parts.append(f'<path class="line" d="M{path}"/><path class="head" d="M{x:g} {y:g}l{head}"/>')
        if y0 == y1:
            self.text((x0 + x1) / 2, y0 - 8, label, "note middle")
        else:
            self.text(x0 + 10, (y0 + y1) / 2 + 4, label)

    def sign(self, x: float, y: float, sign: str) -> None:
        """Write an operator, centred at (x, y)."""
        self.text(x, y + 6, sign, "sign middle")

    def bars(self, x: float, zero: float, values: Sequence[float], unit: float, title: str = "") -> None:
        """Draw upright bars from a line at height `zero`; `unit` is the length of a bar of 1."""
        for k, value in enumerate(values):
            left, length = x + BAR * k, abs(value) * unit
            top = zero - length if value > 0 else zero
            self.parts.append(
                f'<rect class="{"positive" if value > 0 else "negative"}" fill-opacity=".6" rx="2" '
                f'x="{left + 8:g}" y="{top:g}" width="{BAR - 16}" height="{length:g}"/>'
            )
            self.text(
                left + BAR / 2, zero + length + 14 if value < 0 else zero - length - 6, number(value), "note middle"
            )
        self.parts.append(f'<path class="line" d="M{x:g} {zero:g}h{BAR * len(values)}"/>')
        self.text(x, zero - unit - 26, title, "title")
        self.reach(x + BAR * len(values), zero)

    def lengths(self, x: float, y: float, values: Mapping[str, float], unit: float, title: str) -> None:
        """Draw a level bar for each named value, one below the other; `unit` is the length of a bar of 1."""
        start = x + 7 * max(map(len, values))
        for k, (name, value) in enumerate(values.items()):
            top = y + 26 * k
            self.text(start - 10, top + 15, name, "note end")
            self.parts.append(
                f'<rect class="worker0" fill-opacity=".6" rx="2" x="{start:g}" y="{top + 2:g}" '
                f'width="{value * unit:g}" height="18"/>'
            )
            self.text(start + value * unit + 6, top + 15, number(value))
        self.parts.append(f'<path class="line" d="M{start:g} {y - 2:g}v{26 * len(values):g}"/>')
        self.heading(start, y, title)
        self.reach(start, y + 26 * len(values))

    def node(self, x: float, y: float, words: str, worker: int) -> None:
        """Draw a number or a sum in the colour of a worker, centred at (x, y)."""
        width = 7 * len(words) + 14
        self.parts.append(
            f'<rect class="worker{worker}" x="{x - width / 2:g}" y="{y - 13:g}" width="{width}" height="26" rx="13"/>'
        )
        self.text(x, y + 4, words, "on middle")
        self.reach(x + width / 2, y + 13)

    def line(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Draw a line."""
        self.parts.append(f'<path class="line" d="M{x0:g} {y0:g}L{x1:g} {y1:g}"/>')

    def picture(
        self, x: float, y: float, values: Numbers, size: tuple[float, float], title: str, note: str, darkest: float = 0
    ) -> Box:
        """Draw many numbers (rows, columns) as pixels, without writing them."""
        data = base64.b64encode(png(values / (darkest or np.abs(values).max()))).decode()
        self.parts.append(
            f'<image x="{x:g}" y="{y:g}" width="{size[0]:g}" height="{size[1]:g}" preserveAspectRatio="none" '
            f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
            f'<rect class="cell none" x="{x:g}" y="{y:g}" width="{size[0]:g}" height="{size[1]:g}"/>'
        )
        self.heading(x, y, title, note)
        self.reach(x + size[0], y + size[1])
        return Box(x, y, *size, (size[0] / values.shape[1], size[1] / values.shape[0]))

    def svg(self) -> str:
        """Return the file: a card as large as what was drawn, with a margin."""
        width, height = self.right + MARGIN, self.bottom + MARGIN
        names = (
            f'<title id="title">{escape(self.title)}</title>\n<desc id="description">{escape(self.description)}</desc>'
        )
        card = f'<rect class="card" x=".5" y=".5" width="{width - 1:g}" height="{height - 1:g}" rx="10"/>'
        parts = "\n".join((names, f"<style>{STYLE}</style>", card, *self.parts))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" role="img" aria-labelledby="title description">\n{parts}\n</svg>\n'
        )


def number(value: float) -> str:
    """Return a number as it is written in a cell, with a minus sign instead of a hyphen."""
    return f"{value:.4g}".replace("-", MINUS)


def png(share: Numbers) -> bytes:
    """Return an image of numbers from -1 to 1: the larger, the more opaque; vermilion above 0 and blue below."""
    opacity = np.rint(255 * np.sqrt(np.abs(share)))  # the root shows the smaller ones, too
    colours = np.where(share[..., None] > 0, (0xE2, 0x6A, 0x1C), (0x1F, 0x86, 0xD1))
    pixels = np.concatenate([colours, opacity[..., None]], axis=2).astype(np.uint8)
    rows = np.concatenate([np.zeros((len(pixels), 1), np.uint8), pixels.reshape(len(pixels), -1)], axis=1)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
