"""Write a trained network as an ONNX model, which other programs can run."""

import argparse
from pathlib import Path

from lowered_cnn.cli.run_folder import RunFolder
from lowered_cnn.interop.onnx import save_onnx


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a folder written by lowered-cnn train")
    parser.add_argument("model", type=Path, metavar="MODEL", help="the ONNX file to write")


def run(arguments: argparse.Namespace) -> None:
    """Load the network, write the model, and print its input and output."""
    folder = RunFolder.open(arguments.run)
    network = folder.network()
    save_onnx(network, arguments.model)
    shape = " x ".join(map(str, network.input_shape))
    print(f"{arguments.model}: images (batch x {shape}, from 0 to 1) to outputs (batch x {len(folder.classes)})")
