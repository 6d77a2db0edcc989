"""Refs: the strings by which people and verbs name things, such as ``model:credit@1.4.0``."""

from __future__ import annotations

import re
from typing import NamedTuple

from everloop.core.errors import InvalidInput

_REF = re.compile(
    r"(?P<kind>[a-z][a-z_]*):(?P<name>[^@\s:]{1,100})(?:@(?P<selector>[^@\s:]{1,100}))?"
)


class Ref(NamedTuple):
    """A parsed ref.

    Attributes:
        kind: ``dataset``, ``model``, ``run``, ``deployment``, ``prediction``, ...
        name: The thing's name or id.
        selector: Version number, semantic version or alias; None when absent.
    """

    kind: str
    name: str
    selector: str | None = None

    def __str__(self) -> str:
        tail = "" if self.selector is None else f"@{self.selector}"
        return f"{self.kind}:{self.name}{tail}"


def parse_ref(text: str, *, kind: str | None = None) -> Ref:
    """Read a ref; with ``kind`` given, the prefix may be left out but not differ.

    Raises:
        InvalidInput: ``ref.invalid``.
    """
    full = text if kind is None or text.startswith(kind + ":") else f"{kind}:{text}"
    match = _REF.fullmatch(full)
    if match is None or (kind is not None and match["kind"] != kind):
        example = f"{kind or 'model'}:credit@3"
        raise InvalidInput(
            "ref.invalid",
            f"{text[:80]!r} is not a {kind or ''} ref.".replace("  ", " "),
            hint=f"Write it like {example}.",
        )
    return Ref(match["kind"], match["name"], match["selector"])
