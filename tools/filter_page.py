"""Writes the reference of filters from the vocabularies that give their names meaning."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import cleandoc
from pathlib import Path

from everloop.core.filter import parser
from everloop.core.filter.vocabulary import Vocabulary, declared_vocabularies
from everloop.kernel.verbs import declared_verbs

TEMPLATE = Path(__file__).with_suffix(".md")


def filter_page(note: str) -> str:
    """Return the page: the text beside this file with what the code says in its places."""
    grammar = (parser.__doc__ or "").partition("::\n")[2].partition("\nAND binds")[0]
    places = {
        "grammar": cleandoc(grammar),
        "longest": f"{parser.LONGEST:,}",
        "tests": str(parser.MOST_TESTS),
        "deep": str(parser.DEEPEST),
        "pattern": f"{parser.LONGEST_PATTERN:,}",
        "keys": str(parser.MOST_SORT_KEYS),
        "vocabularies": "\n\n".join(map(_section, declared_vocabularies().values())),
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, value in places.items():
        text = text.replace(f"@{name}@", value)
    return note + text


def _section(vocabulary: Vocabulary) -> str:
    verb = declared_verbs()[f"{vocabulary.noun}.search"]
    synonyms: dict[str, list[str]] = {}
    for other, name in vocabulary.synonyms.items():
        synonyms.setdefault(name, []).append(f"`{other}`")
    rows = [
        (f"`{name}`", ", ".join(synonyms.get(name, ())), target.help, target.tests)
        for name, target in vocabulary.fields.items()
    ]
    rows += [
        (f"`{name}.`*name*", ", ".join(synonyms.get(name, ())), space.help, space.tests)
        for name, space in vocabulary.spaces.items()
    ]
    rows += [
        (
            f"`{name}`, `{name}.`*field*",
            ", ".join(synonyms.get(name, ())),
            link.help,
            f"refs, or as the fields of a [{link.noun}](#{link.noun})",
        )
        for name, link in vocabulary.links.items()
    ]
    return "\n\n".join((f"## {vocabulary.noun}", f"`{verb.name}`: {verb.summary}", _table(rows)))


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| name | also | what it is | compares with |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)
