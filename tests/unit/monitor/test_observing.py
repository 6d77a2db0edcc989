"""Looking at what came: cursors, windows of event time, drift, the champion's losses, alerts."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

import everloop.data.verbs  # noqa: F401 -- declares data.commit
from everloop.core.clock import to_text
from everloop.core.digest import Digest, sha256_digest
from everloop.core.ids import ActorId, Id, IdSource, ProjectId
from everloop.core.wire import Arm, Label, PredictionRow, Status
from everloop.data.snapshot import commit_table
from everloop.kernel.authz import Project
from everloop.kernel.ledger import log
from everloop.monitor import feedback, queries, verbs
from everloop.monitor.model import Alert, AlertKind, AlertState, LossPoint, Window
from everloop.monitor.segments import encode_rows
from everloop.registry import evidence
from everloop.registry.model import ModelVersion
from everloop.registry.signature import Field, Signature
from tests.kit import World, world

DEPLOYMENT = Id("deployment-1")
BEGIN = datetime(2026, 2, 2, tzinfo=UTC)
DAY_HOURS = 24
SETTINGS: dict[str, object] = {
    "models": {
        "m": {
            "monitor": {
                "window_hours": DAY_HOURS,
                "min_rows": 24,
                "block_rows": 12,
                "margin": 0.5,
                "average_run_length": 10.0,
            }
        }
    }
}


@dataclass
class Watched:
    """A deployment with a gated champion, whose answers and truths a test makes up."""

    world: World = field(default_factory=world)
    sealed: int = 0

    def __post_init__(self) -> None:
        self.world.configure(SETTINGS)
        rng = np.random.default_rng(0)
        table = pa.table({"x": rng.normal(size=400), "y": rng.normal(size=400)})
        self.training = commit_table(self.world.owner, "rows", table)
        self.champion = self.version(1)

    def version(
        self,
        number: int,
        *,
        percentile: float = 1.0,
        loss: evidence.LossName = "absolute_error",
    ) -> Id:
        """Put a version in the registry whose gate measured this loss at every percentile."""
        made = _version(self.project, number, self.training.id)
        report = signed_report(self.world, made, percentile, loss)
        with self.world.kernel.store.write() as tx:
            tx.insert(made)
            tx.insert(report)
        return made.id

    @property
    def project(self) -> ProjectId:
        with self.world.kernel.store.read() as tx:
            return ProjectId(tx.select(Project)[0].id)

    def answer(self, day: int, *, shift: float = 0.0, version: Id | None = None) -> list[Id]:
        """Seal a day of hourly answers of 0; return their ids."""
        ids = IdSource(
            iter(range(1_760_000_000_000 + self.sealed, 1_790_000_000_000)).__next__, os.urandom
        )
        rng = np.random.default_rng(100 + day)
        rows = [
            PredictionRow(
                id=ids.new(),
                at=BEGIN + timedelta(hours=24 * day + hour),
                logged_at=BEGIN,
                version=version or self.champion,
                arm=Arm.CHAMPION,
                share=0.0,
                status=Status.OK,
                latency_us=80,
                inputs={"x": float(rng.normal()) + shift},
                output=0.0,
                epoch=1,
            )
            for hour in range(24)
        ]
        ask = verbs.SealSegment(
            deployment=DEPLOYMENT,
            file="w0-00000001.jsonl",
            offset_start=self.sealed,
            offset_end=self.sealed + len(rows),
            blob=self.world.blobs.put(encode_rows(rows)),
            champion=self.champion,
        )
        self.world.server.perform("prediction.seal", ask, verbs.SealedSegment)
        self.sealed += len(rows)
        return [row.id for row in rows]

    def label(self, keys: list[Id], loss: float) -> None:
        labels = tuple(Label(prediction=key, value=loss) for key in keys)
        self.world.owner.perform(
            "feedback.add", feedback.AddFeedback(labels=labels), feedback.FeedbackReceipt
        )

    def live(self, days: range, *, loss: float) -> None:
        """Answer and label days, looking after each."""
        for day in days:
            self.label(self.answer(day), loss)
            self.look()

    def look(self, champion: Id | None = None) -> verbs.Observed:
        ask = verbs.Observe(deployment=DEPLOYMENT, model="m", champion=champion or self.champion)
        return self.world.loop.perform("monitor.observe", ask, verbs.Observed)

    def windows(self) -> list[Window]:
        with self.world.kernel.store.read() as tx:
            return tx.select(Window, order="start")

    def points(self) -> list[LossPoint]:
        with self.world.kernel.store.read() as tx:
            return tx.select(LossPoint, order="number")

    def alerts(self, kind: AlertKind) -> list[Alert]:
        ask = queries.ListAlerts(deployment=DEPLOYMENT)
        found = self.world.owner.perform("alert.list", ask, queries.AlertList).items
        return [alert for alert in found if alert.kind is kind]

    def entries(self) -> int:
        with self.world.kernel.store.read() as tx:
            return log.size(tx)


def _version(project: ProjectId, number: int, training: Id) -> ModelVersion:
    return ModelVersion(
        id=Id(f"version-{number}"),
        project=project,
        model=Id("model-1"),
        name="m",
        number=number,
        version=f"{number}.0.0",
        artifact=sha256_digest(str(number).encode()),
        files=(),
        format="lightgbm",
        signature=Signature(
            inputs=(Field(name="x", dtype="float64"),),
            output=Field(name="y", dtype="float64"),
            task="regression",
        ),
        target="y",
        run=None,
        dataset_version=training,
        holdout=None,
        reference=None,
        examples=None,
        params={},
        bump="first",
        bump_reason="",
        created_at=BEGIN,
        created_by=ActorId("somebody"),
    )


def signed_report(
    made: World,
    version: ModelVersion,
    percentile: float,
    loss: evidence.LossName = "absolute_error",
) -> evidence.GateReport:
    values: dict[str, float | str | None] = {"loss": loss}
    values |= {f"loss_q{q}": percentile for q in evidence.LOSS_PERCENTILES}
    checks = (
        evidence.CheckResult(name="beats_champion", passed=True, summary="ok", values=values),
    )
    predicate = evidence.Predicate(
        producer="evaluator",
        report=Id(f"report-{version.number}"),
        project=version.project,
        version=version.id,
        champion=None,
        config=Digest("sha256:" + "0" * 64),
        datasets=evidence.DatasetRoots(training=None, holdout=None),
        checks=checks,
        passed=True,
        golden=None,
        at=to_text(BEGIN),
    )
    signer = made.kernel.services.signers[evidence.EVALUATOR]
    statement, signature = evidence.sign_statement(signer, evidence.state(version, predicate))
    return evidence.GateReport(
        id=predicate.report,
        project=version.project,
        model=version.model,
        version=version.id,
        artifact=version.artifact,
        champion=None,
        passed=True,
        checks=checks,
        producer="evaluator",
        golden=None,
        statement=statement,
        signature=signature,
        at=BEGIN,
        by=ActorId("somebody"),
    )


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_a_window_closes_when_the_watermark_passes_its_end(watched: Watched) -> None:
    watched.answer(0)
    before = watched.look().closed_windows
    watched.answer(1)
    after = watched.look()

    assert (0, 1) == (before, after.closed_windows)
    assert [(BEGIN, BEGIN + timedelta(days=1), 24)] == [
        (window.start, window.end, window.rows) for window in watched.windows()
    ]
    assert to_text(BEGIN + timedelta(hours=47)) == after.watermark


def test_a_gap_in_time_leaves_no_empty_windows(watched: Watched) -> None:
    watched.answer(0)
    watched.look()
    watched.answer(30)
    watched.look()
    watched.answer(31)

    watched.look()

    starts = [(window.start - BEGIN).days for window in watched.windows()]
    assert [0, 30] == starts


def test_looking_again_changes_nothing(watched: Watched) -> None:
    watched.live(range(3), loss=0.5)
    entries = watched.entries()

    seen = watched.look()

    assert (0, 0, ()) == (seen.closed_windows, seen.blocks, seen.alerts)
    assert entries == watched.entries()


def test_each_label_counts_once_however_the_looks_are_cut(watched: Watched) -> None:
    other = Watched()

    watched.live(range(6), loss=0.5)
    for day in range(6):
        other.label(other.answer(day), 0.5)
    other.look()

    told = [(point.number, point.at, point.bad_share, point.evidence) for point in watched.points()]
    assert 5 == len(told)  # the block of the last day is open
    assert told == [
        (point.number, point.at, point.bad_share, point.evidence) for point in other.points()
    ]


def test_inputs_that_drift_raise_one_alert_that_stays_open(watched: Watched) -> None:
    watched.answer(0)
    for day in range(1, 5):
        watched.answer(day, shift=3.0)
        watched.look()

    alerts = watched.alerts(AlertKind.DRIFT)

    assert [("x",)] == [alert.columns for alert in alerts]
    assert [(), ("x",), ("x",), ("x",)][: len(watched.windows())] == [
        window.drifted for window in watched.windows()
    ]
    assert f"window:{watched.windows()[1].id}" == alerts[0].subject


def test_inputs_like_the_training_raise_no_alert(watched: Watched) -> None:
    for day in range(8):
        watched.answer(day)
        watched.look()

    assert [] == watched.alerts(AlertKind.DRIFT)


def test_losses_beyond_the_gate_raise_one_alert_that_stays_open(watched: Watched) -> None:
    watched.live(range(12), loss=5.0)

    alarmed = [point for point in watched.points() if point.alarmed]
    alerts = watched.alerts(AlertKind.LOSS)

    assert len(alarmed) >= 2, "the detector starts again after an alarm"
    assert [(AlertState.OPEN, f"loss_point:{alarmed[0].id}")] == [
        (alert.state, alert.subject) for alert in alerts
    ]


def test_losses_that_the_gate_saw_raise_no_alert(watched: Watched) -> None:
    watched.live(range(30), loss=0.9)

    assert [] == watched.alerts(AlertKind.LOSS)


def test_a_new_champion_starts_afresh_and_resolves_the_alerts(watched: Watched) -> None:
    watched.live(range(6), loss=5.0)
    before = len(watched.points())
    watched.champion = watched.version(2, percentile=10.0)

    watched.look()
    watched.live(range(6, 12), loss=5.0)

    assert [AlertState.RESOLVED] == [alert.state for alert in watched.alerts(AlertKind.LOSS)]
    fresh = watched.points()[before:]
    assert {"version-2"} == {point.version for point in fresh}
    assert {0.0} == {point.bad_share for point in fresh}, "its own gate allowed for such losses"


def test_answers_of_another_version_do_not_count(watched: Watched) -> None:
    other = watched.version(2)
    for day in range(4):
        watched.label(watched.answer(day, version=other), 5.0)

    assert 0 == watched.look().blocks


def test_losses_are_of_the_kind_that_the_champions_gate_measured(watched: Watched) -> None:
    watched.champion = watched.version(2, percentile=10.0, loss="squared_error")

    watched.live(range(2), loss=4.0)

    [point] = watched.points()
    assert (16.0, 1.0) == (point.mean_loss, point.bad_share)
