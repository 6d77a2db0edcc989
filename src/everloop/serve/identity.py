"""Ids of predictions: one UUIDv7 for each request, from which the ids of its rows follow.

The low 16 bits are left to the rows, so a request has one id to log and to send whatever its size.
The rest is as RFC 9562, section 5.7 says: milliseconds, then random bits.
"""

from __future__ import annotations

import os
import struct
from time import time_ns
from typing import Final

from everloop.core.ids import Id

MOST_ROWS: Final = 1 << 16
_POOL_BYTES: Final = 4_096
_DRAW: Final = struct.Struct("<Q")
_MARKS: Final = 0x7 << 60 | 0b10 << 46
"""Version and variant, where they stand in the 64 bits between the time and the rows."""
_RANDOM: Final = (1 << 64) - 1 ^ 0xF << 60 ^ 0b11 << 46


class IdBlocks:
    """Gives the first id of each request. Made after a fork, used by one thread."""

    def __init__(self) -> None:
        self._drawn: list[int] = []

    def take(self, now_us: int | None = None) -> bytes:
        """Return the 16 bytes of a fresh first id.

        Args:
            now_us: Microseconds since 1970; by the wall clock when None.
        """
        if now_us is None:
            now_us = time_ns() // 1_000
        if not self._drawn:
            pool = _DRAW.iter_unpack(os.urandom(_POOL_BYTES))
            self._drawn = [drawn & _RANDOM | _MARKS for (drawn,) in pool]
        return (now_us // 1_000 << 80 | self._drawn.pop() << 16).to_bytes(16, "big")


def to_id(first: bytes, place: int = 0) -> Id:
    """Return the id of a row's prediction, given the bytes of the first one of its request."""
    text = first.hex()
    return Id(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:28]}{place:04x}")


def to_ids(first: bytes, rows: int) -> list[Id]:
    """Return the ids of all rows of a request."""
    if rows == 1:
        return [to_id(first)]
    start = to_id(first)[:-4]
    return [Id(f"{start}{place:04x}") for place in range(rows)]
