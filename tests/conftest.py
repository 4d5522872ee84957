"""What every test runs under: floating-point faults raise, hypothesis draws the same examples, Ctrl-C interrupts."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explorers import Explorer, exploring
from hypothesis import HealthCheck, settings
from idx_files import write_data

from lowered_cnn import load_mnist
from lowered_cnn.cli import main

# How long the examples take says how busy the machine is, and no more.
settings.register_profile("repeatable", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")

# A shell lets its background jobs ignore SIGINT, and a program that ignores it hands that on to those that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _floating_point_faults_raise() -> Iterator[None]:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_reports() -> Iterator[None]:
    """Let the many trainings in this process write no report, which takes longer than they do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lowered_cnn.cli.report.write_report", lambda *of: None)
        yield


@pytest.fixture(scope="session")
def torch() -> Any:
    """Return PyTorch, which no extra installs; where it is missing, what needs it is skipped."""
    return pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch==2.13.0)")


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 600 and 200 digits of MNIST as IDX files."""
    mnist = load_mnist()
    folder = tmp_path_factory.mktemp("data") / "digits"
    return write_data(folder, mnist.train.take(np.arange(600)), mnist.test.take(np.arange(200)))


@pytest.fixture(scope="session")
def run(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the default network on these digits for two epochs, as a run."""
    path = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", "--data", str(few_digits), "--epochs", "2", "--batch-size", "32", "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def explorer(run: Path) -> Iterator[Explorer]:
    """Explore the run, or that of the module's own fixture."""
    with exploring(run) as started:
        yield started


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Start Chromium; where it is missing, what needs it is skipped."""
    with pytest.importorskip("browser", reason="Chromium is not installed").browser() as started:
        yield started
