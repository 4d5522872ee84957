"""The report in a real browser: from a file, without scripts, on a phone and on paper."""

from collections.abc import Iterator

import numpy as np
import pytest
from browser import browser
from PIL import Image
from playwright.sync_api import Page

from lowered_cnn.cli import main

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.slow

CLASSES = 60


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Open the report of a network for many classes of long names, for a reader of dark pages without scripts."""
    folder, rng = tmp_path_factory.mktemp("report"), np.random.default_rng(0)
    for number in range(4 * CLASSES):
        split = "test" if number % 4 == 0 else "train"
        path = folder / "data" / split / f"{'x' * 100}{number // 4}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (10, 10)).astype(np.uint8)).save(path)
    options = ["--data", str(folder / "data"), "--epochs", "1", "--out", str(folder / "run"), "--no-report"]
    assert main(["train", *options]) == 0
    assert main(["report", str(folder / "run")]) == 0
    with browser() as chromium:
        context = chromium.new_context(java_script_enabled=False, color_scheme="dark", offline=True)
        page = context.new_page()
        page.goto((folder / "run" / "report.html").as_uri())
        yield page
        context.close()


def ground(page: Page) -> int:
    """Return the lightest part of the page's colour."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return max(int(part) for part in colour[4:-1].split(","))


@pytest.mark.parametrize("width", [360, 768, 1920])
def test_it_fits_the_screen(page: Page, width: int) -> None:
    page.emulate_media(media="screen")
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert ground(page) < 80


def test_on_paper_all_of_it_is_there_dark_on_light(page: Page) -> None:
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 720, "height": 900})
    tables = page.locator(".table").evaluate_all("all => all.map(each => [each.scrollHeight, each.clientHeight])")
    assert all(whole <= seen for whole, seen in tables)
    assert page.locator("#classes tbody tr").count() == CLASSES
    assert ground(page) > 200
