"""What a search finds as a flat table is what the records say, in memory and in a file."""

from __future__ import annotations

import csv
import math
from datetime import UTC
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from everloop.app.verbs import load_verbs
from everloop.core.errors import InvalidInput
from everloop.core.ids import Id
from everloop.interop import exporting
from everloop.interop.exporting import (
    export_points,
    export_rows,
    found_rows,
    metric_rows,
    to_arrow,
)
from everloop.track import columns
from everloop.track.verbs import (
    Ending,
    LogRun,
    MetricSeries,
    RunLogged,
    RunStarted,
    StartRun,
)
from tests.kit import World, world

load_verbs()


@pytest.fixture
def place() -> World:
    return world()


def a_run(place: World, values: dict[str, list[float]], **given: Any) -> Id:
    key = place.kernel.services.ids.new()
    place.owner.perform("run.start", StartRun(run=key, **given), RunStarted)
    metrics = tuple(
        MetricSeries(
            key=name,
            data=columns.encode(
                columns.to_columns(
                    range(len(points)), [n * 10**6 for n in range(len(points))], points
                )
            ),
        )
        for name, points in values.items()
    )
    place.owner.perform("run.log", LogRun(run=key, metrics=metrics, ending=Ending()), RunLogged)
    place.clock.push(seconds=1)
    return key


def test_runs_become_rows_with_params_metrics_and_tags_as_columns(place: World) -> None:
    first = a_run(place, {"auc": [0.5, 0.75], "bad": [math.nan]}, params={"lr": "0.1"})
    second = a_run(place, {"loss": [math.inf]}, tags={"team": "risk"}, name="other")

    table = to_arrow(found_rows(place.owner, "runs", order="started_at"))

    rows = table.to_pylist()
    assert [first, second] == [row["id"] for row in rows]
    assert [0.75, None] == [row["metrics.auc"] for row in rows]
    assert math.isnan(rows[0]["metrics.bad"])
    assert [None, math.inf] == [row["metrics.loss"] for row in rows]
    assert ["0.1", None] == [row["params.lr"] for row in rows]
    assert [None, "risk"] == [row["tags.team"] for row in rows]
    assert UTC.utcoffset(None) == rows[0]["started_at"].utcoffset()


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_file_holds_what_the_filter_finds_in_its_order(
    place: World, tmp_path: Path, form: Any
) -> None:
    for number in range(5):
        a_run(place, {"auc": [number / 4]}, name=f"r{number}")
    path = tmp_path / f"runs.{form}"

    count = export_rows(
        found_rows(place.owner, "runs", filter="metrics.auc > 0.3", order="metrics.auc DESC"),
        path,
        form,
    )

    assert 3 == count
    if form == "parquet":
        assert ["r4", "r3", "r2"] == pq.read_table(path).column("name").to_pylist()
    else:
        with path.open(newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file))
        assert [("r4", "1.0"), ("r3", "0.75"), ("r2", "0.5")] == [
            (row["name"], row["metrics.auc"]) for row in found
        ]
    assert [path] == list(tmp_path.iterdir())


def test_more_rows_than_a_page_and_a_batch_are_all_there_once(
    place: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "ROWS_A_PAGE", 2)
    monkeypatch.setattr(exporting, "ROWS_A_BATCH", 3)
    runs = [a_run(place, {}) for _ in range(7)]

    export_rows(found_rows(place.owner, "runs"), tmp_path / "x.parquet", "parquet")

    table = pq.read_table(tmp_path / "x.parquet")
    assert sorted(runs) == sorted(table.column("id").to_pylist())
    assert 4 == len(list(found_rows(place.owner, "runs", limit=4)))


def test_columns_that_hold_different_types_become_text(tmp_path: Path) -> None:
    rows: list[exporting.Row] = [{"a": 1, "b": 1}, {"a": 0.5, "b": "x"}, {"b": True}]

    export_rows(iter(rows), tmp_path / "x.parquet", "parquet")

    assert [
        {"a": 1.0, "b": "1"}, {"a": 0.5, "b": "x"}, {"a": None, "b": "True"},
    ] == pq.read_table(tmp_path / "x.parquet").to_pylist()  # fmt: skip


def test_a_run_s_whole_history_becomes_rows(
    place: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "POINTS_A_PAGE", 2)
    run = a_run(place, {"auc": [0.1, 0.2, 0.3], "loss": [math.nan]})

    count = export_points(
        metric_rows(place.owner, run, ["auc", "loss"]), tmp_path / "m.parquet", "parquet"
    )

    rows = pq.read_table(tmp_path / "m.parquet").to_pylist()
    assert 4 == count
    assert [("auc", 0, 0.1), ("auc", 1, 0.2), ("auc", 2, 0.3)] == [
        (row["key"], row["step"], row["value"]) for row in rows[:3]
    ]
    assert 2 == rows[2]["time"].timestamp()
    assert math.isnan(rows[3]["value"])


@pytest.mark.parametrize("what", sorted(exporting.LISTINGS))
def test_everything_that_can_be_searched_can_be_exported(place: World, what: str) -> None:
    assert [] == list(found_rows(place.owner, what))


def test_a_file_is_not_there_when_the_search_fails(place: World, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        export_rows(found_rows(place.owner, "runs", filter="metrics."), tmp_path / "x.csv", "csv")
    with pytest.raises(InvalidInput) as refused:
        list(found_rows(place.owner, "secrets"))

    assert "export.unknown" == refused.value.code
    assert [] == list(tmp_path.iterdir())
