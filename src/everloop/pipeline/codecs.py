"""Canonical bytes of the values that pass between steps.

Equal values have equal bytes, so the digest of an input is the digest of the output that it came
from. No pickle: a value whose type is not known here is refused by name, for a key that left
something out would return a stale result one day.
"""

from __future__ import annotations

import dataclasses
import struct
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePath
from typing import Final, TypeAlias

import msgspec

from everloop.core.digest import Digest, content_digest
from everloop.core.errors import InvalidInput

MAGIC: Final = b"EVV1"
MAX_DEPTH: Final = 60
WORKER_MAIN: Final = "__worker_main__"
_MAX_INT: Final = 2**63
_NAN: Final = struct.unpack("<d", b"\x00\x00\x00\x00\x00\x00\xf8\x7f")[0]

Tree: TypeAlias = "bool | int | float | str | bytes | list[Tree] | None"


class FileRef(msgspec.Struct, frozen=True):
    """A file whose content, not whose path, is the value.

    As a result of a step the file's bytes are kept; a hit writes them to a folder of the engine's
    own under the same file name, never to a path that a stored result names.
    """

    path: str


class DatasetRef(msgspec.Struct, frozen=True):
    """A dataset version by its id; versions never change, so the id stands for the content."""

    version: str


class ModelFiles(msgspec.Struct, frozen=True):
    """A trained model as files in a safe format, ready to be registered."""

    format: str
    files: dict[str, bytes]


class Encoded(msgspec.Struct, frozen=True):
    """A value's canonical bytes.

    Attributes:
        datasets: Ids of the dataset versions inside it.
        types: First-party types inside it, whose methods a step may call.
        is_scalar: Whether it is a number or a short text, which many values share.
    """

    data: bytes
    digest: Digest
    datasets: tuple[str, ...]
    types: tuple[type, ...]
    is_scalar: bool


def encode(value: object, what: str) -> Encoded:
    """Return the canonical bytes of a value; ``what`` names it in an error.

    Raises:
        InvalidInput: ``step.value_unsupported`` or ``step.file_missing``.
    """
    walk = _Walk(what)
    try:
        data = MAGIC + msgspec.msgpack.encode(walk.tree(value, 0))
    except UnicodeEncodeError as error:
        raise walk.refusal(value, "it holds a text that is no Unicode") from error
    return Encoded(
        data=data,
        digest=content_digest(data),
        datasets=tuple(walk.datasets),
        types=tuple(walk.types),
        is_scalar=value is None
        or isinstance(value, bool | int | float)
        or (isinstance(value, str | bytes) and len(value) < 64),
    )


class _Walk:
    """Turns one value into a tree of MessagePack types, and notes what it meets."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.datasets: dict[str, None] = {}
        self.types: dict[type, None] = {}

    def tree(self, value: object, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise self.refusal(value, "it is nested too deeply, or contains itself")
        kind = type(value)
        if value is None or kind in {bool, str, bytes}:
            return value  # type: ignore[return-value]
        if kind is int:
            assert isinstance(value, int)
            return value if -_MAX_INT <= value < _MAX_INT else ["int", str(value)]
        if kind is float:
            assert isinstance(value, float)
            return value if value == value else _NAN  # noqa: PLR0124 -- only NaN differs from itself
        container = self.container(value, depth)
        if container is not None:
            return container
        record = self.record(value, depth)
        if record is not None:
            return record
        leaf = _plain_leaf(value) or _array_leaf(value)
        if leaf is None:
            raise self.refusal(value, "its type has no canonical form")
        return leaf

    def container(self, value: object, depth: int) -> list[Tree] | None:
        kind = type(value)
        if kind is list or kind is tuple:
            assert isinstance(value, list | tuple)
            return [kind.__name__, *(self.tree(item, depth + 1) for item in value)]
        if kind is dict:
            assert isinstance(value, dict)
            # In the order of the dict: code may depend on it, and a hit returns the same order.
            return [
                "dict",
                *(
                    part
                    for key, item in value.items()
                    for part in (self.tree(key, depth + 1), self.tree(item, depth + 1))
                ),
            ]
        if kind is set or kind is frozenset:
            assert isinstance(value, set | frozenset)
            items = [self.tree(item, depth + 1) for item in value]
            return [kind.__name__, *sorted(items, key=msgspec.msgpack.encode)]
        return None

    def record(self, value: object, depth: int) -> list[Tree] | None:
        if isinstance(value, DatasetRef):
            self.datasets[value.version] = None
            return ["dataset", value.version]
        if isinstance(value, FileRef):
            return self.file(value)
        if isinstance(value, Enum):
            self.types[type(value)] = None
            return ["enum", type_name(type(value)), value.name]
        if isinstance(value, msgspec.Struct):
            names = value.__struct_fields__
            tag = "struct"
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = tuple(field.name for field in dataclasses.fields(value))
            tag = "dataclass"
        elif isinstance(value, tuple) and hasattr(value, "_fields"):
            names = value._fields
            tag = "named"
        else:
            return None
        self.types[type(value)] = None
        fields: list[Tree] = []
        for name in names:
            fields += [name, self.tree(getattr(value, name), depth + 1)]
        return [tag, type_name(type(value)), *fields]

    def file(self, value: FileRef) -> list[Tree]:
        try:
            return ["file", Path(value.path).name, Path(value.path).read_bytes()]
        except OSError as error:
            raise InvalidInput(
                "step.file_missing",
                f"{self.what} names the file {value.path!r}, which cannot be read: {error}.",
                hint="Make the file before the step runs, or correct the path.",
            ) from error

    def refusal(self, value: object, reason: str) -> InvalidInput:
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        return InvalidInput(
            "step.value_unsupported",
            f"{self.what} holds a value of type {name}: {reason}.",
            hint=_advice(value),
            context={"type": name},
        )


def _advice(value: object) -> str:
    if isinstance(value, PurePath):
        return "Wrap a file in everloop.pipeline.FileRef(path), or pass the path as a text."
    if type(value).__module__.partition(".")[0] == "pandas":
        return "Pass pyarrow.Table.from_pandas(frame), and call .to_pandas() inside the step."
    if type(value).__module__.partition(".")[0] in {"sklearn", "lightgbm"}:
        return "Return the model as ModelFiles in its own safe format; see registry.save_model."
    if callable(value):
        return "Call the function inside the step; its source is then part of the cache key."
    return (
        "Use numbers, texts, bytes, lists, dicts, dates, numpy arrays, pyarrow tables, msgspec "
        "Structs, dataclasses, FileRef, DatasetRef or ModelFiles."
    )


def type_name(kind: type) -> str:
    """Return ``module:qualified.name``."""
    # A worker process has the parent's script under another name.
    module = "__main__" if kind.__module__ == WORKER_MAIN else kind.__module__
    return f"{module}:{kind.__qualname__}"


def _plain_leaf(value: object) -> list[Tree] | None:
    kind = type(value)
    if kind is datetime:
        assert isinstance(value, datetime)
        return ["datetime", value.isoformat()]
    if kind is date:
        assert isinstance(value, date)
        return ["date", value.isoformat()]
    if kind is timedelta:
        assert isinstance(value, timedelta)
        return ["timedelta", value.days, value.seconds, value.microseconds]
    if kind is Decimal:
        return ["decimal", str(value)]
    if kind is complex:
        assert isinstance(value, complex)
        return ["complex", value.real, value.imag]
    return None


def _array_leaf(value: object) -> list[Tree] | None:
    package = type(value).__module__.partition(".")[0]
    if package == "numpy":
        return _numpy_leaf(value)
    if package == "pyarrow":
        return _arrow_leaf(value)
    return None


def _numpy_leaf(value: object) -> list[Tree] | None:
    import numpy as np

    if isinstance(value, np.generic):
        if value.dtype.hasobject or value.dtype.fields:
            return None
        return ["scalar", value.dtype.str, value.tobytes()]
    if type(value) is not np.ndarray or value.dtype.hasobject or value.dtype.fields:
        return None
    # One byte order and one layout, so that equal arrays have equal bytes.
    dtype = value.dtype.newbyteorder("<")
    data = np.ascontiguousarray(value, dtype=dtype).tobytes()
    return ["array", dtype.str, list(value.shape), data]


def _arrow_leaf(value: object) -> list[Tree] | None:
    import pyarrow as pa

    if not isinstance(value, pa.Table):
        return None
    sink = pa.BufferOutputStream()
    # One chunk, freshly laid out: slices and chunk borders are not part of the value.
    whole = value.combine_chunks()
    with pa.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(whole)
    return ["table", sink.getvalue().to_pybytes()]
