"""The page: its head, a table of contents, and the sections, in one HTML file that needs no other."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

from lowered_cnn.report.figures import Figure
from lowered_cnn.report.markup import facts
from lowered_cnn.report.sections import Section, sections
from lowered_cnn.report.style import CSS
from lowered_cnn.report.subject import Subject
from lowered_cnn.storage import write_whole


@dataclass(frozen=True, eq=False)
class Report:
    """The title and the sections of a report, and what matters most."""

    title: str
    key: Sequence[tuple[str, str]]
    sections: Sequence[Section]

    @cached_property
    def html(self) -> str:
        """The page; it needs no other file and no network, and is light or dark as the reader's system is."""
        links = "".join(f'<li><a href="#{each.anchor}">{escape(each.title)}</a></li>' for each in self.sections)
        body = "".join(
            f'<section id="{each.anchor}"><h2>{escape(each.title)}</h2>{each.html}</section>' for each in self.sections
        )
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self.title)}</title><style>{CSS}</style></head>\n"
            f'<body><div class="page"><header><h1>{escape(self.title)}</h1>{facts(self.key, "key")}</header>\n'
            f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n<main>{body}</main></div></body></html>\n'
        )

    @property
    def figures(self) -> list[Figure]:
        """All figures."""
        return [figure for section in self.sections for figure in section.figures]

    def save(self, path: Path) -> None:
        """Write the page; the file appears complete or not at all."""
        write_whole(path, self.html.encode())

    def save_figures(self, folder: Path) -> None:
        """Write each figure as a PNG file to a folder, which is made if it does not exist."""
        folder.mkdir(parents=True, exist_ok=True)
        for figure in self.figures:
            write_whole(folder / f"{figure.name}.png", figure.png())


def report(subject: Subject) -> Report:
    """Look into a network, and return what is found; raises InputError without the extra `report`."""
    key = [
        ("test accuracy", f"{subject.confusion.accuracy:.2%}"),
        ("test loss", f"{subject.loss:.4f}"),
        ("test images", f"{len(subject.test):,}"),
        ("classes", f"{len(subject.test.classes):,}"),
        ("parameters", f"{subject.network.parameters.vector.size:,}"),
        ("steps", f"{len(subject.records):,}"),
    ]
    return Report(subject.title, key, list(sections(subject)))
