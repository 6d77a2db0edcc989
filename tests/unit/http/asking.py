"""The smallest input that fits a verb's type, so that nothing but the caller can be refused."""

from __future__ import annotations

from typing import Any

from msgspec import inspect


def smallest(kind: Any) -> Any:
    """Return a JSON value of a type as msgspec describes it: required fields alone."""
    if isinstance(kind, inspect.Metadata):
        return smallest(kind.type)
    if isinstance(kind, inspect.StructType):
        return {f.encode_name: smallest(f.type) for f in kind.fields if f.required}
    if isinstance(kind, inspect.UnionType):
        return smallest(kind.types[0])
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        return [smallest(kind.item_type)] * (kind.min_length or 0)
    if isinstance(kind, inspect.StrType):
        return "a" * max(1, kind.min_length or 0)
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        least = kind.ge if kind.ge is not None else kind.gt
        return 1 if least is None else least + (kind.gt is not None)
    if isinstance(kind, inspect.EnumType):
        return next(iter(kind.cls)).value
    if isinstance(kind, inspect.LiteralType):
        return kind.values[0]
    plain: dict[type, Any] = {
        inspect.BoolType: False,
        inspect.DictType: {},
        inspect.NoneType: None,
        inspect.AnyType: None,
        inspect.BytesType: "",
        inspect.DateTimeType: "2026-01-01T00:00:00Z",
    }
    return plain[type(kind)]
