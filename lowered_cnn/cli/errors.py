"""Errors of the system, in the form of our own: where, what was expected, what was got."""

from collections.abc import Iterator
from contextlib import contextmanager

from lowered_cnn.arrays import InputError


@contextmanager
def expected_errors() -> Iterator[None]:
    """Turn errors that a user may meet into InputError; a broken pipe, which needs no message, stays what it is."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (OSError, MemoryError, RecursionError) as error:
        raise _as_input_error(error) from error


def _as_input_error(error: Exception) -> InputError:
    match error:
        case ChildProcessError():
            return InputError("worker", "to run to the end", str(error).removeprefix("train: "))
        case OSError():
            return InputError(str(error.filename or "output"), "a readable or writable file", error.strerror or error)
        case MemoryError():
            return InputError("memory", "enough for this network, batch and data", str(error) or "less")
        case _:
            return InputError("layers", "nesting within Python's recursion limit", "too many levels")
