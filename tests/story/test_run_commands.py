"""What people do with runs that are there, from the command line and from Python."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from everloop.app.client import Client, connect
from everloop.app.tracking import start_run
from everloop.core.errors import Conflict, IntegrityError, InvalidInput, NotFound
from tests.story.project import Project, make_project

BIG = bytes(range(256)) * 1_000


@dataclass
class Logged:
    """A project with two runs of the experiment ``churn day``, and one below the first."""

    project: Project
    client: Client
    runs: tuple[str, str, str]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    project = make_project(tmp_path_factory.mktemp("runs"))
    with connect(project.folder) as client:
        ids = []
        for name, rate in (("first", 0.1), ("second", 0.2)):
            with start_run("churn day", name=name, params={"lr": rate}, client=client) as run:
                for step in range(5):
                    run.log_metric("val.auc", rate + step / 7, step)
                run.log_metrics({f"m{place}": place for place in range(6)})
                run.log_text("words", "notes/read.txt")
                run.log_artifact(BIG, "big.bin")
                ids.append(str(run.id))
        with (
            start_run("churn day", resume=ids[0], client=client) as run,
            run.child("below") as child,
        ):
            child.log_metric("x", 1)
        yield Logged(project, client, (ids[0], ids[1], str(child.id)))


def test_a_list_of_runs_shows_the_columns_that_were_chosen(logged: Logged) -> None:
    told = logged.project.run(
        "runs", "list", "--columns", "name,params.lr,metrics.val.auc", "--order", "name"
    ).stdout

    lines = [line.split() for line in told.splitlines()]
    assert ["name", "params.lr", "metrics.val.auc"] == lines[0]
    assert ["first", "0.1", repr(0.1 + 4 / 7)] == lines[2]


def test_a_column_that_is_not_there_is_refused_with_those_that_are(logged: Logged) -> None:
    told = logged.project.run("runs", "list", "--columns", "nmae", check=False)

    assert told.returncode != 0
    assert "no column 'nmae'" in told.stderr
    assert "started_at" in told.stderr


def test_a_list_of_runs_keeps_to_a_few_metrics_a_line(logged: Logged) -> None:
    told = logged.project.run("runs", "list").stdout

    assert "... 3 more" in told
    assert max(map(len, told.splitlines())) < 200


def test_a_run_shows_what_is_above_and_below_it(logged: Logged) -> None:
    first, _, child = logged.runs

    assert child in logged.project.run("runs", "show", first).stdout
    assert first in logged.project.run("runs", "show", child).stdout


def test_what_a_run_ran_in_is_shown(logged: Logged) -> None:
    first = logged.runs[0]

    told = logged.project.run("runs", "environment", first).stdout
    known = logged.project.json("runs", "environment", first)

    assert "pytest==" in told
    assert known["python"] in told


def test_a_comparison_marks_what_differs(logged: Logged) -> None:
    first, second, _ = logged.runs

    told = logged.project.run("runs", "compare", first, second).stdout
    differing = logged.project.json("runs", "compare", first, second, "--differing")

    marked = {line.split()[1] for line in told.splitlines() if line.startswith("*")}
    assert {"params.lr", "metrics.val.auc"} == marked == differing["values"].keys()


def test_files_of_a_run_are_written_to_a_folder(logged: Logged, tmp_path: Path) -> None:
    first = logged.runs[0]

    logged.project.run("runs", "download", first, "--to", str(tmp_path / "all"))
    found = logged.client.download_artifacts(first, "notes", to=tmp_path / "some")

    assert BIG == (tmp_path / "all/big.bin").read_bytes()
    assert [tmp_path / "some/notes/read.txt"] == found
    assert "words" == found[0].read_text()
    assert not list(tmp_path.rglob("*.part"))


def test_a_file_that_is_there_is_replaced_only_by_request(logged: Logged, tmp_path: Path) -> None:
    first, client = logged.runs[0], logged.client
    (tmp_path / "big.bin").write_text("mine")

    with pytest.raises(Conflict, match="are there already"):
        client.download_artifacts(first, to=tmp_path)
    assert ["big.bin"] == [path.name for path in tmp_path.iterdir()]

    client.download_artifacts(first, to=tmp_path, replace=True)
    assert BIG == (tmp_path / "big.bin").read_bytes()


def test_a_place_that_cannot_be_written_is_told(logged: Logged, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("a file where a folder must be")

    with pytest.raises(InvalidInput, match="cannot be written"):
        logged.client.download_artifacts(logged.runs[0], "notes", to=tmp_path)


def test_a_path_that_a_run_does_not_have_is_told(logged: Logged, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="kept no file"):
        logged.client.download_artifacts(logged.runs[0], "nope", to=tmp_path)


def test_bytes_swapped_on_disk_never_get_their_name(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    with connect(project.folder) as client:
        with start_run("swap", client=client) as run:
            run.log_artifact(BIG * 10, "big.bin")
        stored = [path for path in (project.home / "blobs").rglob("*") if path.is_file()]
        (big,) = [path for path in stored if path.stat().st_size == len(BIG) * 10]
        big.chmod(0o600)
        big.write_bytes(BIG * 9 + BIG[::-1])

        with pytest.raises(IntegrityError):
            client.download_artifacts(run.id, to=tmp_path / "out")

    assert [] == [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_points_and_runs_are_read_back_as_tables(logged: Logged) -> None:
    found = logged.client.search_runs("params.lr > 0.15")
    points = logged.client.read_metric(logged.runs[1], "val.auc")

    assert ["second"] == found.column("name").to_pylist()
    assert [0, 1, 2, 3, 4] == points.column("step").to_pylist()
    assert [0.2 + step / 7 for step in range(5)] == points.column("value").to_pylist()


def test_a_run_is_renamed_tagged_deleted_and_restored(logged: Logged) -> None:
    run, last = logged.project.run, logged.runs[2]
    run("runs", "rename", last, "beneath")
    run("runs", "tag", last, "keep=yes", "old=1")
    run("runs", "tag", last, "--remove", "old")
    shown = logged.project.json("runs", "show", last)["run"]
    assert ("beneath", {"keep": "yes"}) == (shown["name"], shown["tags"])

    run("runs", "delete", last)
    assert last not in run("runs", "list").stdout
    assert last in run("trash", "list").stdout
    run("runs", "restore", last)
    assert last in run("runs", "list").stdout


def test_an_experiment_is_named_by_people_and_not_by_its_id(logged: Logged) -> None:
    run = logged.project.run
    run("experiments", "create", "plan b")
    run("experiments", "tag", "plan b", "team=risk")
    run("experiments", "rename", "plan b", "plan c")
    shown = logged.project.json("experiments", "show", "plan c")["experiment"]
    assert ("plan c", {"team": "risk"}) == (shown["name"], shown["tags"])

    run("experiments", "delete", "plan c")
    assert "plan c" not in run("experiments", "list").stdout
    run("experiments", "restore", "plan c")
    assert "plan c" in run("experiments", "list").stdout


@pytest.mark.parametrize("tags", [[], ["novalue"], ["=x"]])
def test_a_tag_that_is_none_is_refused(logged: Logged, tags: list[str]) -> None:
    told = logged.project.run("runs", "tag", logged.runs[0], *tags, check=False)

    assert told.returncode != 0
    assert "KEY=VALUE" in told.stderr


def test_a_metric_that_a_run_never_logged_is_not_exported_as_nothing(logged: Logged) -> None:
    told = logged.project.run(
        "export", "metrics", logged.runs[0], "nokey", "-o", "n.csv", check=False
    )

    assert 3 == told.returncode
    assert not (logged.project.folder / "n.csv").exists()


def test_a_purge_of_a_thing_that_is_held_says_so_by_its_exit_code(logged: Logged) -> None:
    told = logged.project.run("trash", "purge", f"run:{logged.runs[0]}", "--yes", check=False)

    assert told.returncode != 0
