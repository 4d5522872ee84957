"""Check every gradient of a network, or of every layer, against independent sums, here and now."""

import argparse
import json
from collections.abc import Iterator

from tqdm import tqdm

from lowered_cnn.cli.run_folder import find_network
from lowered_cnn.models import MODELS
from lowered_cnn.verify import Certificate, verify, verify_all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    text = f"a folder of a training, one of {', '.join(MODELS)}, or all (%(default)s)"
    parser.add_argument("network", metavar="RUN|MODEL|all", nargs="?", default="all", help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print the certificate; return 1 if anything in it does not hold."""
    certificate = Certificate(())
    with tqdm(disable=None, unit="", bar_format="{n_fmt} checked, {elapsed}: {desc}", leave=False) as progress:
        for name, each in _certificates(arguments.network):
            certificate += each
            progress.set_description_str(name, refresh=False)
            progress.update()
    print(json.dumps(certificate.json()) if arguments.json else certificate)
    return 0 if certificate.passed else 1


def _certificates(name: str) -> Iterator[tuple[str, Certificate]]:
    if name == "all":
        yield from verify_all()
    else:
        yield name, verify(find_network(name, "all"))
