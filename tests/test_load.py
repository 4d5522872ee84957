"""The script that loads the explorer: it counts what is refused and what is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from lowered_cnn.cli import main

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_script_finds_no_wrong_answer(few_digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", "--data", str(few_digits), "--epochs", "1", "--out", str(run)]) == 0
    command = [sys.executable, str(ROOT / "scripts/load.py"), str(run), "--clients", "20", "--requests", "100"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("20 clients, 100 requests: ")
    assert done.stdout.endswith("; 0 refused, 0 wrong\n")
