"""What an import did, or would do: counts, and everything that was left out with the reason."""

from __future__ import annotations

import msgspec

MOST_SKIPS = 1_000


class Tally(msgspec.Struct, kw_only=True):
    """How many of one kind.

    Attributes:
        new: Made by this import.
        changed: That got something new.
        same: That were here already, unchanged.
        skipped: Left out; ``skipped`` of the report says why.
    """

    new: int = 0
    changed: int = 0
    same: int = 0
    skipped: int = 0


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was left out or changed on its way, and why."""

    what: str
    why: str


class Report(msgspec.Struct, kw_only=True):
    """What an import did.

    Attributes:
        points: Metric points stored by it.
        files: Files stored by it, ``file_bytes`` together.
        more_skipped: How many left-out things are not listed.
    """

    system: str
    place: str
    dry_run: bool
    experiments: Tally = msgspec.field(default_factory=Tally)
    runs: Tally = msgspec.field(default_factory=Tally)
    models: Tally = msgspec.field(default_factory=Tally)
    versions: Tally = msgspec.field(default_factory=Tally)
    logged_models: Tally = msgspec.field(default_factory=Tally)
    points: int = 0
    params: int = 0
    tags: int = 0
    files: int = 0
    file_bytes: int = 0
    seconds: float = 0.0
    skipped: list[Skipped] = msgspec.field(default_factory=list)
    more_skipped: int = 0

    def skip(self, what: str, why: str) -> None:
        """Note that something was left out."""
        if len(self.skipped) < MOST_SKIPS:
            self.skipped.append(Skipped(what=what, why=why))
        else:
            self.more_skipped += 1
