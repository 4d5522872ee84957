"""Show what each layer of a network costs: shapes, parameters, matrix products, operations, bytes."""

import argparse
from pathlib import Path

from lowered_cnn import InputError, Network
from lowered_cnn import summary as summarize
from lowered_cnn.cli.arguments import between
from lowered_cnn.cli.run_folder import RunFolder
from lowered_cnn.models import MODELS

MOST = 10**9
"""More examples than any memory holds, and few enough for NumPy to count their bytes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("network", metavar="RUN|MODEL", help=f"a folder of a training, or one of {', '.join(MODELS)}")
    parser.add_argument("--batch-size", type=between(1, MOST), default=1, help="examples in the step (%(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Print the ledger of one training step."""
    print(summarize(_network(arguments.network), arguments.batch_size))


def _network(name: str) -> Network:
    if name in MODELS:
        return Network(MODELS[name](), (1, 28, 28))
    if Path(name).is_dir():
        return RunFolder.open(Path(name)).network()
    raise InputError("RUN|MODEL", f"a folder, or one of {', '.join(MODELS)}", repr(name))
