"""Feedback beyond the plain label: keys, overrides, classes, corrections that come late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from everloop.core.errors import InvalidInput, NotFound
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.core.wire import Label
from everloop.monitor import feedback
from everloop.monitor.erasing import Erasable, Erased, ErasePredictions, ListErasable
from everloop.monitor.feedback import (
    AddFeedback,
    CountWaiting,
    FeedbackReceipt,
    Retried,
    RetryFeedback,
    WaitingCount,
)
from everloop.monitor.model import LabelRefusal, PredictedKey
from everloop.monitor.outcomes import Outcome, decode_outcomes
from everloop.monitor.queries import (
    FeedbackList,
    ListFeedback,
    ListPredictions,
    ListSegments,
    PredictionList,
    PredictionView,
    SegmentList,
    ShowPrediction,
)
from everloop.monitor.refusals import ListRefused, RefusedList
from everloop.monitor.segments import read_segment, segment_root
from tests.kit import World, world
from tests.unit.monitor.test_verbs import DEPLOYMENT, seal, some_rows

OTHER = Id("deployment-2")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def made() -> World:
    return world()


def tell(made: World, *labels: Label, **how: object) -> FeedbackReceipt:
    ask = AddFeedback(labels=labels, **({"deployment": DEPLOYMENT} | how))  # type: ignore[arg-type]
    return made.owner.perform("feedback.add", ask, FeedbackReceipt)


def label_of(made: World, key: str) -> float | None:
    ask = ShowPrediction(id=Id(key))
    return made.owner.perform("prediction.show", ask, PredictionView).label


def outcomes(made: World) -> list[Outcome]:
    ask = ListFeedback(deployment=DEPLOYMENT)
    found = made.owner.perform("feedback.list", ask, FeedbackList).items
    return [each for batch in found for each in decode_outcomes(made.blobs.get(batch.outcomes))]


def test_a_business_key_means_the_newest_prediction_of_that_name(made: World) -> None:
    old = [replace(row, key="order-7") for row in some_rows(2)]
    new = [replace(row, key="order-7") for row in some_rows(1, start=50)]
    seal(made, old)
    seal(made, new, offset=2)

    told = tell(made, Label(key="order-7", value=3.0), Label(key="order-8", value=3.0))

    assert (1, ("order-8",)) == (told.joined, told.unknown)
    assert [None, None, 3.0] == [label_of(made, row.id) for row in (*old, *new)]


def test_a_key_of_another_deployment_is_not_known(made: World) -> None:
    (row,) = [replace(row, key="order-7") for row in some_rows(1)]
    seal(made, [row], deployment=OTHER)

    told = tell(made, Label(key="order-7", value=3.0), Label(prediction=row.id, value=3.0))

    assert ("order-7", row.id) == told.unknown
    assert label_of(made, row.id) is None


def test_an_older_label_that_comes_late_does_not_undo_the_newer_one(made: World) -> None:
    (row,) = some_rows(1)
    seal(made, [row])
    tell(made, Label(prediction=row.id, value=2.0, at=NOON))

    late = tell(made, Label(prediction=row.id, value=1.0, at=NOON - timedelta(days=1)))
    assert (0, 0, 1) == (late.joined, late.corrected, late.repeated)
    newer = tell(made, Label(prediction=row.id, value=3.0, at=NOON + timedelta(days=1)))

    assert 1 == newer.corrected
    assert 3.0 == label_of(made, row.id)


def test_an_override_is_told_once_and_is_no_label(made: World) -> None:
    (row,) = some_rows(1)
    seal(made, [row])

    first = tell(made, Label(prediction=row.id, overridden=True))
    again = tell(made, Label(prediction=row.id, overridden=True))
    truth = tell(made, Label(prediction=row.id, value=4.0))

    assert (1, 1, 1) == (first.joined, again.repeated, truth.joined)
    assert [(None, True), (4.0, False)] == [(out.truth, out.overridden) for out in outcomes(made)]
    assert 4.0 == label_of(made, row.id)


def test_the_name_of_a_class_that_no_version_knows_is_refused_alone(made: World) -> None:
    one, two = some_rows(2)
    seal(made, [one, two])

    told = tell(made, Label(prediction=one.id, value="cat"), Label(prediction=two.id, value=1.0))

    assert ((one.id,), 1) == (told.refused, told.joined)


def test_a_dry_run_tells_what_would_become_of_labels_and_changes_nothing(made: World) -> None:
    (row,) = some_rows(1)
    seal(made, [row])

    told = tell(made, Label(prediction=row.id, value=1.0), is_dry=True, wait_hours=1.0)

    assert 1 == told.joined
    assert [] == outcomes(made)
    assert label_of(made, row.id) is None


def test_labels_wait_for_their_prediction_and_then_count_from_when_they_came(made: World) -> None:
    one, two = some_rows(2)
    labels = Label(prediction=one.id, value=1.0), Label(prediction=two.id, value=2.0)
    assert 2 == tell(made, *labels, wait_hours=24.0).waiting
    seal(made, [one])

    done = made.owner.perform("feedback.retry", RetryFeedback(), Retried)

    assert (1, 0, 1) == (done.joined, done.given_up, done.waiting)
    assert 1.0 == label_of(made, one.id)
    left = made.owner.perform("feedback.waiting", CountWaiting(), WaitingCount)
    assert (1, 1) == (left.labels, left.batches)


def test_labels_whose_time_is_over_are_given_up(made: World) -> None:
    (row,) = some_rows(1)
    tell(made, Label(prediction=row.id, value=1.0), wait_hours=1.0)
    made.clock.push(hours=2)

    done = made.owner.perform("feedback.retry", RetryFeedback(), Retried)

    assert (1, 0) == (done.given_up, done.waiting)
    assert 0 == made.owner.perform("feedback.waiting", CountWaiting(), WaitingCount).labels


def test_nobody_fills_the_store_with_labels_of_made_up_ids(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "MOST_WAITING", 3)
    labels = [Label(prediction=Id(f"x{number}"), value=1.0) for number in range(2)]

    one, two = tell(made, *labels, wait_hours=1.0), tell(made, *labels, wait_hours=1.0)

    assert (2, 0) == (one.waiting, two.waiting)
    assert ("x0", "x1") == two.unknown


@pytest.mark.parametrize(
    "label",
    [Label(value=1.0), Label(prediction=Id("x")), Label(prediction=Id("x"), value=float("nan"))],
)
def test_a_label_that_means_nothing_is_refused(made: World, label: Label) -> None:
    with pytest.raises(InvalidInput):
        tell(made, label)


def test_a_key_without_a_deployment_is_refused(made: World) -> None:
    with pytest.raises(InvalidInput):
        tell(made, Label(key="order-7", value=1.0), deployment=None)


def test_erased_predictions_leave_what_proves_that_they_were_there(made: World) -> None:
    old = [replace(row, key=f"order-{place}", unit="ann") for place, row in enumerate(some_rows(3))]
    seal(made, old)
    tell(made, Label(key="order-1", value=1.0))
    made.clock.push(days=31)
    (new,) = some_rows(1, start=90)
    seal(made, [new], offset=3)
    before = made.clock.now() - timedelta(days=30)

    due = ListErasable(deployment=DEPLOYMENT, before=before)
    found = made.owner.perform("prediction.erasable", due, Erasable)
    ask = ErasePredictions(deployment=DEPLOYMENT, before=before)
    done = made.server.perform("prediction.erase", ask, Erased)

    assert (1, 1) == (found.segments, found.batches)
    assert (1, 3, 1) == (done.segments, done.rows, done.batches)
    segments = made.owner.perform(
        "prediction.segments", ListSegments(deployment=DEPLOYMENT), SegmentList
    ).items
    data = made.blobs.get(segments[0].blob)
    assert segments[0].root == segment_root(read_segment(data))
    assert (None, 3) == (segments[0].labels, segments[0].rows)
    late = tell(made, Label(key="order-1", value=1.0), is_dry=True)
    assert ("order-1",) == late.unknown
    assert b"ann" not in data
    assert [] == outcomes(made)
    listed = made.owner.perform(
        "prediction.list", ListPredictions(deployment=DEPLOYMENT), PredictionList
    ).items
    assert [new.id] == [row.id for row in listed]
    with pytest.raises(NotFound, match="erased"):
        label_of(made, old[1].id)
    again = made.server.perform("prediction.erase", ask, Erased)
    assert (0, 0) == (again.segments, again.batches)


def refused(made: World) -> dict[LabelRefusal, tuple[int, list[str]]]:
    ask = ListRefused(deployment=DEPLOYMENT)
    rows = made.owner.perform("feedback.refused", ask, RefusedList).items
    return {row.reason: (row.count, [label.name for label in row.newest]) for row in rows}


def test_a_label_whose_key_and_prediction_are_of_different_rows_is_refused(made: World) -> None:
    one, other = (replace(row, key=f"order-{at}") for at, row in enumerate(some_rows(2)))
    seal(made, [one, other])

    told = tell(
        made,
        Label(prediction=one.id, key="order-1", value=3.0),
        Label(prediction=other.id, key="order-1", value=4.0),
    )

    assert (1, (one.id,), (LabelRefusal.OTHER_KEY,)) == (told.joined, told.refused, told.reasons)
    assert [None, 4.0] == [label_of(made, row.id) for row in (one, other)]


def test_a_key_says_nothing_against_a_prediction_that_has_none(made: World) -> None:
    (row,) = some_rows(1)
    seal(made, [row])

    told = tell(made, Label(prediction=row.id, key="order-1", value=3.0))

    assert (1, ()) == (told.joined, told.refused)
    assert 3.0 == label_of(made, row.id)


def test_labels_that_judge_nothing_are_counted_by_reason_and_the_last_are_named(
    made: World,
) -> None:
    rows = some_rows(30)
    seal(made, rows)

    for row in rows:
        tell(made, Label(prediction=row.id, value="many"))
    tell(made, Label(prediction=rows[0].id, value="many"), is_dry=True)

    count, names = refused(made)[LabelRefusal.NOT_A_NUMBER]
    assert 30 == count
    assert [row.id for row in rows[:9:-1]] == names


def test_labels_that_waited_in_vain_are_seen_while_they_wait_and_after(made: World) -> None:
    tell(made, Label(key="order-7", value=1.0), wait_hours=1.0)
    ask = CountWaiting(deployment=DEPLOYMENT)
    waiting = made.owner.perform("feedback.waiting", ask, WaitingCount)
    elsewhere = made.owner.perform("feedback.waiting", CountWaiting(deployment=OTHER), WaitingCount)

    made.clock.push(hours=2)
    made.owner.perform("feedback.retry", RetryFeedback(), Retried)

    assert (1, ("order-7",)) == (waiting.labels, waiting.names)
    assert (0, ()) == (elsewhere.labels, elsewhere.names)
    assert {LabelRefusal.NO_PREDICTION: (1, ["order-7"])} == refused(made)


def test_labels_for_which_there_is_no_room_are_counted(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "MOST_WAITING", 1)

    told = tell(made, *(Label(key=f"order-{at}", value=1.0) for at in range(2)), wait_hours=1.0)

    assert 0 == told.waiting
    assert {LabelRefusal.NO_ROOM: (2, ["order-1", "order-0"])} == refused(made)


def test_the_names_of_refused_labels_go_with_the_predictions_of_their_time(made: World) -> None:
    rows = some_rows(1)
    seal(made, rows)
    tell(made, Label(prediction=rows[0].id, value="many"))
    made.clock.push(days=31)

    ask = ErasePredictions(deployment=DEPLOYMENT, before=made.clock.now())
    made.server.perform("prediction.erase", ask, Erased)

    assert {LabelRefusal.NOT_A_NUMBER: (1, [])} == refused(made)


def test_business_keys_are_found_by_an_index_and_not_by_reading_segments(made: World) -> None:
    rows = [replace(row, key=f"order-{at}") for at, row in enumerate(some_rows(3))]
    for at, row in enumerate(rows):
        seal(made, [row], offset=at)
    kernel = made.kernel
    with kernel.store.read() as tx:
        found = tx.select(PredictedKey, *where(deployment=DEPLOYMENT))

    assert {row.id for row in rows} == {key.prediction for key in found}
    assert not any("order" in key.key for key in found)
