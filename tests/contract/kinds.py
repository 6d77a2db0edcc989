"""Record kinds of the contract tests; not declared, so that no other test sees them."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum, StrEnum

import msgspec

from everloop.core.ids import Id
from everloop.core.records import Kind, Record


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Part(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    weight: float | None = None
    tags: tuple[str, ...] = ()
    at: datetime | None = None


class Thing(Record, frozen=True, kw_only=True):
    """One field of every sort."""

    text: str
    note: str | None
    number: int
    rank: int | None
    size: float
    score: float | None
    flag: bool
    answer: bool | None
    at: datetime
    ended: datetime | None
    colour: Colour
    level: Level | None
    data: bytes
    blob: bytes | None
    part: Part | None
    parts: tuple[Part, ...]
    words: dict[str, str]
    document: dict[str, object]
    either: int | str


class Named(Record, frozen=True, kw_only=True):
    group: str
    name: str | None
    value: int = 0


class Counter(Record, frozen=True, kw_only=True):
    value: int


class Reading(Record, frozen=True, kw_only=True):
    """What the ordering tests sort; ``batch`` keeps their examples apart."""

    batch: str
    text: str
    note: str | None
    number: int | None
    value: float | None
    at: datetime | None
    colour: Colour | None


HEAD_CHARS = 2


class Leaf(Record, frozen=True, kw_only=True):
    """What belongs to a reading, by its id or by a text; ``at`` is its owner's."""

    batch: str
    owner: Id
    node: str
    key: str
    text: str | None
    value: float | None
    flag: bool
    head: str | None = None
    at: datetime | None = None


KINDS = {
    kind.name: kind
    for kind in (
        Kind("thing", Thing),
        Kind("named", Named, unique=(("group", "name"),), index=(("value",),)),
        Kind("counter", Counter),
        Kind(
            "leaf",
            Leaf,
            unique=(("owner", "key"),),
            index=(
                ("node",),
                ("batch", "key", "value", "head", "at", "owner"),
                ("batch", "key", "head", "at", "owner"),
            ),
            copies={"at": ("owner", "at")},
            heads={"head": ("text", HEAD_CHARS)},
        ),
        Kind(
            "reading",
            Reading,
            index=(("batch", "note"), ("batch",), ("batch", "number"), ("batch", "text")),
        ),
    )
}


def named(key: str, name: str | None = None, *, group: str = "g", value: int = 0) -> Named:
    return Named(id=Id(key), group=group, name=name, value=value)
