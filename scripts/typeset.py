"""Typeset the equations of the site: LaTeX in the documents becomes MathML when mkdocs builds them."""

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
    return f'<div class="math">{convert(source, display="block")}</div>'


def on_page_content(content: str, **_: Any) -> str:
    """Typeset inline equations, which Markdown leaves as $<code>...</code>$, and keep punctuation on their line."""
    return re.sub(r"\$<code>(.*?)</code>\$([.,:;)]*)", inline, content)


def inline(found: re.Match[str]) -> str:
    return f'<span class="math-inline">{convert(html.unescape(found[1]))}{found[2]}</span>'
