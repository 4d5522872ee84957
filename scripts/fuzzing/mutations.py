"""Changes that keep a form: of bytes, of JSON, and of a JSON text's values."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

NUMBERS: Sequence[int | float] = (
    0, 1, -1, 2, 3, 4, 5, 8, 32, 33, 255, 256, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, 10**14, 10**30, -(2**63),
    0.0, -0.0, 0.1, 0.5, 1.0, 1.5, -0.5, 1e-320, 1e30, 1e308, -1e308, math.inf, -math.inf, math.nan,
)  # fmt: skip
"""Those at which programs tend to fail."""

TEXTS = ("", "same", "valid", "float32", "float64", "\0", "\ud800", "\n", "..", "x" * 300, "é", ":", "own:Layer")

LEAVES: Sequence[Any] = (*NUMBERS, *TEXTS, None, True, False)


def bytes_changed(content: bytes, draw: Random) -> bytes:
    """Flip a bit, or overwrite, insert, remove or repeat a few bytes."""
    changed, place, length = bytearray(content), draw.randint(0, len(content)), draw.choice([1, 1, 2, 4, 8, 32])
    action = draw.randrange(5)
    if action == 0 and place < len(content):
        changed[place] ^= 1 << draw.randrange(8)
    elif action == 1:
        changed[place : place + length] = draw.randbytes(length)
    elif action == 2:
        changed[place:place] = draw.randbytes(length)
    elif action == 3:
        del changed[place : place + length]
    else:
        changed[place:place] = changed[place : place + length]
    return bytes(changed)


def tree_changed(tree: Any, words: Sequence[str], draw: Random) -> Any:
    """Replace, remove, repeat or exchange one to three of the values or names in JSON; the tree itself changes."""
    root = [tree]
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        holder, key = _slot(root, draw)
        draw.choice(_ACTIONS)(holder, key, root, words, draw)
        if not root:
            return None
    return root[0]


def _slot(holder: Any, draw: Random) -> tuple[Any, Any]:
    """Draw a list or object of JSON, and an index or name in it."""
    while True:
        key = draw.choice(list(holder)) if isinstance(holder, dict) else draw.randrange(len(holder))
        inner = holder[key]
        if not (isinstance(inner, dict | list) and inner) or draw.random() < 0.15:
            return holder, key
        holder = inner


def words_of(tree: Any) -> set[str]:
    """Return the names and texts in JSON."""
    root = [tree]
    texts = {holder[key] for holder, key in _slots(root) if isinstance(holder[key], str)}
    return texts | {key for _, key in _slots(root) if isinstance(key, str)}


def _slots(holder: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each list or object with each index or name in it."""
    for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
        yield holder, key
        if isinstance(value, dict | list):
            yield from _slots(value)


def _replace(holder: Any, key: Any, root: Any, words: Sequence[str], draw: Random) -> None:
    holder[key] = draw.choice(LEAVES) if draw.random() < 0.7 else draw.choice(words)


def _nudge(holder: Any, key: Any, root: Any, words: Sequence[str], draw: Random) -> None:
    value = holder[key]
    if isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = draw.choice([value + 1, value - 1, -value, 2 * value, float(value) if abs(value) < 1e300 else 0])
    else:
        holder[key] = draw.choice(NUMBERS)


def _remove(holder: Any, key: Any, root: Any, words: Sequence[str], draw: Random) -> None:
    del holder[key]


def _add(holder: Any, key: Any, root: Any, words: Sequence[str], draw: Random) -> None:
    value = copy.deepcopy(draw.choice([holder[key], draw.choice(LEAVES), [], {}]))
    if isinstance(holder, dict):
        holder[draw.choice(words)] = value
    else:
        holder.insert(key, value)


def _wrap(holder: Any, key: Any, root: Any, words: Sequence[str], draw: Random) -> None:
    value = holder[key]
    holder[key] = draw.choice([[value], [value, copy.deepcopy(value)], {draw.choice(words): value}])


def _exchange(holder: Any, key: Any, root: Any, words: Sequence[str], draw: Random) -> None:
    other, place = _slot(root, draw)
    holder[key] = copy.deepcopy(other[place])


_ACTIONS: Sequence[Callable[[Any, Any, Any, Sequence[str], Random], None]] = (
    _replace, _replace, _replace, _nudge, _nudge, _remove, _add, _wrap, _exchange,
)  # fmt: skip
