"""The explorer in a real browser: what the page shows, wherever a reader points, is what the package computes."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from browser import number, opened, page_at, point, settled, switch_to
from explorers import Explorer, exploring, pack, unpack
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from lowered_cnn import Conv2D, Network, Sequential, im2col, load, load_mnist, save, softmax
from lowered_cnn.arrays import Array, Bytes
from lowered_cnn.cli import main
from lowered_cnn.data import mnist_style

pytestmark = pytest.mark.slow  # each test drives a browser

MINUS = "\N{MINUS SIGN}"
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
def run(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a network with padding, stride and dilation on a few digits."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "strides.py").write_text(OWN)
    options = ["--model", f"{folder / 'strides.py'}:strided", "--epochs", "3", "--batch-size", "50"]
    assert main(["train", "--data", str(few_digits), *options, "--out", str(folder / "run")]) == 0
    return folder / "run"


def address(explorer: Explorer, view: str = "forward") -> str:
    return f"http://{explorer.host}:{explorer.port}/#{view}"


def image(number: int) -> Bytes:
    found: Bytes = load_mnist().test.images[number].reshape(1, 28, 28)
    return found


def shares(page: Page) -> npt.NDArray[np.float64]:
    """Return the probabilities of the ten classes, as the bars have them."""
    bars = page.locator(".bars li[data-share]")
    return np.array([float(bar.get_attribute("data-share") or "nan") for bar in bars.all()])


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


def drawn(page: Page) -> Bytes:
    """Return what is on the sheet (1, H, W)."""
    side = int(page.evaluate("document.querySelector('canvas.sheet').width"))
    pixels = f"getContext('2d').getImageData(0, 0, {side}, {side}).data"
    levels = page.evaluate(f"Array.from(document.querySelector('canvas.sheet').{pixels})")
    return np.array(levels, np.uint8).reshape(1, side, side, 4)[..., 0]


LINES = [
    [(0.5, 0.15), (0.5, 0.85)],
    [(0.25, 0.2), (0.75, 0.2), (0.45, 0.85)],
    [(0.5, 0.2), (0.25, 0.5), (0.5, 0.8), (0.75, 0.5), (0.5, 0.2)],
]


def test_the_prediction_of_a_drawing_is_that_of_the_package(chromium: Browser, explorer: Explorer, run: Path) -> None:
    network, numbered = load(run / "model.safetensors"), explorer.get("/api/network")["test"]["hardest"]
    with page_at(chromium, address(explorer)) as page:
        settled(page)
        assert page.get_by_label("Test image").input_value() == str(numbered)
        for points in LINES:
            draw(page, points)
            settled(page)
            assert page.get_by_label("Test image").input_value() == ""
            assert drawn(page).max() == 255
            wanted = softmax(network.predict(mnist_style(drawn(page))[None]))[0]
            assert np.allclose(shares(page), wanted, rtol=0, atol=1e-6)
            assert page.locator(".bars li.best").get_attribute("data-class") == str(wanted.argmax())
            page.get_by_role("button", name="Clear").click()


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
        opened(page, numbered)
        article = page.locator("article[data-position]")
        for _ in range(6):
            i, j, k = int(rng.integers(height)), int(rng.integers(width)), int(rng.integers(filters))
            page.get_by_label("Filter", exact=True).select_option(str(k))
            point(page, "output", i, j)
            p = i * width + j
            assert article.get_attribute("data-position") == str(p)
            assert article.get_attribute("data-filter") == str(k)
            assert number(page, "article output.value") == pytest.approx(wanted.z[k, p], abs=1e-5)
            assert number(page, "[data-total]", "data-total") == pytest.approx(wanted.z[k, p], abs=1e-4)
        page.get_by_text(f"All {len(wanted.columns)} terms").click()
        for _ in range(4):
            p, r = int(rng.integers(positions)), int(rng.integers(len(wanted.columns)))
            point(page, "columns", r, p)
            assert article.get_attribute("data-position") == str(p)
            assert article.get_attribute("data-row") == str(r)
            k = int(article.get_attribute("data-filter") or -1)
            column, weight = wanted.columns[r, p], wanted.weight.reshape(filters, -1)[k, r]
            assert cells(page, f'tr[data-row="{r}"]') == pytest.approx([column, weight, column * weight], abs=2e-3)


def cells(page: Page, row: str) -> list[float]:
    """Return the last three numbers in a row of a table."""
    texts = page.locator(f"{row} td").all_inner_texts()[-3:]
    return [float(text.replace(MINUS, "-").replace("≈", "")) for text in texts]


# --- training --------------------------------------------------------------------------------------------------------


def test_in_a_training_the_network_of_each_saved_step_is_on_the_page(chromium: Browser, run: Path) -> None:
    """Also for an image that is drawn while the newest step is followed."""
    with exploring(run) as explorer, page_at(chromium, address(explorer, "training")) as page:
        controls, slider = page.locator('[data-name="training"]'), page.locator(".saved-steps")
        expect(controls).to_have_attribute("data-state", "idle")
        page.get_by_label("Epochs").fill("4")
        page.get_by_role("button", name="Start").click()
        draw(page, LINES[1])
        expect(controls).to_have_attribute("data-state", "finished", timeout=60_000)
        progress = explorer.get("/api/training?after=0")
        first, last = progress["steps"][0], progress["steps"][-1]
        assert controls.get_attribute("data-step") == str(last) == str(progress["steps_total"])
        expect(slider).to_have_attribute("data-shown-step", str(last))
        shown = []
        for step in (first, last):
            page.get_by_label("Saved step").fill(str(progress["steps"].index(step)))
            expect(slider).to_have_attribute("data-shown-step", str(step))
            settled(page)
            wanted = explorer.post("/api/predict", {"drawing": pack(drawn(page)), "step": step})["probabilities"]
            assert np.allclose(shares(page), unpack(wanted), rtol=0, atol=1e-6)
            shown.append(shares(page))
        assert not np.allclose(shown[0], shown[1], atol=1e-3)
        marker = page.locator(".step-marker")
        expect(marker).to_be_hidden()
        page.get_by_label("Saved step").fill("0")
        expect(marker).to_have_attribute("data-shown-step", "0")
        page.get_by_label("follow the newest").check()
        expect(marker).to_be_hidden()


# --- keyboard, widths, themes, other networks, no server -------------------------------------------------------------


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the focus is on an element."""
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} cannot be reached")


def test_everything_is_reached_with_the_keyboard_alone(chromium: Browser, explorer: Explorer) -> None:
    with page_at(chromium, address(explorer)) as page:
        settled(page)
        tab_to(page, "canvas.sheet")
        before = shares(page)
        for key in [" ", *["ArrowDown"] * 12, " ", *["ArrowUp"] * 12, " ", *["ArrowRight"] * 8]:
            page.keyboard.press(key)
        settled(page)
        assert not np.allclose(shares(page), before, atol=1e-3)
        tab_to(page, "#label")
        page.keyboard.press("ArrowDown")
        settled(page)
        tab_to(page, '[data-stage="conv2"]')
        page.keyboard.press("Enter")
        tab_to(page, '.grid[data-name="output"]')
        article = page.locator("article[data-position]")
        place = int(article.get_attribute("data-position") or -1)
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowUp")
        assert int(article.get_attribute("data-position") or -1) == place - 6 - 1
        assert page.locator("#live").inner_text().startswith("Z[")
        tab_to(page, "summary")
        page.keyboard.press("Enter")
        for view in VIEWS[1:]:
            page.locator("header").click(position={"x": 1, "y": 1})
            tab_to(page, f'a[href="#{view}"]')
            page.keyboard.press("Enter")
            expect(page.locator("main")).to_have_class(view)


CONTROLS = "main a, main button, main input, main select, main summary, .grid[role=application]"


def found(page: Page, condition: str) -> list[str]:
    """Return the controls for which a condition on `each` holds."""
    script = f"""() => [...document.querySelectorAll({CONTROLS!r})]
        .filter(each => !each.disabled && each.offsetParent && {condition}).map(each => each.outerHTML.slice(0, 80))"""
    controls: list[str] = page.evaluate(script)
    return controls


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1920])
def test_every_view_fits_the_screen(chromium: Browser, explorer: Explorer, width: int, theme: str) -> None:
    """Nothing is cut off or scrolls sideways but what is inside a figure; controls have names and keys."""
    with page_at(chromium, address(explorer), width=width, theme=theme) as page:
        settled(page)
        for view in VIEWS:
            switch_to(page, view)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view
            assert found(page, "each.tabIndex < 0") == []
            assert found(page, "!each.ariaLabel && !each.textContent.trim() && !each.labels?.length") == []
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (max(int(part) for part in paper[4:-1].split(",")) < 80) == (theme == "dark")


def test_a_saved_page_works_without_a_server(chromium: Browser, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert main(["explore", str(run), "--save", str(path)]) == 0
    network = load(run / "model.safetensors")
    with page_at(chromium, path.as_uri(), offline=True) as page:
        settled(page)
        for view in VIEWS:
            switch_to(page, view)
        switch_to(page, "forward")
        thumbnails = page.locator("#input button.thumbnail")
        shown = []
        for thumbnail in thumbnails.all():
            thumbnail.click()
            settled(page)
            shown.append(shares(page))
        assert len(shown) == 3
        test = load_mnist().test
        answers = softmax(network.predict(test.images[:].reshape(-1, 1, 28, 28)))
        for each in shown:
            assert np.abs(answers - each).max(axis=1).min() < 1e-5


@pytest.fixture(scope="module", params=["deep", "residual", "colour"])
def other(
    request: pytest.FixtureRequest, few_digits: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Explorer]:
    """Explore a network with BatchNorm and Dropout, one with branches and groups, and one for colour images."""
    folder = tmp_path_factory.mktemp("other")
    data, model = few_digits, "deep"
    if request.param == "residual":
        (folder / "branches.py").write_text(BRANCHES)
        model = f"{folder / 'branches.py'}:branched"
    elif request.param == "colour":
        data, model = folder / "data", "adaptive"
        rng = np.random.default_rng(0)
        data.mkdir()
        for name, count in (("train", 90), ("test", 30)):
            np.save(data / f"{name}-images.npy", rng.integers(0, 256, (count, 3, 20, 24)).astype(np.uint8))
            np.save(data / f"{name}-labels.npy", np.arange(count) % 3)
    out = folder / "run"
    options = ["--data", str(data), "--model", model, "--epochs", "1", "--batch-size", "30", "--out", str(out)]
    assert main(["train", *options]) == 0
    with exploring(out) as started:
        yield started


BRANCHES = """
from lowered_cnn import AvgPool, Concatenate, Conv2D, Dense, GlobalAvgPool, ReLU, Residual, Sequential

def branched(classes):
    return Sequential(
        Conv2D(8, 3, stride=2), ReLU(), Residual(Sequential(Conv2D(8, 3, padding="same", groups=4), ReLU())),
        AvgPool(3, padding=1, ceil_mode=True), Concatenate(Conv2D(3, 1), Sequential(Conv2D(5, 3, padding="same"))),
        GlobalAvgPool(), Dense(classes),
    )
"""


def disagreements(page: Page) -> list[str]:
    """Return the verdicts and the sums in which page and package differ."""
    script = """() => [...document.querySelectorAll('main .bad, main .sum')].filter((each) => {
        const { total } = each.dataset, value = each.querySelector('output')?.dataset.value;
        return total === undefined || !(Math.abs(total - value) <= 1e-4 * Math.max(1, Math.abs(value)));
    }).map((each) => each.textContent)"""
    found: list[str] = page.evaluate(script)
    return found


def test_other_networks_are_shown_stage_by_stage(chromium: Browser, other: Explorer) -> None:
    with page_at(chromium, address(other)) as page:
        settled(page)
        stages = [button.get_attribute("data-stage") for button in page.locator("[data-stage]").all()]
        assert len(stages) > 6
        for view in ("forward", "backward"):
            switch_to(page, view)
            for stage in stages:
                page.locator(f'[data-stage="{stage}"]').click()
                settled(page)
                assert page.locator("main h2").first.inner_text()
                assert disagreements(page) == []
                for button in page.locator("main button[data-step]").all():
                    button.click()
                    assert disagreements(page) == []
                if view == "forward" and page.locator('.grid[data-name="output"]').count():
                    for key in ("End", *["PageDown"] * 8):  # the last window, which may lie over the edge
                        page.locator('.grid[data-name="output"]').press(key)
                    assert disagreements(page) == []
        for view in ("nudge", "ledger", "training"):
            switch_to(page, view)


NAMED = """
from lowered_cnn import Conv2D, Dense, Flatten, Graph, Multiply, Node, Sigmoid

def named(classes):
    return Graph(
        Node("softmax", Conv2D(4, 5, stride=2), "x"), Node("<b>a/b c%20</b>", Sigmoid(), "softmax"),
        Node("gated", Multiply(), ("softmax", "<b>a/b c%20</b>")), Node("flat", Flatten(), "gated"),
        Node("dense", Dense(classes), "flat"),
    )
"""


@pytest.fixture(scope="module")
def named(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a network whose stages have names of any kind."""
    folder = tmp_path_factory.mktemp("named")
    (folder / "named.py").write_text(NAMED)
    options = ["--model", f"{folder / 'named.py'}:named", "--epochs", "1", "--out", str(folder / "run")]
    assert main(["train", "--data", str(few_digits), *options]) == 0
    return folder / "run"


def test_a_stage_of_any_name_is_shown_and_is_in_the_address(chromium: Browser, named: Path) -> None:
    with exploring(named) as started, page_at(chromium, address(started)) as page:
        settled(page)
        stages = [button.get_attribute("data-stage") for button in page.locator("[data-stage]").all()]
        for view in ("forward", "backward"):
            switch_to(page, view)
            for stage in stages:
                page.locator(f'[data-stage="{stage}"]').click()
                expect(page.locator("[data-stage][aria-pressed=true]")).to_have_attribute("data-stage", stage or "")
                title = page.inner_text("main h2")
                assert title.startswith(f"{stage}: ") == bool(stage)
                assert "null" not in page.inner_text("main")
                page.reload()
                settled(page)
                assert page.inner_text("main h2") == title


def test_numbers_that_are_not_finite_are_shown(chromium: Browser, named: Path, tmp_path: Path) -> None:
    network = load(named / "model.safetensors")
    network.parameters.vector[...] *= 1e38
    huge = shutil.copytree(named, tmp_path / "huge")
    save(network, huge / "model.safetensors")
    with exploring(huge) as started, page_at(chromium, address(started)) as page:
        settled(page)
        for view in VIEWS:
            switch_to(page, view)
            for button in page.locator("[data-stage]").all():
                button.click()
                assert page.locator(".failure, .compared .bad").count() == 0
                assert not re.search("NaN|Infinity|null", page.inner_text("main") + page.inner_text("#input"))


@pytest.mark.parametrize("shape", [(3, 224, 224), (1, 12, 12)])
def test_images_of_any_size_and_scale_are_seen(chromium: Browser, tmp_path: Path, shape: tuple[int, ...]) -> None:
    """The least number and the largest are far apart, though neither is above 0."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 12), ("test", 4)):
        images = rng.random((count, *shape)).astype(np.float32) - 2
        images[..., 0], images[..., 1] = -2, 0
        np.save(tmp_path / f"{name}-images.npy", images)
        np.save(tmp_path / f"{name}-labels.npy", np.arange(count) % 2)
    out = tmp_path / "run"
    assert main(["train", "--data", str(tmp_path), "--epochs", "1", "--batch-size", "6", "--out", str(out)]) == 0
    with exploring(out) as started, page_at(chromium, address(started)) as page:
        settled(page)
        script = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 2, 1).data]"
        least, largest = np.array(page.locator(".seen canvas").first.evaluate(script)).reshape(2, 4)[:, :3]
        assert np.abs(least - largest).min() > 100


def test_a_test_image_that_cannot_be_had_is_told(chromium: Browser, explorer: Explorer) -> None:
    with page_at(chromium, address(explorer)) as page:
        opened(page, 3)
        before = shares(page)
        field = page.get_by_label("Test image")
        for text in ("1000000", "-1", "1.5", ""):
            field.fill(text)
            field.press("Enter")
            assert not field.evaluate("field => field.validity.valid")
        page.route("**/api/example/*", lambda route: route.fulfill(body="gone"))
        page.get_by_role("button", name="Random").click()
        expect(page.locator(".failure")).to_have_count(1)
        settled(page)
        np.testing.assert_array_equal(shares(page), before)


@pytest.mark.parametrize("width", [360, 1200])
def test_classes_of_any_name_fit_the_screen(chromium: Browser, tmp_path: Path, width: int) -> None:
    rng = np.random.default_rng(0)
    for k in range(40):
        name = ("<script>alert(1)<", "x" * 120, "\N{ARABIC LETTER MEEM}\N{RIGHT-TO-LEFT OVERRIDE}abc", " 1%20 &amp;")[
            k % 4
        ]
        path = tmp_path / "data" / ("test" if k < 8 else "train") / name / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12, 3)).astype(np.uint8)).save(path)
    out = tmp_path / "a <b> &amp;%20"
    assert main(["train", "--data", str(tmp_path / "data"), "--epochs", "1", "--out", str(out), "--no-report"]) == 0
    with exploring(out) as started, page_at(chromium, address(started), width=width) as page:
        settled(page)
        assert page.inner_text("#subject") == out.name
        for view in VIEWS:
            switch_to(page, view)
            for stage in page.locator("[data-stage]").all() or [page.locator(f'#tabs a[href="#{view}"]')]:
                stage.click()
                for step in [stage, *page.locator("main button[data-step]").all()]:
                    step.click()
                    assert page.evaluate("document.documentElement.scrollWidth") <= width
