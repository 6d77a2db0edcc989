"""What can be read off a filter and the declarations of kinds, before anything is asked."""

from __future__ import annotations

from collections.abc import Iterable

from everloop.core.records import Kind
from everloop.core.search import All, Any, Compare, Filter, Has, Link, Not, Test


def parts_of(filter: Filter) -> list[Filter]:
    """Return the parts that must all hold, without needless brackets around them."""
    match filter:
        case All(parts=parts):
            return [each for part in parts for each in parts_of(part)]
        case Any(parts=(only,)):
            return parts_of(only)
        case Not(part=Not(part=inner)):
            return parts_of(inner)
        case Test(field=field, compare=Compare.IN, value=(value,)):
            return [Test(field, Compare.EQ, value)]
    return [filter]


def led_by(kind: Kind, equal: Iterable[str], then: str) -> tuple[str, ...] | None:
    """Return the longest index whose fields before ``then`` are all fixed, or None."""
    fixed = set(equal)
    found = [
        group[: group.index(then) + 1]
        for group in (*kind.index, *kind.unique, ("id",))
        if then in group and fixed.issuperset(group[: group.index(then)])
    ]
    return max(found, key=len, default=None)


def fixed_in(filter: Filter) -> set[str]:
    """Return the fields that a filter holds to one value."""
    return {
        part.field
        for part in parts_of(filter)
        if isinstance(part, Test) and part.compare is Compare.EQ
    }


def without(filter: Filter, met: Filter) -> list[Filter]:
    """Return the parts that must all hold, but for one that is known to."""
    return [part for part in parts_of(filter) if part != met]


def is_by_id(link: Link) -> bool:
    """Tell whether a row belongs to another by naming its plain id."""
    return link.ours == "id" and not (link.prefix or link.strip)


def copy_of(kind: Kind, has: Has, field: str) -> str | None:
    """Return the field that repeats a field of the row found by ``has``, held sorted by an index.

    None as well where several of the rows that ``has`` asks for may belong to one row.
    """
    fixed = fixed_in(has.filter)
    if not any({*group} <= fixed | {has.link.theirs} for group in kind.unique):
        return None
    for name, source in kind.copies.items():
        if source == (has.link.theirs, field) and led_by(kind, fixed, name) is not None:
            return name
    return None


def needs_id_only(filter: Filter) -> bool:
    """Tell whether a row's id alone decides whether it meets a filter."""
    match filter:
        case Test():
            return False
        case Has(link=link):
            return link.ours == "id" and not link.strip
        case All(parts=parts) | Any(parts=parts):
            return all(needs_id_only(part) for part in parts)
        case Not(part=part):
            return needs_id_only(part)
