"""ES modules joined into one script: each becomes a function that returns its exports, called after all it imports."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from lowered_cnn.arrays import InputError

IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w.-]+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async function|function|class|const)\b *\*? *(\w+))", re.MULTILINE)
UNSUPPORTED = re.compile(r"^(?:import|export)\b.*$|\bimport(?: *\(|\.meta).*$|</script|<!--", re.MULTILINE)
"""Other imports and exports, and what would end a script too early."""


@dataclass(frozen=True)
class Module:
    """A module: the names that it imports from each other one, those that it exports, and its text without either."""

    imports: dict[str, list[str]]
    exports: list[str]
    body: str

    @classmethod
    def of(cls, name: str, texts: Mapping[str, str]) -> "Module":
        """Read a module; raises InputError for imports and exports of another form."""
        if name not in texts:
            raise InputError(name, "a module of the page", "no such file")
        imports: dict[str, list[str]] = {}
        for names, other in IMPORT.findall(texts[name]):
            imports.setdefault(other, []).extend(filter(None, map(str.strip, names.split(","))))
        body = EXPORT.sub("", IMPORT.sub("", texts[name]))
        if left := UNSUPPORTED.search(body):
            wanted = 'imports such as import { a } from "./b.js"; and exports of functions, classes and constants'
            raise InputError(name, wanted, left[0][:60])
        return cls(imports, EXPORT.findall(texts[name]), body.strip())


def bundled(texts: Mapping[str, str], main: str) -> str:
    """Return the module `main` after all that it imports, directly or not, as one script.

    Raises InputError unless the modules import names from one another unchanged, on lines of their own, and not in a
    circle.
    """
    modules = _reached(texts, main)
    for name, module in modules.items():
        for other, wanted in module.imports.items():
            if missing := set(wanted) - set(modules[other].exports):
                raise InputError(f"{name}: import", f"names that {other} exports", ", ".join(sorted(missing)))
    try:
        order = list(TopologicalSorter({name: module.imports for name, module in modules.items()}).static_order())
    except CycleError as error:
        raise InputError("modules", "imports without a circle", " -> ".join(error.args[1])) from error
    return "\nconst $modules = {};\n" + "".join(_as_function(name, modules[name]) for name in order)


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


def _as_function(name: str, module: Module) -> str:
    imports = [f'const {{ {", ".join(names)} }} = $modules["{other}"];' for other, names in module.imports.items()]
    lines = [*imports, module.body, f"return {{ {', '.join(module.exports)} }};"]
    return f'\n$modules["{name}"] = (() => {{\n' + "\n".join(lines) + "\n})();\n"
