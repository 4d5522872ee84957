"""The script that measures the default command: real runs on a few digits, and its sums."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import time_to_99


@pytest.mark.slow
def test_each_seed_is_run_and_summed_up(few_digits: Path, tmp_path: Path) -> None:
    script = Path(time_to_99.__file__)
    command = [sys.executable, str(script), "--seeds", "2", "--data", str(few_digits), "--epochs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    *runs, total = done.stdout.splitlines()
    told = [re.fullmatch(r"lowered_cnn, seed (\d): test accuracy (\d+\.\d\d)%, \d+\.\d s", line) for line in runs]
    assert [match and match[1] for match in told] == ["0", "1"]
    mean = np.mean([float(match[2]) for match in told if match])
    assert total.startswith(f"lowered_cnn, 2 seeds: mean {mean:.2f}")
    assert list(tmp_path.iterdir()) == []


def test_accuracies_are_summed_up() -> None:
    assert time_to_99.summary([0.98, 0.99, 1.0]) == (
        "mean 99.000%, standard deviation 1.000%, minimum 98.00%, 2 of 3 at 99% or above"
    )
    assert (
        time_to_99.summary([0.991]) == "mean 99.100%, standard deviation 0.000%, minimum 99.10%, 1 of 1 at 99% or above"
    )


def test_times_are_summed_up() -> None:
    assert time_to_99.seconds([3.0, 1.0, 2.04]) == "median 2.0 s, 1.0 to 3.0 s"
