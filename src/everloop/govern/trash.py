"""The trash: what is in it, what purging it would break and free, and the purge itself.

Deleting only hides. A purge removes records for good, after a grace period and only where nothing
in use, no evidence and no retention needs them; the ledger keeps what it says of them. The bytes
that nothing names afterwards go with the next collection of garbage.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, structs

from everloop.core.clock import Instant
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition, where
from everloop.core.records import Record, declared_kinds, kind_of
from everloop.govern.model import RefText
from everloop.govern.purging import Days, Doomed, Hold, TrashConfig, gather, judge, ref_of
from everloop.govern.things import describe
from everloop.kernel.reach import needed_blobs
from everloop.kernel.unit_of_work import View, Work
from everloop.kernel.verbs import query, verb
from everloop.registry.aliases import move_alias
from everloop.registry.lookup import current_aliases
from everloop.registry.model import Model, ModelVersion, VersionNotes
from everloop.track.model import Experiment, Run

MOST_THINGS = 10_000
ROWS_A_CALL = 5_000
KINDS = ("model_version", "logged_model", "run", "experiment", "model")
"""What can be purged, in the order in which it goes: what needs something before what it needs."""

Refs = Annotated[tuple[RefText, ...], Meta(max_length=MOST_THINGS)]


class ListTrash(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask what is in the trash.

    Attributes:
        kind: ``run``, ``experiment``, ``model``, ``model_version`` or ``logged_model``; all when
            left out.
        older_than_days: Only what was deleted at least this long ago.
    """

    kind: Annotated[str, Meta(max_length=40)] | None = None
    older_than_days: Days = 0.0
    limit: Annotated[int, Meta(ge=1, le=MOST_THINGS)] = 100


class TrashItem(Struct, frozen=True, kw_only=True):
    """One thing in the trash; ``purgeable_at`` is the end of its grace period."""

    ref: str
    title: str
    deleted_at: Instant
    purgeable_at: Instant


class TrashList(Struct, frozen=True, kw_only=True):
    """What is in the trash, the longest there first; ``more`` says whether the limit cut it."""

    items: tuple[TrashItem, ...]
    more: bool = False


class PlanPurge(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask what a purge would do.

    Attributes:
        refs: What to purge, as ``kind:id``, ``experiment:name``, ``model:name`` or
            ``model:name@number``; everything in the trash when left out.
        older_than_days: Only what was deleted at least this long ago.
        ignore_grace: As if the grace period were over.
    """

    refs: Refs = ()
    older_than_days: Days = 0.0
    ignore_grace: bool = False


class PlannedItem(Struct, frozen=True, kw_only=True):
    """What would happen to one thing.

    Attributes:
        rows: How many records of each kind would go with it.
        holds: Why it would be refused; empty when it would go.
        mentions: What would stay and name something that is gone.
    """

    ref: str
    title: str
    deleted_at: Instant
    rows: dict[str, int]
    holds: tuple[Hold, ...]
    mentions: tuple[str, ...]


class PurgePlan(Struct, frozen=True, kw_only=True):
    """What a purge would do.

    Attributes:
        purged: How many things would go.
        refused: How many would not.
        rows: Records that would go.
        blobs: Stored bytes that nothing would need any more, and ``freed_bytes`` their length.
    """

    items: tuple[PlannedItem, ...]
    purged: int
    refused: int
    rows: int
    blobs: int
    freed_bytes: int


class PurgeTrash(PlanPurge, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask to purge; ``ignore_grace`` needs a reason. Repeat it while ``more`` is true."""


class Refused(Struct, frozen=True, kw_only=True):
    """A thing that stays, and why."""

    ref: str
    holds: tuple[Hold, ...]


class Purged(Struct, frozen=True, kw_only=True):
    """What was purged by one call."""

    things: tuple[str, ...]
    rows: int
    refused: tuple[Refused, ...]
    more: bool = False


@query("trash.list", permission="run:read")
def list_trash(ask: ListTrash, view: View) -> TrashList:
    """List what is in the trash, and since when.

    Raises:
        InvalidInput: ``trash.kind_unknown``.
    """
    if ask.kind is not None and ask.kind not in KINDS:
        raise InvalidInput(
            "trash.kind_unknown",
            f"Nothing of the kind {ask.kind!r} can be in the trash.",
            hint=f"Ask for one of {', '.join(KINDS)}.",
        )
    grace = timedelta(days=trash_config(view).grace_days)
    found = [
        (at, row)
        for row, at in _trashed(view, ask.older_than_days)
        if ask.kind in {None, ref_of(row).partition(":")[0]}
    ]
    found.sort(key=lambda pair: (pair[0], pair[1].id))
    return TrashList(
        items=tuple(
            TrashItem(
                ref=ref_of(row),
                title=describe(row, view).title,
                deleted_at=at,
                purgeable_at=at + grace,
            )
            for at, row in found[: ask.limit]
        ),
        more=len(found) > ask.limit,
    )


@query("trash.plan", permission="trash:admin")
def plan_purge(ask: PlanPurge, view: View) -> PurgePlan:
    """Say what a purge would remove, refuse and free, and what it would break; changes nothing.

    Raises:
        InvalidInput: ``ref.invalid``.
        NotFound: ``trash.not_found`` for something that is not in the trash.
    """
    things = _things(view, ask)
    going = [doomed for doomed in things if not doomed.holds]
    rows = {
        (name, row.id) for doomed in going for row in (*doomed.rows, *doomed.edges)
        for name in (ref_of(row).partition(":")[0],)
    }  # fmt: skip
    blobs = view.services.blobs
    freed = needed_blobs(view.tx, blobs) - needed_blobs(view.tx, blobs, without=rows)
    sizes = [size for size in map(blobs.size, freed) if size is not None]
    return PurgePlan(
        items=tuple(
            PlannedItem(
                ref=doomed.ref,
                title=describe(doomed.row, view).title,
                deleted_at=doomed.deleted_at,
                rows=doomed.counts,
                holds=tuple(doomed.holds),
                mentions=tuple(doomed.mentions),
            )
            for doomed in things
        ),
        purged=len(going),
        refused=len(things) - len(going),
        rows=len(rows),
        blobs=len(sizes),
        freed_bytes=sum(sizes),
    )


@verb("trash.purge", permission="trash:admin")
def purge_trash(ask: PurgeTrash, work: Work) -> Purged:
    """Remove things in the trash for good, as many as one call may; what is held stays.

    Raises:
        InvalidInput: ``trash.reason_missing`` for a purge within the grace period, ``ref.invalid``.
        NotFound: ``trash.not_found`` for something that is not in the trash.
    """
    if ask.ignore_grace and not (work.reason or "").strip():
        raise InvalidInput(
            "trash.reason_missing",
            "What was deleted a short while ago is purged with a reason only.",
            hint="Say why: --reason, or reason=... in Python.",
        )
    things = _things(work, ask)
    refused = tuple(
        Refused(ref=doomed.ref, holds=tuple(doomed.holds)) for doomed in things if doomed.holds
    )
    going = [doomed for doomed in things if not doomed.holds]
    gone: list[str] = []
    removed: set[str] = set()
    for doomed in going:
        if len(removed) >= ROWS_A_CALL:
            break
        _remove(work, doomed, removed)
        gone.append(doomed.ref)
    return Purged(
        things=tuple(gone), rows=len(removed), refused=refused, more=len(gone) < len(going)
    )


def trash_config(view: View) -> TrashConfig:
    """Return the project's settings of its trash.

    Raises:
        InvalidInput: ``settings.invalid``.
    """
    try:
        return msgspec.convert(view.settings().get("trash", {}), TrashConfig)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            "settings.invalid",
            f"trash in the project's configuration: {error}.",
            hint="Correct everloop.yaml and run `everloop up` or `everloop configure` again.",
        ) from error


def _things(view: View, ask: PlanPurge) -> list[Doomed]:
    """Return what is asked for with all that goes with it, judged, in the order of going."""
    found = list(_trashed(view, ask.older_than_days))
    if ask.refs:
        found = _chosen(view, found, ask.refs)
    things = [gather(view, row, at) for row, at in found[:MOST_THINGS]]
    judge(view, things, trash_config(view), ignore_grace=ask.ignore_grace)
    depth = {doomed.row.id: 0 for doomed in things}
    parents = {doomed.row.id: getattr(doomed.row, "parent", None) for doomed in things}
    for key in depth:
        above, steps = parents[key], 0
        while above is not None and steps < len(parents):
            above, steps = parents.get(above), steps + 1
        depth[key] = steps
    things.sort(key=lambda doomed: (_rank(doomed.row), -depth[doomed.row.id], doomed.row.id))
    return things


def _rank(row: Record) -> int:
    return KINDS.index(ref_of(row).partition(":")[0])


def _trashed(view: View, older_than_days: float) -> Iterator[tuple[Record, Instant]]:
    """Yield everything in the trash, and since when."""
    limit = view.services.clock.now() - timedelta(days=older_than_days)
    is_old = Condition("deleted_at", Compare.LE, limit)
    kinds = declared_kinds()
    for name in ("run", "experiment", "logged_model"):
        for row in view.select(kinds[name].type, is_old):
            yield row, getattr(row, "deleted_at", limit)
    since: dict[Id, Instant] = {}
    for model in view.select(Model, is_old):
        assert model.deleted_at is not None
        versions = view.select(ModelVersion, *where(model=model.id))
        since |= {version.id: model.deleted_at for version in versions}
        if versions or model.description or model.tags:
            yield model, model.deleted_at
    for notes in view.select(VersionNotes, is_old):
        assert notes.deleted_at is not None
        since[notes.version] = min(since.get(notes.version, notes.deleted_at), notes.deleted_at)
    for key, at in since.items():
        version = view.find(ModelVersion, key)
        if version is not None:
            yield version, at


def _names(row: Record) -> tuple[str, ...]:
    """Return what people call a thing, beside its kind and id."""
    if isinstance(row, Experiment | Model):
        return (f"{kind_of(row).name}:{row.name}",)
    if isinstance(row, ModelVersion):
        return (f"model:{row.name}@{row.number}", f"model:{row.name}@{row.version}")
    return ()


def _chosen(
    view: View, found: list[tuple[Record, Instant]], refs: tuple[str, ...]
) -> list[tuple[Record, Instant]]:
    """Return what refs name, with the runs of experiments and the versions of models."""
    by_ref = {ref_of(row): (row, at) for row, at in found}
    called = {name: ref_of(row) for row, _ in found for name in _names(row)}
    chosen: dict[str, tuple[Record, Instant]] = {}
    for given in refs:
        ref = called.get(given, given)
        if ref not in by_ref:
            raise NotFound(
                "trash.not_found",
                f"{given[:80]!r} is not in the trash.",
                hint="Look with `everloop trash list`; delete it first, then purge it.",
            )
        row = by_ref[ref][0]
        chosen[ref] = by_ref[ref]
        inner: list[Record] = []
        if isinstance(row, Experiment):
            inner += view.select(Run, *where(experiment=row.id))
        elif isinstance(row, Model):
            inner += view.select(ModelVersion, *where(model=row.id))
        chosen |= {ref_of(each): by_ref[ref_of(each)] for each in inner if ref_of(each) in by_ref}
    return list(chosen.values())


def _remove(work: Work, doomed: Doomed, removed: set[str]) -> None:
    work.touch(doomed.ref)
    if isinstance(doomed.row, Model):
        # The row stays: it keeps the numbers of its versions from being given again.
        emptied = structs.replace(
            doomed.row, description="", tags={}, owner="", licence="", intended_use=""
        )
        work.replace(emptied)
        removed.add(doomed.ref)
        return
    if isinstance(doomed.row, ModelVersion):
        _end_aliases(work, doomed.row)
    for row in (*doomed.edges, *doomed.rows):
        if ref_of(row) not in removed:  # a part may belong to two things
            work.delete(row)
            removed.add(ref_of(row))


def _end_aliases(work: Work, version: ModelVersion) -> None:
    model = work.get(Model, version.model)
    for alias, target in current_aliases(work, model.id).items():
        if target == version.id:
            move_alias(work, model, alias, None, f"Version {version.version} was purged.")
