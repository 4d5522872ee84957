"""The fields of requests, read strictly and checked before they are used, and the JSON of answers."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from lowered_cnn.arrays import InputError, whole_number
from lowered_cnn.descriptions import JSON

MOST_DIGITS = 18
"""The most digits of a whole number."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Fields:
    """The values of a request's fields by name, whether they came in its query or in its body."""

    values: Mapping[str, JSON]

    @classmethod
    def of_query(cls, pairs: Iterable[tuple[str, str]]) -> "Fields":
        """Read a query; texts of digits are whole numbers."""
        return cls(_each_once([(name, _number_or_text(text)) for name, text in pairs]))

    @classmethod
    def of_body(cls, body: bytes) -> "Fields":
        """Read a body, one JSON object: each name once, numbers finite, and nesting within Python's recursion limit."""
        try:
            found: JSON = json.loads(
                body.decode(),
                object_pairs_hook=_each_once,
                parse_constant=_refuse_constant,
                parse_int=_short_int,
                parse_float=_finite_float,
            )
        except InputError:
            raise
        except UnicodeDecodeError as error:
            raise InputError("body", "UTF-8", f"the byte {body[error.start]:#04x} at {error.start}") from error
        except (ValueError, RecursionError) as error:
            raise InputError("body", "JSON", error) from error
        if not isinstance(found, dict):
            raise InputError("body", "a JSON object", type(found).__name__)
        return cls(found)

    def only(self, *names: str) -> None:
        """Raise InputError if there are other fields than these."""
        if others := sorted(self.values.keys() - set(names)):
            raise InputError("request", f"no fields but {', '.join(names) or 'none'}", ", ".join(others)[:80])

    def field(self, name: str) -> JSON:
        """Return a field; raises InputError if it is missing."""
        if name not in self.values:
            raise InputError("request", f"a field {name!r}", ", ".join(sorted(self.values))[:80] or "none")
        return self.values[name]

    def number(self, name: str, least: int, most: int | None = None) -> int:
        """Return a field that is a whole number from `least` to `most`."""
        value = self.field(name)
        return whole_number(name, value if type(value) is int else repr(value)[:60], least, most)

    def number_if_any(self, name: str, least: int, most: int | None = None) -> int | None:
        """Return the same, or None if the field is missing or null."""
        return None if self.values.get(name) is None else self.number(name, least, most)

    def rate_if_any(self, name: str) -> float | None:
        """Return a field that is a number above 0, or None if it is missing or null."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise InputError(name, "a number above 0", repr(value)[:60])
        return float(value)

    def text(self, name: str) -> str:
        """Return a field that is a text."""
        value = self.field(name)
        if not isinstance(value, str):
            raise InputError(name, "a text", repr(value)[:60])
        return value


def encoded(value: JSON) -> bytes:
    """Return a value as JSON, with null for numbers that are not finite, which JSON does not have."""
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_with_null(value), allow_nan=False, separators=(",", ":"))
    return text.encode()


def _with_null(value: JSON) -> JSON:
    match value:
        case dict():
            return {name: _with_null(entry) for name, entry in value.items()}
        case list():
            return [_with_null(entry) for entry in value]
        case float() if not math.isfinite(value):
            return None
    return value


def _each_once(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InputError("request", "each name once", ", ".join(sorted(name for name, _ in pairs))[:80])
    return found


def _number_or_text(text: str) -> JSON:
    return int(text) if re.fullmatch(rf"-?[0-9]{{1,{MOST_DIGITS}}}", text) else text


def _refuse_constant(name: str) -> NoReturn:
    raise InputError("body", "finite numbers", name)


def _short_int(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise InputError("body", f"whole numbers of at most {MOST_DIGITS} digits", len(digits))
    return int(digits)


def _finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise InputError("body", "finite numbers", digits[:60])
    return number
