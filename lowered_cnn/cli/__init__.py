"""The command line: one module per command, and one line on stderr for any error."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

import numpy.random  # noqa: F401 (a Ctrl-C that came while a command imported it would be lost)

from lowered_cnn import InputError
from lowered_cnn.cli.arguments import Parser
from lowered_cnn.cli.errors import expected_errors
from lowered_cnn.launch import INTERRUPTED, restore_interrupts

COMMANDS = ("train", "evaluate", "predict", "export", "report", "explore", "summary", "verify")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    That is 0, 1 for a certificate that fails, 2 for invalid input, 130 after Ctrl-C, and 141 if
    nothing reads the output any more; a signal that stops a training gives 128 + its number. Errors become messages
    here or, in an MPI job, where its ranks are ended.
    """
    _prepare_streams()
    given = sys.argv[1:] if arguments is None else arguments
    parser = _parser(given)
    parsed = parser.parse_args(given)
    asks_version = hasattr(parsed, "version")
    if hasattr(parsed, "verbose") and not asks_version:
        parser.error("argument --verbose: expected --version with it")
    if not (asks_version or parsed.command):
        parser.error(f"expected --version or a command: {', '.join(COMMANDS)}")
    try:
        restore_interrupts()
        with expected_errors():
            code = _module("version" if asks_version else parsed.command).run(parsed) or 0
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        return 141
    except KeyboardInterrupt:
        line, code = "interrupted", INTERRUPTED
    except InputError as error:
        line, code = str(error), 2
    finally:
        _leave_streams()
    print(f"lowered-cnn {parsed.command or '--version'}: {line}", file=sys.stderr)
    return code


def _parser(given: Sequence[str]) -> Parser:
    """Return a parser for the command that is given, or for all if none is: other commands need not be imported."""
    parser = Parser(prog="lowered-cnn", description="Train and use convolutional neural networks on the CPU.")
    add, absent = parser.add_argument, argparse.SUPPRESS  # absent unless given: --resume looks at all options
    add("--version", action="store_true", default=absent, help="print the version instead")
    add("--verbose", action="store_true", default=absent, help="with --version: what computes here, and how fast")
    commands = parser.add_subparsers(dest="command", metavar="{" + ",".join(COMMANDS) + "}")
    for name in given[:1] if given and given[0] in COMMANDS else COMMANDS:
        command = _module(name)
        text = (command.__doc__ or "").splitlines()[0]
        command.add_arguments(commands.add_parser(name, help=text, description=text))
    return parser


def _module(command: str) -> ModuleType:
    return import_module(f"{__name__}.{command}")


def _prepare_streams() -> None:
    """Make any text printable: escape what the encoding lacks, and replace closed streams by the null device."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave_streams() -> None:
    """Discard what cannot be written, so that the interpreter does not complain about it on exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
