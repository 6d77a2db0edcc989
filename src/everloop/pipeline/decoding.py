"""Values from their canonical bytes: the way back from ``codecs``."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Final

import msgspec

from everloop.core.digest import content_digest
from everloop.core.errors import InvalidInput
from everloop.pipeline.codecs import MAGIC, DatasetRef, FileRef


def decode(data: bytes, files: Path) -> object:
    """Return the value; files are written below the folder ``files``, under their digest.

    Types are looked up among the modules already imported: reading a result imports nothing.

    Raises:
        InvalidInput: ``step.result_unreadable``.
    """
    if not data.startswith(MAGIC):
        raise unreadable("it was written by another version")
    try:
        return _Reader(files).value(msgspec.msgpack.decode(data[len(MAGIC) :]))
    except (msgspec.MsgspecError, ValueError, TypeError, LookupError, AttributeError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise unreadable(f"{type(error).__name__}: {error}") from error


def unreadable(reason: str) -> InvalidInput:
    """Return the error for a stored result that cannot be read."""
    return InvalidInput(
        "step.result_unreadable",
        f"A stored result cannot be read: {reason}.",
        hint="Run the step again; its module must be imported before its results are read.",
    )


class _Reader:
    """Turns a tree back into the value."""

    def __init__(self, files: Path) -> None:
        self._files = files

    def value(self, tree: object) -> object:
        if not isinstance(tree, list):
            return tree
        tag, *rest = tree
        if tag in _RECORDS:
            kind = _find_type(rest[0])
            names = [str(name) for name in rest[1::2]]
            fields = dict(zip(names, self.values(rest[2::2]), strict=True))
            return _RECORDS[tag](kind, fields)
        if tag in _CONTAINERS:
            return _CONTAINERS[tag](self.values(rest))
        if tag == "file":
            return self.file(str(rest[0]), rest[1])
        return _LEAVES[tag](rest)

    def values(self, trees: list[object]) -> list[object]:
        return [self.value(tree) for tree in trees]

    def file(self, name: str, data: bytes) -> FileRef:
        if Path(name).name != name or name in {"", ".", ".."}:
            raise unreadable(f"{name[:60]!r} is no file name")
        folder = self._files / content_digest(data).partition(":")[2]
        path = folder / name
        if not path.is_file() or path.read_bytes() != data:
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f"{name}.{os.getpid()}.partial"
            partial.write_bytes(data)
            partial.replace(path)
        return FileRef(str(path))


def _find_type(name: object) -> type:
    module_name, _, qualname = str(name).partition(":")
    found: object = sys.modules.get(module_name)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise unreadable(f"the type {name} is not imported")
    return found


def _to_struct(kind: type, fields: dict[str, object]) -> object:
    if not issubclass(kind, msgspec.Struct):
        raise unreadable(f"{kind.__qualname__} is no Struct any more")
    return kind(**fields)


def _to_dataclass(kind: type, fields: dict[str, object]) -> object:
    if not dataclasses.is_dataclass(kind):
        raise unreadable(f"{kind.__qualname__} is no dataclass any more")
    # Not through __init__: fields with init=False or __post_init__ would not come back the same.
    made = object.__new__(kind)
    for name, item in fields.items():
        object.__setattr__(made, name, item)
    return made


def _to_named_tuple(kind: type, fields: dict[str, object]) -> object:
    if not (issubclass(kind, tuple) and hasattr(kind, "_fields")):
        raise unreadable(f"{kind.__qualname__} is no named tuple any more")
    return kind(**fields)


def _to_dict(items: list[object]) -> dict[object, object]:
    return dict(zip(items[::2], items[1::2], strict=True))


def _read_enum(rest: list[Any]) -> object:
    kind = _find_type(rest[0])
    if not issubclass(kind, Enum):
        raise unreadable(f"{kind.__qualname__} is no enum any more")
    return kind[str(rest[1])]


def _read_array(rest: list[Any]) -> object:
    import numpy as np

    dtype, shape, data = rest
    # A copy, in memory of its own: a step may write into its argument.
    made = np.empty(shape, dtype=np.dtype(dtype))
    if data:
        made[...] = np.frombuffer(data, dtype=made.dtype).reshape(shape)
    return made


def _read_scalar(rest: list[Any]) -> object:
    import numpy as np

    return np.frombuffer(rest[1], dtype=np.dtype(rest[0]))[0]


def _read_table(rest: list[Any]) -> object:
    import pyarrow as pa

    return pa.ipc.open_stream(pa.py_buffer(rest[0])).read_all()


_RECORDS: Final[dict[str, Callable[[type, dict[str, object]], object]]] = {
    "struct": _to_struct,
    "dataclass": _to_dataclass,
    "named": _to_named_tuple,
}
_CONTAINERS: Final[dict[str, Callable[[list[object]], object]]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": _to_dict,
}
_LEAVES: Final[dict[str, Callable[[list[Any]], object]]] = {
    "int": lambda rest: int(rest[0]),
    "dataset": lambda rest: DatasetRef(rest[0]),
    "enum": _read_enum,
    "datetime": lambda rest: datetime.fromisoformat(rest[0]),
    "date": lambda rest: date.fromisoformat(rest[0]),
    "timedelta": lambda rest: timedelta(*rest),
    "decimal": lambda rest: Decimal(rest[0]),
    "complex": lambda rest: complex(*rest),
    "scalar": _read_scalar,
    "array": _read_array,
    "table": _read_table,
}
