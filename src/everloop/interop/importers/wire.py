"""Reads protocol buffers' wire format and the two record logs that trackers write them into.

Only what the messages at hand need: fields by number, without generated classes
(https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias

from everloop.interop.importers.source import Skip

Value: TypeAlias = "int | bytes"
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MOST_VARINT_BITS = 64
CHECKED_BYTES = 256 * 1024
"""Longer records (pictures mostly) are taken by their length, without computing a checksum."""

_BLOCK = 32_768
_BLOCK_HEAD = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_POLYNOMIAL = 0x82F63B78


def fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Yield number and raw value of each field of a message.

    Raises:
        Skip: it is no message.
    """
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == VARINT:
            value: Value
            value, at = _varint(data, at)
        else:
            size = {FIXED64: 8, FIXED32: 4}.get(kind, -1)
            if kind == LENGTH:
                size, at = _varint(data, at)
            if size < 0 or at + size > end:
                message = "it is damaged"
                raise Skip(message)
            value, at = data[at : at + size], at + size
        yield tag >> 3, value


def message(data: bytes) -> dict[int, list[Value]]:
    """Return all values of a message by field number."""
    found: dict[int, list[Value]] = {}
    for number, value in fields(data):
        found.setdefault(number, []).append(value)
    return found


def text(values: list[Value] | None) -> str:
    """Return the last of some values as text; empty without one."""
    last = values[-1] if values else b""
    return last.decode("utf-8", "replace") if isinstance(last, bytes) else ""


def number(values: list[Value] | None) -> int:
    """Return the last of some varints as a signed number; 0 without one."""
    last = values[-1] if values else 0
    assert isinstance(last, int)
    return last - (1 << 64) if last >= 1 << 63 else last


def double(values: list[Value] | None) -> float:
    """Return the last of some doubles; 0 without one."""
    last = values[-1] if values else b"\0" * 8
    return float(struct.unpack("<d", last)[0]) if isinstance(last, bytes) else 0.0


def inner(values: list[Value] | None) -> dict[int, list[Value]]:
    """Return the message in the last of some values; an empty one without one."""
    last = values[-1] if values else b""
    return message(last) if isinstance(last, bytes) else {}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift >= MOST_VARINT_BITS:
            problem = "it is damaged"
            raise Skip(problem)
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        shift += 7


def tf_records(file: BinaryIO) -> Iterator[bytes]:
    """Yield the records of a TFRecord file; ends where a writer was cut off.

    Raises:
        Skip: a checksum does not fit.
    """
    while True:
        head = file.read(12)
        if len(head) < 12:
            return
        size, check = struct.unpack("<QI", head)
        if masked_crc(head[:8]) != check:
            problem = "it is damaged, or is no event file"
            raise Skip(problem)
        data = file.read(size)
        tail = file.read(4)
        if len(data) < size or len(tail) < 4:
            return
        if size <= CHECKED_BYTES and masked_crc(data) != struct.unpack("<I", tail)[0]:
            problem = "a record of it is damaged"
            raise Skip(problem)
        yield data


def _table() -> tuple[int, ...]:
    made = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)  # noqa: PLW2901
        made.append(value)
    return tuple(made)


_TABLE = _table()


def masked_crc(data: bytes) -> int:
    """Return the CRC-32C of some bytes, masked as TFRecord files have it."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def block_records(path: Path, header: bytes) -> Iterator[bytes]:
    """Yield the records of a log in LevelDB's format behind a header; ends where it was cut off.

    Raises:
        Skip: the header is another.
    """
    with path.open("rb") as file:
        if file.read(len(header)) != header:
            problem = f"{path.name} is none of the logs that are known here"
            raise Skip(problem)
        place, parts = len(header), b""
        while True:
            left = _BLOCK - place % _BLOCK
            if left < _BLOCK_HEAD.size:
                file.read(left)
                place += left
                continue
            head = file.read(_BLOCK_HEAD.size)
            if len(head) < _BLOCK_HEAD.size:
                return
            _, size, kind = _BLOCK_HEAD.unpack(head)
            data = file.read(size)
            if len(data) < size or kind not in {_FULL, _FIRST, _MIDDLE, _LAST}:
                return
            place += _BLOCK_HEAD.size + size
            parts = data if kind in {_FULL, _FIRST} else parts + data
            if kind in {_FULL, _LAST}:
                yield parts
