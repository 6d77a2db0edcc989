"""Answers on the standard output: JSON for programs, tables and lists of fields for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import msgspec

from everloop.cli.text import clean, clean_json, clean_line, to_cell

MOST_FIELDS = 200


def write(text: str) -> None:
    """Print a line of our own; user's text in it must be clean already."""
    sys.stdout.write(text + "\n")


def write_note(text: str) -> None:
    """Say on the standard error how a longer command gets on; nothing when nobody watches."""
    if sys.stderr.isatty():
        sys.stderr.write(clean_line(text) + "\n")


def write_clean(text: str) -> None:
    """Print text that may hold anything, line by line."""
    sys.stdout.write(clean(text) + "\n")


def write_json(value: object) -> None:
    """Print a value as indented JSON."""
    encoded = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(clean_json(encoded.decode()) + "\n")


def write_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headers; for pipes and files, wide enough that nothing is cut."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(Text(header), overflow="fold")
    for row in rows:
        table.add_row(*(Text(to_cell(value)) for value in row))
    width = None if sys.stdout.isatty() else 10_000
    Console(file=sys.stdout, width=width, highlight=False, soft_wrap=False).print(table)


def write_fields(value: object) -> None:
    """Print a record as one field a line, nested names joined by dots."""
    pairs = list(_flat(msgspec.to_builtins(value), ""))[:MOST_FIELDS]
    width = max((len(name) for name, _ in pairs), default=0)
    for name, item in pairs:
        write(f"{name:<{width}}  {item}")


def _flat(value: object, name: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            inner = clean_line(str(key))
            yield from _flat(item, f"{name}.{inner}" if name else inner)
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for place, item in enumerate(value):
            yield from _flat(item, f"{name}[{place}]")
    else:
        yield name, to_cell(value)


def pick(value: object, path: str) -> object:
    """Return what a dotted path names inside an answer; None where it leads nowhere.

    Within a mapping the rest of the path is one key: names of metrics have dots in them.
    """
    while path and value is not None:
        if isinstance(value, dict):
            return value.get(path)
        step, _, path = path.partition(".")
        value = getattr(value, step, None)
    return value
