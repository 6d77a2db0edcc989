"""Whether what lists and search show of runs agrees with what was logged, and making it so.

Summaries of metrics and the index of parameters and tags are made from points and runs, and the
ledger does not cover them: whoever changes them in the database changes what lists show, though
nothing that counts as evidence. They can be made anew from what they were made from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from everloop.core.errors import IntegrityError, NotFound
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.kernel.unit_of_work import View, Work
from everloop.kernel.verbs import query, verb
from everloop.track.columns import summarise
from everloop.track.fields import PARAM, TAG, make_field
from everloop.track.model import MetricBatch, MetricChunk, MetricSummary, Run, RunField
from everloop.track.series import FULL_CHUNK, read_series, to_summary

MOST_RUNS = 1_000
MOST_REBUILT = 100
MOST_FINDINGS = 100
RunText = Annotated[str, Meta(max_length=100)]


class CheckRuns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which runs to look at: these, or all of them page by page."""

    runs: Annotated[tuple[RunText, ...], Meta(max_length=MOST_RUNS)] = ()
    limit: Annotated[int, Meta(ge=1, le=MOST_RUNS)] = 100
    after: Annotated[str, Meta(max_length=100)] | None = None


class RunFinding(msgspec.Struct, frozen=True, kw_only=True):
    """A derived row that does not say what was logged."""

    run: Id
    what: str
    why: str


class RunsChecked(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at derived rows found.

    Attributes:
        rows: How many derived rows were looked at.
        findings: What is wrong; at most 100, ``more`` are not listed.
        bad_runs: Ids of the runs to rebuild.
    """

    runs: int
    rows: int
    findings: tuple[RunFinding, ...]
    more: int
    bad_runs: tuple[Id, ...]
    next: str | None = None


class RebuildRuns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The runs whose derived rows are to be made anew."""

    runs: Annotated[tuple[RunText, ...], Meta(min_length=1, max_length=MOST_REBUILT)]


class RunsRebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """How many derived rows were changed, added or removed."""

    runs: int
    rows: int


class _Row(NamedTuple):
    """One derived row: as it should be and as it is, either of which may be missing."""

    what: str
    wanted: MetricSummary | RunField | None
    found: MetricSummary | RunField | None

    @property
    def is_right(self) -> bool:
        return (
            self.wanted is not None
            and self.found is not None
            and _content(self.wanted) == _content(self.found)
        )


@query("run.check", permission="run:read")
def check_runs(ask: CheckRuns, view: View) -> RunsChecked:
    """Compare what lists show of runs with their points, parameters and tags; reads all of them.

    Raises:
        NotFound: ``run.not_found``.
    """
    more: str | None = None
    if ask.runs:
        runs = [view.get(Run, Id(run)) for run in ask.runs]
    else:
        runs, more = view.page(Run, limit=ask.limit, after=ask.after)
    findings: list[RunFinding] = []
    bad: dict[Id, None] = {}
    rows = 0
    for run in runs:
        try:
            for row in _rows(view, run):
                rows += 1
                if not row.is_right:
                    findings.append(RunFinding(run=run.id, what=row.what, why=_why(row)))
                    bad[run.id] = None
        except (IntegrityError, NotFound) as error:
            findings.append(RunFinding(run=run.id, what="its points", why=error.message))
    return RunsChecked(
        runs=len(runs),
        rows=rows,
        findings=tuple(findings[:MOST_FINDINGS]),
        more=max(len(findings) - MOST_FINDINGS, 0),
        bad_runs=tuple(bad),
        next=more,
    )


@verb("run.rebuild", permission="run:admin")
def rebuild_runs(ask: RebuildRuns, work: Work) -> RunsRebuilt:
    """Make anew what lists and search show of runs, from their points, parameters and tags.

    Raises:
        NotFound: ``run.not_found``, or ``blob.not_found`` when points are gone.
        IntegrityError: ``blob.corrupt`` when points are damaged.
    """
    changed = 0
    for key in ask.runs:
        run = work.get(Run, Id(key))
        for row in list(_rows(work, run)):
            if row.is_right:
                continue
            changed += 1
            if row.found is not None:
                work.delete(row.found)
            if row.wanted is not None:
                work.insert(msgspec.structs.replace(row.wanted, id=work.new_id()))
        work.touch(f"run:{run.id}")
    if changed:
        work.notes["rebuilt_rows"] = changed
    return RunsRebuilt(runs=len(ask.runs), rows=changed)


def _rows(view: View, run: Run) -> Iterator[_Row]:
    found = {row.key: row for row in view.select(MetricSummary, *where(run=run.id))}
    chunks: dict[str, list[MetricChunk]] = {}
    for chunk in view.select(MetricChunk, *where(run=run.id), order="seq"):
        chunks.setdefault(chunk.key, []).append(chunk)
    waiting = view.select(MetricBatch, *where(run=run.id), order="seq")
    keys = {*chunks, *(key for batch in waiting for key in batch.keys)}
    for key in sorted(keys | set(found)):
        wanted = _wanted_summary(view, run, key, chunks.get(key, [])) if key in keys else None
        yield _Row(f"metric {key}", wanted, found.get(key))
    fields = {(row.space, row.key): row for row in view.select(RunField, *where(run=run.id))}
    held: tuple[tuple[str, Mapping[str, str]], ...] = ((PARAM, run.params), (TAG, run.tags))
    given = {(space, key): value for space, texts in held for key, value in texts.items()}
    for space, key in sorted(given.keys() | fields.keys()):
        value = given.get((space, key))
        field = None if value is None else make_field(Id(""), run, space, key, value)
        yield _Row(f"{space} {key}", field, fields.get((space, key)))


def _wanted_summary(view: View, run: Run, key: str, chunks: list[MetricChunk]) -> MetricSummary:
    last = chunks[-1].count if chunks else 0
    growing = 0 if last >= FULL_CHUNK else last
    points = read_series(view, run.id, key)
    return to_summary(Id(""), run, key, summarise(points), (len(chunks), growing))


def _content(row: MetricSummary | RunField) -> MetricSummary | RunField:
    return msgspec.structs.replace(row, id=Id(""), revision=0)


def _why(row: _Row) -> str:
    if row.found is None:
        return "no list and no search knows it"
    if row.wanted is None:
        return "it was never logged"
    wanted, found = (msgspec.to_builtins(_content(each)) for each in (row.wanted, row.found))
    return ", ".join(
        f"{name} is {found[name]!r}, not {wanted[name]!r}"[:120]
        for name in wanted
        if wanted[name] != found[name]
    )
