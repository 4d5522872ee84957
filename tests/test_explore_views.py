"""Views of the explorer that need no network, in a browser: the sandbox, against loops, and the tree of shards."""

import json
from collections.abc import Iterator
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from browser import page_at
from explorers import Explorer
from playwright.sync_api import Browser, Page

from lowered_cnn.training.reduction import deal
from lowered_cnn.window import Sweep, Window

pytestmark = pytest.mark.slow

Matrix = npt.NDArray[np.float64]


@pytest.fixture
def address(explorer: Explorer) -> str:
    return f"http://{explorer.host}:{explorer.port}/"


def choose(page: Page, **settings: int | str) -> None:
    for label, value in settings.items():
        page.get_by_label(label.replace("_", " "), exact=True).select_option(label=str(value))


def numbers(page: Page) -> dict[str, Matrix]:
    """Read the matrices that the sandbox shows as text."""
    blocks = page.locator("[data-name=numbers]").evaluate("each => each.textContent").split("\n\n")
    heads = [block.split("\n", 1) for block in blocks]
    return {head.split()[0]: np.array([line.split() for line in rows.split("\n")], np.float64) for head, rows in heads}


def taps(sweep: Sweep) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """Yield each entry of the columns, with the pixel (y, x), perhaps in the padding, that it is read from."""
    (oh, ow), (kh, kw), window = sweep.output, sweep.window.kernel, sweep.window
    for (a, b), (i, j) in product(product(range(kh), range(kw)), product(range(oh), range(ow))):
        y = i * window.stride[0] + a * window.dilation[0] - sweep.pads[0][0]
        x = j * window.stride[1] + b * window.dilation[1] - sweep.pads[1][0]
        yield a * kw + b, i * ow + j, (y, x)


def expected(sweep: Sweep, image: Matrix, weight: Matrix, dz: Matrix) -> dict[str, Matrix]:
    rows, positions = weight.size, sweep.output[0] * sweep.output[1]
    columns, dx, counts = np.zeros((rows, positions)), np.zeros(sweep.size), np.zeros(sweep.size)
    dcolumns = np.outer(weight.ravel(), dz.ravel())
    for row, position, (y, x) in taps(sweep):
        if 0 <= y < sweep.size[0] and 0 <= x < sweep.size[1]:
            columns[row, position] = image[y, x]
            dx[y, x] += dcolumns[row, position]
            counts[y, x] += 1
    z = (weight.ravel() @ columns).reshape(sweep.output)
    return {"columns": columns, "Z": z, "dcolumns": dcolumns, "dX": dx, "entries": counts}


def test_the_sandbox_computes_what_loops_over_the_window_do(address: str, chromium: Browser) -> None:
    rng = np.random.default_rng(0)
    with page_at(chromium, f"{address}#sandbox") as page:
        for _ in range(12):
            side, kh, kw, stride, dilation = (
                int(rng.integers(low, high)) for low, high in ((5, 10), (1, 4), (1, 4), (1, 4), (1, 3))
            )
            padding = rng.choice(["0", "1", "2", "3", "same"])
            choose(
                page, Side=side, Kernel_height=kh, Kernel_width=kw, Stride=stride, Padding=padding, Dilation=dilation
            )
            choose(page, Image="random digits", Filter="random")
            window = Window.of(2, (kh, kw), stride, "same" if padding == "same" else int(padding), dilation)
            sweep = window.over((side, side))
            assert page.get_attribute("[data-name=size]", "data-output") == "{} {}".format(*sweep.output)
            forward = numbers(page)
            page.click("[data-name=backward]")
            choose(page, dZ="random digits")
            backward = numbers(page)
            page.click("[data-name=forward]")
            wanted = expected(sweep, forward["X"], forward["W"], backward["dZ"])
            for name, value in wanted.items():
                np.testing.assert_array_equal((forward | backward)[name], value, err_msg=name)


def test_a_window_that_does_not_fit_is_told_in_one_line(address: str, chromium: Browser) -> None:
    with page_at(chromium, f"{address}#sandbox") as page:
        choose(page, Side=4, Dilation=2)
        line = page.inner_text("[data-name=misfit]")
        assert [int(word) for word in line.replace(",", "").replace(":", "").split() if word.isdigit()] == [5, 5, 4, 4]
        assert "\n" not in line
        choose(page, Padding=1)
        assert numbers(page)["Z"].shape == (2, 2)


def test_numbers_are_typed_dragged_and_entered_in_a_field(address: str, chromium: Browser) -> None:
    with page_at(chromium, f"{address}#sandbox") as page:
        image = page.locator("[data-name=image]")
        image.click(position={"x": 2, "y": 2})
        page.keyboard.type("-12")
        assert numbers(page)["X"][0, 0] == -12
        page.keyboard.press("ArrowRight")
        page.keyboard.type("7.5")
        assert numbers(page)["X"][0, :2].tolist() == [-12, 7.5]
        page.get_by_label("Image: the number of the cell pointed at").fill("3")
        assert numbers(page)["X"][0, 1] == 3
        box = image.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 2, box["y"] + 2)
        page.mouse.down()
        page.mouse.move(box["x"] + 2, box["y"] + 2 + 48, steps=4)
        page.mouse.up()
        assert numbers(page)["X"][0, 0] == -16


def test_pointing_at_a_cell_shows_its_sum(address: str, chromium: Browser) -> None:
    with page_at(chromium, f"{address}#sandbox") as page:
        columns = page.locator("[data-name=columns]")
        columns.focus()
        page.keyboard.press("End")
        shown = numbers(page)
        assert float(page.get_attribute("[data-name=total]", "data-value") or "nan") == shown["Z"].ravel()[-1]


def test_the_numbers_that_move_are_those_of_the_column_pointed_at(address: str, chromium: Browser) -> None:
    press = "() => (document.querySelector('.flows').click(), document.querySelector('.flow').innerText.split(/\\s+/))"
    with page_at(chromium, f"{address}#sandbox") as page:
        for direction, grid, columns in (("forward", "output", "columns"), ("backward", "dz", "dcolumns")):
            page.click(f"[data-name={direction}]")
            page.locator(f"[data-name={grid}]").click(
                position={"x": 80, "y": 2}
            )  # position 2, for cells have 34 pixels
            moving = [float(number) for number in page.evaluate(press)]
            assert moving == numbers(page)[columns][:, 2].tolist()
            page.wait_for_selector(".flow", state="detached")


def test_the_tree_on_the_page_is_the_one_that_adds_the_gradients(address: str, chromium: Browser) -> None:
    with page_at(chromium, f"{address}#ledger") as page:
        page.wait_for_selector("[data-name=tree]")
        select = page.get_by_label("Shards of the batch")
        for count in select.evaluate("select => [...select.options].map((option) => Number(option.value))"):
            select.select_option(value=str(count))
            for workers in (1, 2, 4):
                dealt = json.loads(page.get_attribute(f"[data-workers='{workers}']", "data-dealt") or "")
                wanted = deal(range(count), range(workers))
                assert dealt["shards"] == [list(wanted.shards.get(worker, ())) for worker in range(workers)]
                assert [tuple(pair) for pair in dealt["sums"]] == list(wanted.sums)
