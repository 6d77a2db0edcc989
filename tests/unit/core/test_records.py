"""The canonical form of records: what a digest covers, and what may be added to a kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from msgspec import inspect

from everloop.app.verbs import load_verbs
from everloop.core.canonical import canonical_json
from everloop.core.errors import InvalidInput
from everloop.core.ids import Id
from everloop.core.records import Record, canonical_record, declared_kinds, digest_of

DEFAULTS = Path(__file__).parents[2] / "vectors" / "records" / "defaults.json"
AT = datetime(2026, 1, 1, tzinfo=UTC)


class Mood(StrEnum):
    CALM = "calm"
    LOUD = "loud"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    name: str


class Event(Record, frozen=True, kw_only=True):
    text: str
    parts: tuple[Part, ...]
    best: Part | None
    named: dict[str, Part]


class GrownPart(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    weight: float | None = None
    tags: tuple[str, ...] = ()


class GrownEvent(Record, frozen=True, kw_only=True):
    text: str
    parts: tuple[GrownPart, ...]
    best: GrownPart | None
    named: dict[str, GrownPart]
    mood: Mood = Mood.CALM
    places: tuple[str, ...] = ()
    words: dict[str, str] = msgspec.field(default_factory=dict)
    at: datetime = AT
    either: int | float | bool = 0


class Apple(msgspec.Struct, frozen=True, kw_only=True, tag="apple"):
    weight: int = 1


class Pear(msgspec.Struct, frozen=True, kw_only=True, tag="pear"):
    weight: int = 1


class Basket(Record, frozen=True, kw_only=True):
    fruit: Apple | Pear


def grown(**changed: object) -> GrownEvent:
    part = GrownPart(name="p")
    made = GrownEvent(id=Id("1"), text="t", parts=(part,), best=part, named={"n": part})
    return msgspec.structs.replace(made, **changed)


def test_fields_with_defaults_can_be_added_at_any_depth_and_old_digests_hold() -> None:
    part = Part(name="p")
    old = Event(id=Id("1"), text="t", parts=(part,), best=part, named={"n": part})

    assert digest_of(old) == digest_of(grown())


@pytest.mark.parametrize(
    "change",
    [
        {"mood": Mood.LOUD},
        {"places": ("here",)},
        {"words": {"a": "b"}},
        {"revision": 1},
        {"best": None},
        {"best": GrownPart(name="p", weight=0.0)},
        {"parts": (GrownPart(name="p", tags=("x",)),)},
        {"named": {"n": GrownPart(name="p", weight=1.0)}},
    ],
    ids=str,
)
def test_whatever_is_not_a_default_changes_the_digest(change: dict[str, object]) -> None:
    assert digest_of(grown()) != digest_of(grown(**change))


def test_equal_values_of_different_types_are_different_states() -> None:
    digests = sorted(digest_of(grown(either=value)) for value in (0, 0.0, -0.0, False))

    assert all(left != right for left, right in pairwise(digests))


@pytest.mark.parametrize(
    "given", [{"mood": "calm"}, {"places": []}, {"at": datetime(2026, 1, 1, tzinfo=UTC)}], ids=str
)
def test_a_default_in_another_spelling_is_the_default(given: dict[str, object]) -> None:
    assert canonical_record(grown()) == canonical_record(grown(**given))


def test_structs_that_differ_by_their_tag_alone_are_told_apart() -> None:
    fruits = [canonical_record(Basket(id=Id("1"), fruit=fruit)) for fruit in (Apple(), Pear())]

    assert [b'{"fruit":{"type":"apple"},"id":"1"}', b'{"fruit":{"type":"pear"},"id":"1"}'] == fruits


def test_half_a_character_has_no_canonical_form() -> None:
    with pytest.raises(InvalidInput) as refused:
        canonical_json({"text": "a\ud800"})

    assert "text.invalid" == refused.value.code


# --- what was declared --------------------------------------------------------------------------


def structs_in(shape: inspect.Type) -> Iterator[type[msgspec.Struct]]:
    if isinstance(shape, inspect.StructType):
        yield shape.cls
    parts = [getattr(shape, name, None) for name in ("item_type", "key_type", "value_type")]
    parts += [*getattr(shape, "types", ()), *getattr(shape, "item_types", ())]
    for part in parts:
        if part is not None:
            yield from structs_in(part)


def declared_defaults() -> dict[str, dict[str, object]]:
    """Return the defaults in all records and in the structs inside them, by class name."""
    load_verbs()
    kinds = (kind for kind in declared_kinds().values() if kind.covered)
    waiting: list[type[msgspec.Struct]] = [
        kind.type for kind in kinds if kind.type.__module__.startswith("everloop.")
    ]
    found: dict[str, dict[str, object]] = {}
    while waiting:
        struct = waiting.pop()
        name = f"{struct.__module__}.{struct.__qualname__}"
        if name in found:
            continue
        found[name] = {
            field.encode_name: json.loads(canonical_json(default_of(field)))
            for field in msgspec.structs.fields(struct)
            if not field.required
        }
        info = inspect.type_info(struct)
        assert isinstance(info, inspect.StructType)
        waiting += [inner for field in info.fields for inner in structs_in(field.type)]
    return {name: fields for name, fields in sorted(found.items()) if fields}


def default_of(field: msgspec.structs.FieldInfo) -> object:
    return field.default_factory() if field.default is msgspec.NODEFAULT else field.default


def test_no_default_that_a_record_was_ever_digested_with_has_changed() -> None:
    now = declared_defaults()

    changed = [
        f"{name}.{field}"
        for name, fields in json.loads(DEFAULTS.read_text("utf-8")).items()
        for field, value in fields.items()
        if name in now and (field not in now[name] or now[name][field] != value)
    ]

    assert [] == changed, "older rows would look tampered with: keep the default, add a new field"
