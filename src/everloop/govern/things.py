"""What the records of all packages are called, in words for a reader."""

from __future__ import annotations

from datetime import datetime
from functools import singledispatch

from msgspec import Struct

from everloop.core.clock import to_text
from everloop.core.ids import Id
from everloop.core.records import Record, kind_of
from everloop.data.model import Dataset, DatasetVersion
from everloop.govern.model import EntryLine
from everloop.kernel.authz import Actor
from everloop.kernel.ledger import log
from everloop.kernel.ledger.proving import Payload
from everloop.kernel.unit_of_work import View
from everloop.monitor.model import (
    Alert,
    FeedbackBatch,
    LossPoint,
    PredictionSegment,
    Window,
)
from everloop.pipeline.model import StepRun
from everloop.registry.evidence import Approval, GateReport, Waiver
from everloop.registry.logged import LoggedModel
from everloop.registry.model import Model, ModelVersion
from everloop.release.model import Deployment, Release
from everloop.track.model import Run

MOST_FACTS = 40
LONGEST_FACT = 300
TELLING_FIELDS = ("cause", "why", "started_at", "ended_at", "at")


class Thing(Struct, frozen=True, kw_only=True):
    """A record in words: its name, the digest of its content, and what else to know."""

    title: str
    digest: str | None = None
    facts: dict[str, str] = {}


def facts_of(**values: object) -> dict[str, str]:
    """Return what is known as texts, without what is not."""
    known = {name: _text(value) for name, value in values.items() if value not in (None, "", ())}
    return dict(list(known.items())[:MOST_FACTS])


def actor_name(view: View, actor: str | None) -> str:
    """Return the name of an actor, or the id when there is none."""
    found = view.tx.find(Actor, Id(actor)) if actor else None
    return found.name if found else str(actor or "nobody")


def line_of(view: View, entry: log.LedgerEntry, payload: Payload | None) -> EntryLine:
    """Return an entry as lists show it."""
    actor = view.tx.find(Actor, Id(entry.actor))
    return EntryLine(
        index=entry.index,
        at=entry.at,
        actor=entry.actor,
        actor_name=actor.name if actor else None,
        action=entry.action,
        resource=entry.resource,
        outcome=entry.outcome,
        project=entry.project,
        reason=payload.reason if payload else None,
        decision=payload.decision if payload else None,
    )


@singledispatch
def describe(row: Record, view: View) -> Thing:
    """Return what a record is, in words.

    A kind without words of its own, such as a run of the loop (a package beside this one), is told
    by its name and by those of its fields that say how it stands.
    """
    del view
    title = kind_of(row).name.replace("_", " ")
    state = getattr(row, "state", None)
    known = {name: getattr(row, name, None) for name in TELLING_FIELDS}
    return Thing(
        title=f"{title} {state.replace('_', ' ')}" if state else title, facts=facts_of(**known)
    )


@describe.register
def _(row: ModelVersion, view: View) -> Thing:
    return Thing(
        title=f"{row.name} {row.version}",
        digest=row.artifact,
        facts=facts_of(
            number=row.number,
            format=row.format,
            target=row.target,
            bump=f"{row.bump}: {row.bump_reason}",
            registered_by=actor_name(view, row.created_by),
            registered_at=row.created_at,
            files=len(row.files),
        ),
    )


@describe.register
def _(row: Model, view: View) -> Thing:
    del view
    return Thing(title=row.name, facts=facts_of(description=row.description))


@describe.register
def _(row: LoggedModel, view: View) -> Thing:
    return Thing(
        title=f"logged model {row.name}",
        digest=row.root,
        facts=facts_of(
            status=row.status.value,
            files=len(row.files),
            created_by=actor_name(view, row.created_by),
            created_at=row.created_at,
        ),
    )


@describe.register
def _(row: Run, view: View) -> Thing:
    params = {f"param {name}": value for name, value in sorted(row.params.items())}
    known = facts_of(
        pipeline=row.pipeline,
        status=row.status.value,
        started_at=row.started_at,
        ended_at=row.ended_at,
        code_commit=row.code_commit,
        environment=row.environment,
        error=row.error,
        by=actor_name(view, row.created_by),
        **params,
    )
    return Thing(title=f"run {row.name}", digest=row.environment, facts=known)


@describe.register
def _(row: StepRun, view: View) -> Thing:
    del view
    return Thing(
        title=f"step {row.name.rpartition(':')[2]}",
        digest=row.outputs.get("return"),
        facts=facts_of(
            name=row.name, status=row.status.value, why=row.why, seconds=f"{row.seconds:.3f}",
            key=row.key, error=row.error,
        ),
    )  # fmt: skip


@describe.register
def _(row: Dataset, view: View) -> Thing:
    del view
    return Thing(title=row.name)


@describe.register
def _(row: DatasetVersion, view: View) -> Thing:
    rows = "" if row.rows is None else f", {row.rows} rows"
    return Thing(
        title=f"{row.name}@{row.number}{rows}",
        digest=row.root,
        facts=facts_of(
            message=row.message,
            source=row.source.description,
            source_digest=row.source.digest,
            size_bytes=row.size_bytes,
            committed_by=actor_name(view, row.created_by),
            committed_at=row.created_at,
        ),
    )


@describe.register
def _(row: GateReport, view: View) -> Thing:
    del view
    failed = [check.name for check in row.checks if not check.passed]
    return Thing(
        title="gate passed" if row.passed else f"gate refused: {', '.join(failed)}",
        digest=row.artifact,
        facts=facts_of(at=row.at, **{check.name: check.summary for check in row.checks}),
    )


@describe.register
def _(row: Waiver, view: View) -> Thing:
    return Thing(
        title=f"waiver by {actor_name(view, row.who)}",
        digest=row.artifact,
        facts=facts_of(why=row.why, at=row.when, own_work="yes" if row.own_work else None),
    )


@describe.register
def _(row: Approval, view: View) -> Thing:
    return Thing(
        title=f"approval by {actor_name(view, row.approver)}",
        digest=row.artifact,
        facts=facts_of(comment=row.comment, at=row.at),
    )


@describe.register
def _(row: Release, view: View) -> Thing:
    return Thing(
        title=f"release {row.state.value.replace('_', ' ')}",
        facts=facts_of(
            strategy=row.strategy,
            why=row.why,
            started_at=row.started_at,
            ended_at=row.ended_at,
            started_by=actor_name(view, row.started_by),
            **{name: finding.value for name, finding in row.findings.items()},
        ),
    )


@describe.register
def _(row: Deployment, view: View) -> Thing:
    champion = view.find(ModelVersion, row.champion) if row.champion else None
    return Thing(
        title=f"deployment {row.name}",
        facts=facts_of(
            champion=f"{champion.name}@{champion.version}" if champion else None, epoch=row.epoch
        ),
    )


@describe.register
def _(row: PredictionSegment, view: View) -> Thing:
    del view
    return Thing(
        title=f"predictions {row.seq}, {row.rows} rows",
        digest=row.root,
        facts=facts_of(
            first_at=row.first_at, last_at=row.last_at, labelled=row.labelled, file=row.file
        ),
    )


@describe.register
def _(row: FeedbackBatch, view: View) -> Thing:
    return Thing(
        title=f"labels {row.seq}, {row.fresh} new",
        digest=row.root,
        facts=facts_of(
            corrected=row.corrected,
            source=row.source,
            received_at=row.received_at,
            received_from=actor_name(view, row.received_from),
        ),
    )


@describe.register
def _(row: Alert, view: View) -> Thing:
    del view
    return Thing(
        title=f"{row.kind.value} alert, {row.state.value}",
        facts=facts_of(summary=row.summary, at=row.at, columns=", ".join(row.columns)),
    )


@describe.register
def _(row: Window, view: View) -> Thing:
    del view
    return Thing(
        title=f"window of {row.rows} rows",
        digest=row.profile,
        facts=facts_of(start=row.start, end=row.end, drifted=", ".join(row.drifted)),
    )


@describe.register
def _(row: LossPoint, view: View) -> Thing:
    del view
    return Thing(
        title=f"losses {row.number}",
        facts=facts_of(at=row.at, mean_loss=row.mean_loss, bad_share=row.bad_share),
    )


def _text(value: object) -> str:
    text = to_text(value) if isinstance(value, datetime) else str(value)
    return text if len(text) <= LONGEST_FACT else text[: LONGEST_FACT - 3] + "..."
