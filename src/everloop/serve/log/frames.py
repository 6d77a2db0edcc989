"""The payloads of the frames of a prediction log, as they stand in the file (MessagePack)."""

from __future__ import annotations

from typing import Final

import msgspec

from everloop.core.ids import Id
from everloop.core.wire import Arm, Label, Scalar

SOURCE: Final = 1
BLOCK: Final = 2
SHADOW: Final = 3
GAP: Final = 4
FEEDBACK: Final = 5


class WrittenSource(msgspec.Struct, frozen=True, kw_only=True):
    """A source; the blocks behind it name its offset."""

    version: Id
    arm: Arm
    share: float
    epoch: int
    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    outputs: tuple[str, ...]
    fallback_version: Id | None
    shadow_version: Id | None


class WrittenBlock(msgspec.Struct, frozen=True, array_like=True):
    """A request; ``values`` are None when they were not kept, bytes of ``dtype`` for a matrix."""

    source: int
    first: bytes
    rows: int
    at_us: int
    logged_us: int
    latency_us: int
    values: list[list[Scalar]] | bytes | None
    dtype: str | None
    outputs: list[float | None] | bytes
    statuses: bytes | None
    fallback: list[float | None] | bytes | None
    has_shadow: bool
    unit: str | None
    keys: tuple[str, ...]
    request: str | None


class WrittenShadow(msgspec.Struct, frozen=True, array_like=True):
    """What the shadow answered to the request with this first id."""

    first: bytes
    outputs: list[float | None] | bytes
    statuses: bytes | None


class WrittenFeedback(msgspec.Struct, frozen=True, array_like=True):
    """Labels that came in one request, in their order."""

    received_us: int
    labels: tuple[Label, ...]


class WrittenGap(msgspec.Struct, frozen=True, array_like=True):
    """Rows that were answered before this and could not be written."""

    dropped: int
