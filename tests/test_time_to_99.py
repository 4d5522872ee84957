"""The script that measures the default command: real runs on a few digits, and its sums."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from running import assert_close

import time_to_99
from benchmarking.processes import QUIET, SCRIPTS
from lowered_cnn import Network, Recipe, fit, load_mnist
from lowered_cnn.models import compact

PATHS = {**os.environ, **QUIET, "PYTHONPATH": str(SCRIPTS)}
STEPS = """
import importlib, json, sys
import numpy as np
from benchmarking.mnist import Run, floats
from lowered_cnn import Network, Recipe, load_mnist
from lowered_cnn.models import compact
mnist = load_mnist()
data = mnist.train.take(np.arange(150))
network, recipe = Network(compact(), data.image_shape, seed=0), Recipe(epochs=2, shard_size=64)
run = Run(network, recipe, floats(data.images), data.labels)
predict = importlib.import_module("benchmarking.mnist_with_" + sys.argv[1]).trained(run)
print(json.dumps(predict(floats(mnist.test.images[:20])).tolist()))
"""


@pytest.mark.slow
def test_each_seed_is_run_and_summed_up(few_digits: Path, tmp_path: Path) -> None:
    script = Path(time_to_99.__file__)
    command = [sys.executable, str(script), "--seeds", "2", "--data", str(few_digits), "--epochs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    *runs, _, _, _, total = done.stdout.splitlines()
    told = [re.fullmatch(r"lowered_cnn, seed (\d): test accuracy (\d+\.\d\d)%, \d+\.\d s", line) for line in runs]
    assert [match and match[1] for match in told] == ["0", "1"]
    mean = np.mean([float(match[2]) for match in told if match])
    assert total.startswith(f"| lowered_cnn | {f'{mean:.3f} %'.rjust(19)} |")
    assert list(tmp_path.iterdir()) == []


def test_accuracies_and_times_are_summed_up() -> None:
    runs = {"lowered_cnn": [(0.98, 3.0), (0.99, 1.0), (1.0, 2.04)], "torch": [(0.991, 9.0)] * 3}
    assert time_to_99.summary(runs) == (
        "| 3 seeds     | test accuracy, mean | standard deviation | minimum | at 99% | seconds, median |   from..to |\n"
        "| ----------- | ------------------: | -----------------: | ------: | -----: | --------------: | ---------: |\n"
        "| lowered_cnn |            99.000 % |            1.000 % | 98.00 % | 2 of 3 |             2.0 | 1.0 to 3.0 |\n"
        "| torch       |            99.100 % |            0.000 % | 99.10 % | 3 of 3 |             9.0 | 9.0 to 9.0 |"
    )


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["torch", "tensorflow"])
def test_a_peer_takes_the_steps_that_we_take(peer: str) -> None:
    """Over epochs whose last batch is smaller, the outputs are ours, with L2, momentum and the learning rates."""
    if find_spec(peer) is None:
        pytest.skip(f"{peer} is not installed")
    mnist = load_mnist()
    data, recipe = mnist.train.take(np.arange(150)), Recipe(epochs=2, shard_size=64)
    done = subprocess.run([sys.executable, "-c", STEPS, peer], capture_output=True, text=True, check=True, env=PATHS)
    ours = Network(compact(), data.image_shape, seed=0)
    fit(ours, data, recipe)
    outputs = ours.predict(mnist.test.take(np.arange(20)).images)
    assert_close(np.array(json.loads(done.stdout.splitlines()[-1])), outputs, 1e-3)
