"""Ids of predictions: one UUIDv7 for each request, from which the ids of its rows follow.

The low 16 bits are left to the rows, so a request has one id to log and to send whatever its size.
The rest is as RFC 9562, section 5.7 says: milliseconds, then random bits.
"""

from __future__ import annotations

import os
from time import time_ns
from typing import Final

from everloop.core.ids import Id

MOST_ROWS: Final = 1 << 16
_POOL: Final = 4_096


class IdBlocks:
    """Gives the first id of each request. Made after a fork, used by one thread."""

    def __init__(self) -> None:
        self._pool = b""
        self._place = 0

    def take(self) -> bytes:
        """Return the 16 bytes of a fresh first id."""
        place = self._place
        if place == len(self._pool):
            self._pool, place = os.urandom(_POOL), 0
        self._place = place + 8
        drawn = self._pool[place : place + 8]
        return b"%b%c%c%c%b\0\0" % (
            (time_ns() // 1_000_000).to_bytes(6, "big"),
            0x70 | drawn[0] & 0x0F, drawn[1], 0x80 | drawn[2] & 0x3F, drawn[3:],
        )  # fmt: skip


def to_id(first: bytes, place: int = 0) -> Id:
    """Return the id of a row's prediction, given the bytes of the first one of its request."""
    text = first.hex()
    return Id(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:28]}{place:04x}")


def to_ids(first: bytes, rows: int) -> list[Id]:
    """Return the ids of all rows of a request."""
    start = to_id(first)[:-4]
    return [Id(f"{start}{place:04x}") for place in range(rows)]
