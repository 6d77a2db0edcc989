"""One model's life told quickly, on SQLite, from its data to its predictions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import lightgbm
import numpy as np

from everloop.app.verbs import load_verbs
from everloop.core.digest import sha256_digest
from everloop.core.ids import Id, IdSource
from everloop.core.records import declared_kinds
from everloop.core.wire import Arm, Label, PredictionRow, Status
from everloop.data.model import DatasetVersion, SourceInfo
from everloop.data.snapshot import commit_table
from everloop.data.tables import read_table
from everloop.gate.verbs import ApproveArtifact, EvaluateGate
from everloop.kernel.authz import Role
from everloop.kernel.performer import LocalPerformer
from everloop.monitor.feedback import AddFeedback, FeedbackReceipt
from everloop.monitor.segments import encode_rows
from everloop.monitor.verbs import SealedSegment, SealSegment
from everloop.pipeline.model import StepStatus
from everloop.pipeline.verbs import FinishedStep, RecordSteps, StepsRecorded
from everloop.registry.client import register
from everloop.registry.evidence import Approval, GateReport
from everloop.registry.model import ModelVersion
from everloop.registry.signature import infer_signature
from everloop.release.queries import DeploymentView, ReleaseView
from everloop.release.verbs import CreateDeployment, StartRelease
from everloop.storage.sqlite import SqliteMetadataStore
from everloop.track.verbs import FinishRun, RunFinished, RunStarted, StartRun
from tests.kit import World, world
from tests.story.test_loop_closes import BEGIN, INPUTS, SETTINGS, rows

load_verbs()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SOURCE = sha256_digest(b"the original file")
ROWS_A_SEGMENT = 6


@dataclass
class Tale:
    """What was made, by name."""

    world: World
    path: Path
    training: DatasetVersion
    version: ModelVersion
    run: Id
    report: GateReport
    deployment: Id
    predictions: list[Id]

    @property
    def owner(self) -> LocalPerformer:
        return self.world.owner


def tell(path: Path, segments: int = 3) -> Tale:
    """Live through one model's life in a fresh database."""
    made = world(SqliteMetadataStore(path, declared_kinds()))
    made.configure(SETTINGS)
    ids = IdSource(lambda: int(made.clock.now().timestamp() * 1000), os.urandom)
    source = SourceInfo(kind="files", description="Rentals by hour", digest=SOURCE)
    training = commit_table(
        made.owner, "stream", rows(0, 30, slope=2.0, seed=1), source=source, message="first"
    )
    holdout = commit_table(made.owner, "stream-holdout", rows(30, 10, slope=2.0, seed=2))
    run = _run(made, training, ids)
    version = _train(made, training, holdout, run)
    report = made.owner.perform("gate.evaluate", EvaluateGate(version=version.id), GateReport)
    assert report.passed, [check.summary for check in report.checks]
    approver = made.person("ann", Role.APPROVER)
    approver.perform("gate.approve", ApproveArtifact(version=version.id, comment="ok"), Approval)
    deployment = made.owner.perform(
        "deployment.create", CreateDeployment(name="m", model="m"), DeploymentView
    ).deployment
    made.owner.perform(
        "release.start", StartRelease(deployment="m", version=version.id), ReleaseView
    )
    predictions = []
    for number in range(segments):
        predictions += _seal(made, deployment.id, version, ids, number)
    return Tale(made, path, training, version, run, report, deployment.id, predictions)


def _run(made: World, training: DatasetVersion, ids: IdSource) -> Id:
    run = ids.new()
    made.owner.perform(
        "run.start",
        StartRun(run=run, name="fit", code_commit=COMMIT, params={"leaves": "15"}),
        RunStarted,
    )
    result = made.blobs.put(b"result")
    now = made.clock.now()
    step = FinishedStep(
        number=0,
        name="training:fit",
        status=StepStatus.RAN,
        key="k",
        inputs={},
        outputs={"return": result},
        started_at=now,
        ended_at=now,
        seconds=1.0,
        reads=(training.id,),
    )
    made.owner.perform("step.record", RecordSteps(run=run, steps=(step,)), StepsRecorded)
    made.owner.perform("run.finish", FinishRun(run=run), RunFinished)
    return run


def _train(made: World, training: DatasetVersion, holdout: DatasetVersion, run: Id) -> ModelVersion:
    table = read_table(made.blobs, training)
    data = lightgbm.Dataset(
        np.column_stack([table.column(name).to_numpy() for name in INPUTS]),
        label=table.column("y").to_numpy(),
        feature_name=list(INPUTS),
    )
    fixed = {"num_threads": 1, "verbosity": -1, "seed": 1, "deterministic": True}
    booster = lightgbm.train(fixed | {"num_leaves": 7}, data, num_boost_round=20)
    return register(
        made.owner,
        "m",
        booster,
        signature=infer_signature(table, INPUTS, "y", "regression"),
        run=run,
        dataset=training.id,
        holdout=holdout.id,
        examples=read_table(made.blobs, holdout),
        params={"leaves": "7"},
        description="Rentals *by hour*.",
    )


def _seal(
    made: World, deployment: Id, version: ModelVersion, ids: IdSource, number: int
) -> list[Id]:
    answered = [
        PredictionRow(
            id=ids.new(),
            at=BEGIN + timedelta(days=50, hours=ROWS_A_SEGMENT * number + hour),
            logged_at=made.clock.now(),
            version=version.id,
            arm=Arm.CHAMPION,
            share=0.0,
            status=Status.OK,
            latency_us=100,
            inputs={"a": 0.5, "b": 1.0},
            output=11.5 + hour,
            epoch=2,
        )
        for hour in range(ROWS_A_SEGMENT)
    ]
    ask = SealSegment(
        deployment=deployment,
        file="test-1.jsonl",
        offset_start=100 * number,
        offset_end=100 * number + 100,
        blob=made.blobs.put(encode_rows(answered)),
        champion=version.id,
    )
    made.server.perform("prediction.seal", ask, SealedSegment)
    labels = tuple(Label(prediction=row.id, value=12.0) for row in answered)
    made.owner.perform("feedback.add", AddFeedback(labels=labels), FeedbackReceipt)
    made.clock.push(hours=6)
    return [row.id for row in answered]
