"""Command-line arguments: a parser whose errors take one line, and types that say what they expect."""

import argparse
from collections.abc import Callable
from typing import NoReturn, TypeVar

Number = TypeVar("Number", int, float)


class Parser(argparse.ArgumentParser):
    """Prints only the message, without the usage, if an argument is wrong."""

    def error(self, message: str) -> NoReturn:
        """Exit with the message and code 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of whole numbers that are at least `least`."""
    return _checked(int, lambda number: number >= least, f"a whole number of at least {least}")


def between(least: int, most: int) -> Callable[[str], int]:
    """Return the type of whole numbers from `least` to `most`."""
    return _checked(int, lambda number: least <= number <= most, f"a whole number from {least} to {most}")


def positive() -> Callable[[str], float]:
    """Return the type of finite numbers above 0."""
    return _checked(float, lambda number: 0 < number < float("inf"), "a number above 0")


def _checked(kind: type[Number], accepts: Callable[[Number], bool], wanted: str) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
        try:
            number = kind(text)
        except ValueError:
            number = kind(-1)
        if not accepts(number):
            raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")
        return number

    return parse
