"""A real browser for tests, and what they do on the page: Chromium, driven by Playwright, or skipped without either.

With CHROMIUM, the path of the browser, in the environment, as in CI, nothing is skipped.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("Chromium is not installed (Debian's package chromium)", allow_module_level=True)
if "CHROMIUM" not in os.environ:
    pytest.importorskip("playwright", reason="Playwright is not installed (pip install 'lowered-cnn[test]')")

from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright  # noqa: E402

FLAGS = [
    "--no-sandbox",  # as root, as in CI
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


@contextmanager
def page_at(
    chromium: Browser, address: str, *, width: int = 1440, theme: str = "light", offline: bool = False
) -> Iterator[Page]:
    """Open an address; fail if there was an error on the console, or if the page asked for anything elsewhere."""
    said: list[str] = []
    asked: list[str] = []
    size = ViewportSize(width=width, height=1000)
    context = chromium.new_context(viewport=size, color_scheme="dark" if theme == "dark" else "light", offline=offline)
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(address)
        yield page
        assert said == []
        assert [url for url in asked if not url.startswith((address.partition("#")[0], "data:"))] == []
    finally:
        context.close()


def settled(page: Page) -> None:
    """Wait until all that was asked for is shown."""
    expect(page.locator("main")).to_have_attribute("aria-busy", "false")
    expect(page.locator("main .waiting")).to_have_count(0)


def switch_to(page: Page, view: str) -> None:
    """Open a view with its tab, and wait until it is shown: the page hears of its new address a little later."""
    page.locator(f'#tabs a[href="#{view}"]').click()
    expect(page.locator("main")).to_have_class(view)
    settled(page)


def opened(page: Page, number: int, label: int | None = None) -> None:
    """Choose a test image, and a label other than its own."""
    settled(page)
    page.get_by_label("Test image").fill(str(number))
    page.get_by_label("Test image").press("Enter")
    settled(page)
    if label is not None:
        page.locator("#label").select_option(str(label))
        settled(page)


def point(page: Page, name: str, row: int, col: int) -> None:
    """Move the mouse to a cell of a grid, which is scrolled into the middle of the screen and of its figure."""
    grid = page.locator(f'.grid[data-name="{name}"]').first
    script = """(grid, [row, col]) => {
        const middle = document.createElement('i');
        const place = { position: 'absolute', left: `${(100 * (col + 0.5)) / grid.dataset.cols}%` };
        Object.assign(middle.style, { ...place, top: `${(100 * (row + 0.5)) / grid.dataset.rows}%` });
        grid.append(middle);
        middle.scrollIntoView({ block: 'center', inline: 'center' });
        const { x, y } = middle.getBoundingClientRect();
        middle.remove();
        return [x, y];
    }"""
    page.mouse.move(*grid.evaluate(script, [row, col]))


def number(page: Page, selector: str, attribute: str = "data-value") -> float:
    """Return the number that the first element in question has as an attribute."""
    return float(page.locator(selector).first.get_attribute(attribute) or "nan")
