"""What every test runs under: floating-point faults raise, and hypothesis draws the same examples each time."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _floating_point_faults_raise() -> Iterator[None]:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        yield
