"""Questions about what was served and how it went."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from everloop.core.clock import Instant
from everloop.core.errors import NotFound
from everloop.core.ids import Id, is_id, made_at
from everloop.core.ports import Compare, Condition, where
from everloop.core.wire import PredictionRow
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.monitor.lookup import last_seq, segments_around, tally_of
from everloop.monitor.model import (
    Alert,
    AlertKind,
    AlertState,
    FeedbackBatch,
    LogConfig,
    LossPoint,
    PredictionSegment,
    Watch,
    Window,
)
from everloop.monitor.outcomes import decode_labels
from everloop.monitor.segments import RowProof, prove_row, read_segment, rows_of

SEALING_S = 2.0
IdText = Annotated[Id, Meta(max_length=40)]
Limit = Annotated[int, Meta(ge=1, le=1000)]


class _Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _Page(_Ask, frozen=True, kw_only=True):
    deployment: IdText
    limit: Limit = 100
    after: IdText | None = None


class ShowPrediction(_Ask, frozen=True, kw_only=True):
    """Ask for one prediction by its id."""

    id: IdText


class PredictionView(msgspec.Struct, frozen=True, kw_only=True):
    """One prediction, the proof that it is in its segment, and its label if there is one."""

    row: PredictionRow
    segment: PredictionSegment
    proof: RowProof
    label: float | None


@query("prediction.show", permission="prediction:read")
def show_prediction(ask: ShowPrediction, view: View) -> PredictionView:
    """Show one prediction: what was asked, answered and by which version, with its proof.

    Raises:
        NotFound: ``prediction.not_found``; ``prediction.not_sealed`` a moment after its answer; or
            ``prediction.erased`` after its time.
        IntegrityError: ``segment.corrupt`` or ``blob.corrupt``.
    """
    for segment in segments_around(view, ask.id):
        table = read_segment(view.services.blobs.get(segment.blob))
        for index, row in enumerate(rows_of(table)):
            if row.id == ask.id:
                return PredictionView(
                    row=row,
                    segment=segment,
                    proof=prove_row(table, index, segment.root),
                    label=_label(view, segment, row.id),
                )
        if segment.erased_at is not None and ask.id in table.column("id").to_pylist():
            raise NotFound(
                "prediction.erased",
                f"What prediction {ask.id!r} said was erased on {segment.erased_at:%Y-%m-%d}.",
                hint=f"Its hash stays in segment {segment.id}; whoever kept the row can prove it.",
            )
    raise _not_sealed(view, ask.id)


def _not_sealed(view: View, prediction: Id) -> NotFound:
    """Return what an id that no segment has means, by its own time."""
    within_s = _longest_pause(view) + SEALING_S
    if is_id(prediction):
        age_s = (view.services.clock.now() - made_at(prediction)).total_seconds()
        if abs(age_s) < within_s:
            return NotFound(
                "prediction.not_sealed",
                f"Prediction {prediction!r} is not sealed yet, if it was answered here.",
                hint=f"What is logged is sealed within {within_s:.0f} s; ask again then.",
            )
    return NotFound(
        "prediction.not_found",
        f"There is no sealed prediction {prediction!r}.",
        hint="Check the id; `everloop predictions list` shows the latest of a deployment.",
    )


def _longest_pause(view: View) -> float:
    """Return for how long the answers of any model of the project are gathered, in seconds."""
    models = view.settings().get("models")
    names = list(models) if isinstance(models, dict) else []
    pauses = [view.model_settings(name, "log", LogConfig).seal_after_s for name in names]
    return max([LogConfig().seal_after_s, *pauses])


def _label(view: View, segment: PredictionSegment, prediction: Id) -> float | None:
    if segment.labels is None:
        return None
    return decode_labels(view.services.blobs.get(segment.labels)).get(prediction)


class ListSegments(_Ask, frozen=True, kw_only=True):
    """Ask for the segments sealed after one of them, or with events since an instant.

    Attributes:
        file: Only segments of this file of the log.
        made_after: Any id: only segments that were sealed after it was made.
    """

    deployment: IdText
    file: Annotated[str, Meta(max_length=200)] | None = None
    after_seq: Annotated[int, Meta(ge=0)] = 0
    made_after: IdText | None = None
    since: Instant | None = None
    limit: Limit = 100


class SegmentList(msgspec.Struct, frozen=True, kw_only=True):
    """Segments, oldest first."""

    items: tuple[PredictionSegment, ...]


@query("prediction.segments", permission="prediction:read")
def list_segments(ask: ListSegments, view: View) -> SegmentList:
    """List the sealed segments of a deployment's predictions in their order."""
    wanted = _newer(ask)
    if ask.file is not None:
        wanted += where(file=ask.file)
    if ask.since is not None:
        wanted.append(Condition("last_at", Compare.GE, ask.since))
    rows = view.select(PredictionSegment, *wanted, order="seq", limit=ask.limit)
    return SegmentList(items=tuple(rows))


def _newer(ask: ListSegments | ListFeedback) -> list[Condition]:
    newer = [*where(deployment=ask.deployment), Condition("seq", Compare.GT, ask.after_seq)]
    if ask.made_after is not None:
        newer.append(Condition("id", Compare.GT, ask.made_after))
    return newer


class ListPredictions(_Ask, frozen=True, kw_only=True):
    """Ask for the latest predictions of a deployment."""

    deployment: IdText
    limit: Limit = 100


class PredictionList(msgspec.Struct, frozen=True, kw_only=True):
    """Predictions, newest first."""

    items: tuple[PredictionRow, ...]


@query("prediction.list", permission="prediction:read")
def list_predictions(ask: ListPredictions, view: View) -> PredictionList:
    """List the latest sealed predictions of a deployment, newest first."""
    found: list[PredictionRow] = []
    last: PredictionSegment | None = None
    while len(found) < ask.limit:
        page = view.select(
            PredictionSegment,
            *where(deployment=ask.deployment),
            order="seq",
            descending=True,
            limit=1,
            after=last,
        )
        if not page:
            break
        last = page[0]
        rows = rows_of(read_segment(view.services.blobs.get(last.blob)))
        found += sorted(rows, key=lambda row: row.id, reverse=True)
    return PredictionList(items=tuple(found[: ask.limit]))


class ShowMonitor(_Ask, frozen=True, kw_only=True):
    """Ask how a deployment is doing."""

    deployment: IdText


class MonitorView(msgspec.Struct, frozen=True, kw_only=True):
    """How a deployment is doing.

    Attributes:
        watch: Where monitoring stands; None before the first prediction.
        predictions: Sealed so far; ``labelled`` of them have a truth.
        dropped: Answers that were given and for which the log had no space.
    """

    watch: Watch | None
    predictions: int
    labelled: int
    batches: int
    open_alerts: tuple[Alert, ...]
    dropped: int = 0


@query("monitor.show", permission="monitor:read")
def show_monitor(ask: ShowMonitor, view: View) -> MonitorView:
    """Show how a deployment is doing: volume, labels, loss detector and open alerts."""
    mine = where(deployment=ask.deployment)
    tally = tally_of(view, ask.deployment)
    unresolved = Condition("state", Compare.NE, AlertState.RESOLVED.value)
    alerts = view.select(Alert, *mine, unresolved, order="raised_at", descending=True)
    return MonitorView(
        watch=view.first(Watch, *mine),
        predictions=tally.predictions,
        labelled=tally.labelled,
        batches=last_seq(view, FeedbackBatch, ask.deployment),
        open_alerts=tuple(alerts),
        dropped=tally.dropped,
    )


class ListWindows(_Page, frozen=True, kw_only=True):
    """Ask for the closed windows of a deployment."""


class WindowList(msgspec.Struct, frozen=True, kw_only=True):
    """Windows, newest first."""

    items: tuple[Window, ...]
    next: str | None = None


@query("monitor.windows", permission="monitor:read")
def list_windows(ask: ListWindows, view: View) -> WindowList:
    """List the closed windows of a deployment with their drift reports, newest first."""
    after = view.find(Window, ask.after) if ask.after else None
    rows = view.select(
        Window,
        *where(deployment=ask.deployment),
        order="start",
        descending=True,
        limit=ask.limit,
        after=after,
    )
    return WindowList(items=tuple(rows), next=rows[-1].id if len(rows) == ask.limit else None)


class ListLosses(_Page, frozen=True, kw_only=True):
    """Ask for the blocks of labelled answers of a deployment."""


class LossList(msgspec.Struct, frozen=True, kw_only=True):
    """Blocks of labelled answers, newest first."""

    items: tuple[LossPoint, ...]
    next: str | None = None


@query("monitor.losses", permission="monitor:read")
def list_losses(ask: ListLosses, view: View) -> LossList:
    """List what the loss detector saw, newest first."""
    after = view.find(LossPoint, ask.after) if ask.after else None
    rows = view.select(
        LossPoint,
        *where(deployment=ask.deployment),
        order="number",
        descending=True,
        limit=ask.limit,
        after=after,
    )
    return LossList(items=tuple(rows), next=rows[-1].id if len(rows) == ask.limit else None)


class ListFeedback(_Ask, frozen=True, kw_only=True):
    """Ask for the batches of labels that came after one of them, or after any id was made."""

    deployment: IdText
    after_seq: Annotated[int, Meta(ge=0)] = 0
    made_after: IdText | None = None
    limit: Limit = 100


class FeedbackList(msgspec.Struct, frozen=True, kw_only=True):
    """Batches of labels, oldest first."""

    items: tuple[FeedbackBatch, ...]


@query("feedback.list", permission="feedback:read")
def list_feedback(ask: ListFeedback, view: View) -> FeedbackList:
    """List batches of labels in the order in which they came."""
    rows = view.select(FeedbackBatch, *_newer(ask), order="seq", limit=ask.limit)
    return FeedbackList(items=tuple(rows))


class ListAlerts(_Ask, frozen=True, kw_only=True):
    """Ask for alerts, of one deployment or of all."""

    deployment: IdText | None = None
    kind: AlertKind | None = None
    state: AlertState | None = None
    limit: Limit = 100
    after: IdText | None = None


class AlertList(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts, newest first."""

    items: tuple[Alert, ...]
    next: str | None = None


@query("alert.list", permission="alert:read")
def list_alerts(ask: ListAlerts, view: View) -> AlertList:
    """List alerts, newest first."""
    after = view.find(Alert, ask.after) if ask.after else None
    wanted = {"deployment": ask.deployment, "kind": ask.kind, "state": ask.state}
    rows = view.select(
        Alert,
        *where(**{name: value for name, value in wanted.items() if value is not None}),
        order="raised_at",
        descending=True,
        limit=ask.limit,
        after=after,
    )
    return AlertList(items=tuple(rows), next=rows[-1].id if len(rows) == ask.limit else None)
