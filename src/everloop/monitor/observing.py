"""Looking at what came since the last time: the loss of the champion and the drift of its inputs.

Everything is computed before the transaction from rows that do not change any more; the cursors of
the watch row make each segment and each batch of labels count exactly once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Protocol, TypeVar

import msgspec

from everloop.core.clock import Instant, to_text
from everloop.core.digest import Digest
from everloop.core.errors import MissingExtra
from everloop.core.ids import Id, ProjectId
from everloop.core.ports import BlobStore, Compare, Condition, where
from everloop.core.wire import Arm, Status
from everloop.data.model import DatasetVersion
from everloop.data.profile import Profile, merge
from everloop.kernel.unit_of_work import Desk, View, Work
from everloop.monitor.drift import DriftReport, detect_drift
from everloop.monitor.edetector import EDetector, start_detector, update
from everloop.monitor.model import (
    Alert,
    AlertKind,
    AlertState,
    FeedbackBatch,
    LossPoint,
    MonitorConfig,
    OpenBlock,
    PredictionSegment,
    Watch,
    Window,
)
from everloop.monitor.outcomes import Outcome, decode_outcomes, loss_of, loss_of_classes
from everloop.monitor.sealing import read_profile
from everloop.registry.evidence import LossName, yardstick
from everloop.registry.model import ModelVersion

NOT_YET = Id("")
A = TypeVar("A", bound=msgspec.Struct)


class Question(Protocol):
    """What ``monitor.observe`` asks."""

    @property
    def deployment(self) -> Id:
        """Id of the deployment."""
        ...

    @property
    def model(self) -> str:
        """Name of the model."""
        ...

    @property
    def champion(self) -> Id | None:
        """The version to watch."""
        ...


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """What the look found; ``before`` is the watch it started from."""

    before: Watch | None
    watch: Watch
    points: tuple[LossPoint, ...]
    windows: tuple[Window, ...]


def prepare(ask: Question, desk: Desk) -> Ready:
    """Look at new labels and segments."""
    with desk.read() as view:
        config = view.model_settings(ask.model, "monitor", MonitorConfig)
        before = view.first(Watch, *where(deployment=ask.deployment))
        watch = before or _new_watch(desk.project, ask.deployment)
        watch = _for_champion(watch, ask.champion, config, view)
        batches = _after(view, FeedbackBatch, watch.deployment, watch.feedback_cursor)
        segments = _after(view, PredictionSegment, watch.deployment, watch.segment_cursor)
        kind = _loss_kind(watch, config, view)
        numbered = _last_number(view, ask.deployment)
    blobs = desk.services.blobs
    losses = _losses(watch, batches, kind, blobs)
    watch, points = _watch_loss(watch, losses, config, numbered)
    watch = _advance(watch, segments, config)
    windows, watch = _close_windows(watch, config, desk)
    return Ready(before=before, watch=watch, points=points, windows=windows)


R = TypeVar("R", FeedbackBatch, PredictionSegment)


def _after(view: View, kind: type[R], deployment: Id, cursor: int) -> list[R]:
    newer = Condition("seq", Compare.GT, cursor)
    return view.select(kind, *where(deployment=deployment), newer, order="seq")


def _last_number(view: View, deployment: Id) -> int:
    newest = view.select(
        LossPoint, *where(deployment=deployment), order="number", descending=True, limit=1
    )
    return newest[0].number if newest else 0


def _new_watch(project: ProjectId, deployment: Id) -> Watch:
    return Watch(
        id=NOT_YET,
        project=project,
        deployment=deployment,
        version=None,
        threshold=None,
        detector=None,
        block=OpenBlock(),
        segment_cursor=0,
        feedback_cursor=0,
        next_window=None,
        watermark=None,
    )


def _for_champion(watch: Watch, champion: Id | None, config: MonitorConfig, view: View) -> Watch:
    """Start afresh when another version answers: its losses have another yardstick."""
    if champion == watch.version:
        return watch
    version = None if champion is None else view.find(ModelVersion, champion)
    threshold = None
    if version is not None:
        found = yardstick(view, version, config.bad_percentile)
        threshold = None if found is None else found.bound
    return msgspec.structs.replace(
        watch, version=champion, threshold=threshold, detector=None, block=OpenBlock()
    )


def _loss_kind(watch: Watch, config: MonitorConfig, view: View) -> LossName | None:
    """Return by which loss the champion's threshold was measured."""
    version = None if watch.version is None else view.find(ModelVersion, watch.version)
    found = None if version is None else yardstick(view, version, config.bad_percentile)
    return None if found is None else found.loss


def _watch_loss(
    watch: Watch,
    losses: Iterable[tuple[FeedbackBatch, list[tuple[Outcome, float]]]],
    config: MonitorConfig,
    numbered: int,
) -> tuple[Watch, tuple[LossPoint, ...]]:
    points: list[LossPoint] = []
    detector = watch.detector or _fresh_detector(config)
    block = watch.block
    for batch, found in losses:
        watch = msgspec.structs.replace(watch, feedback_cursor=batch.seq)
        for outcome, loss in found:
            number = int(outcome.at.timestamp() // (config.block_hours * 3600))
            if number > block.number and block.total >= config.block_rows:
                detector = update(detector, block.bad / block.total)
                points.append(_point(watch, block, detector, config, numbered + len(points) + 1))
                block = OpenBlock()
                if detector.alarm:
                    detector = _fresh_detector(config)
            # A label that comes after its block was closed counts in the open one.
            block = OpenBlock(
                number=max(number, block.number),
                bad=block.bad + (loss > (watch.threshold or 0.0)),
                total=block.total + 1,
                loss=block.loss + loss,
            )
    return msgspec.structs.replace(watch, detector=detector, block=block), tuple(points)


def _point(
    watch: Watch, block: OpenBlock, detector: EDetector, config: MonitorConfig, number: int
) -> LossPoint:
    assert watch.version is not None
    ended = (block.number + 1) * config.block_hours * 3600
    return LossPoint(
        id=NOT_YET,
        project=watch.project,
        deployment=watch.deployment,
        number=number,
        version=watch.version,
        at=datetime.fromtimestamp(ended, UTC),
        mean_loss=block.loss / block.total,
        bad_share=block.bad / block.total,
        evidence=detector.log_statistic,
        alarmed=detector.alarm,
    )


def _losses(
    watch: Watch, batches: Iterable[FeedbackBatch], kind: LossName | None, blobs: BlobStore
) -> Iterator[tuple[FeedbackBatch, list[tuple[Outcome, float]]]]:
    """Yield each batch with the champion's own usable answers and their losses."""
    for batch in batches:
        if kind is None or watch.threshold is None:
            yield batch, []
            continue
        yield (
            batch,
            [
                (outcome, loss)
                for outcome in decode_outcomes(blobs.get(batch.outcomes))
                if outcome.version == watch.version
                and outcome.arm is Arm.CHAMPION
                and outcome.status is Status.OK
                and (loss := _loss(kind, outcome)) is not None
            ],
        )


def _loss(kind: LossName, outcome: Outcome) -> float | None:
    if outcome.truth is None:
        return None
    if outcome.outputs is not None:
        return loss_of_classes(kind, outcome.outputs, outcome.truth)
    return None if outcome.output is None else loss_of(kind, outcome.output, outcome.truth)


def _fresh_detector(config: MonitorConfig) -> EDetector:
    expected = (1 - config.bad_percentile / 100) * (1 + config.margin)
    return start_detector(min(expected, 0.99), config.average_run_length)


def _advance(watch: Watch, segments: list[PredictionSegment], config: MonitorConfig) -> Watch:
    if not segments:
        return watch
    start = watch.next_window or _floor(min(s.first_at for s in segments), config)
    latest = max(segment.last_at for segment in segments)
    return msgspec.structs.replace(
        watch,
        segment_cursor=segments[-1].seq,
        next_window=start,
        watermark=max(latest, watch.watermark or latest),
    )


def _floor(at: Instant, config: MonitorConfig) -> Instant:
    step = config.window_hours * 3600
    return datetime.fromtimestamp(at.timestamp() // step * step, UTC)


def _close_windows(
    watch: Watch, config: MonitorConfig, desk: Desk
) -> tuple[tuple[Window, ...], Watch]:
    """Close every window of event time that ends at or before the watermark.

    A segment belongs to the window in which its first event lies.
    """
    closed: list[Window] = []
    length = timedelta(hours=config.window_hours)
    while (
        watch.next_window is not None
        and watch.watermark is not None
        and watch.next_window + length <= watch.watermark
    ):
        start, end = watch.next_window, watch.next_window + length
        with desk.read() as view:
            members = view.select(
                PredictionSegment,
                *where(deployment=watch.deployment),
                Condition("first_at", Compare.GE, start),
                Condition("first_at", Compare.LT, end),
            )
        following = end
        if members:
            closed.append(_window(watch, start, members, config, desk))
        else:  # a gap in time: go on where the events go on
            following = max(end, _floor(watch.watermark, config))
        watch = msgspec.structs.replace(watch, next_window=following)
    return tuple(closed), watch


def _window(
    watch: Watch,
    start: Instant,
    members: list[PredictionSegment],
    config: MonitorConfig,
    desk: Desk,
) -> Window:
    reference = members[-1].reference
    same = [m for m in members if m.profile is not None and m.reference == reference]
    blobs = desk.services.blobs
    profiles = [read_profile(blobs.get(m.profile)) for m in same if m.profile is not None]
    merged = reduce(merge, profiles) if profiles else None
    report, untested = _test(merged, reference, config, desk)
    return Window(
        id=NOT_YET,
        project=watch.project,
        deployment=watch.deployment,
        start=start,
        end=start + timedelta(hours=config.window_hours),
        rows=sum(member.rows for member in members),
        version=watch.version,
        profile=None if merged is None else blobs.put(msgspec.json.encode(merged)),
        report=report,
        untested=untested,
        drifted=report.drifted if report else (),
    )


def _test(
    merged: Profile | None, reference: Digest | None, config: MonitorConfig, desk: Desk
) -> tuple[DriftReport | None, str | None]:
    if merged is None or reference is None:
        return None, "no reference: no released version was trained on a dataset"
    if merged.rows < config.min_rows:
        return None, f"{merged.rows} rows, fewer than monitor.min_rows"
    trained = _training_profile(desk, reference)
    if trained is None:
        return None, "the training data has no profile"
    try:
        known = {name: trained.columns[name] for name in merged.columns}
        before = msgspec.structs.replace(trained, columns=known)
        floors = config.floors
        return detect_drift(before, merged, alpha=config.alpha, floors=floors), None
    except MissingExtra as missing:
        return None, missing.message


def _training_profile(desk: Desk, reference: Digest) -> Profile | None:
    with desk.read() as view:
        found = view.first(DatasetVersion, *where(reference=reference))
    if found is None or found.profile is None:
        return None
    return read_profile(desk.services.blobs.get(found.profile))


def commit(deployment: Id, work: Work, ready: Ready, answer: type[A]) -> A:
    """Store what a look found and raise its alerts; nothing is stored when nothing is new."""
    raised: list[Id] = []
    if ready.before is None or ready.watch != ready.before:
        _store_watch(work, ready)
    if ready.before is not None and ready.before.version != ready.watch.version:
        _resolve_alerts(work, deployment)
    for window in ready.windows:
        kept = work.insert(msgspec.structs.replace(window, id=work.new_id()))
        if kept.drifted:
            raised += _raise(work, AlertKind.DRIFT, kept, f"window:{kept.id}", kept.drifted)
    for point in ready.points:
        stored = work.insert(msgspec.structs.replace(point, id=work.new_id()))
        if stored.alarmed:
            raised += _raise(work, AlertKind.LOSS, stored, f"loss_point:{stored.id}", ())
    watermark = ready.watch.watermark
    return answer(
        alerts=tuple(raised),
        closed_windows=len(ready.windows),
        blocks=len(ready.points),
        segment_seq=ready.watch.segment_cursor,
        feedback_seq=ready.watch.feedback_cursor,
        watermark=None if watermark is None else to_text(watermark),
    )


def _store_watch(work: Work, ready: Ready) -> None:
    work.touch(f"deployment:{ready.watch.deployment}")
    if ready.before is None:
        work.insert(msgspec.structs.replace(ready.watch, id=work.new_id()))
    else:
        work.replace(ready.watch)


def _resolve_alerts(work: Work, deployment: Id) -> None:
    for state in (AlertState.OPEN, AlertState.ACKNOWLEDGED):
        for alert in work.select(Alert, *where(deployment=deployment, state=state.value)):
            work.replace(msgspec.structs.replace(alert, state=AlertState.RESOLVED))


def _raise(
    work: Work, kind: AlertKind, found: Window | LossPoint, subject: str, columns: tuple[str, ...]
) -> list[Id]:
    """Raise one alert, unless one of this kind, version and columns is open already."""
    same = where(deployment=found.deployment, kind=kind.value, version=found.version)
    for alert in work.select(Alert, *same):
        if alert.state is not AlertState.RESOLVED and set(columns) <= set(alert.columns):
            return []
    at = found.end if isinstance(found, Window) else found.at
    alert = work.insert(
        Alert(
            id=work.new_id(),
            project=work.project,
            deployment=found.deployment,
            version=found.version,
            kind=kind,
            at=at,
            raised_at=work.now,
            subject=subject,
            summary=_summary(found),
            columns=columns,
            state=AlertState.OPEN,
        )
    )
    work.touch(f"alert:{alert.id}")
    work.link(f"alert:{alert.id}", "raised_by", subject)
    return [alert.id]


def _summary(found: Window | LossPoint) -> str:
    if isinstance(found, Window):
        shown = ", ".join(found.drifted[:5])
        more = len(found.drifted) - 5
        return f"The inputs drifted: {shown}{f' and {more} more' if more > 0 else ''}."
    return (
        f"The champion's losses are higher than its gate allowed for: mean {found.mean_loss:.4g}, "
        f"{found.bad_share:.0%} bad answers in the last block."
    )
