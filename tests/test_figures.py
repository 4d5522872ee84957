"""The figures of the documents: drawn again they are the same, and they show what the pages say."""

import base64
import re
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest

import figures
import screenshots

DOCS = Path(__file__).parents[1] / "docs"
PIXELS = re.compile(r"data:image/png;base64,([^\"]+)")
AWAY = {"s4": {"-12"}, "s9": {"0.4904"}}
"""What a page prints about something else: the adjoint identity and the loss."""


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    return figures.figures()


def kept(name: str) -> str:
    return (DOCS / "images" / name).read_text(encoding="utf-8")


def test_the_figures_of_the_book_are_those_of_its_pages(drawn: dict[str, str]) -> None:
    assert {path.relative_to(DOCS / "images").as_posix() for path in (DOCS / "images" / "book").iterdir()} == set(drawn)
    for name, svg in drawn.items():
        assert svg == kept(name), f"{name}: run python scripts/figures.py"


@pytest.mark.parametrize("page", [f"s{number}" for number in range(1, 10)])
def test_a_figure_shows_the_numbers_that_its_page_prints(page: str, drawn: dict[str, str]) -> None:
    """The page's text is compared with its code elsewhere: so it says independently what belongs into the figure."""
    text = (DOCS / "book" / f"{page}.md").read_text()
    printed = "".join(block for block in re.findall(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    matrices = " ".join(line for line in printed.splitlines() if re.fullmatch(r"[][ \d.-]+", line))
    cells = ElementTree.fromstring(drawn[f"book/{page}.svg"]).itertext()
    shown = {words.replace("\N{MINUS SIGN}", "-") for words in cells}
    wanted = {f"{float(number):.4g}" for number in re.findall(r"-?\d+\.?\d*", matrices)} - AWAY.get(page, set())
    assert wanted
    assert wanted <= shown


@pytest.mark.parametrize(("page", "columns"), [("innermost", [-1]), ("blocks", [1, 2])])
def test_bars_are_as_long_as_the_table_says(page: str, columns: list[int], drawn: dict[str, str]) -> None:
    text = next(DOCS.glob(f"book/why-*{page}.md")).read_text()
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")][2:]
    wanted = [float(row[column].strip(" *")) for column in columns for row in rows]
    bars = re.findall(r'width="([\d.]+)" height="18"/>\n<text[^>]*>([\d.]+)<', drawn[f"book/{page}.svg"])
    assert [float(number) for _, number in bars] == wanted
    units = np.array([float(width) / float(number) for width, number in bars]).reshape(len(columns), -1)
    np.testing.assert_allclose(units, units[:, :1].repeat(units.shape[1], axis=1), rtol=1e-3)


def test_every_page_of_the_book_has_its_figure() -> None:
    shown = {
        path.name: set(re.findall(r"!\[.+?\]\(\.\./images/(.+?)\)", path.read_text()))
        for path in DOCS.glob("book/s*.md")
    }
    assert all(f"book/{Path(page).stem}.svg" in images for page, images in shown.items())
    assert len(shown) == 9


def test_the_guide_shows_every_view_of_the_explorer_at_both_widths_in_both_themes() -> None:
    wanted = {
        screenshots.name(view, width, theme): (width * scale, height * scale)
        for view in screenshots.VIEWS
        for width, (height, scale) in screenshots.WIDTHS.items()
        for theme in screenshots.THEMES
    }
    files = {path.name: path.read_bytes() for path in (DOCS / "images" / "explorer").iterdir()}
    sizes = {name: (int.from_bytes(png[16:20]), int.from_bytes(png[20:24])) for name, png in files.items()}
    assert sizes == wanted
    assert sum(map(len, files.values())) < 2_000_000
    picture = re.compile(r"!\[.+?\]\(images/explorer/(.+?-(light|dark)\.png)#only-(\w+)\)")
    shown = picture.findall((DOCS / "explorer.md").read_text())
    assert sorted(name for name, _, _ in shown) == sorted(wanted)
    assert all(theme == only for _, theme, only in shown)


def test_a_figure_is_readable_without_eyes_on_dark_pages_and_without_the_network() -> None:
    for path in (DOCS / "images").rglob("*.svg"):
        text = path.read_text(encoding="utf-8")
        root = ElementTree.fromstring(text)
        assert all(root.findtext(f"{{http://www.w3.org/2000/svg}}{part}") for part in ("title", "desc")), path
        assert "prefers-color-scheme: dark" in text
        assert not re.search(r'href="(?!data:)|url\(|@import', text), path


def pixels(png: str) -> npt.NDArray[np.float64]:
    """Return what an image adds to its ground, its colours times its opacity, from 0 to 255."""
    data = base64.b64decode(png)
    width, height = (int.from_bytes(data[at : at + 4]) for at in (16, 20))
    begin = data.index(b"IDAT") + 4
    rows = np.frombuffer(zlib.decompress(data[begin : data.index(b"IEND") - 8]), np.uint8).reshape(height, -1)
    image = rows[:, 1:].reshape(height, width, 4).astype(float)
    added: npt.NDArray[np.float64] = image[..., :3] * image[..., 3:] / 255
    return added


@pytest.mark.slow
def test_the_picture_of_the_seven_is_that_of_a_network_trained_anew() -> None:
    """Weights may differ in their last bits between machines, and so may colours a little."""
    svg, before = figures.hero().svg(), kept("hero.svg")
    assert PIXELS.sub("", svg) == PIXELS.sub("", before)
    for new, old in zip(PIXELS.findall(svg), PIXELS.findall(before), strict=True):
        np.testing.assert_allclose(pixels(new), pixels(old), atol=8)
