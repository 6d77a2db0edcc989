"""Events: what happened, told to subscribers after the commit."""

from __future__ import annotations

import msgspec

from everloop.core.clock import Instant
from everloop.core.ids import Id, ProjectId


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One committed change, as subscribers see it.

    Attributes:
        verb: The verb that caused it.
        project: Project id, or "" for the instance.
        resource: ``kind:id`` of the thing changed.
        ledger_index: Index of its ledger entry.
        at: When it was committed.
        request: Id of the call.
    """

    verb: str
    project: ProjectId
    resource: str
    ledger_index: int
    at: Instant
    request: Id
