"""The files of the page, which are read once, and the page as one file that needs no server."""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from lowered_cnn.arrays import InputError
from lowered_cnn.descriptions import JSON
from lowered_cnn.explore.bundle import bundled
from lowered_cnn.explore.fields import encoded

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
INDEX = "index.html"

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


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
