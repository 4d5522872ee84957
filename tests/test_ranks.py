"""Ranks, in real jobs that mpiexec starts: the bits of one process, agreement, and an end for every fault."""

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from jobs import MPIEXEC, ended, job
from programs import SECONDS, alive, eventually, program

from lowered_cnn import InputError
from lowered_cnn.training.ranks import LAUNCHED, Alone, join_ranks, launched

SUMS = """
import sys
import numpy as np
from lowered_cnn.training.ranks import join_ranks
from lowered_cnn.training.reduction import deal

ranks = join_ranks()
rng = np.random.default_rng(ranks.count)
for case in range(60):
    size, shards = int(rng.choice([0, 1, 2, 3, 1000, 70_000])), int(rng.integers(1, 10))
    dtype = rng.choice([np.float32, np.float64])
    shape = ranks.count, size
    vectors = (rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 6, shape)).astype(dtype)
    mine, sums = vectors[ranks.number].copy(), deal(range(shards), range(ranks.count)).sums
    for into, other in sums:
        vectors[into] += vectors[other]
    ranks.sum(mine, sums)
    assert mine.tobytes() == vectors[0].tobytes(), (case, size, shards, dtype)
    figures = np.array([case, ranks.number], dtype)
    ranks.broadcast(figures)
    assert figures.tolist() == [case, 0]
sys.stdout.write(f"{case + 1} cases\\n")
"""

DISAGREE = """
import sys
from lowered_cnn import InputError
from lowered_cnn.training.ranks import join_ranks

ranks = join_ranks()
ranks.agree("data", "one for all")
try:
    ranks.agree("data", sys.argv[1 + ranks.number])
except InputError as error:
    sys.stdout.write(f"{error}\\n")
"""

ROUND = """
from lowered_cnn.training.machine import probe
from lowered_cnn.training.ranks import join_ranks

ranks = join_ranks()
with ranks.ending():
    ranks.agree("arithmetic", probe())
"""

WAIT = """
import os, sys, time
import numpy as np
from lowered_cnn import InputError
from lowered_cnn.training.ranks import join_ranks

ranks = join_ranks()
with ranks.ending():
    ranks.agree("start", "")
    sys.stdout.write(f"{os.getpid()}\\n")
    sys.stdout.flush()
    for number, fault in enumerate(sys.argv[1:]):
        if fault and ranks.number == number:
            raise {"input": InputError("data", "digits", "letters"), "other": ZeroDivisionError("one in none")}[fault]
    values = np.zeros(10)
    ranks.sum(values, [(0, 1), (0, 2)]) if ranks.number < 2 else time.sleep(1000)
"""

WORKERS = """
import hashlib, sys
from lowered_cnn import Recipe, load_mnist, models, Network, train
from lowered_cnn.training.ranks import join_ranks

if __name__ == "__main__":
    ranks, network = join_ranks(), Network(models.compact(10), (1, 28, 28))
    with ranks.ending():
        data = load_mnist().train.take(range(256))
        for record in train(network, data, Recipe(epochs=1), workers=2):
            pass
        digest = hashlib.sha256(network.parameters.vector).hexdigest()
        ranks.agree("parameters", digest)
        sys.stdout.write(f"{digest}\\n")
"""


def started(process: "subprocess.Popen[str]", count: int) -> list[int]:
    """Return the process numbers of the ranks, once all of them wait."""
    assert process.stdout
    return [int(process.stdout.readline()) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_a_sum_has_the_bits_of_one_process_on_every_rank(count: int) -> None:
    done = ended(job(count, "-c", SUMS))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "60 cases\n" * count


def test_ranks_that_disagree_are_named_by_all() -> None:
    assert ended(job(2, "-c", DISAGREE, "a", "a")).stdout == ""
    line = "data: expected the same on all 4 ranks, got another on ranks 1 and 3 than on 0\n"
    assert ended(job(4, "-c", DISAGREE, "a", "b", "a", "c")).stdout == line * 4


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="the kernels chosen are those of OpenBLAS on x86"
)
def test_a_rank_that_rounds_differently_is_found() -> None:
    rank = [sys.executable, "-c", ROUND]
    assert ended([str(MPIEXEC), "-n", "1", *rank, ":", "-n", "1", *rank]).returncode == 0
    other = ["-n", "1", "-env", "OPENBLAS_CORETYPE", "Prescott", *rank]
    done = ended([str(MPIEXEC), "-n", "1", *rank, ":", *other])
    assert done.returncode == 2
    assert "rank 0: arithmetic: expected the same on all 2 ranks, got another on rank 1 than on 0\n" in done.stderr


def test_a_killed_rank_ends_the_job() -> None:
    with program(job(3, "-c", WAIT)) as process:
        numbers = started(process, 3)
        os.kill(numbers[1], signal.SIGKILL)
        assert process.wait(SECONDS) != 0
        assert eventually(lambda: not any(map(alive, numbers)))


@pytest.mark.parametrize(
    ("faults", "code", "line"),
    [
        (("", "input", ""), 2, "rank 1: data: expected digits, got letters\n"),
        (("input", "input", "input"), 2, "rank 0: data: expected digits, got letters\n"),
        (("", "", "other"), 1, "ZeroDivisionError: one in none\n"),
    ],
)
def test_an_error_on_a_rank_ends_the_job_and_is_reported_once(faults: Sequence[str], code: int, line: str) -> None:
    done = ended(job(3, "-c", WAIT, *faults))
    assert done.returncode == code
    assert line in done.stderr
    assert done.stderr.count(line.partition(": ")[2]) == 1
    assert eventually(lambda: not any(alive(int(number)) for number in done.stdout.split()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_ends_with_its_launcher(number: signal.Signals) -> None:
    with program(job(3, "-c", WAIT)) as process:
        numbers = started(process, 3)
        process.send_signal(number)
        assert process.wait(SECONDS) != 0
        assert eventually(lambda: not any(map(alive, numbers)))


@pytest.mark.slow
def test_ranks_may_have_worker_processes(tmp_path: Path) -> None:
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    alone, two = ended([sys.executable, str(script)]), ended(job(2, script))
    assert (two.returncode, two.stderr) == (0, "")
    assert alone.stdout
    assert two.stdout == alone.stdout * 2


def test_a_process_that_no_launcher_started_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    alone, values = join_ranks(), np.arange(3.0)
    assert isinstance(alone, Alone)
    with alone.ending():
        alone.sum(values, ())
        alone.broadcast(values)
        alone.agree("data", "any")
        assert alone.gather("any") == ["any"]
    assert values.tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", LAUNCHED)
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert not launched({})
    monkeypatch.setenv(name, "0")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(
        InputError, match=r"^mpiexec: expected mpi4py and MPI \(pip install 'lowered-cnn\[mpi\]'\), got"
    ):
        join_ranks()
