"""`train --model FILE.py:NAME`: real files, in real processes, and one line for what is wrong with them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lowered_cnn import Dense, Flatten, InputError, Sequential, load
from lowered_cnn.cli.own_model import build

OWN = """
from dataclasses import dataclass
from typing import ClassVar

from lowered_cnn import Conv2D, Dense, Flatten, Layer, Lowered, MaxPool, Sequential
from scales import SCALE

@dataclass(frozen=True)
class Scale(Layer):
    factor: float = SCALE
    kind: ClassVar[str] = "scale"
    def output_shape(self, input_shape, name):
        return input_shape
    def lower(self, site):
        return LoweredScale(self.factor)

class LoweredScale(Lowered):
    def __init__(self, factor):
        self.factor = factor
    def forward(self, x):
        return x * self.factor
    def backward(self, dy):
        return dy * self.factor

def net(classes, shape):
    assert shape == (1, 28, 28)
    return Sequential(Conv2D(4, 5), MaxPool(2), Scale(), Flatten(), Dense(classes))
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Write a file with a layer, which imports another one beside it."""
    (tmp_path / "scales.py").write_text("SCALE = 0.5\n")
    (tmp_path / "own_net.py").write_text(OWN)
    return tmp_path / "own_net.py"


def run(*arguments: object) -> str:
    command = [sys.executable, "-m", "lowered_cnn.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*arguments: object) -> str:
    command = [sys.executable, "-m", "lowered_cnn.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    return done.stderr.strip()


@pytest.mark.slow
def test_custom_layers_are_found_again_by_every_command(own: Path, few_digits: Path, tmp_path: Path) -> None:
    """Each command is a process of its own, and starts in another folder than the file's."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = ["train", "--data", few_digits, "--model", f"{own}:net", "--schedule", "constant", "--workers", "2"]
    run(*options, "--no-report", "--epochs", "2", "--out", whole)
    run(*options, "--no-report", "--epochs", "1", "--out", cut)
    run("train", "--resume", cut, "--epochs", "2", "--no-report")
    assert (cut / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert json.loads((whole / "config.json").read_text())["model"] == f"{own}:net"
    assert "on 200 images" in run("evaluate", whole)
    assert "scale1" in run("summary", whole)
    own.write_text(OWN.replace("SCALE\n", "-SCALE\n"))
    told = f"lowered-cnn {{}}: {own}: expected the file as it was when the training began, got different content"
    assert refused("evaluate", whole) == told.format("evaluate")
    assert refused("train", "--resume", cut, "--epochs", "3") == told.format("train")
    own.unlink()
    assert refused("summary", whole) == f"lowered-cnn summary: {own}: expected the file of a network, got no such file"


def test_a_network_of_the_packages_layers_no_longer_needs_its_file(few_digits: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "plain.py", tmp_path / "run"
    file.write_text("from lowered_cnn import Dense, Flatten, Sequential\nmodel = Sequential(Flatten(), Dense(10))\n")
    run("train", "--data", few_digits, "--model", f"{file}:model", "--epochs", "1", "--no-report", "--out", out)
    file.unlink()
    assert "on 200 images" in run("evaluate", out)
    assert load(out / "model.safetensors").model == Sequential(Flatten(), Dense(10))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "expected the file of a network, got no such file"),
        ("net = (", "expected a file that runs, got SyntaxError: '(' was never closed ({stem}.py, line 1)"),
        ("1 / 0", "expected a file that runs, got ZeroDivisionError: division by zero"),
        ("raise SystemExit(0)", "expected a file that runs, got SystemExit: 0"),
        ("def net(classes): raise OSError('two\\nlines')", "expected a file that runs, got OSError: two lines"),
        (
            "def net(): pass",
            "expected a file that runs, got TypeError: net() takes 0 positional arguments but 1 was given",
        ),
        (
            "import lowered_cnn as c\nnet = c.Dense(0)",
            "expected a file that runs, got InputError: Dense: units: expected ",
        ),
        ("other = 1", "expected a layer, such as Sequential, or a function {of} that returns one, got nothing"),
        ("net = 1", "expected a layer, such as Sequential, or a function {of} that returns one, got int"),
        ("def net(n): return n", "expected a layer, such as Sequential, or a function {of} that returns one, got int"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_in_one_line(
    content: str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    stem = tmp_path.name.replace("[", "_").replace("-", "_")
    file = tmp_path / f"{stem}.py"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError) as caught:
        build(f"{file}:net", 10, (1, 28, 28))
    line = str(caught.value)
    assert "\n" not in line
    expected = told.format(stem=stem, of="of the number of classes")
    assert line.removeprefix(f"{file}:net: ").removeprefix(f"{file}: ").startswith(expected)


@pytest.mark.parametrize("name", ["json.py", "numpy.py", "lowered_cnn.py"])
def test_a_file_replaces_no_other_module(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / name).write_text("raise AssertionError")
    with pytest.raises(InputError, match=rf"{name}: expected a name that no other module has, got {name[:-3]}$"):
        build(f"{tmp_path / name}:net", 10, (1, 28, 28))


def test_the_shape_is_given_to_a_function_that_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "arguments_of_mine.py").write_text(
        "from lowered_cnn import Dense\n"
        "def one(classes): return Dense(classes)\n"
        "def wide(classes, width=5): return Dense(classes * width)\n"
        "def two(classes, shape, width=5): return Dense(classes + sum(shape))\n"
    )
    units = [build(f"{tmp_path / 'arguments_of_mine.py'}:{name}", 3, (1, 28, 28)) for name in ("one", "wide", "two")]
    assert units == [Dense(3), Dense(15), Dense(60)]


@pytest.mark.slow
def test_a_description_alone_causes_no_import(own: Path, few_digits: Path, tmp_path: Path) -> None:
    options = ["--model", f"{own}:net", "--epochs", "1", "--no-report"]
    run("train", "--data", few_digits, *options, "--out", tmp_path / "run")
    with pytest.raises(InputError, match=r"expected a layer in an imported module, got own_net:Scale$"):
        load(tmp_path / "run" / "model.safetensors")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["model_file"] = str(own)
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert "model_file: expected a path with its sha256, or null, got " in refused("evaluate", tmp_path / "run")
