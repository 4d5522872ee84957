"""Pieces of HTML: paragraphs, tables, facts, and what is shown on demand; all text in them is escaped."""

from collections.abc import Iterable, Sequence
from html import escape


class Bar(float):
    """A share that a table shows as a bar, too."""


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(header: Sequence[str], rows: Iterable[Sequence[str | Bar]], total: Sequence[str] = ()) -> str:
    """Return a table."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    foot = f"<tfoot><tr>{''.join(map(_cell, total))}</tr></tfoot>" if total else ""
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{foot}</table></div>'


def _cell(value: str | Bar) -> str:
    if isinstance(value, Bar):
        return f'<td class="bar" style="--share: {min(value, 1):.1%}">{value:.1%}</td>'
    return f"<td>{escape(value)}</td>"


def facts(pairs: Iterable[tuple[str, str]], kind: str = "facts") -> str:
    """Return names with what they stand for."""
    told = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in pairs)
    return f'<dl class="{kind}">{told}</dl>'


def folded(title: str, html: str) -> str:
    """Return something that is shown when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary>{html}</details>"


def preformatted(text: str) -> str:
    """Return text whose lines stay as they are."""
    return f"<pre>{escape(text)}</pre>"
