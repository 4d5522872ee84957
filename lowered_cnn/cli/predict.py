"""Classify images: PNG or JPEG files of any size."""

import argparse
import json
from pathlib import Path

import numpy as np

from lowered_cnn import softmax
from lowered_cnn.arrays import Bytes, Shape
from lowered_cnn.cli.run_folder import RunFolder
from lowered_cnn.data import fit_image, mnist_style, read_image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a folder written by lowered-cnn train")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="a picture of a single digit or object")
    parser.add_argument("--json", action="store_true", help="print one JSON object with all probabilities")


def run(arguments: argparse.Namespace) -> None:
    """Prepare the images as in training, and print the most likely class of each."""
    folder = RunFolder.open(arguments.run)
    classes, network = folder.classes, folder.network()
    are_digits = folder.has_mnist_style and network.input_shape == (1, 28, 28)
    images = np.stack([prepared(path, network.input_shape, are_digits) for path in arguments.images])
    probabilities = softmax(network.predict(images))
    if arguments.json:
        answers = [
            {
                "image": str(path),
                "class": classes[row.argmax()],
                "probabilities": dict(zip(classes, row.tolist(), strict=True)),
            }
            for path, row in zip(arguments.images, probabilities, strict=True)
        ]
        print(json.dumps(answers))
        return
    for path, row in zip(arguments.images, probabilities, strict=True):
        print(f"{path}: {classes[row.argmax()]} ({row.max():.1%})")


def prepared(path: Path, shape: Shape, is_digit: bool) -> Bytes:
    """Read an image file, and return it as the network takes it: framed as MNIST is, or fitted to this shape."""
    image = read_image(path)
    return mnist_style(image, str(path)) if is_digit else fit_image(image, shape, str(path))
