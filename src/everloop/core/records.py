"""Records: the frozen rows of the one transactional store, and how each kind is keyed.

A record kind is declared once, beside its domain::

    @record("model_version", unique=(("model", "number"),), index=(("project", "created_at"),))
    class ModelVersion(Record):
        project: ProjectId
        model: Id
        number: int

Storage derives its tables from these declarations and never imports a domain package.

The canonical form of a record leaves out every field, at any depth, that holds its declared
default. So a field with a default can be added to a kind, or to a struct inside one, and what the
ledger said of older rows still holds. The price is that a default, once declared, never changes:
add another field instead. A field without a default can't be added to a kind that has rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TypeAlias, TypeVar

import msgspec

from everloop.core.canonical import canonical_json
from everloop.core.digest import Digest, record_digest
from everloop.core.ids import Id


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """An immutable row.

    Attributes:
        id: Primary key; a UUIDv7 for all domain kinds.
        revision: Counts the replacements of this row; a replace names the revision it read.
    """

    id: Id
    revision: int = 0


R = TypeVar("R", bound=Record)
Fields = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """How one record type is stored.

    Attributes:
        name: Table name, and the kind in refs and in the ledger.
        type: The record class.
        unique: Field groups whose values may occur once. A group with a null in it never clashes.
        index: Field groups that queries filter or sort by.
        covered: Whether changes are listed in ledger entries; False for the ledger's own rows.
        copies: Fields that repeat a field of another row: the field that holds that row's id, and
            the field's name there. Searches sorted by it may walk the rows here instead.
        heads: Fields that repeat the first characters of a text: its field, and how many.
    """

    name: str
    type: type[Record]
    unique: tuple[Fields, ...] = ()
    index: tuple[Fields, ...] = ()
    covered: bool = True
    copies: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    heads: Mapping[str, tuple[str, int]] = field(default_factory=dict)


_KINDS: dict[str, Kind] = {}
_BY_TYPE: dict[type[Record], Kind] = {}


def record(
    name: str,
    *,
    unique: tuple[Fields, ...] = (),
    index: tuple[Fields, ...] = (),
    covered: bool = True,
    copies: Mapping[str, tuple[str, str]] | None = None,
    heads: Mapping[str, tuple[str, int]] | None = None,
) -> Callable[[type[R]], type[R]]:
    """Declare a record kind.

    Raises:
        ValueError: the name is taken, or a named field does not exist (at import).
    """

    def declare(kind: type[R]) -> type[R]:
        if name in _KINDS:
            message = f"record kind {name!r} is declared twice"
            raise ValueError(message)
        named = {name for group in unique + index for name in group} | {*(copies or {})}
        unknown = (named | {*(heads or {})}) - set(kind.__struct_fields__)
        if unknown:
            message = f"record kind {name!r} has no field {sorted(unknown)}"
            raise ValueError(message)
        declared = Kind(name, kind, unique, index, covered, copies or {}, heads or {})
        _KINDS[name] = declared
        _BY_TYPE[kind] = declared
        return kind

    return declare


def kind_of(target: Record | type[Record]) -> Kind:
    """Return the declaration of a record or record type.

    Raises:
        LookupError: the type was never declared.
    """
    return _BY_TYPE[target if isinstance(target, type) else type(target)]


def declared_kinds() -> Mapping[str, Kind]:
    """Return all kinds declared so far, by name."""
    return dict(_KINDS)


def canonical_record(target: Record) -> bytes:
    """Return the canonical bytes of a record, which its ledger digest covers."""
    return canonical_json(_plain(target))


def digest_of(target: Record) -> Digest:
    """Return the digest by which the ledger names this state of the record."""
    return record_digest(canonical_record(target))


_PLAIN = frozenset({bool, int, float, str, type(None)})
_Field: TypeAlias = "tuple[str, str, tuple[object, bytes] | None]"


def _plain(value: object) -> object:
    """Return a value in JSON's own types, without what structs hold by default."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, msgspec.Struct):
        return _plain_struct(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return msgspec.to_builtins(value, order="sorted")


def _plain_struct(value: msgspec.Struct) -> dict[str, object]:
    tag, fields = _shape(type(value))
    plain = dict(tag)
    for attribute, name, default in fields:
        item = _plain(getattr(value, attribute))
        # Equal is not enough: 0, 0.0, -0.0 and False are equal, and four different states.
        if default is None or item != default[0] or canonical_json(item) != default[1]:
            plain[name] = item
    return plain


@cache
def _shape(kind: type[msgspec.Struct]) -> tuple[dict[str, object], tuple[_Field, ...]]:
    """Return a struct's tag, and each field with its name in JSON and its default, if any."""
    config = kind.__struct_config__
    tag: dict[str, object] = {} if config.tag is None else {str(config.tag_field): config.tag}
    return tag, tuple(
        (item.name, item.encode_name, None if item.required else _default(item))
        for item in msgspec.structs.fields(kind)
    )


def _default(item: msgspec.structs.FieldInfo) -> tuple[object, bytes]:
    is_made = item.default is msgspec.NODEFAULT
    plain = _plain(item.default_factory() if is_made else item.default)
    return plain, canonical_json(plain)
