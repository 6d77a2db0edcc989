"""The loop's trainer: a process of its own, whose end says what became of the job."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from everloop.app.client import Client, connect_home
from everloop.app.home import Home
from everloop.app.sdk import commit
from everloop.app.trainer import ProcessTrainer
from everloop.core.errors import NotFound
from everloop.core.ids import Id
from everloop.kernel.bootstrap import LOOP, local_caller
from everloop.loop.ports import TrainingJob, TrainingResult
from everloop.registry.model import ModelVersion
from everloop.registry.queries import ResolveModel
from everloop.track.queries import RunDetails, ShowRun
from tests.story.project import Project, make_project, wait_for, write_hours

BROKEN = """\
def train(rows):
    raise RuntimeError("the data is odd")


def die(rows):
    import os
    print("last words", flush=True)
    os._exit(9)


def text(rows):
    return "no model"
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    pytest.importorskip("lightgbm")
    made = make_project(tmp_path_factory.mktemp("training"))
    (made.folder / "broken_training.py").write_text(BROKEN)
    write_hours(made.folder / "hours.csv", first=0, count=200)
    write_hours(made.folder / "later.csv", first=200, count=60)
    return made


@pytest.fixture(scope="module")
def client(project: Project) -> Iterator[Client]:
    with connect_home(Home(project.home)) as opened:
        yield opened


@pytest.fixture(scope="module")
def versions(project: Project, client: Client) -> tuple[Id, Id]:
    return (
        commit("hours", project.folder / "hours.csv", client=client).id,
        commit("hours-holdout", project.folder / "later.csv", client=client).id,
    )


@pytest.fixture
def trainer(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessTrainer]:
    monkeypatch.delenv("EVERLOOP_URL", raising=False)
    made = ProcessTrainer(Home(project.home), "demo")
    yield made
    made.stop()


def job(pipeline: str, versions: tuple[Id, Id], key: str) -> TrainingJob:
    return TrainingJob(
        key=key,
        pipeline=pipeline,
        model="demand",
        target="cnt",
        task="regression",
        training=versions[0],
        holdout=versions[1],
        time_column="at",
        seed=7,
    )


def outcome(trainer: ProcessTrainer, job: TrainingJob) -> TrainingResult:
    trainer.start(job)
    wait_for(lambda: trainer.poll(job.key) is not None, "the training ended", 60)
    result = trainer.poll(job.key)
    assert result is not None
    return result


def test_a_training_registers_a_version_with_its_run_and_its_data_by_the_loop_itself(
    trainer: ProcessTrainer, client: Client, versions: tuple[Id, Id]
) -> None:
    result = outcome(trainer, job("story_training:train", versions, "run-1:1"))

    assert result.error is None
    ask = ResolveModel(ref=result.version or "")
    version = client.perform("model.resolve", ask, ModelVersion)
    assert versions == (version.dataset_version, version.holdout)
    assert ["temperature", "hour"] == [field.name for field in version.signature.inputs]
    assert client.kernel is not None
    assert local_caller(client.kernel, LOOP).actor == version.created_by
    run = client.perform("run.show", ShowRun(run=version.run or ""), RunDetails)
    assert "story_training:train" == run.run.pipeline


def test_the_same_job_after_a_crash_gives_the_same_version(
    trainer: ProcessTrainer, project: Project, versions: tuple[Id, Id]
) -> None:
    first = outcome(trainer, job("story_training:train", versions, "run-2:1"))

    again = outcome(
        ProcessTrainer(Home(project.home), "demo"),
        job("story_training:train", versions, "run-2:1"),
    )

    assert first == again


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("broken_training:train", "RuntimeError: the data is odd"),
        ("broken_training:die", "last words"),
        ("broken_training:text", "no safe format"),
        ("broken_training:nothing", "has no function"),
        ("no_such_module:train", "can't be imported"),
    ],
)
def test_a_training_that_fails_says_why(
    trainer: ProcessTrainer, versions: tuple[Id, Id], function: str, words: str
) -> None:
    result = outcome(trainer, job(function, versions, function))

    assert result.version is None
    assert words in (result.error or "")


def test_a_job_that_this_process_did_not_begin_is_unknown(trainer: ProcessTrainer) -> None:
    with pytest.raises(NotFound):
        trainer.poll("never")
