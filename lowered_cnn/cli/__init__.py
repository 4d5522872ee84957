"""The command line: one module for each command, and one line on stderr for whatever is wrong."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from lowered_cnn import InputError, __version__
from lowered_cnn.cli import evaluate, predict, summary, train

COMMANDS = {"train": train, "evaluate": evaluate, "predict": predict, "summary": summary}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, or 2 for wrong input, or 130 when interrupted."""
    parser = _Parser(prog="lowered-cnn", description="Train and use convolutional neural networks on the CPU.")
    parser.add_argument("--version", action="version", version=f"lowered-cnn {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{" + ",".join(COMMANDS) + "}")
    for name, command in COMMANDS.items():
        text = (command.__doc__ or "").splitlines()[0]
        command.add_arguments(commands.add_parser(name, help=text, description=text))
    parsed = parser.parse_args(arguments)
    try:
        COMMANDS[parsed.command].run(parsed)
    except (InputError, OSError) as error:
        print(f"lowered-cnn {parsed.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"lowered-cnn {parsed.command}: interrupted", file=sys.stderr)
        return 130
    return 0
