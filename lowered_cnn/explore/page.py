"""The files of the page, which are read once, and the page as one file that needs no server."""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.resources import files

from lowered_cnn.arrays import InputError
from lowered_cnn.descriptions import JSON
from lowered_cnn.explore.requests import encoded

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
INDEX = "index.html"

IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w.-]+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async function|function|class|const|let) *\*? *(\w+))", re.MULTILINE)
DECLARATION = re.compile(
    r"^(?:async function|function|class|const|let|var)\b *\*? *(\w+|[{\[][^=]*[}\]] *=)", re.MULTILINE
)
UNSUPPORTED = re.compile(r"^(?:import|export)\b.*$|\bimport(?: *\(|\.meta).*$|</script|<!--", re.MULTILINE)
"""What is left of the module syntax once the imports and exports above are gone, and what would end a script early."""

STYLE = re.compile(r'<link rel="stylesheet" href="/?static/([\w.-]+)"\s*/?>')
SCRIPT = re.compile(r'<script type="module" src="/?static/([\w.-]+)"></script>')


@dataclass(frozen=True)
class Asset:
    """A file of the page, with its media type and a tag that changes with it."""

    content: bytes
    media_type: str
    tag: str

    @property
    def text(self) -> str:
        """The file as text, with the line ends that a browser sees."""
        return self.content.decode().replace("\r\n", "\n")


@cache
def assets() -> Mapping[str, Asset]:
    """Return all files of the page by name."""
    found = {}
    for file in files("lowered_cnn.explore").joinpath("static").iterdir():
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind is not None:
            content = file.read_bytes()
            found[file.name] = Asset(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found


def texts() -> dict[str, str]:
    """Return the files of the page as text."""
    return {name: asset.text for name, asset in assets().items()}


def offline(texts: Mapping[str, str], saved: JSON) -> bytes:
    """Return the page of these files as one, with what it shows as JSON in the element `saved`; it loads nothing.

    Style and script are in the file, and its policy allows these two alone, by their hashes.
    """
    page = texts[INDEX]
    style, main = STYLE.search(page), SCRIPT.search(page)
    if style is None or main is None or "<head>" not in page or page.count("static/") > 2:
        wanted = "a <head>, and of what is in static/ one style sheet and one module"
        raise InputError(INDEX, wanted, "another form")
    rules, script = texts[style[1]], bundled(texts, main[1])
    if "</style" in rules:
        raise InputError(style[1], "a style sheet", "the end of one")
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(rules)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    json = encoded(saved).decode().replace("<", "\\u003c")
    data = f'<script type="application/json" id="saved">{json}</script>'
    for before, after in (
        (main[0], f'{data}\n<script type="module">{script}</script>'),
        (style[0], f"<style>{rules}</style>"),
        ("<head>", f'<head>\n<meta http-equiv="Content-Security-Policy" content="{policy}">'),
    ):
        page = page.replace(before, after, 1)
    return page.encode()


def bundled(texts: Mapping[str, str], main: str) -> str:
    """Return ES modules as one: `main` after all that it imports, directly or not, without imports and exports.

    The modules import names from one another, unchanged, on lines of their own; top-level names are unique. Raises
    InputError for modules that are not of this form.
    """
    imports: dict[str, list[str]] = {}
    exports: dict[str, set[str]] = {}
    queue = [main]
    while queue:
        name = queue.pop()
        if name in imports:
            continue
        if name not in texts:
            raise InputError(f"{name}", "a module of the page", "no such file")
        found = IMPORT.findall(texts[name])
        imports[name] = [other for _, other in found]
        exports[name] = set(EXPORT.findall(texts[name]))
        queue += imports[name]
    for name in imports:
        for names, other in IMPORT.findall(texts[name]):
            wanted = {each.strip() for each in names.split(",") if each.strip()}
            if missing := wanted - exports[other]:
                raise InputError(f"{name}: import", f"names that {other} exports", ", ".join(sorted(missing)))
    try:
        order = list(TopologicalSorter(imports).static_order())
    except CycleError as error:
        raise InputError("modules", "imports without a circle", " -> ".join(error.args[1])) from error
    parts = {name: EXPORT.sub("", IMPORT.sub("", texts[name])) for name in order}
    _check_parts(parts)
    return "\n" + "\n".join(part.rstrip() + "\n" for part in parts.values())


def _check_parts(parts: Mapping[str, str]) -> None:
    owners: dict[str, str] = {}
    for name, part in parts.items():
        if left := UNSUPPORTED.search(part):
            raise InputError(name, 'imports of the form import { a } from "./b.js"; and simple exports', left[0][:60])
        for declared in _names(DECLARATION.findall(part)):
            if declared in owners:
                raise InputError(name, f"top-level names of its own, unlike those of {owners[declared]}", declared)
            owners[declared] = name


def _names(declared: Iterable[str]) -> list[str]:
    """Return the names that declarations introduce, those of a destructuring too."""
    return [name for each in declared for name in re.findall(r"\w+(?=\s*(?:[,}\]]|$))", each)]


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
