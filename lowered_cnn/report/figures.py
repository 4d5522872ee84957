"""Figures: charts, which a page has as SVG, and galleries of small pictures; each is also a PNG file by itself."""

import base64
import io
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from lowered_cnn.arrays import Bytes
from lowered_cnn.report.package import matplotlib_package
from lowered_cnn.report.scale import Scale
from lowered_cnn.report.style import LIGHT, SETTINGS

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

LEAST, MOST = 0.75, 1.25
"""A page may draw a chart this much smaller or larger; if it still does not fit, it is scrolled."""

PNG_DPI = 144
COLUMNS, CELL = 6, 150
"""Pictures in a row of a gallery's PNG file, and the points that each takes."""


@dataclass(frozen=True, eq=False)
class Figure(ABC):
    """A figure with its name, which is that of its PNG file."""

    name: str

    @abstractmethod
    def html(self) -> str:
        """Return it as part of a page."""

    @abstractmethod
    def png(self) -> bytes:
        """Return it as a PNG file."""


@contextmanager
def drawing(width: float, height: float) -> Iterator["Drawing"]:
    """Provide an empty drawing of this size, in pixels of a page, and the settings to draw with."""
    with matplotlib_package(SETTINGS) as matplotlib:
        yield matplotlib.figure.Figure(figsize=(width / 72, height / 72), layout="constrained")


@dataclass(frozen=True, eq=False)
class Chart(Figure):
    """A drawing by matplotlib, and what it shows in words."""

    drawing: "Drawing"
    alt: str

    def html(self) -> str:
        """Return the SVG without what would need another file, in the colours and fonts of the page."""
        svg = self._saved("svg", transparent=True).decode()
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg ") :], flags=re.DOTALL)
        svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
        told = f'role="img" aria-label="{escape(self.alt)}"'
        svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', lambda match: told, svg, count=1)
        svg = re.sub(r'font: ([\d.]+)px [^;"]*', r"font-size: \1px", svg)
        used = set(re.findall(r"#([\w.-]+)", svg))
        svg = re.sub(r' id="([\w.-]+)"', lambda match: match[0] if match[1] in used else "", svg)
        for name, colour in LIGHT.items():
            svg = svg.replace(colour, f"var(--{name})")
        width = 72 * self.drawing.get_figwidth()
        limits = f"min-width: {LEAST * width:.0f}px; max-width: {MOST * width:.0f}px"
        return f'<figure class="chart"><div style="{limits}">{svg}</div></figure>'

    def png(self) -> bytes:
        """Return the drawing on a light ground."""
        return self._saved("png", facecolor=LIGHT["card"], dpi=PNG_DPI)

    def _saved(self, kind: str, **options: Any) -> bytes:
        file = io.BytesIO()
        with matplotlib_package(SETTINGS | {"svg.hashsalt": self.name}):
            self.drawing.savefig(file, format=kind, **options)
        return file.getvalue()


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture (H, W, 3) with its caption, what it shows in words, and the scale of its colours, if it has one."""

    pixels: Bytes
    caption: str
    alt: str
    scale: Scale | None = None

    def html(self) -> str:
        """Return the picture with its caption and a legend."""
        source = base64.b64encode(as_png(self.pixels)).decode()
        picture = f'<img alt="{escape(self.alt)}" src="data:image/png;base64,{source}">'
        legend = "" if self.scale is None else self.scale.html()
        return f"<figure>{picture}{legend}<figcaption>{escape(self.caption)}</figcaption></figure>"


@dataclass(frozen=True, eq=False)
class Gallery(Figure):
    """Pictures side by side; each `together` of them belong to one another, and stay in one row."""

    panels: Sequence[Panel]
    together: int = 1

    def html(self) -> str:
        """Return them in a grid that fits the page."""
        pictures = [panel.html() for panel in self.panels]
        if self.together == 1:
            return f'<div class="gallery">{"".join(pictures)}</div>'
        groups = ("".join(pictures[first : first + self.together]) for first in range(0, len(pictures), self.together))
        return f'<div class="groups">{"".join(f"<div>{group}</div>" for group in groups)}</div>'

    def png(self) -> bytes:
        """Return them in rows, with their captions and the ends of their scales."""
        columns = min(COLUMNS, len(self.panels))
        rows = -(-len(self.panels) // columns)
        with drawing(columns * CELL, rows * CELL) as figure:
            for place, panel in enumerate(self.panels, 1):
                axes = figure.add_subplot(rows, columns, place)
                axes.imshow(panel.pixels, interpolation="nearest")
                axes.set_axis_off()
                told = panel.caption if panel.scale is None else f"{panel.caption}\n{panel.scale}"
                axes.set_title(told, fontsize=7, loc="center")
        return Chart(self.name, figure, "").png()


def as_png(pixels: Bytes) -> bytes:
    """Return pixels (H, W, 3) as a PNG file: grey levels as they are, and at most 256 colours."""
    from PIL import Image

    is_grey = (pixels == pixels[..., :1]).all()
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0]) if is_grey else pixels)
    file = io.BytesIO()
    (image if is_grey else image.quantize(256, dither=Image.Dither.NONE)).save(file, "PNG", optimize=True)
    return file.getvalue()
