"""Folders and databases that nobody's tracker wrote: what is damaged is left out, and told."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from everloop.core.errors import InvalidInput
from everloop.interop.importers.mlflow import open_mlflow
from tests.unit.interop.imported import a_world, bring_in, make_database, runs_by_origin


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a run in an ``mlruns`` folder."""
    folder = tmp_path / "mlruns" / "1" / "r1"
    for name in ("params", "tags", "metrics", "artifacts"):
        (folder / name).mkdir(parents=True)
    (folder.parent / "meta.yaml").write_text("experiment_id: '1'\nname: e\n")
    (folder / "meta.yaml").write_text("run_id: r1\nstart_time: 1700000000000\nstatus: 3\n")
    return folder


def bring(run: Path) -> list[str]:
    """Import the folder; return what the report says was left out."""
    report = bring_in(a_world(), open_mlflow(str(run.parents[1])))
    return [f"{item.what}: {item.why}" for item in report.skipped]


@pytest.mark.parametrize("meta", ["x: 2001-99-99", "x: " + "{a: " * 3_000, "\0", "- 1"])
def test_a_head_that_cannot_be_read_does_not_end_an_import(run: Path, meta: str) -> None:
    (run / "meta.yaml").write_text(meta)

    bring(run)


@pytest.mark.parametrize("point", ["1 1.0 9" + "9" * 30, "9" * 30 + " 1.0 1", "1 x 1", "1"])
def test_a_damaged_metric_leaves_out_its_run(run: Path, point: str) -> None:
    (run / "metrics" / "m").write_text(point)

    assert any(item.startswith("run r1: ") for item in bring(run))


def test_an_address_that_is_none_leaves_out_its_run(run: Path) -> None:
    (run / "artifacts").rmdir()
    with (run / "meta.yaml").open("a") as meta:
        meta.write("artifact_uri: 'file://[x'\n")

    assert any("no address" in item for item in bring(run))


@pytest.mark.parametrize("kind", ["params", "tags", "metrics"])
def test_a_link_in_a_folder_brings_in_nothing_from_outside(
    run: Path, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "secret").write_text("1 2.0 3")
    (run / kind / "stolen").symlink_to(tmp_path / "secret")
    here = a_world()

    bring_in(here, open_mlflow(str(run.parents[1])))

    found = runs_by_origin(here)["r1"]
    assert ({}, []) == (found.run.params, [metric.key for metric in found.metrics])
    assert "stolen" not in found.run.tags


def test_an_alias_that_is_no_number_is_told_as_damage(run: Path) -> None:
    model = run.parents[1] / "models" / "m"
    (model / "aliases").mkdir(parents=True)
    (model / "meta.yaml").write_text("name: m\n")
    (model / "aliases" / "best").write_text("many")

    with pytest.raises(InvalidInput, match="damaged"):
        bring(run)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE OR IGNORE experiments SET name = x'ff00'",
        "UPDATE runs SET name = x'ff00', start_time = 'x'",
        "UPDATE params SET value = 5",
        "UPDATE metrics SET step = 'x'",
        "UPDATE metrics SET value = 'x', is_nan = 0",
        "UPDATE metrics SET timestamp = 1e300",
        "UPDATE OR IGNORE tags SET key = 5",
        "UPDATE model_versions SET creation_time = x'00', source = 5",
        "UPDATE OR IGNORE registered_models SET name = 5",
    ],
)
def test_values_of_other_kinds_in_a_database_are_told_as_damage(
    tmp_path: Path, change: str
) -> None:
    address = make_database("v3", tmp_path)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("PRAGMA foreign_keys = OFF")
        database.execute(change)
    database.close()

    with suppress(InvalidInput):
        report = bring_in(a_world(), open_mlflow(address))
        assert report.experiments.new > 0


def test_a_damaged_run_leaves_out_no_other(tmp_path: Path) -> None:
    address, sound = make_database("v3", tmp_path), a_world()
    bring_in(sound, open_mlflow(address))
    whole = runs_by_origin(sound)
    parents = {found.run.parent for found in whole.values()}
    damaged = min(key for key, found in whole.items() if found.run.id not in parents)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("UPDATE runs SET name = x'ff00' WHERE run_uuid = ?", (damaged,))
    database.close()
    here = a_world()

    bring_in(here, open_mlflow(address))

    assert set(whole) - {damaged} == set(whole) & set(runs_by_origin(here))
