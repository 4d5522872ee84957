"""What every test runs under: floating-point faults raise, and hypothesis draws the same examples each time."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from idx_files import write_data

from lowered_cnn import load_mnist

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _floating_point_faults_raise() -> Iterator[None]:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        yield


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 600 and 200 digits of MNIST as IDX files."""
    mnist = load_mnist()
    folder = tmp_path_factory.mktemp("data") / "digits"
    return write_data(folder, mnist.train.take(np.arange(600)), mnist.test.take(np.arange(200)))
