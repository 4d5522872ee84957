"""Show what each layer of a network costs: shapes, parameters, matrix products, operations, bytes."""

import argparse

from lowered_cnn import summary as summarize
from lowered_cnn.cli.arguments import between
from lowered_cnn.cli.run_folder import find_network
from lowered_cnn.models import MODELS

MOST = 10**9
"""More examples than fit in any memory, but few enough for NumPy to count their bytes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("network", metavar="RUN|MODEL", help=f"the folder of a run, or one of {', '.join(MODELS)}")
    parser.add_argument("--batch-size", type=between(1, MOST), default=1, help="examples in the step (%(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Print the ledger of one training step."""
    print(summarize(find_network(arguments.network), arguments.batch_size))
