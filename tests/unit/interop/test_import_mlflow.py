"""What MLflow's own client reads from its database is what stands here after the import."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from everloop.core.errors import InvalidInput
from everloop.core.ids import is_id
from everloop.interop.importers.mlflow import open_mlflow
from everloop.kernel.ledger.log import LedgerEntry
from everloop.registry.queries import ModelView, ShowModel
from everloop.track.inputs import RunInput
from tests.kit import World
from tests.unit.interop.imported import (
    VECTORS,
    a_world,
    as_mlflow_says,
    bring_in,
    files_of,
    make_database,
    runs_by_origin,
)

VERSIONS = sorted(path.name for path in VECTORS.iterdir() if (path / "dump.sql").exists())


@pytest.fixture(params=VERSIONS)
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """The address of a database that MLflow made, and what its client says of it."""
    version: str = request.param
    expected = json.loads((VECTORS / version / "expected.json").read_text())
    return make_database(version, tmp_path), expected


@pytest.fixture
def place() -> World:
    return a_world()


def test_every_run_comes_over_value_by_value(
    place: World, recorded: tuple[str, dict[str, Any]]
) -> None:
    address, expected = recorded

    report = bring_in(place, open_mlflow(address), with_deleted=True)

    found = runs_by_origin(place)
    deleted = {key for key, run in expected.items() if run["lifecycle_stage"] == "deleted"}
    shown = {key: as_mlflow_says(place, details) for key, details in found.items()}
    parents = {key: run["tags"].pop("mlflow.parentRunId", None) for key, run in expected.items()}
    for key, run in shown.items():
        parent = run["tags"].pop("mlflow.parentRunId", None)
        assert parent == (found[parents[key]].run.id if parents[key] else None)
        assert parent == found[key].run.parent
        assert expected[key] == run
    assert set(expected) - deleted <= set(shown)
    assert len(expected) == report.runs.new
    assert all(is_id(details.run.id) for details in found.values())


def test_files_come_over_byte_by_byte(place: World, recorded: tuple[str, dict[str, Any]]) -> None:
    address, expected = recorded

    bring_in(place, open_mlflow(address))

    names = {run["name"]: key for key, run in expected.items()}
    found = runs_by_origin(place)
    assert {"notes/a.txt": b"hello"} == files_of(place, found[names["parent"]].run.id)


def test_a_second_import_changes_nothing(
    place: World, recorded: tuple[str, dict[str, Any]]
) -> None:
    address, _ = recorded
    first = bring_in(place, open_mlflow(address))
    with place.kernel.store.read() as tx:
        before = tx.count(LedgerEntry)

    second = bring_in(place, open_mlflow(address))

    assert (0, 0, first.runs.new) == (second.runs.new, second.runs.changed, second.runs.same)
    assert (0, 0, 0) == (second.points, second.files, second.params)
    with place.kernel.store.read() as tx:
        assert before == tx.count(LedgerEntry)


def test_a_second_import_adds_what_is_new_and_nothing_twice(place: World, tmp_path: Path) -> None:
    address = make_database(VERSIONS[-1], tmp_path)
    bring_in(place, open_mlflow(address))
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        ((run, start),) = database.execute(
            "SELECT run_uuid, start_time FROM runs WHERE name = 'still running'"
        ).fetchall()
        # One point between the two that are there would be lost by counting alone.
        database.execute(
            "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan)"
            " VALUES ('auc', 0.125, 1, ?, 7, 0)",
            (run,),
        )
        database.execute("INSERT INTO params VALUES ('late', 'x', ?)", (run,))
        database.execute(
            "UPDATE runs SET status = 'FINISHED', end_time = ? WHERE run_uuid = ?",
            (start + 5, run),
        )
    database.close()
    (tmp_path / "mlruns" / "1" / run / "artifacts").mkdir(parents=True)
    (tmp_path / "mlruns" / "1" / run / "artifacts" / "late.txt").write_bytes(b"late")

    report = bring_in(place, open_mlflow(address))

    said = as_mlflow_says(place, runs_by_origin(place)[run])
    assert [0.25, 0.125] == [float(value) for _, _, value in said["history"]["auc"]]
    assert ("FINISHED", start + 5, {"late": "x"}) == (
        said["status"], said["end_time"], said["params"],
    )  # fmt: skip
    assert (1, 1, 1) == (report.runs.changed, report.points, report.params)
    assert {"late.txt": b"late"} == files_of(place, runs_by_origin(place)[run].run.id)


def test_a_dry_run_counts_the_same_and_changes_nothing(
    place: World, recorded: tuple[str, dict[str, Any]]
) -> None:
    address, _ = recorded

    told = bring_in(place, open_mlflow(address), dry_run=True, with_models=False)

    assert {} == runs_by_origin(place)
    done = bring_in(place, open_mlflow(address), with_models=False)
    for field in ("runs", "points", "params", "files", "file_bytes", "skipped"):
        assert getattr(done, field) == getattr(told, field)


def test_what_is_in_the_trash_there_is_left_out_and_said(
    place: World, recorded: tuple[str, dict[str, Any]]
) -> None:
    address, expected = recorded

    report = bring_in(place, open_mlflow(address))

    (gone,) = [key for key, run in expected.items() if run["name"] == "gone"]
    assert gone not in runs_by_origin(place)
    assert 1 == report.runs.skipped
    assert any(gone in skip.what and "--with-deleted" in skip.why for skip in report.skipped)


def test_data_that_a_run_read_comes_over(
    place: World, recorded: tuple[str, dict[str, Any]]
) -> None:
    address, expected = recorded
    (reader,) = [key for key, run in expected.items() if run["name"] == "reads"]

    bring_in(place, open_mlflow(address))

    run = runs_by_origin(place)[reader].run.id
    with place.kernel.store.read() as tx:
        (read,) = tx.select(RunInput)
    assert (run, "toy", "abc123") == (read.run, read.name, read.digest)
    assert {"mlflow.data.context": "training"} == read.tags


def test_files_that_only_a_server_can_reach_are_said(place: World, tmp_path: Path) -> None:
    address = make_database(VERSIONS[-1], tmp_path)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("UPDATE runs SET artifact_uri = 'mlflow-artifacts:/1/x/artifacts'")
    database.close()
    folder = tmp_path / "kept" / "1" / "x" / "artifacts"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(b"a")

    without = bring_in(place, open_mlflow(address), dry_run=True, with_models=False)
    kept = open_mlflow(address, tmp_path / "kept")
    given = bring_in(place, kept, dry_run=True, with_models=False)

    assert 0 == without.files
    assert any("--artifacts" in skip.why for skip in without.skipped)
    assert given.runs.new == given.files


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\x00 but no more"])
def test_a_file_that_is_no_database_of_mlflow_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(content)

    with pytest.raises(InvalidInput) as refused:
        open_mlflow(f"sqlite:///{path}")

    assert "import.source_invalid" == refused.value.code


@pytest.mark.parametrize("address", ["sqlite:////nowhere/x.db", "ftp://x", ""])
def test_an_address_without_anything_behind_it_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        open_mlflow(address)

    assert "import.source_invalid" == refused.value.code


def test_registered_models_come_over_with_versions_stages_and_aliases(
    place: World, recorded: tuple[str, dict[str, Any]]
) -> None:
    address, expected = recorded

    report = bring_in(place, open_mlflow(address))

    shown = place.owner.perform("model.show", ShowModel(ref="credit@champion"), ModelView)
    (reader,) = [key for key, run in expected.items() if run["name"] == "reads"]
    assert ("All credit", "v") == (shown.model.description, shown.model.tags["k"])
    assert (1, "mlflow") == (shown.version.number, shown.version.format)
    assert runs_by_origin(place)[reader].run.id == shown.version.run
    assert ["MLmodel"] == [file.path for file in shown.version.files]
    assert shown.notes is not None
    assert "Production" == shown.notes.stage
    # Both versions there have the same bytes, which make one version here.
    assert (1, 1, 1) == (report.models.new, report.versions.new, report.versions.same)
    assert any("its bytes are those of version 1" in skip.why for skip in report.skipped)


def test_a_second_import_leaves_models_as_they_are(
    place: World, recorded: tuple[str, dict[str, Any]]
) -> None:
    address, _ = recorded
    bring_in(place, open_mlflow(address))

    again = bring_in(place, open_mlflow(address))

    assert (0, 1, 0, 2) == (
        again.models.new, again.models.same, again.versions.new, again.versions.same,
    )  # fmt: skip


def make_folder(root: Path) -> None:
    """Make an mlruns folder as MLflow 2's file store lays it out."""
    texts = {
        "7/meta.yaml": "experiment_id: '7'\nname: credit\nlifecycle_stage: active\n",
        "7/tags/owner": "ann",
        "7/abc/meta.yaml": "run_id: abc\nrun_name: first\nstatus: 3\nstart_time: 1700000000123\n"
        "end_time: 1700000001000\nlifecycle_stage: active\n"
        "artifact_uri: file:///somewhere/else/7/abc/artifacts\n",
        "7/abc/params/lr": "0.1",
        "7/abc/params/net/depth": "3",
        "7/abc/tags/mlflow.source.git.commit": "c0ffee",
        "7/abc/metrics/loss": "1700000000200 1.0 0\n1700000000300 nan 1\n1700000000400 0.25 2\n",
        "7/abc/metrics/val/auc": "1700000000400 inf 2\n",
        "7/abc/artifacts/notes/a.txt": "hello",
        "7/abc/artifacts/model/MLmodel": "flavors: {}\n",
        "7/damaged/meta.yaml": "run_id: damaged\nrun_name: x\nstatus: 4\nstart_time: 17\n",
        "7/damaged/metrics/loss": "no number\n",
        "models/credit/meta.yaml": "name: credit\ndescription: All credit\n",
        "models/credit/aliases/champion": "2",
        "models/credit/version-2/meta.yaml": "name: credit\nversion: 2\nrun_id: abc\n"
        "source: runs:/abc/model\ncurrent_stage: Staging\ncreation_timestamp: 1700000002000\n",
    }
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_an_mlruns_folder_comes_over_also_when_it_was_moved(place: World, tmp_path: Path) -> None:
    make_folder(tmp_path / "mlruns")

    report = bring_in(place, open_mlflow(str(tmp_path / "mlruns")))

    (found,) = [run for key, run in runs_by_origin(place).items() if key == "abc"]
    said = as_mlflow_says(place, found)
    assert ("first", "FINISHED", 1_700_000_000_123, 1_700_000_001_000) == (
        said["name"], said["status"], said["start_time"], said["end_time"],
    )  # fmt: skip
    assert {"lr": "0.1", "net/depth": "3"} == said["params"]
    assert [
        [0, 1_700_000_000_200, "1.0"], [1, 1_700_000_000_300, "nan"],
        [2, 1_700_000_000_400, "0.25"],
    ] == said["history"]["loss"]  # fmt: skip
    assert [[2, 1_700_000_000_400, "inf"]] == said["history"]["val/auc"]
    assert "c0ffee" == found.run.code_commit
    assert b"hello" == files_of(place, found.run.id)["notes/a.txt"]
    shown = place.owner.perform("model.show", ShowModel(ref="credit@champion"), ModelView)
    assert ("All credit", found.run.id) == (shown.model.description, shown.version.run)
    assert any("metric loss is damaged" in skip.why for skip in report.skipped)
    assert any("it has number 1 here" in skip.why for skip in report.skipped)


def test_a_version_of_the_same_name_and_number_elsewhere_is_another(
    place: World, tmp_path: Path
) -> None:
    for name, run in (("ours", "abc"), ("theirs", "xyz")):
        make_folder(tmp_path / name)
        if run != "abc":
            (tmp_path / name / "7/abc").rename(tmp_path / name / "7" / run)
            (tmp_path / name / "7" / run / "artifacts/model/MLmodel").write_text("flavors: {a: 1}")
            for meta in ("7/xyz/meta.yaml", "models/credit/version-2/meta.yaml"):
                path = tmp_path / name / meta
                path.write_text(path.read_text().replace("abc", run))

    reports = [bring_in(place, open_mlflow(str(tmp_path / name))) for name in ("ours", "theirs")]
    again = bring_in(place, open_mlflow(str(tmp_path / "theirs")))

    assert [1, 1, 0] == [report.versions.new for report in (*reports, again)]
    shown = [
        place.owner.perform("model.show", ShowModel(ref=f"credit@{number}"), ModelView)
        for number in (1, 2)
    ]
    assert shown[0].version.artifact != shown[1].version.artifact
    assert ("champion",) == shown[0].aliases
