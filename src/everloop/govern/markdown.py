"""Markdown in which other people's words stay words: no markup, links or hidden characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

NOT_STATED = "not stated"
LONGEST = 2_000
_MARKUP = re.compile(r"([\\`*_{}\[\]<>()#!|~&$@])")
_LINK = re.compile(r"(?i)(?<=[a-z]):(?=//)|(?<=www)\.")


def escape(text: str | None) -> str:
    """Return text for the middle of a Markdown line; what is missing is said to be missing."""
    if text is None:
        return NOT_STATED
    short = text if len(text) <= LONGEST else text[:LONGEST] + "..."
    # Categories C: control, format (the marks that turn reading direction too), surrogates.
    plain = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in short)
    words = " ".join(plain.split())
    if not words:
        return NOT_STATED
    return _LINK.sub(lambda found: "\\" + found[0], _MARKUP.sub(r"\\\1", words))


def code(text: str | None) -> str:
    """Return a digest or another name of ours as code."""
    if not text:
        return NOT_STATED
    return f"`{re.sub(r'[^!-_a-~ ]', '', text)}`"


def facts(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return a list of named facts; the values are Markdown already."""
    return [f"- **{name}**: {value}" for name, value in pairs]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table whose cells are Markdown already."""
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    lines += [" | ".join(row) for row in rows]
    return [f"| {line} |" for line in lines]


def block(text: str) -> list[str]:
    """Return lines as they are, indented as code, so that no fence in them can end it."""
    return [f"    {line}" for line in text.rstrip("\n").splitlines()]
