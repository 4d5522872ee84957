"""The command line: one module for each command, and one line on stderr for whatever is wrong."""

import io
import os
import sys
from collections.abc import Sequence

from lowered_cnn import InputError, __version__
from lowered_cnn.cli import evaluate, export, predict, summary, train, verify
from lowered_cnn.cli.arguments import Parser

COMMANDS = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "export": export,
    "summary": summary,
    "verify": verify,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 for a certificate that fails, 2 for wrong input, 130 when interrupted, 141 when
    nobody reads on.

    This is the one place that turns errors into lines; what is raised elsewhere stays as it is.
    """
    _prepare_streams()
    parsed = _parser().parse_args(arguments)
    try:
        code = COMMANDS[parsed.command].run(parsed) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return 141
    except KeyboardInterrupt:
        line, code = "interrupted", 130
    except (InputError, OSError, MemoryError, RecursionError) as error:
        line, code = str(_told(error)), 2
    finally:
        _leave_streams()
    print(f"lowered-cnn {parsed.command}: {line}", file=sys.stderr)
    return code


def _parser() -> Parser:
    parser = Parser(prog="lowered-cnn", description="Train and use convolutional neural networks on the CPU.")
    parser.add_argument("--version", action="version", version=f"lowered-cnn {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{" + ",".join(COMMANDS) + "}")
    for name, command in COMMANDS.items():
        text = (command.__doc__ or "").splitlines()[0]
        command.add_arguments(commands.add_parser(name, help=text, description=text))
    return parser


def _told(error: Exception) -> InputError:
    """Say what, wanted, got and where of an error that does not."""
    match error:
        case InputError():
            return error
        case OSError():
            return InputError(str(error.filename or "output"), "what can be read and written", error.strerror or error)
        case MemoryError():
            return InputError("memory", "enough for this network, batch and data", str(error) or "less")
        case _:
            return InputError("layers", "some nested in each other", "too many")


def _prepare_streams() -> None:
    """Let any text be printed: in another alphabet's place stand escapes, and a closed stream is the null device."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave_streams() -> None:
    """Lose what cannot be written, so that the interpreter does not complain of it when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
