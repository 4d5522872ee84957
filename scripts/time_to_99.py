"""Run the default command with several seeds, each in a fresh process: test accuracy, and time from a cold start.

With --torch, the same network and recipe take turns in PyTorch. Other options are passed on to `lowered-cnn train`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

OURS = ["-m", "lowered_cnn.cli", "train", "--json", "--no-report"]
TORCH = ["-m", "benchmarking.mnist_with_torch"]
GOAL = 0.99


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--torch", action="store_true", help="run PyTorch as well")
    parsed, options = parser.parse_known_args()
    runs: dict[str, list[tuple[float, float]]] = {"lowered_cnn": [], **({"torch": []} if parsed.torch else {})}
    for seed in range(parsed.seeds):
        for name, results in runs.items():
            with tempfile.TemporaryDirectory() as folder:
                command = [*OURS, *options, "--out", folder] if name == "lowered_cnn" else TORCH
                results.append(timed([*command, "--seed", str(seed)]))
            print(f"{name}, seed {seed}: test accuracy {results[-1][0]:.2%}, {results[-1][1]:.1f} s", flush=True)
    for name, results in runs.items():
        accuracies, times = zip(*results, strict=True)
        print(f"{name}, {len(results)} seeds: {summary(accuracies)}; whole command: {seconds(times)}")


def timed(command: Sequence[str]) -> tuple[float, float]:
    """Run Python with these arguments; return the test accuracy that it prints and the seconds that it takes."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    taken = time.perf_counter() - start
    return float(json.loads(done.stdout.splitlines()[-1])["test_accuracy"]), taken


def summary(accuracies: Sequence[float]) -> str:
    deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    reached = sum(accuracy >= GOAL for accuracy in accuracies)
    return (
        f"mean {statistics.mean(accuracies):.3%}, standard deviation {deviation:.3%}, minimum {min(accuracies):.2%}, "
        f"{reached} of {len(accuracies)} at {GOAL:.0%} or above"
    )


def seconds(times: Sequence[float]) -> str:
    return f"median {statistics.median(times):.1f} s, {min(times):.1f} to {max(times):.1f} s"


if __name__ == "__main__":
    main()
