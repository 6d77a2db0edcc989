"""What goes when something in the trash is purged, what would break, and what forbids it.

Worked out for all things at once: a version keeps its run from going, unless it goes with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated

from msgspec import Meta, Struct

from everloop.core.clock import Instant
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition, where
from everloop.core.records import Record, declared_kinds, kind_of
from everloop.govern.references import (
    EVIDENCE,
    LINEAGE,
    REFERENCES,
    Reference,
    Role,
    references_to,
)
from everloop.kernel.lineage import Edge
from everloop.kernel.unit_of_work import View

Days = Annotated[float, Meta(ge=0, le=36_500)]
MENTIONED_AT_MOST = 20
_TARGETS = frozenset(found.target for found in REFERENCES)


class TrashConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long things are kept (``trash``).

    Attributes:
        grace_days: How long something must have been in the trash before it may be purged.
        evidence_days: How long a version stays after its last gate report, waiver or approval.
        keep_runs_days: How long a run stays after its start, whatever somebody deletes.
        keep_models_days: How long a version stays after it was registered, likewise.
    """

    grace_days: Days = 30.0
    evidence_days: Days = 180.0
    keep_runs_days: Days = 0.0
    keep_models_days: Days = 0.0


class Hold(Struct, frozen=True, kw_only=True):
    """Why something is not purged.

    Attributes:
        by: ``grace``, ``in_use``, ``needed``, ``evidence`` or ``retention``.
        ref: What holds it, as ``kind:id``.
        until: When this hold ends by itself; None when somebody has to act.
    """

    by: str
    ref: str
    why: str
    until: Instant | None = None


@dataclass
class Doomed:
    """One thing to purge.

    Attributes:
        rows: Everything that goes with it, itself last.
        edges: Its own statements of origin.
        counts: How many rows of each kind go.
        mentions: What stays and will name something that is gone.
    """

    ref: str
    row: Record
    deleted_at: Instant
    rows: list[Record] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    holds: list[Hold] = field(default_factory=list)
    mentions: list[str] = field(default_factory=list)

    @property
    def nodes(self) -> set[str]:
        """The names of all its rows that other rows may name."""
        return {ref_of(row) for row in self.rows if kind_of(row).name in _TARGETS}


def ref_of(row: Record) -> str:
    """Return a row's name, ``kind:id``."""
    return f"{kind_of(row).name}:{row.id}"


def gather(view: View, row: Record, deleted_at: Instant) -> Doomed:
    """Return a thing with everything that goes with it."""
    doomed = Doomed(ref_of(row), row, deleted_at)
    seen: set[str] = set()
    _collect(view, row, doomed, seen)
    for node in doomed.nodes:
        doomed.edges += view.select(Edge, *where(source=node))
    for each in (*doomed.rows, *doomed.edges):
        name = kind_of(each).name
        doomed.counts[name] = doomed.counts.get(name, 0) + 1
    return doomed


def _collect(view: View, row: Record, doomed: Doomed, seen: set[str]) -> None:
    if ref_of(row) in seen:
        return
    seen.add(ref_of(row))
    for found in references_to(kind_of(row).name):
        if found.role is Role.PART:
            for part in _naming(view, found, row.id):
                _collect(view, part, doomed, seen)
    doomed.rows.append(row)


def judge(view: View, things: list[Doomed], config: TrashConfig, *, ignore_grace: bool) -> None:
    """Write down what forbids each thing to go, and what its going would break."""
    now = view.services.clock.now()
    named = {doomed.ref: _dependants(view, doomed) for doomed in things}
    for doomed in things:
        doomed.holds += _own_holds(doomed, config, now, ignore_grace=ignore_grace)
        doomed.holds += [hold for _, hold in named[doomed.ref] if hold.by == "in_use"]
    going = {node for doomed in things if not doomed.holds for node in doomed.nodes}
    changed = True
    while changed:  # what is held keeps what it needs, and so on
        changed = False
        for doomed in things:
            if doomed.holds:
                continue
            needed = [hold for owner, hold in named[doomed.ref] if owner not in going]
            if needed:
                doomed.holds += needed
                going -= doomed.nodes
                changed = True
    for doomed in things:
        doomed.mentions = list(_mentions(view, doomed, going))


def _own_holds(
    doomed: Doomed, config: TrashConfig, now: Instant, *, ignore_grace: bool
) -> Iterator[Hold]:
    ends = doomed.deleted_at + timedelta(days=config.grace_days)
    if now < ends and not ignore_grace:
        yield Hold(by="grace", ref=doomed.ref, why="It was deleted a short while ago.", until=ends)
    for row in doomed.rows:
        kind = kind_of(row).name
        days, since = 0.0, None
        if kind in EVIDENCE:
            days, since = config.evidence_days, getattr(row, EVIDENCE[kind])
            by, why = "evidence", f"A {kind.replace('_', ' ')} rests on it."
        elif kind == "run":
            days, since = config.keep_runs_days, getattr(row, "started_at", None)
            by, why = "retention", "The project keeps runs this long."
        elif kind == "model_version":
            days, since = config.keep_models_days, getattr(row, "created_at", None)
            by, why = "retention", "The project keeps model versions this long."
        else:
            continue
        if since is not None and days and now < since + timedelta(days=days):
            yield Hold(by=by, ref=ref_of(row), why=why, until=since + timedelta(days=days))


def _dependants(view: View, doomed: Doomed) -> list[tuple[str, Hold]]:
    """Return what needs a thing: the name of the row that does, and the hold it makes."""
    own = {ref_of(row) for row in doomed.rows}
    found: list[tuple[str, Hold]] = []
    for row in doomed.rows:
        for reference in references_to(kind_of(row).name):
            if reference.role not in {Role.NEEDS, Role.LIVE}:
                continue
            for other in _naming(view, reference, row.id):
                if ref_of(other) not in own and _counts(other, reference.role):
                    found.append((ref_of(other), _hold_of(other, reference)))
    for node in doomed.nodes:
        for edge in view.select(Edge, *where(target=node)):
            if edge.source not in own and edge.source.partition(":")[0] in LINEAGE:
                why = f"{edge.source} {edge.relation.replace('_', ' ')} it."
                found.append((edge.source, Hold(by="needed", ref=edge.source, why=why)))
    return found


def _counts(row: Record, role: Role) -> bool:
    return role is Role.NEEDS or getattr(row, "live", None) is not None


def _hold_of(row: Record, reference: Reference) -> Hold:
    in_use = reference.kind in {"deployment", "release", "loop_run", "watch"}
    name = getattr(row, "name", None)
    what = f"{reference.kind.replace('_', ' ')} {name or row.id}"
    if reference.field == "parent":
        why = f"The {what} is a child of it."
    else:
        why = f"The {what} has it as its {reference.field.replace('_', ' ')}."
    return Hold(by="in_use" if in_use else "needed", ref=ref_of(row), why=why)


def _mentions(view: View, doomed: Doomed, going: set[str]) -> Iterator[str]:
    shown = 0
    for row in doomed.rows:
        for reference in references_to(kind_of(row).name):
            if reference.role is not Role.MENTIONS or shown >= MENTIONED_AT_MOST:
                continue
            for other in _naming(view, reference, row.id, limit=MENTIONED_AT_MOST):
                if ref_of(other) not in going and other not in doomed.rows:
                    shown += 1
                    yield f"{ref_of(other)} ({reference.field})"
    for node in doomed.nodes:
        for edge in view.select(Edge, *where(target=node), limit=MENTIONED_AT_MOST):
            if edge.source not in going and edge.source not in doomed.nodes:
                yield f"{edge.source} ({edge.relation})"


def _naming(
    view: View, reference: Reference, key: Id, limit: int | None = None
) -> Iterable[Record]:
    declared = declared_kinds().get(reference.kind)
    if declared is None:
        return ()
    same = Condition(reference.field, Compare.EQ, key)
    return view.select(declared.type, same, limit=limit)
