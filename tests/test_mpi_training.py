"""Trainings of several ranks, in real jobs: the bits of one process, wherever they stop and however they go on."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import trainings
from jobs import MPIEXEC, ended, job, rank_with
from programs import SECONDS, alive, eventually, program
from trainings import DEV, MANY, MODEL, SHAPE, contents, lines

from lowered_cnn import SGD, Adam, AdamW, Augmentation, Constant, Cosine, Network, OneCycle, Recipe, StepDecay, Training
from lowered_cnn.cli import main
from lowered_cnn.training.checkpoint import read_state

pytestmark = pytest.mark.slow  # each test starts jobs

T = TypeVar("T")


def drawn(rng: np.random.Generator) -> Recipe:
    """Draw a recipe; of some, a batch has a single shard, and of most, the last one of an epoch has fewer."""

    def one_of(*choices: T) -> T:
        return choices[rng.integers(len(choices))]

    return Recipe(
        int(rng.integers(2, 5)),
        int(rng.integers(10, 231)),
        one_of(SGD(0.05, 0.9, l2=1e-3), SGD(0.05, 0.8, True), Adam(0.01, l2=1e-3), AdamW(0.01)),
        one_of(Constant(), Cosine(), OneCycle(), StepDecay(at=(0.3, 0.7))),
        seed=int(rng.integers(5)),
        augmentation=one_of(None, Augmentation(shift=1, elastic=0.5, flip=True), Augmentation(cutout=3)),
        fade=one_of(0.0, 0.5),
        clip_norm=one_of(None, 0.05, 10.0),
        average=one_of(None, 0.9),
        patience=one_of(None, 1, 2),
        frozen=one_of((), ("conv1", "batch_norm1"), ("batch_norm2", "dense1.bias")),
        rates=one_of({}, {"conv*": 0.1, "dense1": 2.0}),
    )


class Trainings:
    """Some drawn trainings: their checkpoints, with which jobs go on, and what one process makes of them."""

    def __init__(self, folder: Path, seed: int, count: int) -> None:
        self.paths = [folder / f"{number}.safetensors" for number in range(count)]
        self.records, self.contents = [], []
        rng = np.random.default_rng(seed)
        for path in self.paths:
            training = Training(Network(MODEL, SHAPE), MANY, drawn(rng), dev=DEV)
            training.save(path)
            self.records.append(list(training))
            self.contents.append(contents(training.state()))

    def go_on(self, ranks: int, workers: int, steps: int) -> str:
        """Take so many steps of each in one job, and return the lines that it prints."""
        done = ended(job(ranks, trainings.__file__, str(workers), str(steps), *self.paths))
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def written(self) -> list[dict[str, Any]]:
        return [contents(read_state(path)) for path in self.paths]


# --- the same bits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (2, 1), (3, 1), (4, 1), (1, 3), (2, 2), (3, 2)])
def test_a_job_trains_to_the_bits_of_one_process(ranks: int, workers: int, tmp_path: Path) -> None:
    drawn = Trainings(tmp_path, 10 * ranks + workers, 8 if workers == 1 else 4)
    assert drawn.go_on(ranks, workers, 1000) == "".join(map(lines, drawn.records))
    assert drawn.written() == drawn.contents


def test_every_job_that_goes_on_may_have_another_number_of_ranks_and_workers(tmp_path: Path) -> None:
    drawn = Trainings(tmp_path, 1, 6)
    taken = 0
    for ranks, workers, steps in ((2, 1, 2), (1, 2, 1), (4, 1, 3), (3, 2, 1), (2, 1, 1000), (3, 1, 1)):
        parts = (itertools.islice(records, taken, taken + steps) for records in drawn.records)
        assert drawn.go_on(ranks, workers, steps) == "".join(lines(list(part)) for part in parts)
        taken += steps
    assert drawn.written() == drawn.contents


def test_ranks_that_go_on_from_different_steps_are_refused(tmp_path: Path) -> None:
    """As when each machine has a folder of its own, and one of them holds an older checkpoint."""
    drawn = Trainings(tmp_path, 2, 1)
    older, newer = drawn.paths[0], tmp_path / "newer"
    newer.write_bytes(older.read_bytes())
    assert ended([sys.executable, trainings.__file__, "1", "1000", str(newer)]).returncode == 0
    for first, second in ((older, newer), (newer, older)):
        rank = [sys.executable, trainings.__file__, "1", "1000"]
        line = refused([str(MPIEXEC), "-n", "1", *rank, str(first), ":", "-n", "1", *rank, str(second)])
        assert line == "rank 0: training: step: expected the same on all 2 ranks, got another on rank 1 than on 0"


def refused(command: Sequence[str]) -> str:
    """Return the only line that a job prints when it ends with code 2, but for that of MPI's own, if that comes."""
    done = ended(command)
    assert done.returncode == 2
    (line,) = (line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("Abort(2)"))
    return line


# --- a loss that is no number ----------------------------------------------------------------------------------------

FAULTS = """
import sys
import numpy as np
from lowered_cnn import Conv2D, Dataset, Dense, Flatten, InputError, Network, Recipe, ReLU, Sequential, Training
from lowered_cnn.training import join_ranks

ranks, rng = join_ranks(), np.random.default_rng(0)
model = Sequential(Conv2D(4, 3), ReLU(), Flatten(), Dense(3))
labels = rng.integers(0, 3, 230)
with ranks.ending():
    for example, size in enumerate([np.inf, 3e38] * 4):
        images = rng.random((230, 1, 8, 8), np.float32)
        images[28 * example] *= np.float32(size)
        network = Network(model, (1, 8, 8))
        network.parameters.vector *= 100
        training = Training(network, (images, labels), Recipe(1, 230), engine=ranks)
        try:
            with np.errstate(all="ignore"):
                next(training)
        except InputError as error:
            ranks.agree("line", str(error))
            if ranks.number == 0:
                sys.stdout.write(f"{error}\\n")
"""


def test_the_layer_where_numbers_end_is_told_whichever_rank_runs_it() -> None:
    alone, three = ended([sys.executable, "-c", FAULTS]), ended(job(3, "-c", FAULTS))
    assert (alone.returncode, three.returncode, three.stderr) == (0, 0, "")
    line = "loss at step 1: expected a finite number (try a lower learning rate), got nan, first in the"
    assert alone.stdout == f"{line} images\n{line} output of conv1\n" * 4
    assert three.stdout == alone.stdout


# --- the command line ------------------------------------------------------------------------------------------------

EPOCHS = 20


def options(data: Path, out: Path, *more: str) -> list[str]:
    fixed = ["--model", "lenet5", "--workers", "1", "--batch-size", "128", "--epochs", str(EPOCHS), "--no-report"]
    return ["train", "--data", str(data), "--out", str(out), *fixed, *more]


def command(count: int, *arguments: str) -> list[str]:
    return job(count, "-m", "lowered_cnn.cli", *arguments)


def left_by(run: Path) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Return what is in the checkpoint and in the metrics of a run, except for times."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return contents(read_state(run / "checkpoint.safetensors")), [
        {**json.loads(line), "images_per_second": None} for line in lines
    ]


@pytest.fixture(scope="module")
def whole(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train in one process, without a stop."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main(options(few_digits, run)) == 0
    return run


@contextmanager
def amid_training(count: int, data: Path, run: Path, *more: str) -> "Iterator[subprocess.Popen[str]]":
    """Start a job, and wait until it has taken some steps."""
    with program(command(count, *options(data, run, *more))) as process:
        metrics = run / "metrics.jsonl"
        assert eventually(lambda: metrics.exists() and metrics.read_text().count("\n") > 12)
        assert process.poll() is None
        yield process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_launcher_stops_the_job_in_order(
    number: signal.Signals, few_digits: Path, tmp_path: Path, whole: Path
) -> None:
    run = tmp_path / "run"
    with amid_training(3, few_digits, run) as process:
        process.send_signal(number)
        _, told = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + number
    step = read_state(run / "checkpoint.safetensors").step
    assert f"stopped by {number.name} after step {step}; go on with --resume {run}\n" in told
    assert len((run / "metrics.jsonl").read_text().splitlines()) == step
    done = ended(command(2, "train", "--resume", str(run), "--no-report"))
    assert done.returncode == 0
    assert done.stdout.startswith("test accuracy ")
    assert left_by(run) == left_by(whole)
    again = ended(command(2, "train", "--resume", str(run), "--no-report"))
    assert again.returncode == 0
    assert f"{run} finished with epoch {EPOCHS} of {EPOCHS}; it is tested again\n" in again.stderr
    assert left_by(run) == left_by(whole)


@pytest.mark.parametrize("number", [0, 2])
def test_a_killed_rank_ends_the_training_which_goes_on_from_its_checkpoint(
    number: int, few_digits: Path, tmp_path: Path, whole: Path
) -> None:
    run = tmp_path / "run"
    with amid_training(3, few_digits, run, "--checkpoint-every", "7") as process:
        processes = [rank_with(str(run), rank) for rank in range(3)]
        os.kill(processes[number], signal.SIGKILL)
        told, _ = process.communicate(timeout=SECONDS)
    assert process.returncode != 0
    assert "Killed (signal 9)" in told
    assert eventually(lambda: not any(map(alive, processes)))
    assert read_state(run / "checkpoint.safetensors").step in range(7, 5 * EPOCHS, 7)
    assert main(["train", "--resume", str(run)]) == 0
    assert left_by(run) == left_by(whole)


@pytest.mark.parametrize("first", ["nowhere", "digits"])
def test_data_that_a_rank_lacks_end_the_job_before_there_is_a_run(first: str, few_digits: Path, tmp_path: Path) -> None:
    run, nowhere = tmp_path / "run", tmp_path / "nowhere"
    data = {"nowhere": nowhere, "digits": few_digits}[first]
    line = refused(two(options(data, run), options(nowhere, run)))
    what = "expected a folder with four IDX or .npy files, or with one sub-folder of images per class"
    assert line == f"rank {['nowhere', 'digits'].index(first)}: {nowhere}: {what}, got no such folder"
    assert list(tmp_path.iterdir()) == []


def test_other_data_on_a_rank_end_the_job_before_there_is_a_run(few_digits: Path, tmp_path: Path) -> None:
    other = shutil.copytree(few_digits, tmp_path / "other")
    labels = bytearray((other / "train-labels-idx1-ubyte").read_bytes())
    labels[8:] = labels[:7:-1]
    (other / "train-labels-idx1-ubyte").write_bytes(labels)
    line = refused(two(options(few_digits, tmp_path / "run"), options(other, tmp_path / "run")))
    assert line == "rank 0: train: data: expected the same on all 2 ranks, got another on rank 1 than on 0"
    assert list(tmp_path.iterdir()) == [other]


def two(first: list[str], second: list[str]) -> list[str]:
    """Return a job of two ranks with different arguments."""
    return [*command(1, *first), ":", *command(1, *second)[1:]]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--out", "{taken}"], "--out: expected a new or empty folder, got {taken}"),
        (
            ["--resume", "{taken}"],
            "RUN: expected a folder written by lowered-cnn train, got {taken} without",
        ),
        (["--out", "/proc/run"], "/proc/run: expected a readable or writable file, got No such file or directory"),
        (["--data", "{data}", "--learning-rate", "1e30", "--out", "{run}"], "loss at step 2: expected a finite number"),
    ],
)
def test_an_error_ends_the_job_with_one_line(arguments: list[str], line: str, few_digits: Path, tmp_path: Path) -> None:
    names = {"taken": str(few_digits), "data": str(few_digits), "run": str(tmp_path / "run")}
    told = refused(command(2, "train", *(argument.format(**names) for argument in arguments)))
    assert told.startswith(f"rank 0: {line.format(**names)}")


CERTIFICATE = """
import os, sys
from lowered_cnn import verify
from lowered_cnn.cli import main

class Certificate:
    passed = os.environ["PMI_RANK"] != "1"
    __str__ = lambda self: f"passed: {self.passed}"

verify.verify_forms = lambda *_, **__: Certificate()
sys.exit(main(sys.argv[1:]))
"""


def test_a_network_that_one_rank_finds_wrong_is_trained_by_none(few_digits: Path, tmp_path: Path) -> None:
    done = ended(job(3, "-c", CERTIFICATE, *options(few_digits, tmp_path / "run", "--verify")))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "passed: False\n")
    assert list(tmp_path.iterdir()) == []
