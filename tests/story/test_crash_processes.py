"""Real processes killed at the worst moments: before a decision has its effect, and in training."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from everloop.app.client import connect_home
from everloop.app.home import Home
from everloop.app.sdk import commit
from everloop.app.trainer import ProcessTrainer, find_trainings
from everloop.app.training import train
from everloop.core.ids import Id
from everloop.core.wire import Routes
from everloop.gate.verbs import EvaluateGate, WaiveGate
from everloop.kernel.bootstrap import LOOP
from everloop.loop.ports import TrainingJob, TrainingResult
from everloop.registry.evidence import GateReport, Waiver
from everloop.registry.model import ModelVersion
from everloop.release.queries import DeploymentView, ReleaseView
from everloop.release.verbs import CreateDeployment, StartRelease
from everloop.track import sync_spool
from everloop.track.model import Run, RunStatus
from tests.story.project import Project, make_project, wait_for, write_hours

SLOW = """\
import time
from pathlib import Path

import story_training


def train(rows, target, seed):
    Path("begun").touch()
    while not Path("go").exists():
        time.sleep(0.01)
    return story_training.train(rows, target, seed)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    pytest.importorskip("lightgbm")
    made = make_project(tmp_path_factory.mktemp("crashed"))
    write_hours(made.folder / "hours.csv", first=0, count=400)
    write_hours(made.folder / "later.csv", first=400, count=150)
    (made.folder / "slow_training.py").write_text(SLOW)
    with connect_home(Home(made.home)) as client:
        commit("hours", made.folder / "hours.csv", client=client)
        commit("hours-holdout", made.folder / "later.csv", client=client)
    return made


def job(project: Project, seed: int, pipeline: str) -> TrainingJob:
    shown = [project.json("data", "show", name)["id"] for name in ("hours@1", "hours-holdout@1")]
    return TrainingJob(
        key=f"job-{pipeline}-{seed}",
        pipeline=pipeline,
        model="demand",
        target="cnt",
        task="regression",
        training=Id(shown[0]),
        holdout=Id(shown[1]),
        time_column="at",
        seed=seed,
    )


@pytest.fixture
def blocked(project: Project) -> Iterator[tuple[ProcessTrainer, TrainingJob]]:
    """A training that has begun and waits for the file ``go``."""
    for name in ("go", "begun"):
        (project.folder / name).unlink(missing_ok=True)
    # A seed that no other test trains with: the same model again would be the same version.
    seed = 100 + len(list(project.home.glob("training/*.log")))
    asked = job(project, seed, "slow_training:train")
    first = ProcessTrainer(Home(project.home), "demo")
    first.start(asked)
    wait_for((project.folder / "begun").exists, "the training has begun")
    yield first, asked
    first.stop()


def outcome(trainer: ProcessTrainer, key: str) -> TrainingResult:
    found: list[TrainingResult] = []

    def look() -> bool:
        result = trainer.poll(key)
        found.extend([] if result is None else [result])
        return bool(found)

    wait_for(look, "the training has ended")
    return found[0]


def runs_and_versions(project: Project) -> tuple[list[RunStatus], int]:
    with connect_home(Home(project.home)) as client:
        assert client.kernel is not None
        with client.kernel.store.read() as tx:
            return [run.status for run in tx.select(Run)], len(tx.select(ModelVersion))


def test_a_training_that_outlives_its_control_plane_is_taken_over(
    project: Project, blocked: tuple[ProcessTrainer, TrainingJob]
) -> None:
    _, asked = blocked
    runs, versions = runs_and_versions(project)
    second = ProcessTrainer(Home(project.home), "demo")  # of the next control plane

    second.start(asked)
    wait_for(lambda: len(find_trainings(project.home / "training")) == 2, "the second one waits")
    (project.folder / "go").touch()
    result = outcome(second, asked.key)

    assert result.error is None
    after, known = runs_and_versions(project)
    assert (len(runs), versions + 1) == (len(after), known)
    third = ProcessTrainer(Home(project.home), "demo")
    third.start(asked)
    assert result == third.poll(asked.key)
    wait_for(lambda: find_trainings(project.home / "training") == set(), "none is left")


def test_a_killed_training_fails_and_its_run_is_ended(
    project: Project, blocked: tuple[ProcessTrainer, TrainingJob]
) -> None:
    trainer, asked = blocked

    for pid in find_trainings(project.home / "training"):
        os.kill(pid, signal.SIGKILL)

    assert "ended with -9" in (outcome(trainer, asked.key).error or "")
    with connect_home(Home(project.home), actor=LOOP) as client:
        sync_spool(client.spool, client)
    assert RunStatus.RUNNING not in runs_and_versions(project)[0]
    assert RunStatus.KILLED in runs_and_versions(project)[0]
    assert [] == list((project.home / "spool").glob("*.spool"))


def test_a_control_plane_that_ends_ends_the_trainings_of_the_one_before(
    project: Project, blocked: tuple[ProcessTrainer, TrainingJob]
) -> None:
    del blocked

    ProcessTrainer(Home(project.home), "demo").stop()

    folder = project.home / "training"
    wait_for(lambda: find_trainings(folder) == set(), "none is left")


def test_routes_follow_a_decision_whose_control_plane_was_killed(project: Project) -> None:
    with connect_home(Home(project.home)) as client:
        made = [train(client, job(project, seed, "story_training:train")) for seed in (1, 2)]
        for version in made:
            report = client.perform("gate.evaluate", EvaluateGate(version=version.id), GateReport)
            if not report.passed:
                client.perform("gate.waive", WaiveGate(version=version.id, why="a story"), Waiver)
        make = CreateDeployment(name="demand", model="demand")
        client.perform("deployment.create", make, DeploymentView)
        release(project, made[0])
        with project.up("--port", "0", "--no-loop") as control:
            wait_for(lambda: is_ready(project), "ready")
            before = project.serving()
            control.send_signal(signal.SIGSTOP)
            release(project, made[1])
            control.kill()
            control.wait()
        assert made[0].id == champion(project), "the decision has had no effect yet"
        serve = project.home / "serve" / "demand"
        (serve / "routes.json").write_bytes(b'{"epoch": 7, "depl')

        with project.up("--port", "0", "--no-loop"):
            wait_for(lambda: champion(project) == made[1].id, "the routes follow")
            wait_for(lambda: applied_epoch(serve) == routes(project).epoch, "it has switched")
            assert before == project.serving(), "the serving process went on"


def release(project: Project, version: ModelVersion) -> None:
    with connect_home(Home(project.home)) as client:
        ask = StartRelease(deployment="demand", version=version.id, strategy="all_at_once")
        client.perform("release.start", ask, ReleaseView)


def is_ready(project: Project) -> bool:
    return httpx.get(f"{project.serving()['url']}/readyz").status_code == 200


def routes(project: Project) -> Routes:
    data = (project.home / "serve" / "demand" / "routes.json").read_bytes()
    return msgspec.json.decode(data, type=Routes)


def champion(project: Project) -> Id | None:
    target = routes(project).champion
    return None if target is None else target.version_id


def applied_epoch(serve: Path) -> int:
    return int(msgspec.json.decode((serve / "applied.json").read_bytes())["epoch"])
