"""Time as a value that comes in through a port.

An instant is an aware UTC ``datetime``; its text form is RFC 3339 with microseconds and ``Z``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Protocol, TypeAlias

import msgspec

from everloop.core.errors import InvalidInput

# A time without a zone is refused where input is read, and not where it is first compared.
Instant: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


class Clock(Protocol):
    """Tells the time.

    Contract: thread-safe; returns an aware UTC datetime; never goes back within a process.
    """

    def now(self) -> Instant:
        """Return the present instant."""
        ...


class SystemClock:
    """The machine's clock, kept from going back when the system time is set."""

    def __init__(self) -> None:
        self._last = datetime.min.replace(tzinfo=UTC)

    def now(self) -> Instant:
        """Return the present instant, never earlier than the one before."""
        present = datetime.now(UTC)
        self._last = max(self._last, present)
        return self._last


def to_text(instant: Instant) -> str:
    """Return the RFC 3339 text of an instant, in UTC with microseconds."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def from_text(text: str) -> Instant:
    """Read an RFC 3339 instant; a text without offset counts as UTC.

    Raises:
        InvalidInput: ``time.invalid``.
    """
    try:
        instant = datetime.fromisoformat(text)
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:  # in UTC it may lie before the year 1
        raise InvalidInput(
            "time.invalid",
            f"{text[:60]!r} is not a time.",
            hint="Write it as 2026-11-21T09:30:00Z.",
        ) from error
