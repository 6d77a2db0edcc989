"""Verbs of monitoring: seal predictions, take labels, look at both, acknowledge alerts."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from everloop.core import merkle
from everloop.core.canonical import canonical_json
from everloop.core.digest import Digest
from everloop.core.errors import Conflict
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.kernel.unit_of_work import Work
from everloop.kernel.verbs import Payload, verb
from everloop.monitor import labelling, observing, sealing
from everloop.monitor.lookup import keep_tally, last_seq, tally_of
from everloop.monitor.model import Alert, AlertState, FeedbackBatch, PredictionSegment

IdText = Annotated[Id, Meta(max_length=40)]
MAX_LABELS = 20_000


class _Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class SealSegment(_Ask, frozen=True, kw_only=True):
    """Ask to seal a stretch of a prediction log.

    Attributes:
        file: Name of the log file; the offsets are bytes in it.
        blob: Parquet of the rows in the stretch, put before.
        champion: The version in whose reference bins the inputs are counted.
    """

    deployment: IdText
    file: Annotated[str, Meta(max_length=200)]
    offset_start: Annotated[int, Meta(ge=0)]
    offset_end: Annotated[int, Meta(ge=0)]
    blob: Annotated[Digest, Meta(max_length=80)]
    champion: IdText | None = None


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
    keep_tally(work, tally_of(work, ask.deployment), predictions=ready.rows)
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
        )
    )
    node = f"prediction_segment:{segment.id}"
    work.touch(node, f"deployment:{ask.deployment}")
    for counted in ready.versions:
        work.link(node, "answered_by", f"model_version:{counted.version}")
    return SealedSegment(id=segment.id, seq=segment.seq, rows=segment.rows, root=segment.root)


class Label(_Ask, frozen=True, kw_only=True):
    """The truth about one prediction; classes are 0 and 1 or true and false."""

    prediction: IdText
    value: float | bool


class AddFeedback(_Ask, frozen=True, kw_only=True):
    """Ask to join labels with the answers they judge."""

    labels: Annotated[tuple[Label, ...], Meta(min_length=1, max_length=MAX_LABELS)]
    source: Annotated[str, Meta(max_length=60)] = "api"


class FeedbackReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the labels.

    Attributes:
        joined: Labels for answers that had none.
        corrected: Labels that differ from an earlier one and replace it.
        repeated: Labels known already; ignored.
        unknown: Ids that are no sealed prediction of this project; send those again later.
    """

    joined: int
    corrected: int
    repeated: int
    unknown: tuple[str, ...]


@verb(
    "feedback.add",
    permission="feedback:write",
    payload=Payload.DIGEST,
    prepare=lambda ask, desk: labelling.prepare(ask.labels, desk),
)
def add_feedback(ask: AddFeedback, work: Work, ready: labelling.Ready) -> FeedbackReceipt:
    """Join truth with predictions by id: late, repeated or corrected labels alike.

    An answer is judged once: a correction changes what later training reads, but detectors and
    releases do not count the answer twice.

    Raises:
        InvalidInput: ``label.not_finite``.
    """
    for deployment, group in ready.outcomes.items():
        keep_tally(work, tally_of(work, deployment), labelled=group.fresh)
    for segment in ready.segments:
        work.replace(segment)
    root = merkle.tree_root(canonical_json(label) for label in ask.labels)
    for deployment, group in ready.outcomes.items():
        batch = work.insert(
            FeedbackBatch(
                id=work.new_id(),
                project=work.project,
                deployment=deployment,
                seq=last_seq(work, FeedbackBatch, deployment) + 1,
                outcomes=group.blob,
                fresh=group.fresh,
                corrected=group.corrected,
                root=Digest(f"sha256:{root.hex()}"),
                source=ask.source,
                received_at=work.now,
                received_from=work.caller.actor,
            )
        )
        node = f"feedback_batch:{batch.id}"
        work.touch(node, f"deployment:{deployment}")
        for labelled in group.segments:
            work.link(node, "judged", f"prediction_segment:{labelled}")
    return FeedbackReceipt(
        joined=ready.joined,
        corrected=ready.corrected,
        repeated=ready.repeated,
        unknown=ready.unknown,
    )


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
