"""Public names that are imported when they are first used, so that a program loads only the rooms that it needs."""

import sys
from collections.abc import Callable
from importlib import import_module


def on_demand(
    package: str, rooms: dict[str, str]
) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """Return `__all__`, `__getattr__` and `__dir__` (PEP 562) of a package.

    `rooms` maps each module below the package to the public names that it holds, separated by spaces. A module is an
    attribute of the package too, as if it were imported already.
    """
    room_of = {name: room for room, names in rooms.items() for name in names.split()}

    def get(name: str) -> object:
        if name in room_of:
            value = getattr(import_module(f"{package}.{room_of[name]}"), name)
        elif name in rooms:
            value = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)  # from now on, Python finds it by itself
        return value

    def names() -> list[str]:
        return sorted(vars(sys.modules[package]).keys() | room_of.keys() | rooms.keys())

    return sorted(room_of), get, names
