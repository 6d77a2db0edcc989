"""Verbs of monitoring: seal predictions, look at them and their labels, acknowledge alerts."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from everloop.core.digest import Digest
from everloop.core.errors import Conflict
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.kernel.unit_of_work import Work
from everloop.kernel.verbs import verb
from everloop.monitor import observing, sealing
from everloop.monitor.lookup import keep_keys, keep_tally, last_seq, tally_of
from everloop.monitor.model import Alert, AlertState, PredictionSegment

IdText = Annotated[Id, Meta(max_length=40)]


class _Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class SealSegment(_Ask, frozen=True, kw_only=True):
    """Ask to seal a stretch of a prediction log.

    Attributes:
        file: Name of the log file; the offsets are bytes in it.
        blob: Parquet of the rows in the stretch, put before.
        champion: The version in whose reference bins the inputs are counted.
        dropped: Answers given before these rows for which the log had no space.
    """

    deployment: IdText
    file: Annotated[str, Meta(max_length=200)]
    offset_start: Annotated[int, Meta(ge=0)]
    offset_end: Annotated[int, Meta(ge=0)]
    blob: Annotated[Digest, Meta(max_length=80)]
    champion: IdText | None = None
    dropped: Annotated[int, Meta(ge=0)] = 0


class SealedSegment(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed segment."""

    id: Id
    seq: int
    rows: int
    root: Digest


@verb(
    "prediction.seal",
    permission="prediction:admin",
    prepare=lambda ask, desk: sealing.prepare(ask.blob, ask.champion, desk),
)
def seal_segment(ask: SealSegment, work: Work, ready: sealing.Ready) -> SealedSegment:
    """Make a stretch of a prediction log immutable: rows, profile and Merkle root.

    Raises:
        Conflict: ``segment.gap`` when the stretch does not begin where the last one ended.
        InvalidInput: ``segment.unreadable`` or ``segment.empty``.
    """
    earlier = work.select(
        PredictionSegment,
        *where(deployment=ask.deployment, file=ask.file),
        order="offset_start",
        descending=True,
        limit=1,
    )
    expected = earlier[0].offset_end if earlier else 0
    if ask.offset_start != expected or ask.offset_end <= ask.offset_start:
        raise Conflict(
            "segment.gap",
            f"The next stretch of {ask.file[:60]!r} begins at byte {expected}.",
            hint="Read the log from there.",
        )
    tally = tally_of(work, ask.deployment)
    keep_tally(work, tally, predictions=ready.rows, dropped=ask.dropped)
    segment = work.insert(
        PredictionSegment(
            id=work.new_id(),
            project=work.project,
            deployment=ask.deployment,
            seq=last_seq(work, PredictionSegment, ask.deployment) + 1,
            file=ask.file,
            offset_start=ask.offset_start,
            offset_end=ask.offset_end,
            rows=ready.rows,
            first_id=ready.first_id,
            last_id=ready.last_id,
            first_at=ready.first_at,
            last_at=ready.last_at,
            blob=ask.blob,
            root=ready.root,
            reference=ready.reference,
            profile=ready.profile,
            versions=ready.versions,
            sealed_at=work.now,
            dropped=ask.dropped,
        )
    )
    keep_keys(work, segment, ready.keys)
    node = f"prediction_segment:{segment.id}"
    work.touch(node, f"deployment:{ask.deployment}")
    for counted in ready.versions:
        work.link(node, "answered_by", f"model_version:{counted.version}")
    return SealedSegment(id=segment.id, seq=segment.seq, rows=segment.rows, root=segment.root)


class Observe(_Ask, frozen=True, kw_only=True):
    """Ask to look at what came since the last time.

    Attributes:
        model: Name of the model, for its settings.
        champion: The version to watch; None before the first release.
    """

    deployment: IdText
    model: Annotated[str, Meta(max_length=100)]
    champion: IdText | None = None


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        alerts: Ids of the alerts raised by this look.
        segment_seq: The last segment looked at; ``feedback_seq`` likewise.
        watermark: Greatest event time sealed, as text; None before the first prediction.
    """

    alerts: tuple[Id, ...]
    closed_windows: int
    blocks: int
    segment_seq: int
    feedback_seq: int
    watermark: str | None


@verb("monitor.observe", permission="monitor:admin", prepare=observing.prepare)
def observe(ask: Observe, work: Work, ready: observing.Ready) -> Observed:
    """Advance the loss detector over new labels, close windows of event time, raise alerts."""
    return observing.commit(ask.deployment, work, ready, Observed)


class AcknowledgeAlert(_Ask, frozen=True, kw_only=True):
    """Ask to mark an alert as seen."""

    id: IdText


class AlertView(msgspec.Struct, frozen=True, kw_only=True):
    """An alert."""

    alert: Alert


@verb("alert.acknowledge", permission="alert:write")
def acknowledge_alert(ask: AcknowledgeAlert, work: Work) -> AlertView:
    """Mark an open alert as seen by somebody; repeating changes nothing.

    Raises:
        NotFound: ``alert.not_found``.
    """
    alert = work.get(Alert, ask.id)
    if alert.state is AlertState.OPEN:
        alert = work.replace(msgspec.structs.replace(alert, state=AlertState.ACKNOWLEDGED))
        work.touch(f"alert:{alert.id}")
    return AlertView(alert=alert)
