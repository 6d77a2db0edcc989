"""The whole loop on a synthetic stream: the world changes, the model is replaced, by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import lightgbm
import numpy as np
import pyarrow as pa
import pytest

from everloop.app.verbs import load_verbs
from everloop.core.errors import NotFound
from everloop.core.ids import Id, IdSource
from everloop.core.ports import MetadataStore, where
from everloop.core.records import declared_kinds
from everloop.core.wire import Applied, Arm, Label, PredictionRow, Status
from everloop.data.model import DatasetVersion
from everloop.data.queries import ShowDataset
from everloop.data.snapshot import commit_table
from everloop.data.tables import read_table
from everloop.gate.verbs import EvaluateGate
from everloop.kernel.ledger import log
from everloop.kernel.lineage import Edge
from everloop.loop.controller import Controller
from everloop.loop.model import LoopState
from everloop.loop.ports import TrainingJob, TrainingResult
from everloop.loop.queries import ListRuns, LoopStatus, RunHistory, RunList, ShowRun, ShowStatus
from everloop.monitor.feedback import AddFeedback, FeedbackReceipt
from everloop.monitor.queries import AlertList, ListAlerts
from everloop.monitor.segments import encode_rows
from everloop.monitor.verbs import SealedSegment, SealSegment
from everloop.registry.client import register
from everloop.registry.evidence import GateReport
from everloop.registry.formats import open_version
from everloop.registry.model import ModelVersion
from everloop.registry.queries import ModelView, ShowModel
from everloop.registry.signature import infer_signature
from everloop.release.model import State
from everloop.release.queries import DeploymentView, ReleaseView, ShowDeployment
from everloop.release.verbs import CreateDeployment, StartRelease
from everloop.storage.memory import MemoryMetadataStore
from everloop.storage.postgres import PostgresMetadataStore
from everloop.storage.sqlite import SqliteMetadataStore
from tests.kit import World, world

load_verbs()
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
INPUTS = ("a", "b")
SETTINGS: dict[str, object] = {
    "models": {
        "m": {
            "task": "regression",
            "target": "y",
            "gate": {"block": "day"},
            "monitor": {"margin": 0.25, "average_run_length": 100.0},
            "release": {"min_pairs": 24, "shares": [0.5]},
            "loop": {
                "enabled": True,
                "pipeline": "none:none",
                "dataset": "stream",
                "time": "event",
                "min_gap_days": 5.0,
                "min_rows": 200,
                "train_days": 30,
            },
        }
    }
}


def rows(first_day: int, days: int, *, slope: float, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    n = days * 24
    a, b = rng.normal(size=n), rng.normal(size=n)
    hours = [BEGIN + timedelta(hours=24 * first_day + h) for h in range(n)]
    return pa.table(
        {
            "a": a,
            "b": b,
            "y": slope * a + b + rng.normal(scale=0.6, size=n) + 10.0,
            "at": pa.array(hours, pa.timestamp("us", tz="UTC")),
            "day": [first_day + h // 24 for h in range(n)],
        }
    )


def fit(world: World, training: DatasetVersion, holdout: DatasetVersion) -> ModelVersion:
    table = read_table(world.blobs, training)
    data = lightgbm.Dataset(
        np.column_stack([table.column(name).to_numpy() for name in INPUTS]),
        label=table.column("y").to_numpy(),
        feature_name=list(INPUTS),
    )
    fixed = {"num_threads": 1, "verbosity": -1, "seed": 1, "deterministic": True}
    booster = lightgbm.train(fixed | {"num_leaves": 15}, data, num_boost_round=60)
    return register(
        world.owner,
        "m",
        booster,
        signature=infer_signature(table, INPUTS, "y", "regression"),
        dataset=training.id,
        holdout=holdout.id,
        examples=read_table(world.blobs, holdout),
    )


@dataclass
class TrainHere:
    """Trains at once, in this process."""

    world: World
    done: dict[str, TrainingResult] = field(default_factory=dict)

    def start(self, job: TrainingJob) -> None:
        versions = [
            self.world.owner.perform("data.show", ShowDataset(ref=key), DatasetVersion)
            for key in (job.training, job.holdout)
        ]
        made = fit(self.world, *versions)
        self.done[job.key] = TrainingResult(version=made.id, error=None)

    def poll(self, key: str) -> TrainingResult | None:
        if key not in self.done:
            raise NotFound("training.unknown", "Never begun.", hint="Start it.")
        return self.done[key]


@dataclass
class Stream:
    """Answers requests as the serving process would, and keeps what it logged."""

    world: World
    ids: IdSource
    waiting: list[PredictionRow] = field(default_factory=list)
    offset: int = 0
    report: Applied | None = None

    def answer(self, table: pa.Table, view: DeploymentView) -> list[tuple[Id, float]]:
        """Answer each row; return the ids with the truths that come later."""
        champion, live = view.deployment.champion, view.live
        outputs = {}
        for key in {champion, live.candidate if live else None} - {None}:
            shown = self.world.owner.perform("model.show", ShowModel(ref=str(key)), ModelView)
            predictor = open_version(
                self.world.blobs, shown.version, self.world.kernel.services.policy
            )
            matrix = np.column_stack([table.column(n).to_numpy() for n in INPUTS])
            outputs[key] = predictor.predict(matrix)
            predictor.close()
        truths = []
        for index, row in enumerate(table.to_pylist()):
            share = live.share if live and live.state is State.CANARY else 0.0
            arm = Arm.CANARY if live and (index % 10) / 10 < share else Arm.CHAMPION
            version = live.candidate if live and arm is Arm.CANARY else champion
            is_shadowed = live is not None and live.state is State.SHADOW
            assert version is not None
            key = self.ids.new()
            self.waiting.append(
                PredictionRow(
                    id=key,
                    at=row["at"],
                    logged_at=row["at"],
                    version=version,
                    arm=arm,
                    share=share,
                    status=Status.OK,
                    latency_us=100,
                    inputs={name: row[name] for name in INPUTS},
                    output=float(outputs[version][index]),
                    epoch=view.deployment.epoch,
                    shadow_version=live.candidate if live and is_shadowed else None,
                    shadow_output=(
                        float(outputs[live.candidate][index]) if live and is_shadowed else None
                    ),
                    shadow_status=Status.OK if is_shadowed else None,
                )
            )
            truths.append((key, row["y"]))
        return truths

    def applied(self, deployment: Id, name: str) -> Applied | None:
        del deployment, name
        return self.report

    def seal(self, deployment: Id, name: str, champion: Id | None, *, pause_s: float = 0.0) -> int:
        del name
        if not self.waiting:
            return 0
        count = len(self.waiting)
        ask = SealSegment(
            deployment=deployment,
            file="test-1.jsonl",
            offset_start=self.offset,
            offset_end=self.offset + count,
            blob=self.world.blobs.put(encode_rows(self.waiting)),
            champion=champion,
        )
        self.world.server.perform("prediction.seal", ask, SealedSegment)
        self.waiting.clear()
        self.offset += count
        return count


@dataclass
class Scene:
    """A released first version, a stream and a controller."""

    world: World
    stream: Stream
    controller: Controller
    errors: list[float] = field(default_factory=list)

    def view(self) -> DeploymentView:
        return self.world.owner.perform(
            "deployment.show", ShowDeployment(deployment="m"), DeploymentView
        )

    def live_days(self, table: pa.Table) -> None:
        late: list[tuple[Id, float]] = []
        for start in range(0, table.num_rows, 24):
            truths = self.stream.answer(table.slice(start, 24), self.view())
            outputs = {row.id: row.output or 0.0 for row in self.stream.waiting}
            self.errors += [abs(outputs[key] - truth) for key, truth in truths]
            self.settle()
            if late:
                labels = tuple(Label(prediction=key, value=truth) for key, truth in late)
                self.world.owner.perform(
                    "feedback.add", AddFeedback(labels=labels), FeedbackReceipt
                )
            late = truths
            self.settle()
            self.world.clock.push(days=1)

    def settle(self) -> None:
        for _ in range(50):
            self.controller.step("m")
            turn = self.status().turn
            if turn is not None and turn.is_idle:
                return
        pytest.fail("the controller never came to rest")

    def status(self) -> LoopStatus:
        ask = ShowStatus(deployment=self.view().deployment.id)
        return self.world.owner.perform("loop.status", ask, LoopStatus)

    def runs(self) -> RunList:
        return self.world.owner.perform("loop.list", ListRuns(), RunList)


@pytest.fixture(params=["memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MetadataStore]:
    """The store that a story runs on; memory unless the test asks for others."""
    kinds = declared_kinds()
    made: MetadataStore
    if request.param == "postgres":
        made = PostgresMetadataStore(request.getfixturevalue("postgres_url"), kinds)
    elif request.param == "sqlite":
        made = SqliteMetadataStore(tmp_path / "everloop.db", kinds)
    else:
        made = MemoryMetadataStore(kinds)
    yield made
    made.close()


everywhere = pytest.mark.parametrize(
    "store",
    ["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.needs_postgres)],
    indirect=True,
)


@pytest.fixture
def scene(store: MetadataStore) -> Scene:
    made = world(store)
    made.configure(SETTINGS)
    first = rows(0, 40, slope=2.0, seed=1)
    held = pa.array([day % 5 == 0 for day in first.column("day").to_pylist()])
    training = commit_table(made.owner, "stream", first.filter(pa.compute.invert(held)))
    holdout = commit_table(made.owner, "stream-holdout", first.filter(held))
    version = fit(made, training, holdout)
    report = made.owner.perform("gate.evaluate", EvaluateGate(version=version.id), GateReport)
    assert report.passed, [check.summary for check in report.checks]
    made.owner.perform("deployment.create", CreateDeployment(name="m", model="m"), DeploymentView)
    made.owner.perform(
        "release.start", StartRelease(deployment="m", version=version.id), ReleaseView
    )
    ids = IdSource(lambda: int(made.clock.now().timestamp() * 1000), os.urandom)
    stream = Stream(made, ids)
    controller = Controller(
        made.loop, trainer=TrainHere(made), source=stream, clock=made.clock, owner="test"
    )
    return Scene(made, stream, controller)


def test_a_stable_world_is_left_alone(scene: Scene) -> None:
    scene.live_days(rows(40, 20, slope=2.0, seed=2))

    assert () == scene.runs().items


@everywhere
def test_a_change_of_the_world_replaces_the_model(scene: Scene) -> None:
    before = scene.view().deployment.champion

    scene.live_days(rows(40, 45, slope=-2.0, seed=3))

    promoted = [run for run in scene.runs().items if run.state is LoopState.PROMOTED]
    assert promoted
    assert promoted[-1].version == scene.view().deployment.champion != before
    assert np.mean(scene.errors[-5 * 24 :]) < np.mean(scene.errors[: 5 * 24]) / 2
    history = scene.world.owner.perform("loop.show", ShowRun(id=promoted[-1].id), RunHistory)
    assert ["triggered", "training", "gating", "releasing", "promoted"] == [
        step.after.value for step in history.transitions
    ]
    edges = training_origins(scene, promoted[-1].training)
    assert {"prediction_segment"} == {target.partition(":")[0] for target in edges}
    alerts = scene.world.owner.perform("alert.list", ListAlerts(), AlertList).items
    assert promoted[-1].cause in {f"alert:{alert.id}" for alert in alerts}


def test_every_committed_change_is_one_ledger_entry(scene: Scene) -> None:
    scene.live_days(rows(40, 3, slope=2.0, seed=2))

    with scene.world.kernel.store.read() as tx:
        entries = tx.select(log.LedgerEntry, order="index")
    assert list(range(len(entries))) == [entry.index for entry in entries]
    assert 3 * 1 <= sum(entry.action == "prediction.seal" for entry in entries)


def test_looking_again_with_nothing_new_changes_nothing(scene: Scene) -> None:
    scene.live_days(rows(40, 3, slope=2.0, seed=2))
    before = entries(scene)

    for _ in range(5):
        scene.controller.step("m")

    assert before == entries(scene)


def entries(scene: Scene) -> int:
    with scene.world.kernel.store.read() as tx:
        return log.size(tx)


def training_origins(scene: Scene, training: Id | None) -> list[str]:
    with scene.world.kernel.store.read() as tx:
        found = tx.select(
            Edge, *where(source=f"dataset_version:{training}", relation="joined_from")
        )
    return [edge.target for edge in found]
