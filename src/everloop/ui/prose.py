"""Notes and descriptions as their authors write them: Markdown, without HTML and without pictures.

A picture would be fetched from wherever its address says; nothing a user wrote makes a browser do
that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

MOST_CHARS: Final = 50_000
_DEEPER: Final = 2


def markdown(text: str) -> Markup:
    """Write Markdown as HTML; headings begin below those of a page, HTML in it stays text."""
    tokens = _parser().parse(text[:MOST_CHARS])
    return Markup(_parser().renderer.render(_fitted(tokens), _parser().options, {}))  # noqa: S704 -- HTML is off


def _fitted(tokens: Sequence[Token]) -> Sequence[Token]:
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{min(6, int(token.tag[1:]) + _DEEPER)}"
        for inner in token.children or ():
            if inner.type == "link_open":
                inner.attrSet("rel", "noreferrer")
    return tokens


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    made = MarkdownIt("commonmark", {"html": False, "breaks": True})
    return made.enable("table").disable("image")
