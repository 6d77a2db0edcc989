"""Runs and experiments are renamed, tagged, opened again, put into the trash and restored."""

from __future__ import annotations

from datetime import timedelta

import pytest

from everloop.core.errors import Conflict, Denied, EverloopError, InvalidInput, NotFound
from everloop.core.ids import Id
from everloop.kernel.authz import Role
from everloop.track.experiments import (
    CreateExperiment,
    ExperimentNamed,
    ExperimentShown,
    ShowExperiment,
    TagExperiment,
    UntagExperiment,
    UpdateExperiment,
)
from everloop.track.lifecycle import (
    DropFiles,
    FilesDropped,
    RunNamed,
    RunShown,
    UntagRun,
    UpdateRun,
)
from everloop.track.model import Experiment, Run, RunStatus
from everloop.track.verbs import (
    ArtifactFile,
    FinishRun,
    LogRun,
    RunFinished,
    RunLogged,
    RunStarted,
    StartRun,
)
from tests.kit import World, world


def experiment(w: World, name: str = "a b/c") -> Experiment:
    made = w.owner.perform("experiment.create", CreateExperiment(name=name), ExperimentShown)
    return made.experiment


def start(w: World, experiment_id: Id | None = None) -> Id:
    ask = StartRun(run=w.kernel.services.ids.new(), experiment_id=experiment_id)
    return w.owner.perform("run.start", ask, RunStarted).run


def update(w: World, run: Id, **changes: object) -> Run:
    return w.owner.perform("run.update", UpdateRun(run=run, **changes), RunShown).run  # type: ignore[arg-type]


def log(w: World, run: Id, **more: object) -> RunLogged:
    return w.owner.perform("run.log", LogRun(run=run, **more), RunLogged)  # type: ignore[arg-type]


def test_an_experiment_keeps_its_runs_when_it_is_renamed_and_gives_its_name_free() -> None:
    w = world()
    made = experiment(w)
    run = start(w, made.id)

    ask = UpdateExperiment(experiment=made.id, name="new name")
    renamed = w.owner.perform("experiment.update", ask, ExperimentShown).experiment
    again = experiment(w)

    assert ("new name", made.id) == (renamed.name, renamed.id)
    assert made.id != again.id
    assert made.id == update(w, run, name="x").experiment


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 501])
def test_a_name_that_nobody_can_read_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        experiment(world(), name)

    assert "experiment.name_invalid" == refused.value.code


def test_a_name_is_taken_also_by_an_experiment_in_the_trash() -> None:
    w = world()
    made = experiment(w)
    w.owner.perform("experiment.delete", ExperimentNamed(experiment=made.id), ExperimentShown)

    with pytest.raises(Conflict) as refused:
        experiment(w)

    assert "experiment.exists" == refused.value.code
    assert "trash" in refused.value.message


def test_runs_go_to_the_trash_with_their_experiment_and_come_back_with_it() -> None:
    w = world()
    made = experiment(w)
    run = start(w, made.id)
    named = ExperimentNamed(experiment=made.id)
    w.owner.perform("experiment.delete", named, ExperimentShown)

    for attempt in (lambda: log(w, run, tags={"a": "b"}), lambda: start(w, made.id)):
        with pytest.raises(Conflict) as refused:
            attempt()
        assert refused.value.code in {"run.deleted", "experiment.deleted"}

    w.owner.perform("experiment.restore", named, ExperimentShown)
    assert "b" == log_and_read(w, run)


def log_and_read(w: World, run: Id) -> str:
    log(w, run, tags={"a": "b"})
    return update(w, run, name="still here").tags["a"]


def test_tags_of_an_experiment_are_set_and_taken_one_by_one() -> None:
    w = world()
    made = experiment(w)
    tags = TagExperiment(experiment=made.id, tags={"a": "1", "b": "2"})
    w.owner.perform("experiment.tag", tags, ExperimentShown)

    left = w.owner.perform(
        "experiment.untag", UntagExperiment(experiment=made.id, key="a"), ExperimentShown
    )

    assert {"b": "2"} == left.experiment.tags
    with pytest.raises(NotFound):
        w.owner.perform(
            "experiment.untag", UntagExperiment(experiment=made.id, key="a"), ExperimentShown
        )


def test_an_experiment_is_shown_by_id_or_name_and_by_nothing_else() -> None:
    w = world()
    made = experiment(w)

    shown = [
        w.owner.perform("experiment.show", ask, ExperimentShown).experiment.id
        for ask in (ShowExperiment(experiment=made.id), ShowExperiment(name=made.name))
    ]

    assert [made.id, made.id] == shown
    with pytest.raises(InvalidInput):
        w.owner.perform("experiment.show", ShowExperiment(), ExperimentShown)


def test_an_ended_run_takes_more_only_from_who_says_so_and_opens_again() -> None:
    w = world()
    run = start(w)
    w.owner.perform("run.finish", FinishRun(run=run), RunFinished)

    with pytest.raises(Conflict) as refused:
        log(w, run, tags={"a": "b"})
    log(w, run, tags={"a": "b"}, amend=True)
    opened = update(w, run, status=RunStatus.RUNNING)
    log(w, run, tags={"c": "d"})

    assert "run.ended" == refused.value.code
    assert (RunStatus.RUNNING, None) == (opened.status, opened.ended_at)


def test_a_run_that_is_ended_without_a_time_ends_now() -> None:
    w = world()
    run = start(w)
    w.clock.push(minutes=3)

    ended = update(w, run, status=RunStatus.FAILED)

    assert timedelta(minutes=3) == (ended.ended_at or ended.started_at) - ended.started_at


def test_the_trash_hides_nothing_from_who_knows_the_id_and_is_undone() -> None:
    w = world()
    run = start(w)
    deleted = w.owner.perform("run.delete", RunNamed(run=run), RunShown).run
    again = w.owner.perform("run.delete", RunNamed(run=run), RunShown).run

    restored = w.owner.perform("run.restore", RunNamed(run=run), RunShown).run

    assert deleted == again
    assert deleted.deleted_at is not None
    assert restored.deleted_at is None


def test_a_tag_that_is_not_there_can_not_be_taken() -> None:
    w = world()
    run = start(w)

    with pytest.raises(NotFound) as refused:
        w.owner.perform("run.untag", UntagRun(run=run, key="none"), RunShown)

    assert "tag.not_found" == refused.value.code


def test_a_run_forgets_a_folder_and_keeps_its_neighbours() -> None:
    w = world()
    run = start(w)
    digest = w.blobs.put(b"x")
    files = tuple(
        ArtifactFile(path=path, digest=digest, size_bytes=1)
        for path in ("a/1", "a/b/2", "ab", "a.txt")
    )
    log(w, run, artifacts=files)

    dropped = w.owner.perform("run.drop_files", DropFiles(run=run, path="a"), FilesDropped)
    rest = w.owner.perform("run.drop_files", DropFiles(run=run), FilesDropped)

    assert (2, 2) == (dropped.files, rest.files)


def test_a_viewer_changes_nothing() -> None:
    w = world()
    made, run = experiment(w), start(w)
    viewer = w.person("vic", Role.VIEWER)

    asks = {
        "experiment.delete": ExperimentNamed(experiment=made.id),
        "experiment.tag": TagExperiment(experiment=made.id, tags={"a": "b"}),
        "run.delete": RunNamed(run=run),
        "run.update": UpdateRun(run=run, name="x"),
        "run.drop_files": DropFiles(run=run),
        "run.may_log": RunNamed(run=run),
    }

    for verb, ask in asks.items():
        with pytest.raises(Denied):
            viewer.perform(verb, ask, ExperimentShown)


def test_another_project_s_runs_are_not_there() -> None:
    w = world()
    run = start(w)
    w.project("other")
    stranger = w.person("sam", Role.ADMIN, project="other")

    with pytest.raises(EverloopError):
        stranger.perform("run.delete", RunNamed(run=run), RunShown)

    assert update(w, run, name="still there").deleted_at is None
