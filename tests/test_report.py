"""The report: a page that needs nothing else, whose numbers are those that the library computes, for any run."""

import base64
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from lowered_cnn import (
    Add,
    BatchNorm,
    Conv1D,
    Conv2D,
    Conv3D,
    Dataset,
    Dense,
    Flatten,
    GlobalAvgPool,
    Graph,
    Layer,
    MaxPool,
    Network,
    Node,
    ReLU,
    Sequential,
    confusion,
    evaluate,
    load,
    load_mnist,
    save,
    summary,
)
from lowered_cnn.arrays import Bytes, Images, Shape
from lowered_cnn.cli import main
from lowered_cnn.cli.report import metrics
from lowered_cnn.cli.run_folder import RunFolder
from lowered_cnn.report import Report, Subject, report
from lowered_cnn.report.charts import curves
from lowered_cnn.report.package import matplotlib_package
from lowered_cnn.report.pictures import as_pixels, grid, maps
from lowered_cnn.report.saliency import saliency
from lowered_cnn.report.scale import CIVIDIS, DIVERGING, Scale
from lowered_cnn.report.sections import Section

pytest.importorskip("matplotlib")

VOID = {"img", "meta", "br", "link", "input"}


class Page(HTMLParser):
    """What is in a page: links, pictures, charts, the cells of its tables by section, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.charts: list[dict[str, str | None]] = []
        self.section = ""
        self.rows: dict[str, list[list[str]]] = {}
        self.text: dict[str, str] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "srcset") and value]
        assert tag not in {"script", "link", "iframe", "object"}
        if tag == "img":
            self.pictures.append(given)
        if tag == "svg":
            self.charts.append(given)
        if tag == "section":
            self.section = given["id"] or ""
        if tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        if tag in ("td", "th"):
            self.rows[self.section][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text[self.section] = self.text.get(self.section, "") + data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[self.section][-1][-1] += data


@pytest.fixture(scope="module")
def run(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for two epochs and write the report, once for all tests that need it."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", "--data", str(few_digits), "--epochs", "2", "--out", str(folder)]) == 0
    assert main(["report", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report.html").read_text())


TITLES = [
    "training", "confusion", "classes", "mistakes", "filters", "inside", "magnitudes", "saliency", "costs", "setting",
]  # fmt: skip


def assert_self_contained(text: str) -> None:
    """Check that a page is well formed and needs no other file, that its pictures decode, and its charts are XML."""
    page = Page(text)
    assert len(text.encode()) < 3e6
    assert [each for each in page.addresses if not each.startswith(("#", "data:image/png;base64,"))] == []
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    assert max(Counter(page.ids).values()) == 1
    assert {each[1:] for each in page.addresses if each[0] == "#"} <= set(page.ids)
    assert [each for each in page.ids if each in TITLES] == TITLES
    for picture in page.pictures:
        assert picture["alt"]
        with Image.open(io.BytesIO(base64.b64decode((picture["src"] or "").partition(",")[2]))) as image:
            image.load()
    for chart in page.charts:
        assert chart["role"] == "img"
        assert chart["aria-label"]
    for svg in re.findall(r"<svg .*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(svg)


def test_the_page_needs_no_other_file(run: Path, page: Page) -> None:
    assert_self_contained((run / "report.html").read_text())
    assert len(page.charts) == 8
    assert len(page.pictures) > 50


def test_its_numbers_are_those_of_the_library(run: Path, page: Page) -> None:
    network, test = load(run / "model.safetensors"), load_mnist().test.take(np.arange(200))
    expected, found = evaluate(network, test), confusion(network, test)
    assert f"{expected.accuracy:.2%}" in page.text[""]
    assert f"{expected.loss:.4f}" in page.text[""]
    assert page.rows["classes"] == [list(row) for row in found.cells()]
    told = [[found.classes[true], found.classes[answer], str(count)] for true, answer, count in found.mistakes()[:30]]
    assert page.rows["confusion"][1:] == told
    assert str(summary(network)) in page.text["costs"]
    assert [row[0] for row in page.rows["costs"]] == [
        "layer", "conv1", "batch_norm1", "relu1", "conv2", "batch_norm2", "relu2", "flatten1", "dense1", "relu3",
        "dense2", "step",
    ]  # fmt: skip
    assert "Recipe(epochs=2" in page.text["setting"]


def test_mistakes_come_with_the_most_certain_first(run: Path, page: Page) -> None:
    network, test = load(run / "model.safetensors"), load_mnist().test.take(np.arange(200))
    outputs = network.predict(test.images).astype(np.float64)
    shares = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    wrong = [n for n in range(200) if shares[n].argmax() != test.labels[n]]
    wrong.sort(key=lambda n: -shares[n].max())
    told = [f"{test.labels[n]} taken for {shares[n].argmax()}, {shares[n].max():.1%}" for n in wrong[:12]]
    pictures = [str(picture["alt"]) for picture in page.pictures[: len(told)]]
    assert pictures == [f"Test image {n}: {story}" for n, story in zip(wrong, told, strict=False)]
    source = str(page.pictures[0]["src"]).partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(source))) as image:
        np.testing.assert_array_equal(np.asarray(image), test.images[wrong[0], 0])


def test_the_certificate_of_the_saliency_holds(page: Page) -> None:
    rows = page.rows["saliency"][1:]
    assert len(rows) == 4 * 3
    for _, _, gradient, differences, error, bound, holds in rows:
        assert float(error) <= float(bound) < 1e-3
        assert float(gradient) == pytest.approx(float(differences), abs=2 * float(bound))
        assert holds == "yes"


@pytest.mark.slow
def test_figures_are_written_as_png_files(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, folder = tmp_path / "page.html", tmp_path / "made" / "figures"
    assert main(["report", str(run), "--out", str(page), "--png", str(folder)]) == 0
    assert capsys.readouterr().out == f"{page}: 14 figures, also in {folder}\n"
    names = {
        "accuracy", "classes", "confusion", "filters", "hits", "layers-1", "layers-2", "learning-rate", "loss",
        "magnitudes", "mistakes", "probabilities-1", "probabilities-2", "saliency",
    }  # fmt: skip
    assert {path.stem for path in folder.iterdir()} == names
    for path in folder.iterdir():
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 200


# --- any network, any data -------------------------------------------------------------------------------------------


def subject(network: Network, images: Images, classes: int, **changes: Any) -> Subject:
    labels = np.arange(len(images)) % classes
    data = Dataset(
        images, labels, [f"<{number}> & $x_{number}$ \\2 \N{HIRAGANA LETTER A}" for number in range(classes)]
    )
    record = {"step": 1, "epoch": 1, "loss": 1.5, "train_accuracy": 0.5, "dev_accuracy": None, "learning_rate": 0.1}
    return Subject(**{"title": "<run>", "network": network, "test": data, "records": [record], "settings": {},
                      "shard": 4, **changes})  # fmt: skip


def chain(*layers: Layer) -> Sequential:
    return Sequential(*layers, Flatten(), Dense(3))


GRAPH = Graph(
    Node("stem", Conv2D(8, 3, padding=1), "x"),
    Node("norm", BatchNorm(), "stem"),
    Node("sum", Add(), ("norm", "stem")),
    Node("pool", GlobalAvgPool(), "sum"),
    Node("head", Dense(3), "pool"),
)


@pytest.mark.parametrize(
    ("model", "shape", "told"),
    [
        (chain(Conv2D(5, 3), ReLU(), MaxPool(2)), (3, 130, 20), "5 of 5 filters, 3 x 3 x 3, as colours"),
        (chain(Conv2D(70, 2)), (2, 9, 7), "64 of 70 filters, 2 x 2 x 2; channel 2"),
        (GRAPH, (1, 8, 8), "stem: 8 of 8 filters, 1 x 3 x 3"),
        (chain(Conv1D(4, 3), ReLU()), (2, 15), "Inputs of shape (2, 15) cannot be shown as images."),
        pytest.param(
            chain(Conv3D(4, 3), ReLU()),
            (1, 5, 6, 7),
            "Inputs of shape (1, 5, 6, 7) cannot be shown as images.",
            marks=pytest.mark.slow,
        ),
        (Sequential(Dense(600), ReLU(), Dense(3)), (20,), "The network has no 2-D convolution."),
    ],
)
def test_what_has_no_meaning_for_a_network_is_left_out(model: Layer, shape: Shape, told: str) -> None:
    images = np.random.default_rng(0).standard_normal((40, *shape)).astype(np.float32)
    text = report(subject(Network(model, shape), images, 3)).html
    assert_self_contained(text)
    assert told in " ".join(Page(text).text.values())


@pytest.mark.parametrize("classes", [1, 2, *(pytest.param(count, marks=pytest.mark.slow) for count in (25, 150))])
def test_any_number_of_classes_is_shown(classes: int) -> None:
    network = Network(Sequential(Flatten(), Dense(classes)), (1, 4, 4))
    images = np.random.default_rng(0).integers(0, 256, (2 * classes, 1, 4, 4), dtype=np.uint8)
    found = report(subject(network, images, classes))
    assert_self_contained(found.html)
    page = Page(found.html)
    assert len(page.rows["classes"]) == classes + 1
    assert page.rows["classes"][1][0] == "<0> & $x_0$ \\2 \N{HIRAGANA LETTER A}"


@pytest.fixture
def small() -> Subject:
    rng = np.random.default_rng(0)
    return subject(Network(Sequential(Flatten(), Dense(2)), (1, 4, 4)), rng.random((9, 1, 4, 4), np.float32), 2)


def section(found: Report, title: str) -> Section:
    return next(each for each in found.sections if each.title == title)


def test_a_run_without_metrics_or_dev_split_says_so(small: Subject) -> None:
    assert "no curve for a dev split" in section(report(small), "Training").html
    vars(small)["records"] = []
    assert "The run has no metrics." in section(report(small), "Training").html


def test_metrics_are_read_though_a_line_was_cut_off_or_is_there_twice(tmp_path: Path) -> None:
    losses, whole = ((1, 3.0), (2, 9.0), (2, 2.0), (4, 1.0), (5, np.inf)), {"train_accuracy": 0.5, "learning_rate": 1}
    lines = [json.dumps({"step": step, "loss": loss, **whole}) for step, loss in losses]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, "[]", "null", '{"step": 6}', '{"step": 7, "lo']))
    found = metrics(RunFolder(tmp_path))
    assert [(each["step"], each["loss"]) for each in found] == [(1, 3.0), (2, 2.0), (4, 1.0)]
    assert metrics(RunFolder(tmp_path / "nowhere")) == []


def test_a_long_training_has_curves_of_few_points() -> None:
    steps = 50_000
    loss = 2 * np.exp(-np.arange(steps) / 9000) + 0.1 * np.random.default_rng(0).random(steps)
    loss[31_234] = 7.0
    records = [
        {"step": n + 1, "loss": value, "train_accuracy": 0.5, "dev_accuracy": 0.9 if n % 10_000 == 0 else None,
         "learning_rate": 0.1} for n, value in enumerate(loss.tolist())
    ]  # fmt: skip
    chart = curves(records)[0]
    assert len(chart.html()) < 60_000
    each, mean = (np.array([line.get_xdata(), line.get_ydata()]).T for line in chart.drawing.axes[0].get_lines())
    assert [31_235.0, 7.0] in each.tolist(), "a peak is not lost"
    x, y = mean[-1].tolist()
    assert y == pytest.approx(loss[int(x) - steps // 50 : int(x)].mean())


# --- pictures --------------------------------------------------------------------------------------------------------


def test_saliency_is_the_gradient_of_each_pixel() -> None:
    model = Sequential(Conv2D(4, 3), ReLU(), MaxPool(2), Flatten(), Dense(3))
    network = Network(model, (2, 6, 6), seed=3)
    image = np.random.default_rng(1).random((2, 6, 6))
    found = saliency(network, image, 1)
    double = Network(model, (2, 6, 6), dtype=np.float64)
    double.parameters.vector[...] = network.parameters.vector
    moved = image + 1e-3 * np.ptp(image) * np.random.default_rng(0).random(image.shape)
    expected = np.empty_like(image)
    for place in np.ndindex(image.shape):
        step = np.zeros_like(image)
        step[place] = 1e-6
        there, back = double.predict(np.stack([moved + step, moved - step]))[:, 1]
        expected[place] = (there - back) / 2e-6
    np.testing.assert_allclose(found.gradient, expected, atol=1e-8)
    assert all(each.holds and each.bound < 1e-5 for each in found.comparisons)


def test_scales_have_zero_in_the_middle_or_at_the_end() -> None:
    around, above = Scale.of(np.array([-3.0, 1.0])), Scale.of(np.array([0.0, 2.0]))
    assert (around.low, around.high, above.low, above.high) == (-3.0, 3.0, 0.0, 2.0)
    assert hexadecimal(around.pixels(np.array([-3.0, 0.0, 3.0]))) == [DIVERGING[:7], "#f5f5f5", DIVERGING[-7:]]
    assert hexadecimal(above.pixels(np.array([0.0, 2.0]))) == [CIVIDIS[:7], CIVIDIS[-7:]]
    with matplotlib_package({}) as matplotlib:
        theirs = matplotlib.colormaps["cividis"](np.linspace(0, 1, 256), bytes=True)[:, :3].astype(int)
    ours = Scale(0, 1).pixels(np.linspace(0, 1, 256)).astype(int)
    assert np.abs(ours - theirs).max() < 8
    assert Scale.of(np.zeros(3)).pixels(np.zeros(1)).tolist() == [[0, 34, 77]]


def hexadecimal(colours: Bytes) -> list[str]:
    return [f"#{bytes(colour).hex()}" for colour in colours]


def test_images_of_any_kind_become_pixels() -> None:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (3, 8, 6), dtype=np.uint8)
    np.testing.assert_array_equal(as_pixels(colours), np.moveaxis(colours, 0, -1))
    grey = as_pixels(rng.standard_normal((1, 8, 6)))
    assert (grey.min(), grey.max(), grey.shape) == (0, 255, (8, 6, 3))
    assert as_pixels(rng.random((5, 8, 6))).shape == (8, 6, 3)
    assert as_pixels(np.zeros((1, 500, 300), np.uint8)).shape == (100, 60, 3)
    assert as_pixels(np.zeros((3, 1, 900))).shape == (1, 100, 3)


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((10,), (1, 1, 10)),
        ((120,), (1, 8, 16)),
        ((4000,), (1, 16, 32)),
        ((6, 50), (1, 6, 50)),
        ((40, 7, 9), (16, 7, 9)),
        ((2, 5, 100, 90), (2, 33, 30)),
    ],
)
def test_activations_of_any_shape_become_maps(shape: Shape, shown: Shape) -> None:
    activation = np.random.default_rng(0).standard_normal(shape)
    found = maps(activation)
    assert found.shape == shown
    assert found.ravel()[0] == pytest.approx(activation.ravel()[0]) or len(shape) == 4


def test_pictures_in_a_grid_are_all_there() -> None:
    pictures = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((5, 50, 40, 3), np.uint8)
    found = grid(pictures)
    assert found.shape == (2 * 52 - 2, 3 * 42 - 2, 3)
    assert [found[52 * (n // 3), 42 * (n % 3), 0] for n in range(5)] == [0, 1, 2, 3, 4]
    assert {*np.unique(found)} == {0, 1, 2, 3, 4, 190}


# --- matplotlib ------------------------------------------------------------------------------------------------------


def test_without_the_extra_one_line_names_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 2
    wanted = "report: expected the matplotlib package (pip install 'lowered-cnn[report]')"
    assert capsys.readouterr().err == f"lowered-cnn report: {wanted}, got no module named matplotlib\n"
    assert list(tmp_path.iterdir()) == []


def test_the_settings_of_matplotlib_are_left_alone() -> None:
    import matplotlib

    before, level = dict(matplotlib.rcParams), logging.getLogger("matplotlib").level
    with matplotlib_package({"font.size": 77}):
        assert matplotlib.rcParams["font.size"] == 77
    assert dict(matplotlib.rcParams) == before
    assert logging.getLogger("matplotlib").level == level


REPORT = "from lowered_cnn.cli import main; import sys; code = main(sys.argv[1:]); "
QUIET = REPORT + "assert 'matplotlib.pyplot' not in sys.modules; sys.exit(code)"


@pytest.mark.slow
def test_nothing_is_said_of_caches_and_settings_of_the_user_change_nothing(run: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "matplotlibrc").write_text("axes.facecolor: red\nfont.size: 30\nbackend: tkagg\n")
    (tmp_path / "file").write_text("no folder")
    pages = []
    for number, folder in enumerate(("own", "file/none")):
        out = tmp_path / f"{number}.html"
        command = [sys.executable, "-W", "error", "-c", QUIET, "report", str(run), "--out", str(out)]
        environment = {**os.environ, "MPLCONFIGDIR": str(tmp_path / folder), "HOME": str(tmp_path / "file")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        pages.append(out.read_text().partition('<section id="costs">')[0])
    assert pages[0] == pages[1]


# --- the command line ------------------------------------------------------------------------------------------------


def test_a_run_that_has_no_network_yet_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 2
    told = f"RUN: expected a folder written by lowered-cnn train, got {tmp_path} without config.json"
    assert capsys.readouterr().err == f"lowered-cnn report: {told}\n"
    (tmp_path / "page.html").mkdir()
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 2
    assert "output: expected a file to write" in capsys.readouterr().err


def test_a_network_whose_numbers_are_not_finite_has_a_report_without_warnings(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    network = load(folder / "model.safetensors")
    network.parameters.vector[...] *= 1e30
    save(network, folder / "model.safetensors")
    assert main(["evaluate", str(folder)]) == 0
    assert main(["report", str(folder)]) == 0
    assert_self_contained((folder / "report.html").read_text())


def trained(*arguments: object) -> tuple[str, str]:
    """Train in a process of its own, which must succeed; return what it writes to stdout and to stderr."""
    command = [sys.executable, "-W", "error", "-m", "lowered_cnn.cli", "train", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.slow
def test_a_training_ends_with_a_report_unless_none_is_wanted(few_digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--data", few_digits, "--epochs", "1", "--dev-size", "0", "--out", run]
    out, errors = trained(*options, "--no-report")
    assert not (run / "report.html").exists()
    assert "report" not in out + errors
    out, errors = trained("--resume", run, "--json")
    assert json.loads(out)["run"] == str(run)
    assert errors.endswith(f"lowered-cnn train: the report is in {run}/report.html\n")
    assert_self_contained((run / "report.html").read_text())


@pytest.mark.slow
def test_a_report_that_cannot_be_written_is_no_failure_of_the_training(few_digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained("--data", few_digits, "--epochs", "1", "--out", run, "--no-report")
    (run / "report.html").mkdir()
    out, errors = trained("--resume", run)
    assert out.startswith("test accuracy ")
    told = f"no report: output: expected a file to write, got the folder {run}/report.html"
    assert errors.splitlines()[-1] == f"lowered-cnn train: {told}"
