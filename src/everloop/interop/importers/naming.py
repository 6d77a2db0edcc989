"""What imported things are called here, so that the same thing comes to the same name again."""

from __future__ import annotations

from blake3 import blake3

from everloop.core.clock import Instant
from everloop.core.errors import Conflict, InvalidInput, LimitExceeded, NotFound
from everloop.core.ids import Id

FROM_TAG = "imported.from"
CREATED_TAG = "imported.created_at"
REFUSED = (InvalidInput, NotFound, Conflict, LimitExceeded)
"""Errors that concern one thing; any other ends the import."""
DAMAGED = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
"""What reading raises where something else lies than the other system ever writes."""


def imported_id(project: str, system: str, key: str, at: Instant) -> Id:
    """Return the id that a run of another system has here: a UUIDv7 of its start and its name.

    The time part is the run's own start, so that imported runs sort among ours.
    """
    stamp = max(int(at.timestamp() * 1000), 0) & ((1 << 48) - 1)
    mixed = int.from_bytes(blake3(f"{project}\0{system}\0{key}".encode()).digest(10), "big")
    a, b = (mixed >> 62) & 0xFFF, mixed & ((1 << 62) - 1)
    text = f"{stamp << 80 | 7 << 76 | a << 64 | 2 << 62 | b:032x}"
    return Id("-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])))
