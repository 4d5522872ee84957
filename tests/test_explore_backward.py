"""The page's backward pass in a real browser: what it computes, in both readings, is what the package computed."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from browser import number, opened, page_at, point
from explorers import Explorer, unpack
from playwright.sync_api import Browser, Page

from lowered_cnn.cli import main

pytestmark = pytest.mark.slow

MODEL = """
from lowered_cnn import AvgPool, BatchNorm, Conv2D, Dense, Flatten, MaxPool, ReLU, Residual, Sequential

def odd(classes):
    return Sequential(
        Conv2D(6, 3, stride=2, padding=1), ReLU(), Conv2D(8, 3, padding=2, dilation=2, groups=2), BatchNorm(),
        Residual(Sequential(Conv2D(8, 1), ReLU())),
        AvgPool(5, stride=2, padding=1, ceil_mode=True),
        Conv2D(10, (3, 2), stride=(2, 1), padding="same", bias=False), MaxPool(3, stride=2, padding=1),
        Flatten(), Dense(classes),
    )
"""
KEYS = ("ArrowRight", "ArrowDown", "End", "ArrowDown", "Home")
LABEL = 3
MINUS = "\N{MINUS SIGN}"


@pytest.fixture(scope="module")
def run(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a network with windows of many kinds on a few digits."""
    folder = tmp_path_factory.mktemp("runs")
    model, path = folder / "odd.py", folder / "odd"
    model.write_text(MODEL)
    arguments = ["--data", str(few_digits), "--epochs", "1", "--batch-size", "32", "--out", str(path)]
    assert main(["train", "--model", f"{model}:odd", *arguments]) == 0
    return path


@pytest.fixture
def page(explorer: Explorer, chromium: Browser) -> Iterator[Page]:
    with page_at(chromium, f"http://{explorer.host}:{explorer.port}/#backward") as started:
        opened(started, 0, LABEL)
        yield started


@pytest.fixture(scope="module")
def trace(explorer: Explorer) -> Any:
    return explorer.post("/api/trace", {"image": explorer.get("/api/example/0")["image"], "label": LABEL})


def named(page: Page, name: str) -> float:
    return number(page, f'[data-name="{name}"]')


def close_to(value: float, among: npt.NDArray[Any]) -> Any:
    """Compare with a number that float32 rounds as it does the largest one among others."""
    return pytest.approx(float(value), rel=0, abs=1e-5 * float(np.abs(among).max()))


def convolutions(explorer: Explorer) -> list[Any]:
    return [stage for stage in explorer.get("/api/network")["stages"] if stage["view"] == "conv"]


def test_both_readings_of_dx_are_the_packages(explorer: Explorer, page: Page, trace: Any) -> None:
    """With stride, padding, dilation and groups: the sums of both readings are equal, and those of the package."""
    rng = np.random.default_rng(0)
    for stage in convolutions(explorer):
        page.click(f'[data-stage="{stage["name"]}"]')
        page.click('[data-step="5"]')
        seen = trace["stages"][stage["name"]]["dx"]
        dx = unpack(
            seen if isinstance(seen, dict) else trace["dimage"] if seen == "images" else trace["stages"][seen]["dy"]
        )
        for reading in ("col2im", "rotated"):
            page.click(f'[data-choice="{reading}"]')
            channel = int(page.eval_on_selector('.detail [data-name="dx"]', "grid => grid.ariaLabel.split(' ').pop()"))
            for _ in range(6):
                y, x = (int(rng.integers(length)) for length in dx.shape[1:])
                point(page, "dx", y, x)
                assert named(page, "dx-package") == dx[channel, y, x]
                assert named(page, "dx-page") == named(page, "dx-rotated")
                assert named(page, "dx-page") == close_to(dx[channel, y, x], dx)


def test_each_number_of_dweight_is_the_packages(explorer: Explorer, page: Page, trace: Any) -> None:
    for stage in convolutions(explorer):
        page.click(f'[data-stage="{stage["name"]}"]')
        page.click('[data-step="2"]')
        dweight = unpack(trace["gradients"][f"{stage['name']}.weight"])
        for a, b in np.ndindex(*dweight.shape[2:]):
            point(page, "dweight", a, b)
            assert named(page, "dweight-package") in dweight[..., a, b]
            assert named(page, "dweight-page") == close_to(named(page, "dweight-package"), dweight)


def test_no_number_of_any_stage_differs(explorer: Explorer, page: Page) -> None:
    """Whatever is pointed at with the keys, in every step of every stage, the page agrees with the package."""
    compared = 0
    for stage in explorer.get("/api/network")["stages"]:
        page.click(f'[data-stage="{stage["name"]}"]')
        for step in range(max(1, page.locator("[data-step]").count())):
            if page.locator("[data-step]").count():
                page.click(f'[data-step="{step + 1}"]')
            grids = page.locator('.detail .grid[role="application"]')
            for k in range(grids.count()):
                grids.nth(k).focus()
                for key in KEYS:
                    page.keyboard.press(key)
                    assert page.locator(".verdict.bad").count() == 0
                compared += page.locator(".verdict").count()
    assert compared > 30


def test_columns_are_added_one_by_one(page: Page) -> None:
    page.click('[data-stage="conv1"]')
    page.click('[data-step="5"]')
    added = page.locator('[aria-label="Columns added"]')
    every = int(added.get_attribute("max") or 0)
    assert int(added.input_value()) == every == 14 * 14
    page.click('[aria-label="Remove all columns"]')
    assert added.input_value() == "0"
    page.click('[aria-label="One column more"]')
    assert added.input_value() == "1"
    page.emulate_media(reduced_motion="reduce")
    page.click('[aria-label="Play"]')
    assert int(added.input_value()) == every


def test_a_step_of_sgd_changes_what_the_network_says(page: Page, trace: Any) -> None:
    page.click('[data-stage="conv1"]')
    page.click('[data-step="6"]')
    for place, after in enumerate(trace["after"]):
        page.fill('[aria-label="Learning rate"]', str(place))
        assert named(page, "loss-before") == trace["loss"]
        assert named(page, "loss-after") == after["loss"]
        shown = page.eval_on_selector_all(
            '[data-name="probability-after"]', "all => all.map(e => Number(e.dataset.value))"
        )
        assert shown == unpack(after["probabilities"]).tolist()


def test_the_numbers_of_a_normalization_make_its_output(page: Page) -> None:
    page.evaluate("location.hash = '#forward/batch_norm1'")
    page.wait_for_selector(".becomes .value")
    said = page.inner_text(".becomes .caption")
    written = re.findall(rf"{MINUS}?[\d.]*\d(?:e[-{MINUS}]\d+)?", said)
    weight, x, mean, variance, epsilon, bias, _ = (float(each.replace(MINUS, "-")) for each in written)
    y = weight * (x - mean) / np.sqrt(variance + epsilon) + bias
    assert number(page, ".becomes .value") == pytest.approx(y, rel=0.05, abs=0.05)


def test_a_convolution_without_bias_tells_so(page: Page) -> None:
    page.click('[data-stage="conv3"]')
    page.click('[data-step="3"]')
    assert "conv3 has no bias, so there is nothing to sum" in page.inner_text(".step")


def test_the_weight_that_is_clicked_is_nudged(explorer: Explorer, page: Page) -> None:
    page.evaluate("location.hash = '#nudge'")
    page.wait_for_selector('[data-name="verdict"]')
    page.select_option('[aria-label="Parameter"]', "conv3.weight")
    page.wait_for_selector('.nudged:not(.waiting) h3:has-text("conv3.weight")')
    plane = page.locator('[data-name="weights"]')
    box = plane.bounding_box()
    assert box is not None
    plane.click(position={"x": box["width"] * 0.75, "y": box["height"] * 0.5})  # row 1 of 3, column 1 of 2
    page.wait_for_selector('.nudged:not(.waiting) h3:has-text("1, 1] =")')
    title = page.inner_text(".nudged h3")
    place = tuple(int(each) for each in title.partition("[")[2].partition("]")[0].split(","))
    index = int(np.ravel_multi_index(place, (10, 8, 3, 2)))
    asked = {
        "image": explorer.get("/api/example/0")["image"],
        "label": LABEL,
        "parameter": "conv3.weight",
        "index": index,
    }
    answer = explorer.post("/api/nudge", asked)
    assert [named(page, name) for name in ("gradient", "difference", "bound")] == [
        answer[name] for name in ("gradient", "difference", "bound")
    ]
    assert answer["agrees"]
    assert "agrees within the bound" in page.inner_text('[data-name="verdict"]')
    plane.press("ArrowUp")
    plane.press("Enter")
    page.wait_for_selector('.nudged:not(.waiting) h3:has-text("0, 1] =")')
