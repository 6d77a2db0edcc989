"""Identifiers that sort by time: UUID version 7 (RFC 9562, section 5.7)."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NewType

from everloop.core.errors import InvalidInput

Id = NewType("Id", str)
ActorId = NewType("ActorId", str)
ProjectId = NewType("ProjectId", str)

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")


class IdSource:
    """Makes UUIDv7 ids that increase strictly within one process.

    Thread-safe. Two ids of one millisecond are ordered by a counter in ``rand_a``
    (RFC 9562, section 6.2, method 1).
    """

    def __init__(self, clock_ms: Callable[[], int], random_bytes: Callable[[int], bytes]) -> None:
        self._clock_ms = clock_ms
        self._random_bytes = random_bytes
        self._lock = threading.Lock()
        self._last_ms = 0
        self._counter = 0

    def new(self) -> Id:
        """Return a fresh id."""
        with self._lock:
            now = self._clock_ms()
            if now > self._last_ms:
                self._last_ms, self._counter = now, 0
            elif self._counter < 0xFFF:
                self._counter += 1
            else:
                self._last_ms, self._counter = self._last_ms + 1, 0
            stamp, counter = self._last_ms, self._counter
        tail = int.from_bytes(self._random_bytes(8), "big") & ((1 << 62) - 1)
        value = (stamp & ((1 << 48) - 1)) << 80 | 7 << 76 | counter << 64 | 2 << 62 | tail
        return Id(str(uuid.UUID(int=value)))


def made_at(key: Id) -> datetime:
    """Return when an id was made, to the millisecond.

    Example:
        >>> made_at(Id("019b76da-a800-7000-8000-000000000000")).isoformat()
        '2026-01-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(int(key.replace("-", "")[:12], 16) / 1000, UTC)


def is_id(text: str) -> bool:
    """Tell whether the text is a canonical UUIDv7."""
    return _UUID.fullmatch(text) is not None


def check_name(text: str, what: str) -> str:
    """Return a user-chosen name unchanged if it is usable everywhere.

    Names are 1 to 100 characters of ``A-Z a-z 0-9 . _ -``, start with a letter or digit and do
    not end with a dot, so that they are safe in refs, addresses and file names on any system.

    Raises:
        InvalidInput: ``name.invalid``.
    """
    if _NAME.fullmatch(text) is None or ".." in text:
        shown = text if len(text) <= 40 else text[:40] + "..."
        raise InvalidInput(
            "name.invalid",
            f"{what} name {shown!r} is not usable.",
            hint="Use 1 to 100 letters, digits, '.', '_' or '-', starting with a letter or digit.",
        )
    return text
