"""Ids that sort by time, like those of the server: UUID version 7 (RFC 9562)."""

from __future__ import annotations

import os
import time
import uuid


def new_id() -> str:
    """Return a fresh id."""
    stamp = int(time.time() * 1000) & ((1 << 48) - 1)
    tail = int.from_bytes(os.urandom(10), "big")
    value = stamp << 80 | 7 << 76 | (tail >> 64 & 0xFFF) << 64 | 2 << 62 | (tail & ((1 << 62) - 1))
    return str(uuid.UUID(int=value))
