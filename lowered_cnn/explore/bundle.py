"""ES modules joined into one: in the order of their imports, without imports and exports."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from lowered_cnn.arrays import InputError

IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w.-]+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async function|function|class|const|let)\b *\*? *(\w+))", re.MULTILINE)
DECLARATION = re.compile(
    r"^(?:async function|function|class|const|let|var)\b *\*? *(\w+|[{\[][^=]*[}\]] *=)", re.MULTILINE
)
NAME = re.compile(r"\w+(?=\s*(?:[,}\]]|$))")
"""A name that a declaration introduces; a destructuring has several."""

UNSUPPORTED = re.compile(r"^(?:import|export)\b.*$|\bimport(?: *\(|\.meta).*$|</script|<!--", re.MULTILINE)
"""Other imports and exports, and what would end a script too early."""


@dataclass(frozen=True)
class Module:
    """A module: the names that it imports from each other one, those that it exports, and all that it declares."""

    imports: dict[str, set[str]]
    exports: set[str]
    declared: list[str]
    body: str

    @classmethod
    def of(cls, name: str, texts: Mapping[str, str]) -> "Module":
        """Read a module; raises InputError for imports and exports of another form."""
        if name not in texts:
            raise InputError(name, "a module of the page", "no such file")
        imports: dict[str, set[str]] = {}
        for names, other in IMPORT.findall(texts[name]):
            imports.setdefault(other, set()).update(filter(None, map(str.strip, names.split(","))))
        body = EXPORT.sub("", IMPORT.sub("", texts[name]))
        if left := UNSUPPORTED.search(body):
            wanted = 'imports such as import { a } from "./b.js"; and exports of declarations'
            raise InputError(name, wanted, left[0][:60])
        declared = [found for each in DECLARATION.findall(body) for found in NAME.findall(each)]
        return cls(imports, set(EXPORT.findall(texts[name])), declared, body)


def bundled(texts: Mapping[str, str], main: str) -> str:
    """Return the module `main` after all that it imports, directly or not, as one script.

    The modules import names from one another unchanged, on lines of their own, and their top-level names are unique.
    Raises InputError for modules that are not of this form.
    """
    modules = _reached(texts, main)
    owners: dict[str, str] = {}
    for name, module in modules.items():
        for other, wanted in module.imports.items():
            if missing := wanted - modules[other].exports:
                raise InputError(f"{name}: import", f"names that {other} exports", ", ".join(sorted(missing)))
        for declared in module.declared:
            if declared in owners:
                raise InputError(name, f"top-level names of its own, unlike those of {owners[declared]}", declared)
            owners[declared] = name
    try:
        order = list(TopologicalSorter({name: module.imports for name, module in modules.items()}).static_order())
    except CycleError as error:
        raise InputError("modules", "imports without a circle", " -> ".join(error.args[1])) from error
    return "\n" + "\n".join(modules[name].body.strip() + "\n" for name in order)


def _reached(texts: Mapping[str, str], main: str) -> dict[str, Module]:
    """Return a module and all that it imports, directly or not."""
    modules: dict[str, Module] = {}
    names = [main]
    while names:
        name = names.pop()
        if name not in modules:
            modules[name] = Module.of(name, texts)
            names += modules[name].imports
    return modules
