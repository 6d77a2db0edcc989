"""Cuts a filter into tokens, each with its position.

Quotes are doubled inside quotes; nothing else is an escape, a backslash least of all. The
patterns never try a character twice, so a hostile text costs no more than a sound one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from everloop.core.filter.faults import fault, shown


class Kind(StrEnum):
    """What a token is."""

    NAME = "name"
    QUOTED = "quoted"
    TEXT = "text"
    NUMBER = "number"
    SPAN = "span"
    SIGN = "sign"
    COMPARE = "compare"
    PUNCTUATION = "punctuation"
    END = "end"


class Token(NamedTuple):
    """A piece of the text.

    Attributes:
        raw: As it is written.
        parts: The parts of a name's path, or the one value of a text.
        word: A name of one bare part in capitals, which may be a keyword; empty for all else.
    """

    kind: Kind
    raw: str
    at: int
    parts: tuple[str, ...] = ()
    word: str = ""


_DOUBLE = r'"(?:[^"]|"")*+"'
_BACKTICK = r"`(?:[^`]|``)*+`"
_KEY = r"\w+(?:[-/:@]+\w+)*+"
_TOKENS = re.compile(
    rf"""
      (?P<space>\s++)
    | (?P<text>'(?:[^']|'')*+')
    | (?P<name>(?:[^\W\d]\w*+|{_DOUBLE}|{_BACKTICK})(?:\.(?:{_KEY}|{_DOUBLE}|{_BACKTICK}))*+)
    | (?P<date>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}
        (?:[Tt][0-9:.]++(?:[Zz]|[+-][0-9]{{2}}:[0-9]{{2}})?)?)
    | (?P<span>[0-9]++[smhdw]\b)
    | (?P<number>(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?)
    | (?P<compare>[<>=!~]++)
    | (?P<sign>[+-])
    | (?P<punctuation>[(),])
    """,
    re.VERBOSE,
)
_PART = re.compile(rf"{_DOUBLE}|{_BACKTICK}|{_KEY}")
_OPENING = {"'": "text", '"': "text or name", "`": "name"}
_ADVICE = {
    "&": "Write AND between two tests.",
    "|": "Write OR between two tests.",
    ";": "A filter is one expression, without a semicolon.",
    "[": "Write a list in round brackets: IN ('a', 'b').",
    "*": "In LIKE, '%' stands for any text and '_' for one character.",
    "%": "Put a pattern in quotes: LIKE 'a%'.",
}


def tokens_of(text: str, *, what: str = "filter") -> Iterator[Token]:
    """Yield the tokens of a text as they are asked for, the last of kind END.

    Raises:
        InvalidInput: ``filter.invalid`` (or ``order.invalid``) for what begins no token.
    """
    at = 0
    while at < len(text):
        match = _TOKENS.match(text, at)
        if match is None:
            raise _unknown(text, at, what)
        if match.lastgroup != "space":
            yield _token(match, text, what)
        at = match.end()
    yield Token(Kind.END, "", len(text.rstrip()))


def is_bare(part: str, *, first: bool) -> bool:
    """Tell whether a part of a name needs no quotes; keywords are another question."""
    pattern = r"[^\W\d]\w*" if first else _KEY
    return re.fullmatch(pattern, part) is not None


def _token(match: re.Match[str], text: str, what: str) -> Token:
    raw, at = match.group(), match.start()
    group = match.lastgroup
    if group == "name":
        return _name(raw, at, text, what)
    if group == "text":
        return Token(Kind.TEXT, raw, at, (_unquoted(raw),))
    if group == "date":
        return Token(Kind.TEXT, raw, at, (raw,))
    if group in {"number", "span"} and text[match.end() : match.end() + 1].isidentifier():
        raise fault(
            text,
            at,
            f"{shown(raw + text[match.end()])} is no number",
            "Put a text in quotes: 'abc'. A name that begins with a digit stands in backticks.",
            what=what,
        )
    return Token(Kind(str(group)), raw, at)


def _name(raw: str, at: int, text: str, what: str) -> Token:
    found = _PART.findall(raw)
    parts = tuple(_unquoted(part) if part[0] in _OPENING else part for part in found)
    if len(parts) == 1:
        if raw[0] == '"':
            return Token(Kind.QUOTED, raw, at, parts)
        if raw[0] != "`":
            return Token(Kind.NAME, raw, at, parts, raw.upper())
    if "" in parts:
        raise fault(text, at, "A part of a name is empty", "Name the field.", what=what)
    return Token(Kind.NAME, raw, at, parts)


def _unquoted(raw: str) -> str:
    quote = raw[0]
    return raw[1:-1].replace(quote * 2, quote)


def _unknown(text: str, at: int, what: str) -> Exception:
    char = text[at]
    if char in _OPENING:
        return fault(
            text,
            at,
            f"The {_OPENING[char]} that begins with {char} has no end",
            f"Close it with {char}; inside it, write {char * 2} for {char}.",
            what=what,
        )
    hint = _ADVICE.get(char, "Put names with special characters in backticks, texts in quotes.")
    return fault(text, at, f"{shown(char)} has no meaning", hint, what=what)
