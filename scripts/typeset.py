"""Finish the pages that mkdocs builds: LaTeX becomes MathML, and the package's code in the book is open."""

import html
import re
from typing import Any

from latex2mathml.converter import convert


def on_config(config: Any) -> Any:
    """Have fences of the language `math` typeset as displayed equations."""
    fence = {"name": "math", "class": "math", "format": display}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def display(source: str, *_: Any, **__: Any) -> str:
    """Return the MathML of a displayed equation."""
    return f'<div class="math" data-search-exclude="">{convert(source, display="block")}</div>'


def on_page_content(content: str, **_: Any) -> str:
    """Typeset inline equations, which Markdown leaves as $<code>...</code>$, and open the code that is shown."""
    content = content.replace('<details class="mkdocstrings-source"', '<details open class="mkdocstrings-source"')
    return re.sub(r"\$<code>(.*?)</code>\$([.,:;)]*)", inline, content)


def inline(found: re.Match[str]) -> str:
    """Return an equation with the punctuation behind it, which stays on its line."""
    return f'<span class="math-inline">{convert(html.unescape(found[1]))}{found[2]}</span>'
