"""Take the screenshots of the explorer for the documents, of a run made for them: `python scripts/screenshots.py`."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGES = Path(__file__).parents[1] / "docs" / "images" / "explorer"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
COMMAND = [sys.executable, "-m", "lowered_cnn.cli"]
WIDTHS = {360: (720, 2), 1920: (1000, 1)}
"""Of each width the height, and how many pixels of the picture one pixel of the page becomes."""
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
SETTLED = 800
"""Milliseconds after which a view has drawn all that it computes, and nothing moves any more."""


@dataclass(frozen=True)
class View:
    """A view: its address in the page, what is clicked in it, and what stands at the top of a narrow picture."""

    name: str
    address: str
    ready: str
    clicks: tuple[str, ...] = ()
    top: str = "body"


VIEWS = (
    View("forward", "forward/conv1", "[data-name=product]", top=".conv h2"),
    View("backward", "backward/conv2", "[data-step]", ("[data-step='5']",), top=".player"),
    View("nudge", "nudge", "[data-name=verdict]", top=".nudged"),
    View("sandbox", "sandbox", ".product", top=".sandbox .maps"),
    View("training", "training", ".chart-curve"),
    View("ledger", "ledger", ".ledger-table"),
)


def name(view: View, width: int, theme: str) -> str:
    """Return the name of a picture's file."""
    return f"{view.name}-{width}-{theme}.png"


@contextmanager
def explorer(folder: Path) -> Iterator[str]:
    """Train the default network with its seed, explore it, and return the address of the page."""
    run = folder / "mnist"
    subprocess.run([*COMMAND, "train", "--no-report", "--out", run], check=True, stdout=subprocess.DEVNULL)
    command = [*COMMAND, "explore", str(run), "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def small(picture: bytes) -> bytes:
    """Return a PNG file with a palette."""
    file = io.BytesIO()
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(kmeans=1, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def shoot(page: "Page", url: str, view: View) -> bytes:
    """Open a view, click in it, and return its picture."""
    page.goto("about:blank")  # so that nothing of the view before is left
    page.goto(f"{url}#{view.address}")
    page.wait_for_selector("main[aria-busy=false]")
    page.wait_for_selector(view.ready, state="attached")
    for target in view.clicks:
        page.click(target)
    if page.viewport_size and page.viewport_size["width"] < 500:
        page.locator(view.top).first.evaluate("element => element.scrollIntoView()")
    page.mouse.move(0, 0)
    page.wait_for_timeout(SETTLED)
    return page.screenshot()


def main() -> None:
    from playwright.sync_api import ViewportSize, sync_playwright

    IMAGES.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder, explorer(Path(folder)) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for width, (height, scale) in WIDTHS.items():
            size = ViewportSize(width=width, height=height)
            for theme in THEMES:
                page = browser.new_page(viewport=size, color_scheme=theme, device_scale_factor=scale)
                for view in VIEWS:
                    picture = small(shoot(page, url, view))
                    (IMAGES / name(view, width, theme)).write_bytes(picture)
                    print(f"{name(view, width, theme)}: {len(picture) / 1000:.0f} kB")
                page.close()
        browser.close()


if __name__ == "__main__":
    main()
