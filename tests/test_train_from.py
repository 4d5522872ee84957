"""`train --from`: a training that starts from the network of an earlier run or of an ONNX file."""

import json
from pathlib import Path

import numpy as np
import pytest
from idx_files import write_data
from numpy.testing import assert_array_equal
from PIL import Image
from test_cli import fails

from lowered_cnn import (
    BatchNorm,
    Conv2D,
    Dataset,
    Dense,
    GlobalAvgPool,
    Network,
    ReLU,
    Sequential,
    Transpose,
    load,
    load_mnist,
)
from lowered_cnn.cli import main
from lowered_cnn.interop.onnx import save_onnx


@pytest.fixture(scope="module")
def run(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on ten digits for an epoch."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", "--data", str(few_digits), "--epochs", "1", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a fully convolutional network for colour pictures of 16 x 12, in three classes."""
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    model = Sequential(Conv2D(6, 3), BatchNorm(), ReLU(), Conv2D(8, 3), ReLU(), GlobalAvgPool(), Dense(3))
    save_onnx(Network(model, (3, 16, 12)), path)
    return path


@pytest.fixture(scope="module")
def three_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write some digits of three classes as IDX files."""
    mnist, parts = load_mnist(), []
    for split in mnist.train, mnist.test:
        places = np.flatnonzero(split.labels < 3)[:150]
        parts.append(Dataset(split.images[places], split.labels[places]))
    return write_data(tmp_path_factory.mktemp("data") / "three", *parts)


def pictures(folder: Path, size: tuple[int, int], classes: tuple[str, ...], mode: str = "L") -> Path:
    """Write a few pictures of each class, of this size (W, H): some brighter, some darker."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for picture in range(8):
            pixels = rng.integers(0, 60, (size[1], size[0]), dtype=np.uint8) + np.uint8(15 * number)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{picture}.png")
    return folder


def config(folder: Path) -> dict[str, object]:
    return json.loads((folder / "config.json").read_text())  # type: ignore[no-any-return]


# --- from a run ------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_with_a_new_head_for_other_classes(
    run: Path, three_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new"
    command = ["train", "--from", str(run), "--freeze", "conv1", "--freeze", "conv2.*", "--data", str(three_digits)]
    assert main([*command, "--epochs", "1", "--out", str(out)]) == 0
    told = "lowered-cnn train: a new dense2 for the classes 0, 1, 2, instead of 10 others\n"
    assert capsys.readouterr().err.count(told) == 1
    before, after = load(run / "model.safetensors"), load(out / "model.safetensors")
    for name, values in after.parameters.items():
        assert np.array_equal(values, before.parameters[name]) == name.startswith("conv"), name
    assert (config(out)["from"], config(out)["model"]) == (str(run.resolve()), "compact")
    assert "frozen=('conv1', 'conv2.*')" in str(config(out)["recipe"])
    assert main(["evaluate", str(out)]) == 0
    assert "on 150 images" in capsys.readouterr().out


def test_the_head_stays_if_the_classes_are_the_same(run: Path, few_digits: Path, tmp_path: Path) -> None:
    """With all else frozen, only what is said to learn has changed."""
    out = tmp_path / "more"
    command = ["train", "--from", str(run), "--freeze", "*.weight", "--data", str(few_digits), "--epochs", "1"]
    assert main([*command, "--out", str(out)]) == 0
    before, after = load(run / "model.safetensors"), load(out / "model.safetensors")
    for name, values in after.parameters.items():
        assert np.array_equal(values, before.parameters[name]) == name.endswith("weight"), name


def test_other_classes_get_a_new_head_even_if_they_are_as_many(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = pictures(tmp_path / "pictures", (28, 28), tuple("abcdefghij"))
    assert (
        main(["train", "--from", str(run), "--data", str(data), "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    )
    assert "a new dense2 for the classes a, b, c, d, e, f, g, h, i, j, instead of 10 others" in capsys.readouterr().err


# --- from an ONNX file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "mode"), [((12, 16), "L"), ((30, 23), "RGB"), ((30, 23), "L")])
def test_pictures_are_fitted_to_the_network(
    onnx_file: Path, size: tuple[int, int], mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """When it is trained, resumed and tested, and when it predicts: grey or in colour, and of any size."""
    data, out = pictures(tmp_path / "pictures", size, ("dark", "light"), mode), tmp_path / "run"
    command = ["train", "--from", str(onnx_file), "--data", str(data), "--epochs", "2", "--dev-size", "0"]
    assert main([*command, "--out", str(out)]) == 0
    assert "a new dense1 for the classes dark, light, instead of 3 others" in capsys.readouterr().err
    assert (config(out)["model"], config(out)["from"]) == ("net.onnx", str(onnx_file.resolve()))
    assert load(out / "model.safetensors").input_shape == (3, 16, 12)
    assert main(["train", "--resume", str(out)]) == 0
    assert main(["evaluate", str(out)]) == 0
    assert main(["predict", str(out), str(data / "dark" / "0.png")]) == 0


def test_pictures_are_fitted_to_a_network_with_channels_last(tmp_path: Path) -> None:
    """As Keras' models come through tf2onnx."""
    model = Sequential(Transpose((2, 0, 1)), Conv2D(6, 3), ReLU(), GlobalAvgPool(), Dense(3))
    save_onnx(Network(model, (16, 12, 3)), tmp_path / "net.onnx")
    data, out = pictures(tmp_path / "pictures", (20, 20), ("a", "b"), "RGB"), tmp_path / "run"
    command = ["train", "--from", str(tmp_path / "net.onnx"), "--data", str(data), "--epochs", "1", "--out", str(out)]
    assert main(command) == 0
    assert load(out / "model.safetensors").input_shape == (3, 16, 12)


def test_images_that_are_no_pictures_are_taken_as_they_are(
    three_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fully convolutional network takes them; the class names of an ONNX file are not known."""
    path, out = tmp_path / "grey.onnx", tmp_path / "run"
    network = Network(Sequential(Conv2D(6, 3), ReLU(), GlobalAvgPool(), Dense(3)), (1, 16, 12))
    save_onnx(network, path)
    command = ["train", "--from", str(path), "--freeze", "conv1", "--data", str(three_digits), "--epochs", "1"]
    assert main([*command, "--out", str(out)]) == 0
    assert "inputs (1, 28, 28) instead of (1, 16, 12)" in capsys.readouterr().err
    after = load(out / "model.safetensors")
    assert_array_equal(after.parameters["conv1.weight"], network.parameters["conv1.weight"])


# --- stopped, resumed, refused ---------------------------------------------------------------------------------------


def test_fine_tuning_is_resumed_to_the_bit(run: Path, three_digits: Path, tmp_path: Path) -> None:
    """More epochs under a constant rate are those that were missing."""
    options = ["--freeze", "conv1", "--schedule", "constant", "--learning-rate", "0.01", "--data", str(three_digits)]
    for epochs in "1", "2":
        command = ["train", "--from", str(run), *options, "--epochs", epochs, "--out", str(tmp_path / epochs)]
        assert main(command) == 0
    assert main(["train", "--resume", str(tmp_path / "1"), "--epochs", "2"]) == 0
    short, long = ((tmp_path / epochs / "model.safetensors").read_bytes() for epochs in "12")
    assert short == long


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from", "RUN", "--model", "compact"], "--model: expected nothing with --from, which takes it from "),
        (["--from", "nowhere"], "--from: expected the folder of a run, or FILE.onnx, got nowhere"),
        (["--from", "nowhere.onnx"], "nowhere.onnx: expected a readable or writable file, got No such file"),
        (["--from", "DATA"], "RUN: expected a folder written by lowered-cnn train, got "),
        (["--from", "RUN", "--freeze", "conv3"], "Recipe: frozen: expected patterns of the network's layers"),
        (["--from", "RUN", "--freeze", "*"], "Recipe: frozen: expected something left to learn"),
        (["--from", "ONNX"], "for_inputs: conv1.weight: expected (6, 3, 3, 3), got (6, 1, 3, 3)"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    options: list[str],
    message: str,
    run: Path,
    onnx_file: Path,
    three_digits: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = {"RUN": run, "DATA": three_digits, "ONNX": onnx_file}
    given = [str(paths.get(option, option)) for option in options]
    capsys.readouterr()
    line = fails(["train", *given, "--data", str(three_digits), "--out", str(tmp_path / "out")], capsys)
    assert line.startswith(f"lowered-cnn train: {message}")
    assert not (tmp_path / "out").exists()
