"""Workers: the same bits for any number of them, and real processes that come, fail and go as they should."""

import itertools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from programs import SECONDS, alive, eventually, program, stat, workers_in_group, workers_of
from running import noisy_network
from threadpoolctl import threadpool_info

from lowered_cnn import (
    SGD,
    Adam,
    Augmentation,
    BatchNorm,
    Constant,
    Conv2D,
    Dataset,
    Dense,
    Dropout,
    Flatten,
    InputError,
    Network,
    Recipe,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    evaluate,
    train,
)
from lowered_cnn.arrays import Array, Targets
from lowered_cnn.cores import BUFFER
from lowered_cnn.losses import Loss
from lowered_cnn.optimizers import Optimizer
from lowered_cnn.training import shared
from lowered_cnn.training.reduction import deal

SHAPE = (1, 8, 8)
OPTIMIZERS = [SGD(0.05, momentum=0.9, l2=1e-3), SGD(0.05, momentum=0.9, nesterov=True), Adam(0.01, l2=1e-3)]
CROSS_ENTROPY = SoftmaxCrossEntropy()


def noise(count: int = 200) -> Dataset:
    """Draw noise with labels; of 200, a batch of 136 has five shards, the first the longest, and the last one two."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    return Dataset(images, rng.integers(0, 10, count), tuple("0123456789"))


def recipe(optimizer: Optimizer = OPTIMIZERS[0], loss: Loss = CROSS_ENTROPY) -> Recipe:
    return Recipe(epochs=2, batch_size=136, shard_size=32, optimizer=optimizer, schedule=Constant(), loss=loss)


@pytest.fixture(autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    yield
    assert workers_of(os.getpid()) == []


# --- the same bits ---------------------------------------------------------------------------------------------------


def outcome(
    optimizer: Optimizer, dtype: type[np.floating], workers: int
) -> tuple[list[tuple[float, float | None]], bytes]:
    """Train, and return the records' losses and accuracies, and the bytes of the weights."""
    network = noisy_network(SHAPE, dtype=dtype)
    records = list(train(network, noise(), recipe(optimizer), workers=workers))
    return [(record.loss, record.train_accuracy) for record in records], network.parameters.vector.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_bits_do_not_depend_on_the_number_of_workers(optimizer: Optimizer) -> None:
    alone = outcome(optimizer, np.float32, 1)
    assert len(alone[0]) == 4
    for workers in (2, 3, 4):
        assert outcome(optimizer, np.float32, workers) == alone


def test_bits_do_not_depend_on_the_number_of_workers_in_float64() -> None:
    assert outcome(OPTIMIZERS[0], np.float64, 3) == outcome(OPTIMIZERS[0], np.float64, 1)


def test_bits_do_not_depend_on_the_number_of_workers_with_everything() -> None:
    """Statistics, augmentation that fades, clipping and averaging; the vector is cut amid the statistics, too."""
    model = Sequential(Conv2D(4, 3, bias=False), BatchNorm(), ReLU(), Dropout(0.25), Flatten(), BatchNorm(), Dense(10))
    everything = replace(
        recipe(), augmentation=Augmentation(shift=1, elastic=0.5, flip=True), fade=1.0, clip_norm=0.01, average=0.9
    )

    def weights(workers: int) -> bytes:
        network = Network(model, SHAPE)
        list(train(network, noise(), everything, workers=workers))
        return network.parameters.vector.tobytes()

    alone = weights(1)
    for workers in (2, 3, 4):
        assert weights(workers) == alone


def test_workers_add_the_shards_in_the_order_of_the_tree() -> None:
    def sum_of(shards: range) -> str:
        middle = (len(shards) + 1) // 2
        return str(shards[0]) if len(shards) == 1 else f"({sum_of(shards[:middle])} + {sum_of(shards[middle:])})"

    assert sum_of(range(5)) == "(((0 + 1) + 2) + (3 + 4))"
    for count, workers in itertools.product(range(1, 20), range(1, 9)):
        dealt = deal(range(count), range(workers))
        sums = {worker: sum_of(shards) for worker, shards in dealt.shards.items()}
        for into, other in dealt.sums:
            sums[into] = f"({sums[into]} + {sums.pop(other)})"
        assert sums == {0: sum_of(range(count))}
        assert len(dealt.shards) <= min(count, workers)


def test_workers_get_fair_shares() -> None:
    assert [len(shards) for shards in deal(range(8), range(4)).shards.values()] == [2, 2, 2, 2]
    assert [len(shards) for shards in deal(range(3), range(3)).shards.values()] == [1, 1, 1]


# --- the caller between two steps ------------------------------------------------------------------------------------


def weights_of_each_step(workers: int) -> Iterator[bytes]:
    """Yield the weights after each step, at which the caller evaluates the network and then changes it."""
    network, data = noisy_network(SHAPE), noise()
    weight = network.parameters["dense1.weight"]
    for _ in train(network, data, recipe(), workers=workers):
        assert weight is network.parameters["dense1.weight"]
        yield network.parameters.vector.tobytes() + str(evaluate(network, data)).encode()
        weight *= 0.5


def test_between_two_steps_the_network_is_the_callers() -> None:
    alone = list(weights_of_each_step(1))
    assert len(set(alone)) == 4
    assert list(weights_of_each_step(2)) == alone


def test_a_training_that_is_stopped_leaves_the_weights_of_its_last_step() -> None:
    weights = []
    for workers in (1, 2):
        network = noisy_network(SHAPE)
        records = train(network, noise(), recipe(), workers=workers)
        list(itertools.islice(records, 2))
        records.close()
        weights.append(network.parameters.vector.tobytes())
    assert weights[0] == weights[1]


# --- how many --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "started"), [(1, 0), (2, 1), (3, 2), (10**9, 4)])
def test_no_more_workers_are_started_than_a_batch_has_shards(workers: int, started: int) -> None:
    records = train(noisy_network(SHAPE), noise(), recipe(), workers=workers)
    assert workers_of(os.getpid()) == []
    next(records)
    assert len(workers_of(os.getpid())) == started
    records.close()
    assert workers_of(os.getpid()) == []


def test_a_batch_has_no_more_shards_than_the_data() -> None:
    records = train(noisy_network(SHAPE), noise(60), Recipe(batch_size=10**9, epochs=2, shard_size=32), workers=3)
    next(records)
    assert len(workers_of(os.getpid())) == 1
    records.close()


@pytest.mark.slow
def test_children_use_no_core_while_the_caller_pauses() -> None:
    records = train(noisy_network(SHAPE), noise(), recipe(), workers=3)
    next(records)
    time.sleep(0.2)
    before = [cpu_seconds(child) for child in workers_of(os.getpid())]
    time.sleep(1)
    after = [cpu_seconds(child) for child in workers_of(os.getpid())]
    assert len(before) == 2
    assert max(b - a for a, b in zip(before, after, strict=True)) < 0.2
    records.close()


def cpu_seconds(process: int) -> float:
    return sum(map(int, stat(process)[11:13])) / os.sysconf("SC_CLK_TCK")


# --- what goes wrong in a child --------------------------------------------------------------------------------------


class InChild(Loss):
    """Softmax cross-entropy that lets something happen in children."""

    def value_and_gradient(self, z: Array, targets: Targets, m: float, weights: Any = None) -> tuple[float, Array]:
        if multiprocessing.parent_process() is not None:
            self.happens()
        return SoftmaxCrossEntropy().value_and_gradient(z, targets, m)

    def happens(self) -> None:
        """Happen."""


class OutOfMemory(InChild):
    def happens(self) -> None:
        raise MemoryError("no more")


class OddError(Exception):
    """An exception that pickle can write, and cannot read."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class RaisesOdd(InChild):
    def happens(self) -> None:
        raise OddError(1, 2)


class Overflow(InChild):
    def happens(self) -> None:
        np.float32(1e38) * np.float32(10)


class TellsThreads(InChild):
    def happens(self) -> None:
        raise InputError("child: BLAS threads", 1, [library["num_threads"] for library in threadpool_info()])


class TellsBuffer(InChild):
    def happens(self) -> None:
        raise InputError("child: NumPy's buffer", BUFFER, np.getbufsize())


class Interrupts(InChild):
    def happens(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (OutOfMemory(), MemoryError, "no more"),
        (RaisesOdd(), RuntimeError, "OddError: 1 and 2"),
        (Overflow(), FloatingPointError, "overflow encountered in scalar multiply"),
        (TellsThreads(), InputError, "child: BLAS threads: expected 1, got [1]"),
        (TellsBuffer(), InputError, "child: NumPy's buffer: expected 1024, got 1024"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Loss) else "",
)
def test_what_a_worker_raises_is_raised(loss: Loss, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        list(train(noisy_network(SHAPE), noise(), recipe(loss=loss), workers=3))
    assert str(caught.value) == message
    [note] = caught.value.__notes__
    assert re.fullmatch(r"raised in worker [12], at line \d+ of .*test_workers.py", note)


def test_the_callers_errstate_holds_in_the_workers() -> None:
    with np.errstate(over="ignore"):
        assert len(list(train(noisy_network(SHAPE), noise(), recipe(loss=Overflow()), workers=2))) == 4


def test_workers_do_not_hear_interrupts() -> None:
    try:
        assert len(list(train(noisy_network(SHAPE), noise(), recipe(loss=Interrupts()), workers=3))) == 4
    except KeyboardInterrupt:
        pytest.fail("a worker was interrupted")


def test_what_the_caller_raises_ends_the_workers() -> None:
    def fail() -> None:
        for _ in train(noisy_network(SHAPE), noise(), recipe(), workers=2):
            assert len(workers_of(os.getpid())) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert workers_of(os.getpid()) == []


class KillsItself(InChild):
    def happens(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


KILLED = r"^train: lowered_cnn worker [12] was killed by SIGKILL$"


def test_a_worker_that_is_killed_while_it_computes_is_told_of() -> None:
    with pytest.raises(ChildProcessError, match=KILLED):
        next(train(noisy_network(SHAPE), noise(), recipe(loss=KillsItself()), workers=3))


def test_a_worker_that_is_killed_between_two_steps_is_told_of() -> None:
    records = train(noisy_network(SHAPE), noise(), recipe(), workers=3)
    next(records)
    os.kill(workers_of(os.getpid())[1], signal.SIGKILL)
    with pytest.raises(ChildProcessError, match=KILLED):
        list(records)


def test_a_worker_that_is_killed_while_it_starts_is_told_of() -> None:
    def kill() -> None:
        assert eventually(lambda: bool(workers_of(os.getpid())))
        os.kill(workers_of(os.getpid())[0], signal.SIGKILL)

    with ThreadPoolExecutor(1) as pool:
        killer = pool.submit(kill)
        with pytest.raises(ChildProcessError, match=KILLED):
            list(train(noisy_network(SHAPE), noise(), recipe(), workers=3))
        killer.result()


def test_what_cannot_be_sent_to_a_worker_is_refused() -> None:
    class Local(SoftmaxCrossEntropy):
        pass

    with pytest.raises(
        InputError, match=r"^train: workers: expected layers, loss and optimizer that can be pickled, got "
    ):
        next(train(noisy_network(SHAPE), noise(), recipe(loss=Local()), workers=2))


# --- shared memory ---------------------------------------------------------------------------------------------------


def missing(folder: str) -> IO[bytes]:
    raise FileNotFoundError(folder)


def full(folder: str) -> IO[bytes]:
    return open("/dev/full", "r+b", buffering=0)


@pytest.mark.parametrize("memory", [missing, full])
def test_without_room_in_memory_files_are_used_and_none_is_left(
    memory: Callable[[str], IO[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def temporary_file(dir: str) -> IO[bytes]:
        made.append(dir)
        return memory(dir) if dir == shared.MEMORY else real(dir=dir)

    real = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", temporary_file)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    network = noisy_network(SHAPE)
    for _ in train(network, noise(), recipe(), workers=2):
        assert list(tmp_path.iterdir()) == []
    assert made == [shared.MEMORY, str(tmp_path)]
    assert network.parameters.vector.tobytes() == outcome(OPTIMIZERS[0], np.float32, 1)[1]


def test_no_room_at_all_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: full(dir))
    with pytest.raises(InputError, match=r"^train: workers: expected room for [\d,]+ bytes in /\S+, got .*$"):
        next(train(noisy_network(SHAPE), noise(), recipe(), workers=2))


def test_shared_memory_has_no_name() -> None:
    records = train(noisy_network(SHAPE), noise(), recipe(), workers=2)
    next(records)
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if f" {shared.MEMORY}/" in line]
    assert mapped
    assert all(line.endswith("(deleted)") for line in mapped)
    records.close()


# --- programs --------------------------------------------------------------------------------------------------------

PROGRAM = """
import os, signal, sys, time
import numpy as np
from lowered_cnn import Dataset, Dense, Flatten, Network, Recipe, Sequential, SoftmaxCrossEntropy, train

class Own(SoftmaxCrossEntropy):
    pass

def main(loss=SoftmaxCrossEntropy(), epochs=2, after=lambda record: None):
    data = Dataset(np.zeros((128, 1, 4, 4), np.uint8), np.zeros(128, np.int64), ("zero",))
    network = Network(Sequential(Flatten(), Dense(1)), (1, 4, 4))
    for record in train(network, data, Recipe(epochs=epochs, batch_size=128, shard_size=32, loss=loss), workers=3):
        after(record)
    print("trained", record.step)

def pause(record):
    if record.step == 2:
        print("paused", flush=True)
        time.sleep(600)

def tell(record):
    if record.step == 2:
        print("running", flush=True)

"""
GUARD = 'if __name__ == "__main__":\n    '


def python(*arguments: str, stdin: str = "", cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=SECONDS, cwd=cwd)


@pytest.mark.slow
def test_programs_of_every_kind_train(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM + GUARD + "main(Own())\n")
    runs = [
        python("program.py", cwd=tmp_path),
        python("-m", "program", cwd=tmp_path),
        python("-c", PROGRAM + "main()"),
        python("-i", stdin="from program import main\nmain()\n", cwd=tmp_path),
    ]
    for run in runs:
        assert run.stdout == "trained 2\n", run.stderr
        assert "Traceback (most recent" not in run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["program.py"], ["-m", "program"]])
def test_a_program_without_a_guard_is_told_to_put_one(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM + "main()\n")
    run = python(*arguments, cwd=tmp_path)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.count("Traceback (most recent") == 1
    assert run.stderr.splitlines()[-1] == (
        "lowered_cnn.arrays.InputError: train: workers: expected a main module that trains only under "
        '`if __name__ == "__main__":`, because each worker imports it, got one that trains on import'
    )


def test_a_program_that_is_piped_in_is_told_to_be_a_file() -> None:
    run = python("-", stdin=PROGRAM + "main()")
    line = "train: workers: expected a program in a file, because each worker imports it, got <stdin>"
    assert run.stderr.splitlines()[-1] == f"lowered_cnn.arrays.InputError: {line}"


def test_a_class_that_workers_cannot_import_is_told_of() -> None:
    """A program that is no file cannot be imported."""
    run = python("-c", PROGRAM + "main(Own())")
    assert run.returncode == 1
    wanted = "layers, loss and optimizer from modules in files, which each worker imports (or workers=1)"
    line = f"train: workers: expected {wanted}, got a class that is in no file"
    assert run.stderr.splitlines()[-1] == f"lowered_cnn.arrays.InputError: {line}"
    assert run.stderr.count("Traceback (most recent") == 1


def test_one_worker_needs_no_multiprocessing() -> None:
    program = PROGRAM.replace("workers=3", "workers=1") + "main()\nprint('multiprocessing' in sys.modules)"
    assert python("-c", program).stdout == "trained 2\nFalse\n"


@contextmanager
def training(folder: Path, source: str) -> "Iterator[subprocess.Popen[str]]":
    """Start the program with these last words, and wait until it has written a line."""
    path = folder / "program.py"
    path.write_text(PROGRAM + GUARD + source)
    with program([sys.executable, path]) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process


between_or_amid_steps = pytest.mark.parametrize(
    "source", ["main(after=pause, epochs=3)", "main(after=tell, epochs=10**9)"]
)


@pytest.mark.slow
@between_or_amid_steps
def test_workers_end_when_their_parent_is_killed(source: str, tmp_path: Path) -> None:
    with training(tmp_path, source) as process:
        workers = workers_of(process.pid)
        assert len(workers) == 2
        process.kill()
        assert eventually(lambda: not any(map(alive, workers)))


@between_or_amid_steps
def test_an_interrupt_ends_all(source: str, tmp_path: Path) -> None:
    with training(tmp_path, source) as process:
        workers = workers_of(process.pid)
        assert len(workers) == 2
        assert_interrupted(process)
        assert not any(map(alive, workers))


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2])
def test_an_interrupt_while_workers_start_ends_all(delay: float, tmp_path: Path) -> None:
    # numpy.random swallows an interrupt that comes while it is imported (Cython's `except: pass`).
    source = 'import numpy.random; print("starting", flush=True); main(epochs=10**9)'
    with training(tmp_path, source) as process:
        time.sleep(delay)
        assert_interrupted(process)
        assert workers_in_group(process.pid) == []


def assert_interrupted(process: "subprocess.Popen[str]") -> None:
    """Press Ctrl-C, which reaches the whole process group, and compare what the program says."""
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=SECONDS)
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert errors.count("Traceback (most recent") == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX")
def test_interrupts_are_tested_in_the_background_jobs_of_a_shell_too() -> None:
    """Such a job is started with SIGINT ignored; see conftest.py."""
    test = f"{__file__}::{test_an_interrupt_ends_all.__name__}[main(after=pause, epochs=3)]"
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    shell = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
    done = subprocess.run([*shell, *pytest_], capture_output=True, text=True, timeout=3 * SECONDS)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
