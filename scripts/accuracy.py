"""Run the default command over several seeds, each in a process of its own, and tell accuracy and wall time."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    seeds, options = parser.parse_known_args()
    accuracies, times = [], []
    for seed in range(seeds.seeds):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "lowered_cnn.cli", "train", "--json", "--seed", str(seed), "--out", folder]
            start = time.perf_counter()
            done = subprocess.run([*command, *options], check=True, stdout=subprocess.PIPE, text=True)
            times.append(time.perf_counter() - start)
        accuracies.append(json.loads(done.stdout.splitlines()[-1])["test_accuracy"])
        print(f"seed {seed}: test accuracy {accuracies[-1]:.2%}, {times[-1]:.1f} s", flush=True)
    deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    print(
        f"{len(accuracies)} seeds: mean {statistics.mean(accuracies):.3%}, standard deviation {deviation:.3%}, "
        f"minimum {min(accuracies):.2%}; whole command: median {statistics.median(times):.1f} s, "
        f"{min(times):.1f} to {max(times):.1f} s"
    )


if __name__ == "__main__":
    main()
