"""The explorer in a real browser: what the page shows, wherever a reader points, is what the package computes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from browser import browser, page_at
from explorers import Explorer, exploring
from playwright.sync_api import Browser, Page, expect

from lowered_cnn import (
    SGD,
    Conv2D,
    Dense,
    Flatten,
    MaxPool,
    Network,
    ReLU,
    Sequential,
    Window,
    im2col,
    load,
    load_mnist,
    softmax,
)
from lowered_cnn.arrays import Array, Bytes
from lowered_cnn.cli import main
from lowered_cnn.data import mnist_style
from lowered_cnn.explore.nudge import nudged

pytestmark = pytest.mark.slow  # each test drives a browser

VIEWS = ("forward", "backward", "nudge", "sandbox", "training", "ledger")
OWN = """
from lowered_cnn import Conv2D, Dense, Flatten, MaxPool, ReLU, Sequential

def strided(classes):
    return Sequential(
        Conv2D(4, 5, padding="same"), ReLU(), MaxPool(2),
        Conv2D(6, 3, stride=2, padding=1, dilation=2), ReLU(), Flatten(), Dense(classes),
    )
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def run(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a network with padding, stride and dilation on a few digits."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "own.py").write_text(OWN)
    options = ["--model", f"{folder / 'own.py'}:strided", "--epochs", "3", "--batch-size", "50"]
    assert main(["train", "--data", str(few_digits), *options, "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def explorer(run: Path) -> Iterator[Explorer]:
    with exploring(run) as started:
        yield started


def address(explorer: Explorer, view: str = "forward") -> str:
    return f"http://{explorer.host}:{explorer.port}/#{view}"


def image(number: int) -> Bytes:
    found: Bytes = load_mnist().test.images[number].reshape(1, 28, 28)
    return found


def choose_image(page: Page, number: int) -> None:
    page.get_by_label("Test image").fill(str(number))
    page.get_by_label("Test image").press("Enter")


def shares(page: Page) -> npt.NDArray[np.float64]:
    """Return the probabilities of the ten classes, as the bars have them."""
    bars = page.locator(".bars li[data-share]")
    return np.array([float(bar.get_attribute("data-share") or "nan") for bar in bars.all()])


def point(page: Page, name: str, row: int, col: int) -> None:
    """Move the mouse to a cell of a grid."""
    grid = page.locator(f'.grid[data-name="{name}"]').first
    grid.scroll_into_view_if_needed()
    rows, cols = (int(grid.get_attribute(f"data-{axis}") or 0) for axis in ("rows", "cols"))
    box = grid.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + (col + 0.5) * box["width"] / cols, box["y"] + (row + 0.5) * box["height"] / rows)


def number(page: Page, selector: str, attribute: str = "data-value") -> float:
    return float(page.locator(selector).first.get_attribute(attribute) or "nan")


class Convolution:
    """A convolution of the run's network on an image, computed by the package."""

    def __init__(self, network: Network, name: str, index: int, x: Array) -> None:
        assert isinstance(network.model, Sequential)
        layer = network.model.layers[index]
        assert isinstance(layer, Conv2D)
        self.sweep = layer.sweep(x.shape[:-1], name)
        self.x, self.weight, self.bias = x, network.parameters[f"{name}.weight"], network.parameters[f"{name}.bias"]
        rows = self.weight[0].size
        self.columns = im2col(x, self.sweep).reshape(rows, -1)
        self.z = self.weight.reshape(len(self.weight), rows) @ self.columns + self.bias[:, None]


def convolutions(network: Network, pixels: Bytes) -> dict[str, Convolution]:
    first = Convolution(network, "conv1", 0, np.moveaxis(pixels[None] / np.float32(255), 0, -1).astype(np.float32))
    maps = np.maximum(first.z, 0).reshape(4, 28, 28, 1)
    pooled = maps.reshape(4, 14, 2, 14, 2, 1).max(axis=(2, 4))
    return {"conv1": first, "conv2": Convolution(network, "conv2", 3, pooled)}


# --- drawing ---------------------------------------------------------------------------------------------------------


def draw(page: Page, points: list[tuple[float, float]]) -> None:
    """Draw a line through points, given as shares of the sheet."""
    box = page.locator("canvas.sheet").bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


@pytest.mark.parametrize(
    "points",
    [
        [(0.5, 0.15), (0.5, 0.85)],
        [(0.25, 0.2), (0.75, 0.2), (0.45, 0.85)],
        [(0.5, 0.2), (0.25, 0.5), (0.5, 0.8), (0.75, 0.5), (0.5, 0.2)],
    ],
)
def test_the_prediction_of_a_drawing_is_that_of_the_package(
    chromium: Browser, explorer: Explorer, run: Path, points: list[tuple[float, float]]
) -> None:
    with page_at(chromium, address(explorer)) as page:
        expect(page.locator(".bars li")).to_have_count(10)
        draw(page, points)
        page.wait_for_timeout(1000)
        side = int(page.evaluate("document.querySelector('canvas.sheet').width"))
        script = f"""[...document.querySelector('canvas.sheet').getContext('2d').getImageData(0, 0, {side}, {side}).data]
            .filter((_, k) => k % 4 === 0)"""
        drawn = np.array(page.evaluate(script), np.uint8).reshape(1, side, side)
        assert drawn.max() == 255
        wanted = softmax(load(run / "model.safetensors").predict(mnist_style(drawn)[None]))[0]
        assert np.allclose(shares(page), wanted, rtol=0, atol=1e-6)
        best = page.locator(".bars li.best")
        assert best.get_attribute("data-class") == str(wanted.argmax())


# --- forward ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["conv1", "conv2"])
def test_whatever_cell_is_pointed_at_its_partners_are_those_of_the_package(
    chromium: Browser, explorer: Explorer, run: Path, name: str
) -> None:
    """Point at cells drawn at random in each of the linked views: position, filter, sum and terms must fit."""
    rng, numbered = np.random.default_rng(len(name)), 4
    wanted = convolutions(load(run / "model.safetensors"), image(numbered))[name]
    filters, positions = wanted.z.shape
    height, width = wanted.sweep.output
    with page_at(chromium, address(explorer, f"forward/{name}")) as page:
        choose_image(page, numbered)
        article = page.locator("article[data-position]")
        expect(article).to_be_visible()
        page.wait_for_timeout(500)
        for _ in range(6):
            i, j, k = int(rng.integers(height)), int(rng.integers(width)), int(rng.integers(filters))
            page.get_by_label("Filter", exact=True).select_option(str(k))
            point(page, "output", i, j)
            p = i * width + j
            assert article.get_attribute("data-position") == str(p)
            assert article.get_attribute("data-filter") == str(k)
            assert number(page, "article output.value") == pytest.approx(wanted.z[k, p], abs=1e-5)
            assert number(page, "[data-total]", "data-total") == pytest.approx(wanted.z[k, p], abs=1e-4)
        rows = page.locator("tr[data-row]")
        page.locator("article details", has=rows.first).first.evaluate("each => each.open = true")
        for _ in range(4):
            p, r = int(rng.integers(positions)), int(rng.integers(len(wanted.columns)))
            point(page, "columns", r, p)
            assert article.get_attribute("data-position") == str(p)
            assert article.get_attribute("data-row") == str(r)
            cells = page.locator(f'tr[data-row="{r}"] td').all_inner_texts()
            shown = [float(cell.replace("−", "-").replace("≈", "")) for cell in cells[-3:]]
            k = int(article.get_attribute("data-filter") or -1)
            column, weight = wanted.columns[r, p], wanted.weight.reshape(filters, -1)[k, r]
            assert shown == pytest.approx([column, weight, column * weight], abs=2e-3)
