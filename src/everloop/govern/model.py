"""What governance answers with, and the one record it keeps: that the ledger was exported."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from everloop.core.clock import Instant
from everloop.core.digest import Digest
from everloop.core.ids import ActorId
from everloop.core.records import Record, record

RefText = Annotated[str, Meta(min_length=1, max_length=300)]
Limit = Annotated[int, Meta(ge=1, le=1_000)]
Cursor = Annotated[str, Meta(max_length=40)]


@record("audit_export", index=(("at",),))
class AuditExport(Record, frozen=True, kw_only=True):
    """One export of the whole ledger with the records it explains.

    Attributes:
        bundle: Blob of the zip.
        size: Number of entries in it.
    """

    bundle: Digest
    size_bytes: int
    size: int
    who: ActorId
    at: Instant


class Node(Struct, frozen=True, kw_only=True):
    """One thing in a lineage.

    Attributes:
        ref: ``kind:id``; predictions, sources, commits and blobs have no record of their own.
        title: What it is, in words.
        digest: What names its content.
        verified: Whether its bytes and its record are what the ledger says; None where there is
            nothing to verify, such as a commit in somebody else's repository.
        problem: Why it does not verify, or what was left out.
        facts: What else a reader may want to know.
        entries: Numbers of the newest ledger entries that name or change it, newest first.
    """

    ref: str
    title: str
    digest: str | None = None
    verified: bool | None = None
    problem: str | None = None
    facts: dict[str, str] = {}
    entries: tuple[int, ...] = ()


class Link(Struct, frozen=True, kw_only=True):
    """``source`` came from ``target``; ``verified`` as for a node."""

    source: str
    relation: str
    target: str
    verified: bool | None = None


class EntryLine(Struct, frozen=True, kw_only=True):
    """One ledger entry in short.

    Attributes:
        actor: Id of who did it; ``actor_name`` when there is such an actor.
        project: Id of the project; empty for what concerns the whole instance.
        reason: Why, in the words of who did it; None when not given or erased.
        decision: What evidence decided, such as ``promoted``; None for what somebody asked for.
    """

    index: int
    at: Instant
    actor: str
    actor_name: str | None
    action: str
    resource: str
    outcome: str
    project: str
    reason: str | None = None
    decision: str | None = None


class Consent(Struct, frozen=True, kw_only=True):
    """An approval or a waiver of a model version.

    Attributes:
        version: ``model_version:<id>``.
        kind: ``approval`` or ``waiver``.
        counts: Whether it is of this artifact, and not by the version's author.
    """

    version: str
    kind: str
    by: str
    at: Instant
    words: str
    counts: bool


class Lineage(Struct, frozen=True, kw_only=True):
    """Where a thing came from, or what came of it, with the evidence.

    Attributes:
        start: The node that was asked for.
        nodes: In the order of discovery, the start first.
        entries: The ledger entries of all nodes, newest first.
        broken: Everything that does not verify, each with the reason; empty when all is well.
        truncated: Whether the limit of nodes or of depth cut the walk.
    """

    start: str
    nodes: tuple[Node, ...]
    edges: tuple[Link, ...]
    entries: tuple[EntryLine, ...]
    consents: tuple[Consent, ...]
    broken: tuple[str, ...]
    truncated: bool = False
