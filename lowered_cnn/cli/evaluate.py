"""Test a trained network on the test images of its data set, or of another one."""

import argparse
import json
from pathlib import Path

import numpy as np

from lowered_cnn import Dataset, InputError, Network, confusion
from lowered_cnn import evaluate as evaluate_network
from lowered_cnn.cli.run_folder import RunFolder
from lowered_cnn.data import load as load_data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a folder written by lowered-cnn train")
    parser.add_argument("--data", type=Path, metavar="DIR", help="another data set (the one it was trained on)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> None:
    """Load the network and the data, and print accuracy and loss, and how good it is at each class."""
    folder = RunFolder.open(arguments.run)
    network = folder.network()
    test = test_images(folder, network, arguments.data)
    with np.errstate(over="ignore", invalid="ignore"):  # a loss that is not finite is printed
        result, by_class = evaluate_network(network, test), confusion(network, test)
    if arguments.json:
        told = {"test_accuracy": result.accuracy, "test_loss": result.loss, "images": len(test)}
        print(json.dumps({**told, "classes": by_class.json()}))
    else:
        print(f"test accuracy {result.accuracy:.2%}, loss {result.loss:.4f}, on {len(test):,} images\n\n{by_class}")


def test_images(folder: RunFolder, network: Network, other: Path | None) -> Dataset:
    """Return the test images of a run's data set, or of another one; raises InputError unless the classes are its."""
    test = load_data(other or folder.source, network.input_shape).test
    if list(test.classes) != folder.classes:
        raise InputError("data: classes", ", ".join(folder.classes), ", ".join(test.classes))
    return test
