"""What befalls a training - killed, stopped, interrupted, out of room, damaged - as a user or the system does it."""

import errno
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import SECONDS, alive, eventually, program, stat, workers_in_group, workers_of
from running import noisy_network

import soak
from lowered_cnn import Constant, Dataset, Recipe, Training, train
from lowered_cnn.cli import main, stopping
from lowered_cnn.cli.stopping import Stopping
from lowered_cnn.storage import read_checked, read_tensors, write_checked
from lowered_cnn.training import processes
from lowered_cnn.training.checkpoint import read_state

CLI = [sys.executable, "-m", "lowered_cnn.cli"]
OPTIONS = ["--model", "lenet5", "--epochs", "6", "--batch-size", "32", "--checkpoint-every", "1", "--no-report"]
STEPS = 6 * 18
FILES = {".lock", "checkpoint.safetensors", "config.json", "metrics.jsonl", "model.safetensors"}

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and mount of Linux")


def begin(data: Path, run: Path, workers: int = 2) -> list[str]:
    return [*CLI, "train", "--data", str(data), "--out", str(run), "--workers", str(workers), *OPTIONS]


def go_on(run: Path, workers: int = 2) -> list[str]:
    return [*CLI, "train", "--resume", str(run), "--workers", str(workers), "--checkpoint-every", "1", "--no-report"]


def steps_of(run: Path) -> int:
    """Return how many steps the metrics tell of."""
    with suppress(OSError):
        return (run / "metrics.jsonl").read_bytes().count(b"\n")
    return 0


def metrics(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "images_per_second"} for record in records]


def outcome(run: Path) -> tuple[Any, ...]:
    """Return what must be the same however a run came to its end."""
    tensors = {name: tensor.tobytes() for name, tensor in read_tensors(run / "checkpoint.safetensors")[1].items()}
    return (run / "model.safetensors").read_bytes(), tensors, metrics(run), {path.name for path in run.iterdir()}


def complete(run: Path) -> None:
    """Resume a run to its end."""
    done = subprocess.run(go_on(run, workers=1), capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr


def result(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for a program; return its exit code and its last line."""
    _, errors = process.communicate(timeout=SECONDS)
    assert "Traceback" not in errors
    return process.returncode, (errors.splitlines() or [""])[-1]


def await_step(run: Path, process: "subprocess.Popen[str]") -> None:
    """Wait until the run has taken another step than those that the metrics tell of, or has ended."""
    before = steps_of(run)
    assert eventually(lambda: steps_of(run) != before or process.poll() is not None)


def await_end_of_workers(process: "subprocess.Popen[str]") -> None:
    assert eventually(lambda: workers_in_group(process.pid) == [])


@pytest.fixture(scope="module")
def undisturbed(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main(begin(few_digits, run, workers=1)[3:]) == 0
    return outcome(run)


@pytest.fixture
def stopped(few_digits: Path, tmp_path: Path) -> Path:
    """Start a run, and stop it by SIGTERM when some steps have been taken."""
    run = tmp_path / "stopped"
    with program(begin(few_digits, run, workers=1)) as process:
        assert eventually(lambda: steps_of(run) > 2)
        process.terminate()
        assert result(process)[0] == 128 + signal.SIGTERM
    return run


# --- killed ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@linux
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(
    few_digits: Path, tmp_path: Path, undisturbed: tuple[Any, ...]
) -> None:
    """25 times: by the clock, start-up included, or amid steps, each with a checkpoint; all of it, or the parent."""
    rng = np.random.default_rng(0)
    number, run = 0, tmp_path / "0"
    for kill in range(25):
        workers, delay = 1 + kill % 2, rng.uniform(0, 1.0) if kill % 3 == 0 else rng.uniform(0, 0.05)
        command = go_on(run, workers) if (run / "config.json").exists() else begin(few_digits, run, workers)
        with program(command) as process:
            if kill % 3:
                await_step(run, process)
            time.sleep(delay)
            if process.poll() is None and kill % 5:
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            assert process.wait() in (0, -signal.SIGKILL)
            await_end_of_workers(process)
        if process.returncode == 0:
            assert outcome(run) == undisturbed
            number += 1
            run = tmp_path / str(number)
    if (run / "config.json").exists():
        complete(run)
        assert outcome(run) == undisturbed
    assert number or run.exists()


@pytest.mark.slow
@linux
def test_a_worker_that_is_killed_ends_the_run_with_one_line_and_it_can_be_resumed(
    few_digits: Path, tmp_path: Path, undisturbed: tuple[Any, ...]
) -> None:
    run = tmp_path / "run"
    with program(begin(few_digits, run, workers=2)) as process:
        assert eventually(lambda: steps_of(run) > 2)
        os.kill(workers_of(process.pid)[0], signal.SIGKILL)
        told = "worker: expected to run to the end, got lowered_cnn worker 1 was killed by SIGKILL"
        assert result(process) == (2, f"lowered-cnn train: {told}")
        assert workers_in_group(process.pid) == []
    assert {path.name for path in run.iterdir()} == FILES - {"model.safetensors"}
    complete(run)
    assert outcome(run) == undisturbed


SHAPE = (1, 8, 8)
RECIPE = Recipe(epochs=4, batch_size=100, schedule=Constant())


def noise() -> Dataset:
    rng = np.random.default_rng(0)
    return Dataset(rng.integers(0, 256, (200, *SHAPE), dtype=np.uint8), rng.integers(0, 10, 200), tuple("0123456789"))


def weights(workers: int) -> bytes:
    network = noisy_network(SHAPE)
    list(train(network, noise(), RECIPE, workers=workers))
    return network.parameters.vector.tobytes()


def test_a_worker_that_cannot_be_started_is_told_of(
    few_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a user has all the processes that the system lets him have."""

    def refuse(*arguments: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("multiprocessing.util.spawnv_passfds", refuse)
    run = tmp_path / "run"
    assert main(begin(few_digits, run)[3:]) == 2
    got = f"lowered_cnn worker 1 could not be started: {os.strerror(errno.EAGAIN)}"
    assert capsys.readouterr().err == f"lowered-cnn train: worker: expected to run to the end, got {got}\n"
    assert not run.exists()


@linux
def test_a_worker_that_is_stopped_is_told_of_and_goes_on_when_it_may(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = noisy_network(SHAPE)
    training = Training(network, noise(), RECIPE, workers=2)
    next(training)
    [worker] = workers_of(os.getpid())
    os.kill(worker, signal.SIGSTOP)
    assert eventually(lambda: stat(worker)[0] == "T")
    monkeypatch.setattr(processes, "SILENCE", 0.05)

    def let_go_on() -> None:
        eventually(lambda: len(caplog.messages) >= 2)
        os.kill(worker, signal.SIGCONT)

    helper = threading.Thread(target=let_go_on)
    helper.start()
    list(training)
    helper.join()
    told = rf"train: lowered_cnn worker 1 \(process {worker}\) has not answered for 0 s"
    assert len(caplog.messages) >= 2
    assert all(re.fullmatch(rf"{told}; it is stopped, .* -CONT {worker} .*", line) for line in caplog.messages[:2])
    assert caplog.record_tuples[0][:2] == ("lowered_cnn", logging.WARNING)
    assert network.parameters.vector.tobytes() == weights(1)


# --- asked to stop ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@linux
def test_every_signal_stops_a_run_in_order_and_resumed_it_ends_with_the_same_bits(
    few_digits: Path, tmp_path: Path, undisturbed: tuple[Any, ...]
) -> None:
    """Sent to the process alone, as by `kill`, and to its whole group, as by a terminal."""
    run = tmp_path / "run"
    command = begin(few_digits, run)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for send in (os.kill, os.killpg):
            with program(command) as process:
                before = steps_of(run)
                await_step(run, process)
                send(process.pid, number)
                code, line = result(process)
                assert workers_in_group(process.pid) == []
            step = read_state(run / "checkpoint.safetensors").step
            told = f"lowered-cnn train: stopped by {number.name} after step {step}; go on with --resume {run}"
            assert (code, line) == (128 + number, told)
            assert before < step == steps_of(run) < STEPS
            command = go_on(run)
    complete(run)
    assert outcome(run) == undisturbed


@pytest.mark.slow
@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once_amid_a_step(number: signal.Signals, few_digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--model", "deep", "--batch-size", "600", "--workers", "2", "--out", str(run)]
    with program([*CLI, "train", "--data", str(few_digits), *options]) as process:
        assert eventually(lambda: workers_of(process.pid) != [])
        workers = workers_of(process.pid)
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)  # so that the step does not end before the second signal
        os.kill(process.pid, number)
        time.sleep(2 * stopping.ECHO)
        os.kill(process.pid, number)
        assert process.wait(timeout=SECONDS) == 128 + number
        for worker in filter(alive, workers):
            os.kill(worker, signal.SIGCONT)
        assert process.communicate(timeout=SECONDS)[1] == "\n"
        assert eventually(lambda: not any(map(alive, workers)))
    assert steps_of(run) == 0


def test_an_echo_of_a_signal_is_no_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with Stopping() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.signal, ended) == (signal.SIGTERM, [])
        monkeypatch.setattr(stopping, "ECHO", 0)
        os.kill(os.getpid(), signal.SIGINT)
        assert (stop.signal, ended) == (signal.SIGTERM, [128 + signal.SIGINT])


@pytest.mark.slow
@linux
def test_a_run_that_ignores_hangups_is_not_stopped_by_one(
    few_digits: Path, tmp_path: Path, undisturbed: tuple[Any, ...]
) -> None:
    run = tmp_path / "run"
    with program(["nohup", *begin(few_digits, run)]) as process:
        assert eventually(lambda: steps_of(run) > 2)
        os.killpg(process.pid, signal.SIGHUP)
        assert result(process)[0] == 0
    assert outcome(run) == undisturbed


def await_import_of_numpy(process: "subprocess.Popen[str]") -> None:
    maps = Path(f"/proc/{process.pid}/maps")
    assert eventually(lambda: "_multiarray_umath" in maps.read_text())


@pytest.mark.slow
@linux
@pytest.mark.parametrize("command", [CLI, [str(Path(sys.executable).parent / "lowered-cnn")]], ids=["module", "script"])
def test_ctrl_c_while_the_command_is_imported_ends_it_without_a_traceback(
    command: list[str], few_digits: Path, tmp_path: Path
) -> None:
    for delay in (0, 0.02, 0.05, 0.1, 0.2):
        run = tmp_path / str(delay)
        options = ["train", "--data", str(few_digits), "--epochs", "1000", "--workers", "1", "--out", str(run)]
        with program([*command, *options]) as process:
            await_import_of_numpy(process)
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 130, errors
        assert errors.count("\n") <= 1


# --- no room ---------------------------------------------------------------------------------------------------------


@contextmanager
def disk(folder: Path, size: str, options: str = "rw") -> Iterator[Path]:
    """Mount a small file system, where that is allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},{options}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def pause_between_writes(process: "subprocess.Popen[str]", run: Path) -> None:
    """Stop a run while it is not writing a checkpoint, which would give back room when it is done."""
    while True:
        process.send_signal(signal.SIGSTOP)
        assert eventually(lambda: stat(process.pid)[0] == "T")
        if not list(run.glob(".*.part")):
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.001)


@pytest.mark.slow
@linux
def test_a_disk_that_fills_up_leaves_the_last_checkpoint(
    few_digits: Path, tmp_path: Path, undisturbed: tuple[Any, ...]
) -> None:
    with disk(tmp_path / "disk", "3m") as folder:
        run, ballast = folder / "run", folder / "ballast"
        with program(begin(few_digits, run, workers=1)) as process:
            assert eventually(lambda: steps_of(run) > 2)
            pause_between_writes(process, run)
            fill(ballast)
            process.send_signal(signal.SIGCONT)
            _, errors = process.communicate(timeout=SECONDS)
        full = "got No space left on device"
        told = [
            f"{run}/checkpoint.safetensors: expected room for a checkpoint, {full}; training goes on without one",
            f"{run}/metrics.jsonl: expected room for a line, {full}; training goes on without",
        ]
        lines = [line.removeprefix("lowered-cnn train: ") for line in errors.splitlines() if "epoch " not in line]
        assert sorted(lines[:-1]) == told
        assert lines[-1] == f"{run}/model.safetensors: expected a readable or writable file, {full}"
        assert process.returncode == 2
        assert {path.name for path in run.iterdir()} == FILES - {"model.safetensors"}
        ballast.unlink()
        complete(run)
        assert outcome(run) == undisturbed


def limited(kilobytes: int, command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command that may write files of that size only."""
    shell = ["bash", "-c", f"ulimit -f {kilobytes}; exec {shlex.join(command)}"]
    return subprocess.run(shell, capture_output=True, text=True, timeout=SECONDS)


@pytest.mark.slow
def test_files_that_must_not_grow_leave_the_last_checkpoint(stopped: Path, undisturbed: tuple[Any, ...]) -> None:
    before = (stopped / "checkpoint.safetensors").read_bytes()
    done = limited(10, go_on(stopped, workers=1))
    for name in ("checkpoint.safetensors: expected room for a checkpoint", "metrics.jsonl: expected room for a line"):
        assert done.stderr.count(f"{stopped}/{name}, got File too large; training goes on without") == 1
    wanted = f"{stopped}/model.safetensors: expected a readable or writable file, got File too large"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"lowered-cnn train: {wanted}")
    assert (stopped / "checkpoint.safetensors").read_bytes() == before
    complete(stopped)
    assert outcome(stopped) == undisturbed


@pytest.mark.slow
def test_a_training_that_cannot_start_leaves_nothing_in_the_way(few_digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for size, workers, told in (
        (100, 1, rf"{run}/checkpoint.safetensors: expected a readable or writable file, got File too large"),
        (600, 2, r"train: workers: expected room for [\d,]+ bytes in /\S+, got .* written"),
    ):
        done = limited(size, begin(few_digits, run, workers))
        assert done.returncode == 2
        assert re.fullmatch(f"lowered-cnn train: {told}\n", done.stderr), done.stderr
        assert not run.exists()
    assert main(begin(few_digits, run, workers=1)[3:]) == 0


@linux
def test_a_folder_that_cannot_be_written_is_refused(
    few_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with disk(tmp_path / "disk", "1m", "ro") as folder:
        assert main(begin(few_digits, folder / "run")[3:]) == 2
        told = f"--out: expected a writable folder, got {folder / 'run'} in {folder}"
        assert capsys.readouterr().err == f"lowered-cnn train: {told}\n"


# --- a loss that is no number ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_run_that_diverges_keeps_the_checkpoint_before(
    workers: str, few_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    diverging = ["--model", "lenet5", "--learning-rate", "1e6", "--schedule", "constant"]
    options = [*diverging, "--checkpoint-every", "1", "--workers", workers]
    assert main(["train", "--data", str(few_digits), *options, "--out", str(run)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    wanted = r"lowered-cnn train: loss at step (\d+): expected a finite number \(try a lower learning rate\), got "
    found = re.fullmatch(wanted + r"(?:nan|inf), first in the (?:loss|output of \w+)", line)
    assert found, line
    state = read_state(run / "checkpoint.safetensors")
    assert state.step == int(found[1]) - 1 == steps_of(run)
    assert np.isfinite(state.parameters).all()
    assert main(go_on(run)[3:]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == line


# --- one folder, several runs ----------------------------------------------------------------------------------------


@pytest.mark.slow
@linux
def test_a_folder_is_trained_in_by_one_run_at_a_time(
    few_digits: Path, tmp_path: Path, undisturbed: tuple[Any, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with program(begin(few_digits, run)) as process:
        assert eventually(lambda: steps_of(run) > 2)
        os.killpg(process.pid, signal.SIGSTOP)  # it takes its time
        for command, told in (
            (begin(few_digits, run), f"--out: expected a new or empty folder, got {run}"),
            (go_on(run), f"RUN: expected a folder that nothing is training in, got {run} in use"),
        ):
            assert main(command[3:]) == 2
            assert capsys.readouterr().err == f"lowered-cnn train: {told}\n"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    complete(run)
    assert outcome(run) == undisturbed


@pytest.mark.slow
def test_runs_that_start_at_once_get_folders_of_their_own(few_digits: Path, tmp_path: Path) -> None:
    command = [*CLI, "train", "--data", str(few_digits), "--epochs", "1", "--workers", "1", "--no-report"]
    started = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    saved = [process.communicate(timeout=SECONDS)[0].split()[-1] for process in started]
    assert sorted(saved) == ["runs/1", "runs/2", "runs/3"]
    assert len({(tmp_path / run / "model.safetensors").read_bytes() for run in saved}) == 1


# --- damaged files ---------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def renew(path: Path) -> None:
    header, tensors = read_checked(path)
    write_checked(path, {**header, "format": 99}, tensors)


@pytest.fixture(scope="module")
def halted(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for an epoch of two, as if stopped there."""
    run = tmp_path_factory.mktemp("halted") / "run"
    assert main([*begin(few_digits, run, workers=1)[3:], "--epochs", "1", "--schedule", "constant"]) == 0
    (run / "model.safetensors").unlink()
    return run


def resumed(run: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Resume for another epoch; return what is told, without the epochs' lines."""
    code = main([*go_on(run, workers=1)[3:], "--epochs", "2"])
    lines = [line for line in capsys.readouterr().err.splitlines() if "epoch" not in line]
    assert code == (2 if lines else 0)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (flip, r"expected the checksum \w+, got \w+: the file is damaged"),
        (cut, "expected a safetensors file, got .*"),
        (renew, "expected format 1, or a newer lowered_cnn to read it, got format 99"),
        (lambda path: path.write_bytes(b""), "expected a safetensors file, got .*"),
    ],
    ids=["flipped", "cut", "newer", "empty"],
)
def test_a_damaged_checkpoint_is_told_of(
    damage: Callable[[Path], object], told: str, halted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(halted, tmp_path / "run")
    damage(run / "checkpoint.safetensors")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert re.fullmatch(f"lowered-cnn train: {run}/checkpoint.safetensors: {told}", resumed(run, capsys))
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ((".*", "{"), "config.json: expected JSON, got "),
        (("^.*$", "[]"), "config.json: expected the settings of a run, got no list of classes"),
        (
            ('"dev_size": 50', '"dev_size": 60'),
            "training: data: expected the same inputs, targets and classes as before",
        ),
        (('"dev_size"', '"dev"'), "config.json: dev_size: expected a whole number of at least 0, got None"),
        (('"seed": 0', '"seed": 1'), "training: data: expected the same inputs, targets and classes as before"),
        (('"data": "[^"]*"', '"data": "gone"'), "gone: expected a folder with four IDX or .npy files"),
    ],
)
def test_settings_that_are_damaged_or_of_another_run_are_told_of(
    change: tuple[str, str], told: str, halted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(halted, tmp_path / "run")
    config = run / "config.json"
    config.write_text(re.sub(*change, config.read_text(), count=1, flags=re.DOTALL))
    line = resumed(run, capsys)
    assert told in line
    assert line.count("\n") == 0


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda lines: lines[:5], [1, 2, 3, 4, 5]),
        (lambda lines: [*lines[:5], lines[5][:40]], [1, 2, 3, 4, 5]),
        (lambda lines: [*lines, lines[-1].replace(b'"step": 18', b'"step": 19'), b"\xff\n"], list(range(1, 19))),
        (lambda lines: lines[:5] + lines[10:], [1, 2, 3, 4, 5, *range(11, 19)]),
        (lambda lines: [], []),
    ],
    ids=["short", "torn", "ahead", "gap", "empty"],
)
def test_metrics_go_on_behind_the_step_of_the_checkpoint(
    damage: Callable[[list[bytes]], list[bytes]],
    kept: list[int],
    halted: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = shutil.copytree(halted, tmp_path / "run")
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join(damage(lines)))
    assert resumed(run, capsys) == ""
    assert [record["step"] for record in metrics(run)] == [*kept, *range(19, 37)]


# --- wherever it is called from --------------------------------------------------------------------------------------

COMMON = """
import multiprocessing, os, sys, threading
import numpy as np
from lowered_cnn import Dataset, Dense, Flatten, Network, Recipe, Sequential, SoftmaxCrossEntropy, Training, train

def begin(workers, loss=SoftmaxCrossEntropy()):
    data = Dataset(np.arange(200 * 16, dtype=np.uint8).reshape(200, 1, 4, 4), np.arange(200) % 3, ("a", "b", "c"))
    network = Network(Sequential(Flatten(), Dense(3)), (1, 4, 4))
    return Training(network, data, Recipe(2, 100, loss=loss), workers=workers)

def weights(workers):
    with begin(workers) as training:
        list(training)
    return training.network.parameters.vector.tobytes()
"""


def runs(program: str, tmp_path: Path, *command: str) -> str:
    """Run a program, in a file unless there is a command that reads it; return what it prints."""
    (tmp_path / "common.py").write_text(COMMON)
    (tmp_path / "program.py").write_text(program)
    arguments, stdin = (command, program) if command else (("program.py",), "")
    python = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(python, input=stdin, capture_output=True, text=True, cwd=tmp_path, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.slow
def test_trainings_run_in_threads_and_in_the_processes_of_joblib(tmp_path: Path) -> None:
    program = """
from common import *
from joblib import Parallel, delayed

if __name__ == "__main__":
    found = []
    thread = threading.Thread(target=lambda: found.append(weights(2)))
    thread.start()
    thread.join()
    found += Parallel(n_jobs=2)(delayed(weights)(2) for _ in range(2))
    print([each == weights(1) for each in found])
"""
    assert runs(program, tmp_path) == "[True, True, True]\n"


@pytest.mark.slow
def test_a_daemonic_process_is_told_to_train_alone(tmp_path: Path) -> None:
    program = """
from common import *

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(weights, [1]) == [weights(1)])
        try:
            pool.map(weights, [2])
        except ValueError as error:
            print(error)
"""
    told = "1 in a daemonic process, such as those of multiprocessing.Pool, which may have no children"
    assert runs(program, tmp_path) == f"True\ntrain: workers: expected {told}, got 2\n"


@pytest.mark.slow
def test_an_interactive_session_trains_and_is_told_where_its_classes_belong(tmp_path: Path) -> None:
    program = """
from common import *
class Own(SoftmaxCrossEntropy):
    pass

weights(2) == weights(1)
len(list(begin(1, Own())))
try:
    next(begin(2, Own()))
except ValueError as error:
    print(error)

"""
    wanted = "layers, loss and optimizer from modules in files, which each worker imports (or workers=1)"
    told = f"train: workers: expected {wanted}, got a class that is in no file"
    assert runs(program, tmp_path, "-i") == f"True\n4\n{told}\n"


@pytest.mark.slow
def test_a_fork_of_a_program_that_trains_leaves_its_workers_alone(tmp_path: Path) -> None:
    program = """
from common import *

if __name__ == "__main__":
    training = begin(3)
    next(training)
    for use in (lambda: None, training.close, lambda: next(training)):
        child = os.fork()
        if not child:
            try:
                use()
            except ValueError as error:
                print(error, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
    list(training)
    print(training.network.parameters.vector.tobytes() == weights(1))
"""
    wanted = "the process that started its workers (save a checkpoint, and resume it here)"
    assert runs(program, tmp_path) == f"training: expected {wanted}, got a fork of it\nTrue\n"


@pytest.mark.slow
def test_nothing_is_left_of_a_training_that_is_dropped() -> None:
    """By a break, an exception, or because nobody refers to it any more."""
    for _ in train(noisy_network(SHAPE), noise(), RECIPE, workers=2):
        break
    assert workers_of(os.getpid()) == []
    with suppress(ZeroDivisionError), Training(noisy_network(SHAPE), noise(), RECIPE, workers=2) as training:
        next(training)
        raise ZeroDivisionError
    assert workers_of(os.getpid()) == []
    training = Training(noisy_network(SHAPE), noise(), RECIPE, workers=2)
    next(training)
    del training
    assert workers_of(os.getpid()) == []


@linux
def test_a_short_soak_holds_no_more_than_at_its_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.soak(minutes=0.02) == 0
    assert capsys.readouterr().out.startswith("minutes   rounds   MiB   files   children   mappings\n")
