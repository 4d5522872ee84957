"""The command line as users run it: what it prints, what it writes, and the one line for what is wrong."""

import argparse
import io
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from idx_files import idx_bytes, write_data
from PIL import Image
from programs import SECONDS, eventually, program
from tqdm import tqdm

from lowered_cnn import (
    SGD,
    Dataset,
    Network,
    Recipe,
    Training,
    __version__,
    confusion,
    load,
    load_mnist,
    models,
    save,
    softmax,
    train,
)
from lowered_cnn import evaluate as evaluate_network
from lowered_cnn.arrays import Array
from lowered_cnn.cli import main
from lowered_cnn.cli import train as cli_train
from lowered_cnn.cli.run_folder import RunFolder
from lowered_cnn.cli.stopping import SIGNALS, Stopping
from lowered_cnn.cores import usable_cores
from lowered_cnn.kernels import blas, instructions, processor
from lowered_cnn.models import MODELS
from lowered_cnn.training import ADAPTIVE, BEST, COMPACT, OBJECTS
from lowered_cnn.training.ranks import Alone
from lowered_cnn.verify import Certificate, Check

Run = Callable[..., str]


@pytest.fixture(scope="module")
def trained(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for two epochs, once for all tests that need a run."""
    run = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", "--data", str(few_digits), "--epochs", "2", "--batch-size", "32", "--out", str(run)]) == 0
    return run


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail: exit code 2, nothing on stdout, one line on stderr, which is returned."""
    try:
        code: object = main(arguments)
    except SystemExit as stop:
        code = stop.code
    output = capsys.readouterr()
    assert (code, output.out, output.err.count("\n")) == (2, "", 1)
    return output.err.rstrip("\n")


def test_train_writes_a_run_folder(trained: Path) -> None:
    files = {".lock", "checkpoint.safetensors", "config.json", "metrics.jsonl", "model.safetensors"}
    assert {file.name for file in trained.iterdir()} == files
    config = json.loads((trained / "config.json").read_text())
    assert (config["model"], config["epochs"], config["batch_size"]) == ("compact", 2, 32)
    records = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, 2 * math.ceil(550 / 32) + 1))
    assert [record["step"] for record in records if record["dev_accuracy"] is not None] == [18, 36]
    assert records[-1]["loss"] < records[0]["loss"]


def test_train_ends_with_one_json_object(few_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    options = ["--epochs", "1", "--seed", "3", "--workers", "2", "--out", str(run), "--json"]
    assert main(["train", "--data", str(few_digits), *options]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"test_accuracy", "test_loss", "train_seconds", "total_seconds", "images_per_second"} <= set(result)
    assert (result["epochs"], result["workers"], result["seed"]) == (1, 2, 3)
    assert 0 < result["train_seconds"] < result["total_seconds"]


def test_train_numbers_its_runs(
    few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for run in ("runs/1", "runs/2"):
        assert main(["train", "--data", str(few_digits), "--epochs", "1", "--dev-size", "0"]) == 0
        assert capsys.readouterr().out.splitlines()[-1].endswith(f"saved in {run}")
        assert (tmp_path / run / "model.safetensors").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--optimizer", "adam", "--schedule", "constant"],
        ["--optimizer", "adamw", "--schedule", "plateau"],
        ["--optimizer", "rmsprop", "--learning-rate", "0.002"],
        ["--optimizer", "sgd", "--schedule", "step", "--learning-rate", "0.02"],
        ["--schedule", "cosine", "--model", "notebook"],
    ],
)
def test_train_takes_every_choice(few_digits: Path, tmp_path: Path, options: list[str]) -> None:
    assert main(["train", "--data", str(few_digits), "--epochs", "1", "--out", str(tmp_path / "run"), *options]) == 0


def test_train_is_reproducible_for_any_number_of_workers(few_digits: Path, tmp_path: Path) -> None:
    for workers in ("1", "2"):
        out = str(tmp_path / workers)
        assert main(["train", "--data", str(few_digits), "--epochs", "1", "--workers", workers, "--out", out]) == 0
    first, second = ((tmp_path / workers / "model.safetensors").read_bytes() for workers in ("1", "2"))
    assert first == second


def test_train_uses_the_cores_there_are(
    few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By default; a number beyond all sense does no harm, and those that worked are told: a batch has four shards."""
    monkeypatch.setattr(cli_train, "usable_cores", lambda: 3)
    for options, workers in (["--batch-size", "256"], 3), (["--batch-size", "256", "--workers", str(10**9)], 4):
        out = str(tmp_path / str(workers))
        command = ["train", "--data", str(few_digits), "--epochs", "1", "--json", "--out", out]
        assert main([*command, *options]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["workers"] == workers


def test_train_does_what_the_library_does(few_digits: Path, tmp_path: Path) -> None:
    """The seed decides what is held out, the first weights, and the order of the examples."""
    options = ["--epochs", "1", "--seed", "3", "--dev-size", "100", "--learning-rate", "0.02"]
    assert main(["train", "--data", str(few_digits), *options, "--out", str(tmp_path / "run")]) == 0
    data, _ = load_mnist().train.take(np.arange(600)).split(100, seed=3)
    network = Network(models.compact(), (1, 28, 28), seed=3)
    optimizer = SGD(0.02, momentum=0.9, nesterov=True, l2=1e-3)
    list(train(network, data, replace(COMPACT, epochs=1, optimizer=optimizer, seed=3)))
    run = load(tmp_path / "run" / "model.safetensors")
    np.testing.assert_array_equal(run.parameters.vector, network.parameters.vector)


@pytest.mark.parametrize(
    ("options", "recipe"),
    [
        ([], COMPACT),
        (["--model", "compact"], COMPACT),
        (["--model", "notebook"], Recipe()),
        (["--model", "notebook", "--recipe", "default"], COMPACT),
        (["--model", "notebook", "--recipe", "best", "--optimizer", "sgd"], BEST),
        (["--model", "notebook", "--recipe", "objects"], OBJECTS),
        (["--model", "notebook", "--recipe", "adaptive"], ADAPTIVE),
    ],
)
def test_a_recipe_goes_with_its_network(few_digits: Path, tmp_path: Path, options: list[str], recipe: Recipe) -> None:
    """A high rate that suits one network is given to another only if asked for."""
    run = tmp_path / "run"
    assert main(["train", "--data", str(few_digits), "--epochs", "1", "--no-report", "--out", str(run), *options]) == 0
    assert json.loads((run / "config.json").read_text())["recipe"] == repr(replace(recipe, epochs=1))


def test_the_bar_counts_every_step(few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []

    def shown(**options: Any) -> tqdm:
        bars.append(tqdm(**{**options, "disable": False, "file": io.StringIO()}))
        return bars[-1]

    monkeypatch.setattr("lowered_cnn.cli.running.tqdm", shown)
    assert main(["train", "--data", str(few_digits), "--epochs", "2", "--out", str(tmp_path / "run")]) == 0
    (bar,) = bars
    assert bar.n == bar.total == 2 * math.ceil(550 / 128)


@pytest.mark.skipif(sys.platform == "win32", reason="terminals of POSIX")
def test_a_terminal_shows_how_the_training_is_going(few_digits: Path, tmp_path: Path) -> None:
    """In a terminal of 80 columns, the bar has means over the epoch so far, the speed and the time that is left."""
    import fcntl
    import pty
    import struct
    import termios

    run = tmp_path / "run"
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    options = ["train", "--data", few_digits, "--epochs", 2, "--no-report", "--out", run]
    shown = b""
    with subprocess.Popen(command(*options), stdout=subprocess.PIPE, stderr=terminal) as process:
        os.close(terminal)
        with suppress(OSError):  # once the program has ended, nothing writes to the terminal any more
            while part := os.read(screen, 65536):
                shown += part
    os.close(screen)
    assert process.returncode == 0
    bars = re.findall(r"\r *(\d+)%\|(.*?)\| (\S+) left, ([^\r\n]*)", shown.decode())
    records = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    loss, accuracy = (np.mean([record[name] for record in records[5:]]) for name in ("loss", "train_accuracy"))
    percent, _, left, told = bars[-1]
    assert (percent, left) == ("100", "00:00")
    assert re.fullmatch(rf"epoch 2, loss {loss:.3f}, accuracy {accuracy:.1%}, [\d,]+ images/s *", told)
    assert all(len(line) <= 80 for line in re.split(r"[\r\n]+", shown.decode()))
    epochs = [record["epoch_loss"] for record in records if record["ends_epoch"]]
    assert re.findall(r"epoch \d of 2: loss (\d\.\d{4})", shown.decode()) == [f"{mean:.4f}" for mean in epochs]


def test_epochs_are_told_beside_the_result(
    few_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", str(few_digits), "--epochs", "2", "--out", str(tmp_path / "run")]) == 0
    output = capsys.readouterr()
    assert output.out.count("\n") == 1
    line = r"epoch (\d) of 2: loss (\d\.\d{4}), dev accuracy \d+\.\d\d%, [\d,]+ images/s"
    records = [json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = np.reshape([record["loss"] for record in records], (2, 5))
    means = np.average(losses, axis=1, weights=[128] * 4 + [550 - 4 * 128])
    assert re.findall(line, output.err) == [("1", f"{means[0]:.4f}"), ("2", f"{means[1]:.4f}")]


def test_evaluate_agrees_with_the_library(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    network, test = load(trained / "model.safetensors"), load_mnist().test.take(np.arange(200))
    expected, by_class = evaluate_network(network, test), confusion(network, test)
    assert told.pop("classes") == by_class.json()
    assert told == {"test_accuracy": expected.accuracy, "test_loss": expected.loss, "images": 200}
    assert main(["evaluate", str(trained)]) == 0
    assert capsys.readouterr().out == (
        f"test accuracy {expected.accuracy:.2%}, loss {expected.loss:.4f}, on 200 images\n\n{by_class}\n"
    )


def test_evaluate_takes_other_data(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = load_mnist().test.take(np.arange(200, 320))
    folder = write_data(tmp_path / "other", other, other)
    assert main(["evaluate", str(trained), "--data", str(folder), "--json"]) == 0
    expected = evaluate_network(load(trained / "model.safetensors"), other)
    told = json.loads(capsys.readouterr().out)
    assert sum(row["images"] for row in told.pop("classes")) == 120
    assert told == {"test_accuracy": expected.accuracy, "test_loss": expected.loss, "images": 120}


def test_predict_reads_pictures_of_any_size(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits, labels = load_mnist().test.images[:20, 0], load_mnist().test.labels[:20]
    paths = []
    for number, digit in enumerate(digits):
        path = tmp_path / f"{number}.{'png' if number % 2 else 'jpg'}"
        Image.fromarray(255 - digit).resize((150, 150)).save(path)
        paths.append(str(path))
    assert main(["predict", str(trained), *paths, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [answer["image"] for answer in answers] == paths
    assert all(abs(sum(answer["probabilities"].values()) - 1) < 1e-5 for answer in answers)
    network = load(trained / "model.safetensors")
    same = np.mean([int(a["class"]) == c for a, c in zip(answers, network.predict(digits).argmax(axis=1), strict=True)])
    assert same >= 0.9, "a drawing of a digit is read as the digit it was made of"
    right = np.mean([int(answer["class"]) == label for answer, label in zip(answers, labels, strict=True)])
    assert right >= 0.7, "and mostly as the digit it is"
    assert main(["predict", str(trained), paths[0]]) == 0
    assert re.fullmatch(r".*0\.jpg: \d \(\d+\.\d%\)\n", capsys.readouterr().out)


def test_summary_of_a_model_and_of_a_run(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "lenet5", "--batch-size", "8"]) == 0
    table = capsys.readouterr().out
    assert re.search(r"conv2 +16 x 10 x 10 +2,416 +forward +16 x 150 x 800 +3.84", table)
    assert re.search(r"total +61,706", table)
    assert main(["summary", "compact"]) == 0
    table = capsys.readouterr().out
    assert main(["summary", str(trained)]) == 0
    assert capsys.readouterr().out == table


def test_image_folders_train_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name, brightness in (("dark", 40), ("light", 200)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(30):
            noise = rng.integers(0, 50, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise + np.uint8(brightness)).save(tmp_path / "data" / name / f"{number}.png")
    run = str(tmp_path / "run")
    assert main(["train", "--data", str(tmp_path / "data"), "--epochs", "4", "--batch-size", "8", "--out", run]) == 0
    assert load(Path(run, "model.safetensors")).input_shape == (3, 32, 32)
    capsys.readouterr()
    assert main(["predict", run, str(tmp_path / "data" / "light" / "3.png")]) == 0
    assert "light (" in capsys.readouterr().out


def test_colour_images_in_idx_files_train_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """3 x 32 x 32 images whose class is the colour that stands out."""
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for name, count in (("train", 120), ("t10k", 60)):
        labels = np.arange(count) % 3
        images = rng.integers(0, 120, (count, 3, 32, 32), dtype=np.uint8)
        images[np.arange(count), labels] += 60
        for kind, array in (("images-idx3", images), ("labels-idx1", labels.astype(np.uint8))):
            (tmp_path / "data" / f"{name}-{kind}-ubyte").write_bytes(idx_bytes(array))
    run = str(tmp_path / "run")
    options = ["--epochs", "6", "--batch-size", "10", "--dev-size", "20", "--json", "--out", run]
    assert main(["train", "--data", str(tmp_path / "data"), *options]) == 0
    assert json.loads(capsys.readouterr().out)["test_accuracy"] > 0.9
    assert load(Path(run, "model.safetensors")).input_shape == (3, 32, 32)
    assert main(["evaluate", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 60


@pytest.mark.slow
def test_the_best_recipe_may_be_changed(few_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    options = ["--recipe", "best", "--epochs", "1", "--learning-rate", "0.02", "--out", str(run)]
    assert main(["train", "--data", str(few_digits), *options]) == 0
    config = json.loads((run / "config.json").read_text())
    assert (config["model"], config["epochs"], config["batch_size"]) == ("deep", 1, 64)
    assert "Augmentation(shift=2" in config["recipe"]
    assert "learning_rate=0.02" in config["recipe"]
    assert load(run / "model.safetensors").model == MODELS[config["model"]]()


def test_predict_prepares_pictures_as_the_training_data_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of raw 28 x 28 pictures is not MNIST: where and how large a spot is must survive."""
    spots = {"left": 2, "right": 24}
    for name, column in spots.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(30):
            picture = np.zeros((28, 28), np.uint8)
            picture[5:15, column : column + 3] = 200 + number
            Image.fromarray(picture).save(tmp_path / "data" / name / f"{number:02}.png")
    run = tmp_path / "run"
    options = ["--data", str(tmp_path / "data"), "--epochs", "8", "--batch-size", "8", "--out", str(run)]
    assert main(["train", *options]) == 0
    assert json.loads((run / "config.json").read_text())["mnist_style"] is False
    capsys.readouterr()
    paths = [str(tmp_path / "data" / name / "07.png") for name in spots]
    assert main(["predict", str(run), *paths, "--json"]) == 0
    told = [list(answer["probabilities"].values()) for answer in json.loads(capsys.readouterr().out)]
    network = load(run / "model.safetensors")
    raw = np.stack([np.asarray(Image.open(path))[np.newaxis] for path in paths])
    assert network.predict(raw).argmax(axis=1).tolist() == [0, 1]
    np.testing.assert_allclose(told, softmax(network.predict(raw)), rtol=1e-6)


@pytest.mark.parametrize("style", [None, "digits", []])
def test_settings_that_do_not_tell_how_images_are_framed_are_refused(
    style: object, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes())
    config = json.loads((trained / "config.json").read_text())
    assert config["mnist_style"] is True
    (tmp_path / "config.json").write_text(json.dumps({**config, "mnist_style": style}))
    line = fails(["predict", str(tmp_path), "docs/seven.png"], capsys)
    assert line.endswith(f"config.json: mnist_style: expected true or false, got {json.dumps(style)}")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--epochs", "0"], "argument --epochs: expected a whole number of at least 1, got '0'"),
        (["--epochs", "some"], "argument --epochs: expected a whole number of at least 1, got 'some'"),
        (["--learning-rate", "nan"], "argument --learning-rate: expected a number above 0, got 'nan'"),
        (["--workers", "-1"], "argument --workers: expected a whole number of at least 1, got '-1'"),
        (
            ["--data", "nowhere"],
            "nowhere: expected a folder with four IDX or .npy files, or with one sub-folder of images per class,",
        ),
        (["--model", "resnet"], "argument --model: expected FILE.py:NAME, or one of compact, lenet5, "),
        (["--speed"], "unrecognized arguments: --speed"),
    ],
)
def test_train_says_what_is_wrong(options: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert line in fails(["train", *options], capsys)


def test_train_leaves_earlier_runs_alone(trained: Path, few_digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained / "model.safetensors").read_bytes()
    line = fails(["train", "--data", str(few_digits), "--out", str(trained)], capsys)
    assert line == f"lowered-cnn train: --out: expected a new or empty folder, got {trained}"
    assert (trained / "model.safetensors").read_bytes() == before


def test_train_asks_for_its_folder_before_it_loads_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file := tmp_path / "file").write_text("")
    (link := tmp_path / "link").symlink_to("nowhere")
    told = "lowered-cnn train: --out: expected "
    for out, line in (
        (file, f"{told}a new or empty folder, got {file}"),
        (link, f"{told}a new or empty folder, got {link}"),
        (file / "run", f"{told}a writable folder, got {file / 'run'} in {file}"),
        (tmp_path, f"{told}a new or empty folder, got {tmp_path}"),
        (tmp_path / ("x" * 300), f"{told}a new or empty folder, got {tmp_path / ('x' * 300)} (File name too long)"),
    ):
        assert fails(["train", "--data", "nowhere", "--out", str(out)], capsys) == line


def test_train_says_when_it_diverges(few_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--learning-rate", "1e30", "--schedule", "constant", "--workers", "2", "--out", str(tmp_path / "run")]
    line = fails(["train", "--data", str(few_digits), *options], capsys)
    assert re.fullmatch(
        r"lowered-cnn train: loss at step \d+: expected a finite number \(try a lower learning rate\), "
        r"got (nan|inf), first in the (loss|output of \w+)",
        line,
    )


def test_models_too_large_for_the_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    tiny = Dataset(rng.integers(0, 255, (40, 1, 8, 8), dtype=np.uint8), np.arange(40) % 10, tuple("0123456789"))
    folder = write_data(tmp_path / "tiny", tiny, tiny)
    line = fails(["train", "--data", str(folder), "--model", "lenet5"], capsys)
    wanted = "larger images (the network that fits any size is adaptive)"
    assert line == f"lowered-cnn train: lenet5: images: expected {wanted}, got 8x8 pixels (HxW)"


def other_images(*shape: int) -> Dataset:
    """Return images of two classes that differ in their mean, on a scale of their own; the second class is rare."""
    labels = (np.arange(60) % 12 == 0).astype(np.int64)
    images = np.random.default_rng(0).normal(1000 + 300 * labels.reshape(-1, *(1,) * len(shape)), 100, (60, *shape))
    return Dataset(images.astype(np.float32), labels, ("0", "1"))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 40), (2, 1, 1)])
def test_images_of_any_size_and_scale_are_learned(
    shape: tuple[int, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = other_images(*shape)
    for name in ("train", "test"):
        np.save(tmp_path / f"{name}-images.npy", data.images)
        np.save(tmp_path / f"{name}-labels.npy", data.labels)
    run = tmp_path / "run"
    assert (
        main(["train", "--data", str(tmp_path), "--epochs", "20", "--dev-size", "0", "--out", str(run), "--json"]) == 0
    )
    output = capsys.readouterr()
    assert json.loads(output.out)["test_accuracy"] > 0.9
    assert output.err.count("5 images of 1 and 55 images of 0: look at each class") == 1
    config = json.loads((run / "config.json").read_text())
    assert (config["model"], config["epochs"]) == ("adaptive", 20)


def test_pictures_of_any_size_are_trained_on_tested_and_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for label, brightness in (("dark", 40), ("light", 180)):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for number in range(6):
                pixels = generator.integers(brightness, brightness + 40, (*generator.integers(9, 30, 2), 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / label / f"{number}.png")
    run = str(tmp_path / "run")
    assert main(["train", "--data", str(tmp_path / "data"), "--epochs", "20", "--dev-size", "2", "--out", run]) == 0
    assert "test accuracy 100.00%" in capsys.readouterr().out
    assert main(["evaluate", run]) == 0
    assert "test accuracy 100.00%" in capsys.readouterr().out
    assert main(["predict", run, str(tmp_path / "data" / "test" / "dark" / "3.png")]) == 0
    assert ": dark (" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["evaluate", "summary", "predict"])
def test_commands_want_a_run(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = ["digit.png"] if command == "predict" else []
    line = fails([command, str(tmp_path), *images], capsys)
    wanted = "expected a folder written by lowered-cnn train"
    assert line == f"lowered-cnn {command}: RUN: {wanted}, got {tmp_path} without config.json"


def test_a_broken_network_file_is_reported(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_bytes((trained / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes()[:1000])
    assert "model.safetensors: expected a safetensors file, got" in fails(["evaluate", str(tmp_path)], capsys)


def test_settings_of_another_network_are_reported(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"classes": ["a"]}')
    (tmp_path / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes())
    line = fails(["predict", str(tmp_path), "docs/seven.png"], capsys)
    assert line.endswith("config.json: expected one class per output (10,), got 1")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("[" * 100_000, "config.json: expected JSON, got maximum recursion depth exceeded"),
        ("\xff", "config.json: expected JSON, got "),
        ('{"classes": ["b", "a", "b"]}', "classes: expected a different name for each class, got 'b' 2 times"),
        ('{"classes": ["b", null]}', "config.json: expected the settings of a run, got no list of classes"),
        (json.dumps({"classes": list("0123456789")}), "data: expected a folder, or null for MNIST, got ''"),
        (json.dumps({"classes": list("0123456789"), "data": 5}), "data: expected a folder, or null for MNIST, got 5"),
    ],
    ids=["nested", "no text", "twice", "no name", "no data", "no folder"],
)
def test_damaged_settings_are_reported(
    config: str, told: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_bytes(config.encode("latin-1"))
    (tmp_path / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes())
    assert told in fails(["evaluate", str(tmp_path)], capsys)


def test_predict_names_the_image_it_cannot_read(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, text, blank = (tmp_path / f"{name}.png" for name in ("missing", "text", "blank"))
    text.write_text("no picture")
    Image.new("L", (50, 50), "white").save(blank)
    for path in (missing, text, blank):
        assert str(path) in fails(["predict", str(trained), str(path)], capsys)


@pytest.mark.parametrize(("batch", "told"), [("1000000000", "memory: "), ("1" + "0" * 18, "argument --batch-size: ")])
def test_more_examples_than_memory_holds(batch: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = fails(["summary", "lenet5", "--batch-size", batch], capsys)
    assert line.startswith("lowered-cnn summary: " + told + "expected ")


def test_predict_names_the_image_that_no_channels_fit(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(Network(models.compact(), (2, 28, 28)), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((trained / "config.json").read_bytes())
    line = fails(["predict", str(tmp_path), "docs/seven.png"], capsys)
    assert line.startswith("lowered-cnn predict: docs/seven.png: channels: expected 1 (grey) or 3 (colour), got ")


def test_summary_names_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    known = ", ".join(models.MODELS)
    line = fails(["summary", "alexnet"], capsys)
    assert line == f"lowered-cnn summary: RUN|MODEL: expected a folder, or one of {known}, got 'alexnet'"


def test_interruption_keeps_the_records(few_digits: Path, tmp_path: Path) -> None:
    """Ctrl-C ends a training with one line and exit code 130, which says how it goes on."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "lowered_cnn.cli", "train", "--data", str(few_digits), "--out", str(run)]
    metrics = run / "metrics.jsonl"
    with program([*command, "--epochs", "1000"]) as process:
        assert eventually(lambda: metrics.exists() and metrics.stat().st_size > 2000)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    told = f"lowered-cnn train: stopped by SIGINT after step {len(steps)}; go on with --resume {run}"
    assert (process.returncode, errors.splitlines()[-1]) == (130, told)
    assert "Traceback" not in errors
    assert steps == list(range(1, len(steps) + 1))
    assert not (run / "model.safetensors").exists()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "lowered_cnn.cli", *map(str, arguments)]


def in_shell(redirection: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command with redirections, and with its exit code also if it writes into a pipe."""
    line = f"set -o pipefail; {shlex.join(command(*arguments))} {redirection}"
    return subprocess.run(["bash", "-c", line], capture_output=True, env={**os.environ, **environment})


@pytest.mark.slow
def test_a_reader_who_leaves_ends_the_command_quietly() -> None:
    done = in_shell("| head -c 1", "summary", "lenet5", PYTHONUNBUFFERED="")  # one write: it comes before the end
    assert (done.returncode, done.stdout, done.stderr) == (0, b"l", b"")
    done = in_shell("| true", "summary", "lenet5")
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.slow
def test_a_training_is_saved_though_nobody_reads_its_progress(few_digits: Path, tmp_path: Path) -> None:
    for number, redirection in enumerate(("2>&1 | true", "2>&-", ">&- 2>&-", "| true")):
        run = tmp_path / str(number)
        done = in_shell(redirection, "train", "--data", few_digits, "--epochs", 2, "--no-report", "--out", run)
        assert b"Traceback" not in done.stderr
        assert done.returncode == (141 if "|" in redirection else 0), redirection
        assert (run / "model.safetensors").exists(), redirection


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the full disk of Linux")
def test_a_full_disk_is_reported() -> None:
    done = in_shell("> /dev/full", "summary", "lenet5")
    told = "lowered-cnn summary: output: expected a readable or writable file, got No space left on device\n"
    assert (done.returncode, done.stderr.decode()) == (2, told)


@pytest.mark.slow
def test_names_in_another_alphabet_are_printed(trained: Path, tmp_path: Path) -> None:
    Image.fromarray(load_mnist().test.images[0, 0]).save(tmp_path / "\N{HIRAGANA LETTER A}.png")
    for path, told in ((tmp_path / "\N{HIRAGANA LETTER A}.png", "stdout"), (tmp_path / "\N{EURO SIGN}.png", "stderr")):
        done = in_shell("", "predict", trained, path, PYTHONIOENCODING="ascii")
        assert b"Traceback" not in done.stderr
        assert ascii(path.name)[1:-1].encode() in getattr(done, told)


def test_version_and_module(tmp_path: Path) -> None:
    """The command and the module are the same program."""
    outputs = [
        subprocess.run(command, capture_output=True, check=True, cwd=tmp_path, text=True).stdout
        for command in (
            [sys.executable, "-m", "lowered_cnn.cli", "--version"],
            [os.path.join(os.path.dirname(sys.executable), "lowered-cnn"), "--version"],
        )
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].startswith("lowered-cnn ")


HELD = ("OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES")


def verbose_version(**held: str) -> list[str]:
    """Run `lowered-cnn --version --verbose` with nothing but these variables to hold it back."""
    free = {name: value for name, value in os.environ.items() if name not in HELD}
    command = [sys.executable, "-m", "lowered_cnn.cli", "--version", "--verbose"]
    done = subprocess.run(command, capture_output=True, check=True, text=True, env=free | held)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_process_that_cannot_be_measured_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setattr("lowered_cnn.cli.version.ASK", "raise SystemExit('broken')")
    assert main(["--version", "--verbose"]) == 2
    wanted = "a process without OPENBLAS_CORETYPE and NPY_DISABLE_CPU_FEATURES to measure"
    assert capsys.readouterr().err == f"lowered-cnn --version: --verbose: expected {wanted}, got broken\n"


def test_the_verbose_version_says_what_computes_here() -> None:
    lines = verbose_version()
    (library,) = blas()
    assert lines[:4] == [
        f"lowered-cnn {__version__}",
        f"NumPy {np.__version__}, instructions: {instructions()}",
        f"{library.name} {library.version}, kernels: {library.kernels}, threads: {library.threads}",
        f"{processor()}, usable cores: {usable_cores()}",
    ]
    (peak,) = lines[4:]
    assert re.fullmatch(r"a product of 1024 x 1024 in float32 on one core: [1-9]\d* GFLOP/s", peak)


def test_a_variable_that_changes_nothing_is_no_reason_to_warn() -> None:
    (library,) = blas()
    assert len(verbose_version(OPENBLAS_CORETYPE=library.kernels)) == 5


@pytest.mark.skipif("X86_V4" not in instructions(), reason="a processor without AVX-512")
def test_variables_that_hold_it_back_are_named() -> None:
    _, *disabled = instructions().split()
    lines = verbose_version(OPENBLAS_CORETYPE="Haswell", NPY_DISABLE_CPU_FEATURES=" ".join(disabled))
    assert lines[1:3] == [
        f"NumPy {np.__version__}, instructions: X86_V3",
        f"openblas {blas()[0].version}, kernels: Haswell, threads: {blas()[0].threads}",
    ]
    kernels, numpy = (re.sub(r"\d+ GFLOP/s", "N GFLOP/s", line) for line in lines[5:])
    assert kernels == (
        "warning: OPENBLAS_CORETYPE holds OpenBLAS to Haswell kernels, N GFLOP/s; "
        f"without it, it would use {blas()[0].kernels}, N GFLOP/s"
    )
    assert (
        numpy == f"warning: NPY_DISABLE_CPU_FEATURES holds NumPy to X86_V3; without it, it would use {instructions()}"
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--verbose", "verify"], "lowered-cnn: argument --verbose: expected --version with it\n"),
        (
            [],
            "lowered-cnn: expected --version or a command: "
            "train, evaluate, predict, export, report, explore, summary, verify\n",
        ),
    ],
)
def test_a_command_line_without_a_command_is_refused(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert (stop.value.code, capsys.readouterr().err) == (2, line)


def test_a_training_whose_only_step_diverges_is_told(
    few_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--data", str(few_digits), "--epochs", "1", "--batch-size", "600", "--learning-rate", "1e30"]
    assert main([*command, "--out", str(tmp_path / "run")]) == 2
    told = "test loss: expected a finite number (try a lower --learning-rate), got nan"
    assert capsys.readouterr().err.splitlines()[-1] == f"lowered-cnn train: {told}"


# --- verification before the training --------------------------------------------------------------------------------


def test_a_training_can_verify_its_network_first(
    few_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", "--data", str(few_digits), "--epochs", "1", "--out", str(tmp_path / "run"), "--verify"]
    failed = Certificate((Check("network", "fused", "repeated", 12.0, 0.0),))
    with monkeypatch.context() as patched:
        patched.setattr("lowered_cnn.verify.verify_forms", lambda network, loss: failed)
        assert main(command) == 1
    told = capsys.readouterr()
    assert "network: fused: repeated: expected an error of at most 0.0e+00, got 1.2e+01" in told.err
    assert told.out == ""
    assert not (tmp_path / "run").exists()
    assert main(command) == 0
    assert (tmp_path / "run" / "model.safetensors").exists()


# --- going on with a run (stopped by signals and faults: test_faults.py) ----------------------------------------------


def options_of(parser: argparse.ArgumentParser) -> list[str]:
    return [max(action.option_strings, key=len) for action in parser._actions if action.option_strings]


def test_what_a_run_decides_cannot_be_given_again(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every option of the command but five is refused with --resume."""
    parser = argparse.ArgumentParser()
    cli_train.add_arguments(parser)
    values = {"--model": "lenet5", "--optimizer": "adam", "--schedule": "cosine", "--recipe": "best"}
    refused = set(options_of(parser)) - {"--help", "--resume", "--data", "--epochs", "--workers", "--checkpoint-every"}
    for option in refused - {"--json", "--no-report", "--verify"}:
        line = fails(["train", "--resume", str(trained), option, values.get(option, "1")], capsys)
        assert line.startswith(f"lowered-cnn train: {option}: expected nothing with --resume, which takes it from ")
    assert "--verify: expected nothing" in fails(["train", "--resume", str(trained), "--verify"], capsys)


def test_a_finished_run_is_only_tested_again(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It may have been killed before it was saved or tested, or have been extended since its network was saved."""
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    save(Network(models.compact(10), (1, 28, 28), seed=9), trained / "model.safetensors")
    assert main(["train", "--resume", str(trained), "--json"]) == 0
    printed = capsys.readouterr()
    assert f"lowered-cnn train: {trained} finished with epoch 2 of 2; it is tested again" in printed.err.splitlines()
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before
    assert main(["evaluate", str(trained), "--json"]) == 0
    assert json.loads(printed.out)["test_accuracy"] == json.loads(capsys.readouterr().out)["test_accuracy"]


def test_a_run_whose_data_have_moved_remembers_where_they_are(
    few_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(few_digits, data)
    command = ["train", "--data", str(data), "--schedule", "constant", "--epochs", "1"]
    assert main([*command, "--out", str(run)]) == 0
    capsys.readouterr()
    data.rename(tmp_path / "moved")
    assert "no such folder" in fails(["evaluate", str(run)], capsys)
    assert main(["train", "--resume", str(run), "--data", str(tmp_path / "moved")]) == 0
    assert main(["evaluate", str(run)]) == 0


@pytest.mark.parametrize("command", ["evaluate", "summary", "verify", "export", "predict"])
def test_a_run_that_has_not_ended_is_told_how_to_go_on(
    command: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run, ignore=shutil.ignore_patterns("model.safetensors"))
    last = {"export": [str(tmp_path / "x.onnx")], "predict": ["x.png"]}.get(command, [])
    line = fails([command, str(run), *last], capsys)
    wanted = f"a training that has ended (train --resume {run} goes on with it)"
    assert line == f"lowered-cnn {command}: RUN: expected {wanted}, got {run} without model.safetensors"


def test_more_epochs_extend_a_run_at_a_constant_rate(
    few_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    command = ["train", "--data", str(few_digits), "--schedule", "constant", "--batch-size", "50"]
    assert main([*command, "--epochs", "3", "--out", str(whole)]) == 0
    assert main([*command, "--epochs", "1", "--out", str(run)]) == 0
    capsys.readouterr()
    assert main(["train", "--resume", str(run), "--epochs", "3"]) == 0
    told = "lowered-cnn train: 3 epochs instead of 1: Constant() goes on at 0.3, and spans them all"
    assert told in capsys.readouterr().err.splitlines()
    for name in ("model.safetensors", "config.json"):
        assert (whole / name).read_bytes() == (run / name).read_bytes()


def test_a_rate_that_falls_to_the_end_is_not_extended(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = fails(["train", "--resume", str(trained), "--epochs", "3"], capsys)
    jump = r"the learning rate of OneCycle\(warmup=0.15, start=0.04\) would jump from 0 to 0\.\d+"
    assert re.fullmatch(rf"lowered-cnn train: resume: epochs: expected 2, as {jump}, got 3", line)


@pytest.mark.parametrize("text", ["0", "-3", "s", "0s", "half", "1.5", "nans", "infs", "10m"])
def test_an_interval_is_steps_or_seconds(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = f"expected a number of steps, or of seconds such as 30s, got {text!r}"
    assert fails(["train", f"--checkpoint-every={text}"], capsys).endswith(f"argument --checkpoint-every: {wanted}")


@pytest.mark.parametrize(
    ("every", "written"), [("4", [0, 4, 8, 12, 16, 20, 22]), ("1000", [0, 22]), ("1000s", [0, 22])]
)
def test_checkpoints_are_written_as_often_as_asked_for(
    every: str, written: list[int], few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []

    def save(training: Training, path: Path) -> None:
        steps.append(training.step)

    monkeypatch.setattr(Training, "save", save)
    options = ["--epochs", "2", "--batch-size", "50", "--checkpoint-every", every, "--out", str(tmp_path / "run")]
    assert main(["train", "--data", str(few_digits), *options]) == 0
    assert steps == written


def test_a_signal_that_comes_while_ranks_agree_is_not_lost() -> None:
    class Late(Alone):
        def broadcast(self, values: Array) -> None:
            if stopping.signal is None:
                os.kill(os.getpid(), signal.SIGTERM)

    with Stopping() as stopping:
        assert stopping.agreed(Late()) is None
        assert stopping.agreed(Late()) == signal.SIGTERM


def test_a_rank_without_the_signal_hears_the_one_of_rank_0() -> None:
    """MPI copies bytes, so what is sent must have the same dtype whether or not a signal has arrived."""

    class First(Alone):
        def broadcast(self, values: Array) -> None:
            self.sent = values.tobytes()

    class Second(First):
        def broadcast(self, values: Array) -> None:
            values[...] = np.frombuffer(first.sent, values.dtype)

    for number in (None, *(signal.Signals(number) for number in SIGNALS)):
        told, first = Stopping(), First()
        told.signal = number
        assert told.agreed(first) == number
        assert Stopping().agreed(Second()) == number


def test_a_run_that_began_and_ended_meanwhile_is_left_alone(
    trained: Path, few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(path: Path) -> RunFolder:
        shutil.copytree(trained, path)  # what another process does between our look at the folder and our lock
        return RunFolder(path)

    monkeypatch.setattr(RunFolder, "make", make)
    run = tmp_path / "run"
    line = fails(["train", "--data", str(few_digits), "--out", str(run)], capsys)
    assert line == f"lowered-cnn train: --out: expected a new or empty folder, got {run}"
    assert {path.name: path.read_bytes() for path in run.iterdir()} == {
        path.name: path.read_bytes() for path in trained.iterdir()
    }
