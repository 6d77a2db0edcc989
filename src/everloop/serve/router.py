"""Which arm answers a request: a pure function of a salt, a key and a share.

The arm is decided before anything is scored, so it cannot depend on the outcome; the release's
statistics rest on that. All rows of a request go the same way.
"""

from __future__ import annotations

import hashlib

from everloop.core.wire import Arm


def assign_arm(salt: str, key: str, share: float) -> Arm:
    """Return the arm of a unit or a request; the same key always has the same arm.

    The first 53 bits of SHA-256 over salt and key, as a number in [0, 1), against the share: as
    the share grows, a unit can only move to the canary, never back.
    """
    digest = hashlib.sha256(f"{salt}\x00{key}".encode("utf-8", "surrogatepass")).digest()
    position = (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)
    return Arm.CANARY if position < share else Arm.CHAMPION
