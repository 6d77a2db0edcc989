"""Sealing predictions, joining late labels, and what can be asked about both."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from msgspec.structs import replace

from everloop.core import merkle
from everloop.core.canonical import canonical_json
from everloop.core.errors import Conflict, Denied, IntegrityError, InvalidInput, NotFound
from everloop.core.ids import Id, IdSource
from everloop.core.wire import Arm, Label, PredictionRow, Status
from everloop.kernel.authz import Role
from everloop.kernel.performer import LocalPerformer
from everloop.monitor import feedback, queries, verbs
from everloop.monitor.model import FeedbackBatch, PredictionSegment, Tally
from everloop.monitor.outcomes import decode_outcomes, loss_of
from everloop.monitor.segments import encode_rows, inputs_of, read_segment, rows_of
from everloop.registry.evidence import LossName
from tests.kit import World, world

DEPLOYMENT = Id("deployment-1")
VERSION = Id("version-1")
BEGIN = datetime(2026, 2, 1, tzinfo=UTC)


@pytest.fixture
def made() -> World:
    return world()


def some_rows(count: int, *, start: int = 0, seconds: int = 1) -> list[PredictionRow]:
    tick = iter(range(10**9))
    ids = IdSource(lambda: 1_760_000_000_000 + start * 1000 + next(tick), os.urandom)
    return [
        PredictionRow(
            id=ids.new(),
            at=BEGIN + timedelta(hours=start + index),
            logged_at=BEGIN,
            version=VERSION,
            arm=Arm.CHAMPION,
            share=0.0,
            status=Status.OK,
            latency_us=80,
            inputs={"hour": index, "wind": index / 7, "name": "a" if index % 2 else None},
            output=float(index) * seconds,
            epoch=1,
        )
        for index in range(count)
    ]


def seal(
    made: World, rows: list[PredictionRow], offset: int = 0, deployment: Id = DEPLOYMENT
) -> verbs.SealedSegment:
    ask = verbs.SealSegment(
        deployment=deployment,
        file="worker-1.jsonl",
        offset_start=offset,
        offset_end=offset + len(rows),
        blob=made.blobs.put(encode_rows(rows)),
    )
    return made.server.perform("prediction.seal", ask, verbs.SealedSegment)


def label(who: LocalPerformer, pairs: list[tuple[str, float]]) -> feedback.FeedbackReceipt:
    labels = tuple(Label(prediction=Id(key), value=value) for key, value in pairs)
    return who.perform(
        "feedback.add", feedback.AddFeedback(labels=labels), feedback.FeedbackReceipt
    )


def show(who: LocalPerformer, key: str) -> queries.PredictionView:
    ask = queries.ShowPrediction(id=Id(key))
    return who.perform("prediction.show", ask, queries.PredictionView)


def test_rows_come_back_exactly_as_they_were_logged() -> None:
    rows = some_rows(5)

    assert rows == rows_of(read_segment(encode_rows(rows)))


def test_inputs_keep_their_types_for_computing() -> None:
    table = inputs_of(read_segment(encode_rows(some_rows(4))))

    assert {"hour": pa.int64(), "wind": pa.float64(), "name": pa.string()} == {
        field.name: field.type for field in table.schema
    }
    assert [0, 1, 2, 3] == table.column("hour").to_pylist()


def test_an_answer_of_this_moment_is_told_from_one_that_never_was(made: World) -> None:
    now, old = made.kernel.services.ids.new(), Id("01820000-0000-7000-8000-000000000000")

    codes = []
    for key in (now, old, "no id"):
        with pytest.raises(NotFound) as refusal:
            show(made.owner, key)
        codes.append((refusal.value.code, refusal.value.hint.partition(";")[0]))

    assert ("prediction.not_sealed", "What is logged is sealed within 12 s") == codes[0]
    assert ["prediction.not_found"] * 2 == [code for code, _ in codes[1:]]


def test_a_prediction_is_shown_with_a_proof_that_verifies(made: World) -> None:
    rows = some_rows(7)
    seal(made, rows)

    shown = show(made.owner, rows[3].id)

    assert rows[3] == shown.row
    assert merkle.verify_inclusion(
        shown.proof.index,
        shown.proof.size,
        merkle.leaf_hash(canonical_json(shown.row)),
        [bytes.fromhex(part) for part in shown.proof.path],
        bytes.fromhex(shown.segment.root.removeprefix("sha256:")),
    )


def test_a_stretch_must_begin_where_the_last_one_ended(made: World) -> None:
    seal(made, some_rows(3))

    with pytest.raises(Conflict) as gap:
        seal(made, some_rows(3, start=10), offset=4)
    with pytest.raises(Conflict) as overlap:
        seal(made, some_rows(3, start=10), offset=0)

    assert ["segment.gap"] * 2 == [gap.value.code, overlap.value.code]


def test_an_unreadable_segment_is_refused(made: World) -> None:
    ask = verbs.SealSegment(
        deployment=DEPLOYMENT,
        file="f",
        offset_start=0,
        offset_end=4,
        blob=made.blobs.put(b"no parquet"),
    )

    with pytest.raises(InvalidInput) as refused:
        made.server.perform("prediction.seal", ask, verbs.SealedSegment)

    assert "segment.unreadable" == refused.value.code


def test_only_the_server_may_seal(made: World) -> None:
    ask = verbs.SealSegment(
        deployment=DEPLOYMENT,
        file="f",
        offset_start=0,
        offset_end=1,
        blob=made.blobs.put(encode_rows(some_rows(1))),
    )

    with pytest.raises(Denied):
        made.person("rita", Role.RELEASER).perform("prediction.seal", ask, verbs.SealedSegment)


def test_labels_are_joined_once_and_corrections_do_not_count_twice(made: World) -> None:
    rows = some_rows(3)
    seal(made, rows)

    first = label(made.owner, [(rows[0].id, 5.0), (rows[1].id, 6.0)])
    again = label(made.owner, [(rows[0].id, 5.0), (rows[1].id, 7.0), ("nobody", 1.0)])

    assert (2, 0, 0, ()) == (first.joined, first.corrected, first.repeated, first.unknown)
    assert (0, 1, 1, ("nobody",)) == (again.joined, again.corrected, again.repeated, again.unknown)
    assert 7.0 == show(made.owner, rows[1].id).label
    assert 1 == sum(len(outcomes(made, batch)) > 0 for batch in batches(made))


def batches(made: World) -> tuple[FeedbackBatch, ...]:
    ask = queries.ListFeedback(deployment=DEPLOYMENT)
    return made.owner.perform("feedback.list", ask, queries.FeedbackList).items


def outcomes(made: World, batch: FeedbackBatch) -> list[float | None]:
    return [found.truth for found in decode_outcomes(made.blobs.get(batch.outcomes))]


def test_labels_of_one_call_may_belong_to_several_segments(made: World) -> None:
    early, late = some_rows(4), some_rows(4, start=100)
    seal(made, early)
    seal(made, late, offset=4)

    receipt = label(made.owner, [(early[0].id, 1.0), (late[3].id, 2.0), (early[1].id, 3.0)])

    assert 3 == receipt.joined
    assert {1.0, 2.0, 3.0} == set(outcomes(made, batches(made)[0]))


def test_a_label_that_is_no_number_is_refused(made: World) -> None:
    rows = some_rows(1)
    seal(made, rows)

    with pytest.raises(InvalidInput) as refused:
        label(made.owner, [(rows[0].id, float("nan"))])

    assert "label.not_finite" == refused.value.code
    assert () == batches(made)


def test_predictions_of_another_project_cannot_be_seen_or_labelled(made: World) -> None:
    rows = some_rows(2)
    seal(made, rows)
    made.project("other")
    elsewhere = made.person("sam", Role.CONTRIBUTOR, project="other")

    with pytest.raises(NotFound):
        show(elsewhere, rows[0].id)
    with pytest.raises(Denied):
        show(LocalPerformer(made.kernel, made.people["sam"], "demo"), rows[0].id)
    assert (rows[0].id,) == label(elsewhere, [(rows[0].id, 1.0)]).unknown


def test_a_tampered_segment_is_noticed_when_it_is_shown(made: World) -> None:
    rows = some_rows(3)
    sealed = seal(made, rows)
    forged = [*rows[:2], replace(rows[2], output=99.0)]
    with made.kernel.store.write() as tx:
        stored = tx.find(PredictionSegment, sealed.id)
        assert stored is not None
        tx.replace(replace(stored, blob=made.blobs.put(encode_rows(forged))))

    with pytest.raises(IntegrityError) as noticed:
        show(made.owner, rows[2].id)

    assert "segment.corrupt" == noticed.value.code


@pytest.mark.parametrize(
    ("kind", "output", "truth", "expected"),
    [
        ("absolute_error", 3.0, 5.0, 2.0),
        ("squared_error", 3.0, 5.0, 4.0),
        ("zero_one", 0.7, 1.0, 0.0),
        ("zero_one", 0.2, 1.0, 1.0),
        ("log_loss", 0.5, 1.0, 0.6931471805599453),
    ],
)
def test_losses(kind: LossName, output: float, truth: float, expected: float) -> None:
    assert expected == pytest.approx(loss_of(kind, output, truth))


def test_a_sure_mistake_has_a_finite_log_loss() -> None:
    assert loss_of("log_loss", 0.0, 1.0) < 30


def test_a_label_finds_its_answer_among_overlapping_segments(made: World) -> None:
    # Every 20th row in one segment, so that all of them span nearly all ids.
    rows = some_rows(60)
    pieces = [rows[place::20] for place in range(20)]
    offset = 0
    for piece in pieces:
        seal(made, piece, offset)
        offset += len(piece)

    receipt = label(made.owner, [(row.id, 1.0) for row in rows])

    assert (60, ()) == (receipt.joined, receipt.unknown)
    assert rows[37] == show(made.owner, rows[37].id).row


def test_what_was_served_is_counted_without_reading_it_all(made: World) -> None:
    rows = some_rows(9)
    seal(made, rows[:4])
    seal(made, rows[4:], 4)
    label(made.owner, [(row.id, 1.0) for row in rows[2:6]])
    label(made.owner, [(row.id, 2.0) for row in rows[2:8]])

    shown = made.owner.perform(
        "monitor.show", queries.ShowMonitor(deployment=DEPLOYMENT), queries.MonitorView
    )

    assert (9, 6, 2) == (shown.predictions, shown.labelled, shown.batches)
    with made.kernel.store.write() as tx:
        [tally] = tx.select(Tally)
        assert (9, 6) == (tally.predictions, tally.labelled)
        tx.delete(tally)  # as in a database from before there were tallies
    counted = made.owner.perform(
        "monitor.show", queries.ShowMonitor(deployment=DEPLOYMENT), queries.MonitorView
    )
    assert shown == counted
