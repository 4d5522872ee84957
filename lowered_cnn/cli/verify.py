"""Check every gradient of a network, or of every layer, against independent computations."""

import argparse
import json
import sys
from collections.abc import Iterator

from tqdm import tqdm

from lowered_cnn.cli.arguments import at_least
from lowered_cnn.cli.run_folder import find_network
from lowered_cnn.models import MODELS
from lowered_cnn.verify import SAMPLES, Certificate, verify, verify_all
from lowered_cnn.verify.sampled import draw


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    text = f"a folder written by lowered-cnn train, one of {', '.join(MODELS)}, or all (%(default)s)"
    parser.add_argument("network", metavar="RUN|MODEL|all", nargs="?", default="all", help=text)
    text = "how many random networks to check with all (%(default)s)"
    parser.add_argument("--samples", metavar="N", type=at_least(0), default=SAMPLES, help=text)
    text = "the seed of the first random network; the next have S + 1, ... (%(default)s)"
    parser.add_argument("--seed", metavar="S", type=at_least(0), default=0, help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print the certificate, and the random networks that fail; return 1 if any check fails."""
    certificate = Certificate(())
    with tqdm(disable=None, unit="", bar_format="{n_fmt} checked, {elapsed}: {desc}", leave=False) as progress:
        for name, each in _certificates(arguments):
            certificate += each
            progress.set_description_str(name, refresh=False)
            progress.update()
    print(json.dumps(certificate.json()) if arguments.json else certificate)
    failed = {check.subject for check in certificate.failures}
    for seed in range(arguments.seed, arguments.seed + arguments.samples):
        if f"sampled {seed}" in failed:
            print(f"sampled {seed}: {draw(seed)}", file=sys.stderr)
    return 0 if certificate.passed else 1


def _certificates(arguments: argparse.Namespace) -> Iterator[tuple[str, Certificate]]:
    if arguments.network == "all":
        yield from verify_all(samples=arguments.samples, seed=arguments.seed)
    else:
        yield arguments.network, verify(find_network(arguments.network, "all"))
