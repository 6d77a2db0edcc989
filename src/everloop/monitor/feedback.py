"""Verbs of feedback: labels are joined with predictions at once, or wait for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Annotated

import msgspec
from msgspec import Meta

from everloop.core import merkle
from everloop.core.canonical import canonical_json
from everloop.core.digest import Digest
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition, where
from everloop.core.wire import Label
from everloop.kernel.unit_of_work import Desk, View, Work
from everloop.kernel.verbs import Payload, query, verb
from everloop.monitor import labelling
from everloop.monitor.lookup import keep_tally, last_seq, tally_of
from everloop.monitor.model import FeedbackBatch, LabelRefusal, WaitingFeedback
from everloop.monitor.refusals import NOBODY, keep_refused

MAX_LABELS = 20_000
MOST_WAIT_HOURS = 24 * 366
RETRIED_AT_ONCE = 20
MOST_WAITING = 1_000_000
MOST_BATCHES = 10_000

IdText = Annotated[Id, Meta(max_length=40)]


class _Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class AddFeedback(_Ask, frozen=True, kw_only=True):
    """Ask to join labels with the answers they judge.

    Attributes:
        deployment: Whose predictions alone may be meant; business keys need one.
        wait_hours: How long labels whose predictions are not known wait for them; with 0 they are
            told and forgotten.
        is_dry: Only tell what would become of the labels.
    """

    labels: Annotated[tuple[Label, ...], Meta(min_length=1, max_length=MAX_LABELS)]
    deployment: IdText | None = None
    source: Annotated[str, Meta(max_length=60)] = "api"
    wait_hours: Annotated[float, Meta(ge=0, le=MOST_WAIT_HOURS)] = 0.0
    is_dry: bool = False


class FeedbackReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the labels.

    Attributes:
        joined: Labels for answers that had none.
        corrected: Labels that differ from an earlier one and replace it.
        repeated: Labels known already, or older than what is known; ignored.
        unknown: Ids and keys that are no sealed prediction of this project.
        refused: Ids and keys whose label judges nothing; ``reasons`` says why, in the same order.
        waiting: How many of the unknown ones wait for their prediction: all, or none where too many
            wait already; send those again.
    """

    joined: int
    corrected: int
    repeated: int
    unknown: tuple[str, ...]
    refused: tuple[str, ...] = ()
    waiting: int = 0
    reasons: tuple[LabelRefusal, ...] = ()


def _prepare(ask: AddFeedback, desk: Desk) -> labelling.Ready:
    is_kept = ask.wait_hours > 0 and not ask.is_dry
    return labelling.prepare(ask.labels, desk, ask.deployment, keep=is_kept)


@verb("feedback.add", permission="feedback:write", payload=Payload.DIGEST, prepare=_prepare)
def add_feedback(ask: AddFeedback, work: Work, ready: labelling.Ready) -> FeedbackReceipt:
    """Join truth with predictions by id or business key: late, repeated or corrected labels alike.

    An answer is judged once: a correction changes what later training reads, but detectors and
    releases do not count the answer twice.

    Raises:
        InvalidInput: ``label.not_finite`` or ``label.incomplete``.
    """
    waiting = 0
    refused = list(ready.refused)
    if not ask.is_dry:
        _commit(work, ready, ask.labels, ask.source)
    has_room = ready.waiting is not None and _has_room(work, len(ready.unknown))
    if ready.waiting is not None and not has_room:
        refused += _refuse(ready.unknown, ask.deployment, LabelRefusal.NO_ROOM)
    if not ask.is_dry:
        keep_refused(work, refused)
    if ready.waiting is not None and has_room:
        waiting = len(ready.unknown)
        work.insert(
            WaitingFeedback(
                id=work.new_id(),
                project=work.project,
                deployment=ask.deployment,
                labels=ready.waiting,
                count=waiting,
                source=ask.source,
                received_at=work.now,
                received_from=work.caller.actor,
                expires_at=work.now + timedelta(hours=ask.wait_hours),
            )
        )
    return FeedbackReceipt(
        joined=ready.joined,
        corrected=ready.corrected,
        repeated=ready.repeated,
        unknown=tuple(label.name for label in ready.unknown),
        refused=tuple(one.name for one in ready.refused),
        waiting=waiting,
        reasons=tuple(one.reason for one in ready.refused),
    )


def _commit(work: Work, ready: labelling.Ready, labels: tuple[Label, ...], source: str) -> None:
    for deployment, group in ready.outcomes.items():
        keep_tally(work, tally_of(work, deployment), labelled=group.labelled)
    for segment in ready.segments:
        work.replace(segment)
    root = merkle.tree_root(canonical_json(label) for label in labels)
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
                source=source,
                received_at=work.now,
                received_from=work.caller.actor,
                labels=group.labels,
            )
        )
        node = f"feedback_batch:{batch.id}"
        work.touch(node, f"deployment:{deployment}")
        for labelled in group.segments:
            work.link(node, "judged", f"prediction_segment:{labelled}")


def _refuse(
    labels: Iterable[Label], deployment: Id | None, reason: LabelRefusal
) -> Iterator[labelling.Refusal]:
    for label in labels:
        yield labelling.Refusal(name=label.name, deployment=deployment or NOBODY, reason=reason)


def _has_room(work: Work, count: int) -> bool:
    """Tell whether so many more labels may wait: nobody shall fill the store with made-up ids."""
    rows = work.select(WaitingFeedback)
    return len(rows) < MOST_BATCHES and count + sum(row.count for row in rows) <= MOST_WAITING


class RetryFeedback(_Ask, frozen=True, kw_only=True):
    """Ask to join the labels that waited longest.

    Attributes:
        after: Id of the last waiting batch that was tried, to go on behind it.
    """

    after: IdText | None = None


class Retried(msgspec.Struct, frozen=True, kw_only=True):
    """What became of labels that waited.

    Attributes:
        given_up: Labels whose time was over.
        next: Id of the last batch tried when there are more; None at the end.
    """

    joined: int
    given_up: int
    waiting: int
    next: Id | None


class _Again(msgspec.Struct, frozen=True, kw_only=True):
    row: WaitingFeedback
    labels: tuple[Label, ...]
    ready: labelling.Ready


def _prepare_retry(ask: RetryFeedback, desk: Desk) -> list[_Again]:
    with desk.read() as view:
        rows = _waiting(view, ask.after)
    tried = []
    for row in rows:
        labels = labelling.decode_raw(desk.services.blobs.get(row.labels))
        dated = tuple(
            msgspec.structs.replace(label, at=label.at or row.received_at) for label in labels
        )
        ready = labelling.prepare(dated, desk, row.deployment)
        if 0 < len(ready.unknown) < row.count:  # else nothing new is to be written down
            left = desk.services.blobs.put(labelling.encode_raw(ready.unknown))
            ready = msgspec.structs.replace(ready, waiting=left)
        tried.append(_Again(row=row, labels=dated, ready=ready))
        if ready.outcomes:
            break  # what comes next may be about a segment that this one has changed
    return tried


@verb("feedback.retry", permission="feedback:write", prepare=_prepare_retry)
def retry_feedback(ask: RetryFeedback, work: Work, ready: list[_Again]) -> Retried:
    """Join labels that came before their predictions were sealed; give up those that are too old.

    Tries a few of the batches that wait, the oldest first.
    """
    del ask
    joined = given_up = waiting = 0
    for again in ready:
        _commit(work, again.ready, again.labels, again.row.source)
        joined += again.ready.joined
        rest, row = len(again.ready.unknown), again.row
        refused = list(again.ready.refused)
        if row.expires_at <= work.now:
            late = again.ready.unknown
            refused += _refuse(late, row.deployment, LabelRefusal.NO_PREDICTION)
        keep_refused(work, refused)
        if not rest or row.expires_at <= work.now:
            given_up += rest
            work.delete(row)
            continue
        waiting += rest
        if rest != row.count and again.ready.waiting is not None:
            kept = msgspec.structs.replace(row, labels=again.ready.waiting, count=rest)
            work.replace(kept)
    last = ready[-1].row.id if ready else None
    return Retried(joined=joined, given_up=given_up, waiting=waiting, next=last)


def _waiting(view: View, after: Id | None) -> list[WaitingFeedback]:
    wanted = [] if after is None else [Condition("id", Compare.GT, after)]
    rows = view.select(WaitingFeedback, *wanted, order="id", limit=RETRIED_AT_ONCE)
    return list(rows)


class CountWaiting(_Ask, frozen=True, kw_only=True):
    """Ask which labels wait for their predictions.

    Attributes:
        deployment: Only those that named this one; all of them when left out.
        names: How many to name, the oldest first.
    """

    deployment: IdText | None = None
    names: Annotated[int, Meta(ge=0, le=1_000)] = 20


class WaitingCount(msgspec.Struct, frozen=True, kw_only=True):
    """Labels that wait, in batches as they came.

    Attributes:
        names: Ids and keys of the oldest, as far as they were asked for.
    """

    labels: int
    batches: int
    names: tuple[str, ...] = ()


@query("feedback.waiting", permission="feedback:read")
def count_waiting(ask: CountWaiting, view: View) -> WaitingCount:
    """Count the labels that came before their predictions were sealed, and name the oldest."""
    wanted = {} if ask.deployment is None else {"deployment": ask.deployment}
    rows = view.select(WaitingFeedback, *where(**wanted), order="id")
    names: list[str] = []
    for row in rows:
        if len(names) >= ask.names:
            break
        names += [label.name for label in labelling.decode_raw(view.services.blobs.get(row.labels))]
    return WaitingCount(
        labels=sum(row.count for row in rows), batches=len(rows), names=tuple(names[: ask.names])
    )
