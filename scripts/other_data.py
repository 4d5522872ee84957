"""What the default command reaches on data other than MNIST, beside a tuned run and a random forest (extra `other`).

The data come with packages: photographs from scikit-image and scikit-learn, the digits of scikit-learn, and MNIST.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lowered_cnn import load_mnist

Pixels: TypeAlias = npt.NDArray[Any]
Labels: TypeAlias = npt.NDArray[np.int64]
Data: TypeAlias = tuple[Pixels, Labels, Pixels, Labels]
"""The images (N, C, H, W) and labels to train on, and those to test on."""

PHOTOGRAPHS = (
    "astronaut",
    "chelsea",
    "coffee",
    "hubble_deep_field",
    "immunohistochemistry",
    "retina",
    "rocket",
    "stereo_motorcycle",
)
STRIP = 192
"""The width of a strip of a photograph; the last quarter of each strip is for testing."""
TUNED = (["--learning-rate", "0.1"], ["--optimizer", "adam", "--learning-rate", "0.005"])
"""What the tuned run tries, beside the default, with 30 epochs; the dev split decides."""


def photographs() -> list[Pixels]:
    """Return ten colour photographs (H, W, 3)."""
    import skimage.data
    from sklearn.datasets import load_sample_images

    named = [getattr(skimage.data, name)() for name in PHOTOGRAPHS]
    left = [image[0] if isinstance(image, tuple) else image for image in named]  # a pair, and the distances
    return [*left, *load_sample_images().images]


def crops(height: int, width: int, train: int, test: int) -> Data:
    """Cut crops from disjoint strips of the photographs, so many of each; the classes are the photographs."""
    generator, images = np.random.default_rng(0), photographs()

    def cut(count: int, first: float, last: float) -> tuple[Pixels, Labels]:
        found, labels = [], np.repeat(np.arange(len(images)), count)
        for label in labels:
            image = images[label]
            start = STRIP * generator.integers(image.shape[1] // STRIP)
            left = start + generator.integers(int(first * STRIP), int(last * STRIP) - width + 1)
            top = generator.integers(image.shape[0] - height + 1)
            found.append(image[top : top + height, left : left + width].transpose(2, 0, 1))
        return np.stack(found), labels

    return *cut(train, 0, 0.75), *cut(test, 0.75, 1)


def small_digits(most: Sequence[int] = (1000,) * 10) -> Data:
    """Return scikit-learn's digits (8 x 8, floats from 0 to 16), at most so many of each class to train on."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = digits.images[:, None].astype(np.float32), digits.target.astype(np.int64)
    first, last = slice(0, 1347), slice(1347, None)
    kept = np.sort(np.concatenate([np.flatnonzero(labels[first] == k)[:count] for k, count in enumerate(most)]))
    return images[kept], labels[kept], images[last], labels[last]


def changed_mnist(change: Callable[[Pixels], Pixels]) -> Data:
    """Return 5,000 of MNIST's training images, and all test images, each changed in the same way."""
    mnist = load_mnist()
    train = slice(0, 5_000)
    return (
        change(mnist.train.images[train]), mnist.train.labels[train], change(mnist.test.images), mnist.test.labels
    )  # fmt: skip


def textured(images: Pixels) -> Pixels:
    """Fill digits with grass and their surroundings with gravel."""
    import skimage.data

    generator = np.random.default_rng(0)
    textures = [getattr(skimage.data, name)() / 2 for name in ("grass", "gravel")]
    fills = [texture - texture.mean() for texture in textures]

    def patch(texture: Pixels) -> Pixels:
        top, left = generator.integers(0, np.array(texture.shape) - 28)
        return texture[top : top + 28, left : left + 28]

    filled = [np.where(image[0] > 127, 140 + patch(fills[0]), 110 + patch(fills[1])) for image in images]
    return np.stack(filled)[:, None].clip(0, 255).astype(np.uint8)


DATA: dict[str, Callable[[], Data]] = {
    "colour crops, 32 x 32": lambda: crops(32, 32, 300, 100),
    "colour crops, 96 x 40": lambda: crops(96, 40, 100, 50),
    "digits, 8 x 8": small_digits,
    "digits, 8 x 8, imbalanced": lambda: small_digits([130, 100, 80, 60, 50, 40, 30, 20, 10, 8]),
    "MNIST standardized": lambda: changed_mnist(lambda x: ((x / 255 - 0.1307) / 0.3081).astype(np.float32)),
    "MNIST inverted": lambda: changed_mnist(lambda x: 255 - x),
    "MNIST from 100 to 150": lambda: changed_mnist(lambda x: (100 + x / 5.1).astype(np.float32)),
    "MNIST in textures": lambda: changed_mnist(textured),
}


def known(name: str) -> str:
    """Return the name of data that there are."""
    if name not in DATA:
        raise argparse.ArgumentTypeError(f"expected one of {'; '.join(DATA)}, got {name!r}")
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tuned", action="store_true", help="try other settings too")
    parser.add_argument("names", metavar="DATA", nargs="*", type=known, help=f"({', '.join(DATA)})")
    parsed = parser.parse_args()
    print(
        "| data | default command | deviation | seconds | tuned | random forest |\n|---|---|---|---|---|---|",
        flush=True,
    )
    for name in parsed.names or DATA:
        print(row(name, DATA[name](), parsed.seeds, parsed.tuned), flush=True)


def row(name: str, data: Data, seeds: int, is_tuned: bool) -> str:
    """Return a row of the table: test accuracies, and the seconds of the whole default command."""
    with tempfile.TemporaryDirectory() as folder:
        for part, values in zip(("train-images", "train-labels", "test-images", "test-labels"), data, strict=True):
            np.save(Path(folder, f"{part}.npy"), values)
        runs = [trained(folder, ["--seed", str(seed)]) for seed in range(seeds)]
        tries = [runs[0], *(trained(folder, [*options, "--epochs", "30"]) for options in TUNED)] if is_tuned else []
    _, tests, times = zip(*runs, strict=True)
    deviation = statistics.stdev(tests) if seeds > 1 else 0.0
    tuned = f"{max(tries)[1]:.1%}" if tries else "-"
    took = f"{min(times):.0f} to {max(times):.0f}"
    return f"| {name} | {statistics.mean(tests):.1%} | {deviation:.1%} | {took} | {tuned} | {forest(data):.1%} |"


def trained(folder: str, options: Sequence[str]) -> tuple[float, float, float]:
    """Run the command; return the dev accuracy and the test accuracy, and the seconds that it took."""
    command = [sys.executable, "-m", "lowered_cnn.cli", "train", "--json", "--no-report", "--data", folder, *options]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run([*command, "--out", out], check=True, capture_output=True, text=True)
        last = json.loads(Path(out, "metrics.jsonl").read_text().splitlines()[-1])
    taken = time.perf_counter() - start
    return last["dev_accuracy"], json.loads(done.stdout.splitlines()[-1])["test_accuracy"], taken


def forest(data: Data) -> float:
    """Return the test accuracy of a random forest on the pixels."""
    from sklearn.ensemble import RandomForestClassifier

    images, labels, others, answers = data
    fitted = RandomForestClassifier(random_state=0).fit(images.reshape(len(images), -1), labels)
    return float(fitted.score(others.reshape(len(others), -1), answers))


if __name__ == "__main__":
    main()
