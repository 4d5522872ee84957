"""Errors that a user may meet, in the form of ours: where, what was expected, what was got."""

from collections.abc import Iterator
from contextlib import contextmanager

from lowered_cnn.arrays import InputError


@contextmanager
def expected_errors() -> Iterator[None]:
    """Raise an InputError instead, except for a broken pipe, which nobody needs to be told of."""
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
