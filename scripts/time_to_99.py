"""Run the default command with several seeds, each in a fresh process: test accuracy, and time from a cold start.

With --torch and --tensorflow, the same network and recipe take turns in these frameworks. No process has variables that
tune libraries. Other options are passed on to `lowered-cnn train`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from benchmarking.processes import QUIET, SCRIPTS, variables_of
from benchmarking.report import table
from benchmarking.work import OURS

COMMANDS = {
    OURS: ["-m", "lowered_cnn.cli", "train", "--json", "--no-report"],
    "torch": ["-m", "benchmarking.mnist_with_torch"],
    "tensorflow": ["-m", "benchmarking.mnist_with_tensorflow"],
}
GOAL = 0.99


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--torch", action="store_true", help="run PyTorch as well")
    parser.add_argument("--tensorflow", action="store_true", help="run TensorFlow as well")
    parsed, options = parser.parse_known_args()
    asked = {OURS: True, "torch": parsed.torch, "tensorflow": parsed.tensorflow}
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name, wanted in asked.items() if wanted}
    for seed in range(parsed.seeds):
        for name, results in runs.items():
            with tempfile.TemporaryDirectory() as folder:
                own = [*options, "--out", folder] if name == OURS else []
                results.append(timed(name, [*COMMANDS[name], *own, "--seed", str(seed)]))
            print(f"{name}, seed {seed}: test accuracy {results[-1][0]:.2%}, {results[-1][1]:.1f} s", flush=True)
    print(f"\n{summary(runs)}")


def timed(name: str, command: Sequence[str]) -> tuple[float, float]:
    """Run Python with these arguments; return the test accuracy that it prints and the seconds that it takes."""
    path = os.pathsep.join(filter(None, [str(SCRIPTS), os.environ.get("PYTHONPATH")]))
    variables = variables_of("user", name) | QUIET | {"PYTHONPATH": path}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True, env=variables)
    taken = time.perf_counter() - start
    return float(json.loads(done.stdout.splitlines()[-1])["test_accuracy"]), taken


def summary(runs: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Return the table of the test accuracies and seconds of each framework."""
    counts = {len(results) for results in runs.values()}
    header = [
        f"{max(counts)} seeds", "test accuracy, mean", "standard deviation", "minimum", f"at {GOAL:.0%}",
        "seconds, median", "from..to",
    ]  # fmt: skip
    return table(header, [[name, *_cells(*zip(*results, strict=True))] for name, results in runs.items()])


def _cells(accuracies: Sequence[float], seconds: Sequence[float]) -> list[str]:
    deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    return [
        f"{statistics.mean(accuracies) * 100:.3f} %",
        f"{deviation * 100:.3f} %",
        f"{min(accuracies) * 100:.2f} %",
        f"{sum(accuracy >= GOAL for accuracy in accuracies)} of {len(accuracies)}",
        f"{statistics.median(seconds):.1f}",
        f"{min(seconds):.1f} to {max(seconds):.1f}",
    ]


if __name__ == "__main__":
    main()
