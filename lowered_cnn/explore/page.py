"""The files of the page: as the server sends them, and as one file that needs no server."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

from lowered_cnn.arrays import InputError
from lowered_cnn.descriptions import JSON
from lowered_cnn.explore.bundle import bundled
from lowered_cnn.explore.fields import encoded

INDEX, STYLE, MAIN = "index.html", "style.css", "app.js"
KINDS = {INDEX: "text/html", STYLE: "text/css", MAIN: "text/javascript"}

HEAD = "<head>"
STYLE_LINK = f'<link rel="stylesheet" href="static/{STYLE}">'
SCRIPT_LINK = f'<script type="module" src="static/{MAIN}"></script>'


@dataclass(frozen=True)
class Asset:
    """A file that the server sends."""

    content: bytes
    media_type: str

    @cached_property
    def tag(self) -> str:
        """Its entity tag, which changes with the content."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


def texts() -> dict[str, str]:
    """Return the files of the page by name, with the line ends that a browser sees."""
    folder = files("lowered_cnn.explore").joinpath("static")
    return {file.name: file.read_text("utf-8") for file in folder.iterdir() if file.is_file()}


def assets() -> dict[str, Asset]:
    """Return what the server sends, by name; all modules are one script, which loads faster than forty."""
    found = texts()
    found[MAIN] = bundled(found, MAIN)
    return {name: Asset(found[name].encode(), kind) for name, kind in KINDS.items()}


def offline(texts: Mapping[str, str], saved: JSON) -> bytes:
    """Return the page of these files as one, with what it shows as JSON in the element `saved`; it loads nothing.

    Style and script are in the file, and its policy allows these two alone, by their hashes.
    """
    page, rules, script = texts[INDEX], texts[STYLE], bundled(texts, MAIN)
    if [page.count(part) for part in (HEAD, STYLE_LINK, SCRIPT_LINK, "static/")] != [1, 1, 1, 2]:
        raise InputError(
            INDEX, f"once each {HEAD} {STYLE_LINK} {SCRIPT_LINK}, and nothing else of static/", "another form"
        )
    if "</style" in rules:
        raise InputError(STYLE, "a style sheet", "the end of one")
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(rules)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    json = encoded(saved).decode().replace("<", "\\u003c")
    data = f'<script type="application/json" id="saved">{json}</script>'
    for before, after in (
        (SCRIPT_LINK, f'{data}\n<script type="module">{script}</script>'),
        (STYLE_LINK, f"<style>{rules}</style>"),
        (HEAD, f'{HEAD}\n<meta http-equiv="Content-Security-Policy" content="{policy}">'),
    ):
        page = page.replace(before, after, 1)
    return page.encode()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
