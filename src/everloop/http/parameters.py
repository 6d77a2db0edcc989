"""A question's input as URL parameters.

Plain values stand as they are, a list by repetition, everything else as JSON (OpenAPI: ``form``
with ``explode``, and ``content: application/json``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final, NamedTuple

import msgspec
from msgspec import inspect

_LISTS: Final = (
    inspect.ListType,
    inspect.VarTupleType,
    inspect.TupleType,
    inspect.SetType,
    inspect.FrozenSetType,
)
_NESTED: Final = (inspect.StructType, inspect.DictType)


def to_parameters(ask: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return the parameters of an input in JSON's own types; null stands for left out."""
    found: list[tuple[str, str]] = []
    for name, value in ask.items():
        items = value if isinstance(value, list | tuple) else [value]
        found += [(name, _to_text(item)) for item in items if item is not None]
    return found


def from_parameters(ask: type[msgspec.Struct], given: Iterable[tuple[str, str]]) -> msgspec.Struct:
    """Read an input from parameters.

    Raises:
        msgspec.ValidationError: it does not fit, or a parameter that is no list stands twice.
        msgspec.DecodeError: a JSON text is none.
    """
    shapes = _shapes(ask)
    # A list without items stands nowhere.
    found: dict[str, object] = {name: [] for name, shape in shapes.items() if shape.is_needed}
    for name, text in given:
        shape = shapes.get(name, _PLAIN)
        value = msgspec.json.decode(text) if shape.is_nested else text
        if shape.is_list:
            items = found.setdefault(name, [])
            assert isinstance(items, list)
            items.append(value)
        elif name in found:
            message = f"Parameter `{name[:60]}` stands twice"
            raise msgspec.ValidationError(message)
        else:
            found[name] = value
    return msgspec.convert(found, ask, strict=False)


def _to_text(value: object) -> str:
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


class _Shape(NamedTuple):
    is_list: bool
    is_nested: bool  # it, or each of its items, is more than a plain value
    is_needed: bool = False


_PLAIN: Final = _Shape(is_list=False, is_nested=False)


@cache
def _shapes(ask: type[msgspec.Struct]) -> dict[str, _Shape]:
    info = inspect.type_info(ask)
    assert isinstance(info, inspect.StructType)
    return {field.encode_name: _shape(field) for field in info.fields}


def _shape(field: inspect.Field) -> _Shape:
    kind = _bare(field.type)
    if not isinstance(kind, _LISTS):
        return _Shape(is_list=False, is_nested=isinstance(kind, _NESTED))
    inner = kind.item_types[0] if isinstance(kind, inspect.TupleType) else kind.item_type
    is_nested = isinstance(_bare(inner), (*_LISTS, *_NESTED))
    return _Shape(is_list=True, is_nested=is_nested, is_needed=field.required)


def _bare(kind: inspect.Type) -> inspect.Type:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        options = [part for part in kind.types if not isinstance(part, inspect.NoneType)]
        if len(options) == 1:
            return _bare(options[0])
    return kind
