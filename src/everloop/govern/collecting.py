"""Collecting garbage: bytes that no record needs are found, condemned, confirmed and deleted.

The steps are calls of their own, each safe to repeat and to be killed in: bytes are condemned by
rows (after a first walk over all records), confirmed by a second walk that began when the rows
stood, and deleted a few at a time inside write transactions. Whoever names condemned bytes in
between saves them (see ``kernel.condemned``).
"""

from __future__ import annotations

from datetime import timedelta
from itertools import islice
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from everloop.core.clock import Instant
from everloop.core.digest import Digest
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition, StoredBlob, where
from everloop.kernel.condemned import CondemnedBlob, Sentence
from everloop.kernel.holdings import forget_holders
from everloop.kernel.reach import needed_blobs
from everloop.kernel.unit_of_work import Desk, View, Work
from everloop.kernel.verbs import Scope, query, verb

MIN_AGE_HOURS = 24.0
DELETED_A_CALL = 500
CONDEMNED_A_CALL = 100_000
TOMBSTONE_HOURS = 24.0

Hours = Annotated[float, Meta(ge=0, le=24 * 365)]


class CollectBlobs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for the next step of a collection.

    Attributes:
        min_age_hours: Bytes put later than this ago are spared: somebody may be about to name them.
    """

    min_age_hours: Hours = MIN_AGE_HOURS


class Collected(Struct, frozen=True, kw_only=True):
    """What one step did.

    Attributes:
        step: ``condemn``, ``confirm`` or ``delete``.
        blobs: How many were condemned, confirmed or deleted.
        size_bytes: Their length together.
        spared: How many nothing needs that are too young, or that were saved meanwhile.
        is_done: Whether nothing is left to do.
    """

    step: str
    blobs: int
    size_bytes: int
    spared: int = 0
    is_done: bool = False


class _Plan(Struct, frozen=True, kw_only=True):
    condemn: tuple[StoredBlob, ...] = ()
    confirm: tuple[CondemnedBlob, ...] = ()
    pardon: tuple[CondemnedBlob, ...] = ()
    delete: tuple[CondemnedBlob, ...] = ()
    spared: int = 0


def prepare_collection(ask: CollectBlobs, desk: Desk) -> _Plan:
    """Find out which step is next, and walk the records where it needs that."""
    blobs = desk.services.blobs
    with desk.read() as view:
        waiting = _at_stage(view, Sentence.CONDEMNED)
        if waiting:
            needed = needed_blobs(view.tx, blobs)
            return _Plan(
                confirm=tuple(row for row in waiting if Digest(row.id) not in needed),
                pardon=tuple(row for row in waiting if Digest(row.id) in needed),
            )
        ready = _at_stage(view, Sentence.CONFIRMED, limit=DELETED_A_CALL)
        if ready:
            return _Plan(delete=tuple(ready))
        found = _garbage(view, ask.min_age_hours)
        old = tuple(islice((blob for blob, is_old in found if is_old), CONDEMNED_A_CALL))
        return _Plan(condemn=old, spared=sum(not is_old for _, is_old in found))


@verb("blob.collect", permission="blob:admin", scope=Scope.INSTANCE, prepare=prepare_collection)
def collect_blobs(ask: CollectBlobs, work: Work, plan: _Plan) -> Collected:
    """Do the next step of collecting the bytes that no record needs; repeat it until it is done."""
    if plan.confirm or plan.pardon:
        return _confirm(work, plan)
    if plan.delete:
        return _delete(work, plan.delete, work.now - timedelta(hours=ask.min_age_hours))
    _forget_tombstones(work)
    rows = [_condemn(work, blob) for blob in plan.condemn]
    return Collected(
        step="condemn",
        blobs=len(rows),
        size_bytes=sum(row.size_bytes for row in rows),
        spared=plan.spared,
        is_done=not rows,
    )


class ShowGarbage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask what a collection would delete."""

    min_age_hours: Hours = MIN_AGE_HOURS


class Garbage(Struct, frozen=True, kw_only=True):
    """Bytes that no record needs.

    Attributes:
        young: Those of them that are spared because they were put lately.
    """

    stored: int
    stored_bytes: int
    blobs: int
    size_bytes: int
    young: int
    young_bytes: int


@query("blob.garbage", permission="blob:admin", scope=Scope.INSTANCE)
def show_garbage(ask: ShowGarbage, view: View) -> Garbage:
    """Say how much of what is stored no record needs; deletes nothing."""
    found = _garbage(view, ask.min_age_hours)
    old = [blob.size_bytes for blob, is_old in found if is_old]
    young = [blob.size_bytes for blob, is_old in found if not is_old]
    sizes = [blob.size_bytes for blob in view.services.blobs.stored()]
    return Garbage(
        stored=len(sizes),
        stored_bytes=sum(sizes),
        blobs=len(old),
        size_bytes=sum(old),
        young=len(young),
        young_bytes=sum(young),
    )


class CompactStore(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask to give the space of deleted records back to the disk."""


class Compacted(Struct, frozen=True, kw_only=True):
    """That the database was compacted."""

    done: bool = True


@verb("store.compact", permission="store:admin", scope=Scope.INSTANCE, compacts=True)
def compact_store(ask: CompactStore, work: Work) -> Compacted:
    """Give the space of deleted records back to the disk; writers wait meanwhile.

    Raises:
        Unavailable: ``store.unavailable`` or ``store.full``.
    """
    del ask, work
    return Compacted()


def _garbage(view: View, min_age_hours: float) -> list[tuple[StoredBlob, bool]]:
    """Return what nothing needs, and whether each is old enough to go."""
    needed = needed_blobs(view.tx, view.services.blobs)
    limit = view.services.clock.now() - timedelta(hours=min_age_hours)
    return [
        (blob, blob.at <= limit)
        for blob in view.services.blobs.stored()
        if blob.digest not in needed
    ]


def _at_stage(view: View, stage: Sentence, limit: int | None = None) -> list[CondemnedBlob]:
    return view.tx.select(CondemnedBlob, *where(stage=stage.value), limit=limit)


def _condemn(work: Work, blob: StoredBlob) -> CondemnedBlob:
    earlier = work.tx.find(CondemnedBlob, Id(blob.digest))
    if earlier is not None:
        work.tx.delete(earlier)
    row = CondemnedBlob(
        id=Id(blob.digest), stage=Sentence.CONDEMNED, size_bytes=blob.size_bytes, at=work.now
    )
    work.tx.insert(row)
    return row


def _confirm(work: Work, plan: _Plan) -> Collected:
    # A row that is not as the walk saw it was saved, or belongs to another collection by now.
    for row in plan.pardon:
        if work.tx.find(CondemnedBlob, row.id) == row:
            work.tx.delete(row)
    sizes = []
    for row in plan.confirm:
        if work.tx.find(CondemnedBlob, row.id) == row:
            work.tx.replace(msgspec.structs.replace(row, stage=Sentence.CONFIRMED))
            sizes.append(row.size_bytes)
    spared = len(plan.pardon) + len(plan.confirm) - len(sizes)
    return Collected(step="confirm", blobs=len(sizes), size_bytes=sum(sizes), spared=spared)


def _delete(work: Work, rows: tuple[CondemnedBlob, ...], limit: Instant) -> Collected:
    """Delete bytes while nobody else can write a record; what was put again meanwhile stays."""
    blobs = work.services.blobs
    deleted: list[Digest] = []
    freed = 0
    for row in rows:
        if work.tx.find(CondemnedBlob, row.id) != row:
            continue
        digest = Digest(row.id)
        stored = blobs.find(digest)
        if stored is not None and stored.at > limit:
            work.tx.delete(row)
            continue
        if stored is not None and blobs.delete(digest):
            freed += stored.size_bytes
        deleted.append(digest)
        work.tx.replace(msgspec.structs.replace(row, stage=Sentence.DELETED, at=work.now))
    if deleted:
        work.touch(*(f"blob:{digest}" for digest in deleted))
        work.notes["freed_bytes"] = freed
    left = work.tx.select(CondemnedBlob, *where(stage=Sentence.CONFIRMED.value), limit=1)
    return Collected(
        step="delete",
        blobs=len(deleted),
        size_bytes=freed,
        spared=len(rows) - len(deleted),
        is_done=not left,
    )


def _forget_tombstones(work: Work) -> None:
    limit = work.now - timedelta(hours=TOMBSTONE_HOURS)
    is_old = Condition("at", Compare.LT, limit)
    for row in work.tx.select(CondemnedBlob, *where(stage=Sentence.DELETED.value), is_old):
        work.tx.delete(row)
        if work.services.blobs.size(Digest(row.id)) is None:
            forget_holders(work.tx, Digest(row.id))
