"""Every id in every record is placed: what it names, and what happens when that goes."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

from everloop.app.verbs import load_verbs
from everloop.core.ids import Id
from everloop.core.records import declared_kinds
from everloop.govern.references import NO_RECORDS, REFERENCES

load_verbs()


def is_an_id(hint: Any) -> bool:
    return hint is Id or any(is_an_id(part) for part in get_args(hint))


def test_every_id_of_every_record_is_placed() -> None:
    placed = {(found.kind, found.field) for found in REFERENCES} | NO_RECORDS
    ids = {
        (kind.name, field)
        for kind in declared_kinds().values()
        for field, hint in get_type_hints(kind.type).items()
        if field != "id" and is_an_id(hint)
    }

    assert set() == ids - placed, "say in govern/references.py what these name"


def test_what_is_placed_exists() -> None:
    kinds = declared_kinds()

    for found in REFERENCES:
        assert found.target in kinds
        assert found.field in kinds[found.kind].type.__struct_fields__


def test_nothing_is_part_of_two_kinds_unless_one_is_part_of_the_other() -> None:
    owners: dict[str, set[str]] = {}
    for found in REFERENCES:
        if found.role == "part":
            owners.setdefault(found.kind, set()).add(found.target)

    assert {"logged_metric", "logged_model"} == {k for k, v in owners.items() if len(v) > 1}
