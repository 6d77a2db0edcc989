"""Instants of other systems."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from everloop.core.clock import Instant

UNKNOWN: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands for a beginning that was not recorded."""


def at_ms(value: object) -> Instant | None:
    """Return the instant of milliseconds since 1970; None for none or for what is no time."""
    if not isinstance(value, int | float) or value <= 0:
        return None
    with suppress(OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(value / 1000, UTC)
    return None
