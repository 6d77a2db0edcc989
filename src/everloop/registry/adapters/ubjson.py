"""Reads Universal Binary JSON as XGBoost writes it (https://ubjson.org, draft 12).

Every length is checked against the bytes that are left before anything is made of it, so that a
header that lies costs nothing. Typed arrays become lists of Python numbers.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from everloop.core.errors import JsonValue

_DEEPEST: Final = 40
_NUMBERS: Final[dict[bytes, tuple[str, str]]] = {
    b"i": (">b", "i1"),
    b"U": (">B", "u1"),
    b"I": (">h", ">i2"),
    b"l": (">i", ">i4"),
    b"L": (">q", ">i8"),
    b"d": (">f", ">f4"),
    b"D": (">d", ">f8"),
}
_CONSTANTS: Final[dict[bytes, JsonValue]] = {b"Z": None, b"T": True, b"F": False}


def read_ubjson(data: bytes) -> JsonValue:
    """Return the value that the bytes hold, and nothing beside it.

    Raises:
        ValueError: they are cut off, nested deeper than 40, or hold what XGBoost never writes.
    """
    reader = _Reader(data)
    value = reader.value(reader.take(1), 0)
    if reader.at != len(data):
        raise ValueError(f"{len(data) - reader.at} bytes follow its end")
    return value


class _Reader:
    """A position in the bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self.data) - self.at:
            raise ValueError(f"it is cut off or lies about a length at byte {self.at}")
        self.at += size
        return self.data[self.at - size : self.at]

    def value(self, kind: bytes, depth: int) -> JsonValue:
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
        if kind in _NUMBERS:
            return self.number(kind)
        if kind in _CONSTANTS:
            return _CONSTANTS[kind]
        if kind == b"S":
            return self.text()
        if kind == b"{":
            return self.mapping(depth)
        if kind == b"[":
            return self.sequence(depth)
        raise ValueError(f"{kind!r} is no kind of value at byte {self.at}")

    def number(self, kind: bytes) -> int | float:
        form = _NUMBERS[kind][0]
        found: int | float = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return found

    def length(self) -> int:
        kind = self.take(1)
        if kind not in _NUMBERS or kind in {b"d", b"D"}:
            raise ValueError(f"{kind!r} is no length at byte {self.at}")
        return int(self.number(kind))

    def text(self) -> str:
        return self.take(self.length()).decode("utf-8")

    def mapping(self, depth: int) -> dict[str, JsonValue]:
        found: dict[str, JsonValue] = {}
        while self.data[self.at : self.at + 1] != b"}":
            name = self.text()
            if name in found:
                raise ValueError(f"{name[:40]!r} stands twice")
            found[name] = self.value(self.take(1), depth + 1)
        self.take(1)
        return found

    def sequence(self, depth: int) -> list[JsonValue]:
        kind = self.take(1)
        if kind == b"$":
            item = self.take(1)
            if item not in _NUMBERS or self.take(1) != b"#":
                raise ValueError(f"a typed array is malformed at byte {self.at}")
            count, dtype = self.length(), np.dtype(_NUMBERS[item][1])
            values: list[JsonValue] = np.frombuffer(
                self.take(count * dtype.itemsize), dtype
            ).tolist()
            return values
        if kind == b"#":
            count = self.length()
            if count > len(self.data) - self.at:
                raise ValueError(f"an array lies about its length at byte {self.at}")
            return [self.value(self.take(1), depth + 1) for _ in range(count)]
        items: list[JsonValue] = []
        while kind != b"]":
            items.append(self.value(kind, depth + 1))
            kind = self.take(1)
        return items
