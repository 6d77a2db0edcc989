"""What W&B, Neptune's exporter and TensorBoard's writers wrote comes over value by value.

The log of W&B and the event files were written by wandb 0.31 and tensorboardX 2.6.
"""

from __future__ import annotations

import math
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everloop.core.errors import InvalidInput
from everloop.interop.importers import wire
from everloop.interop.importers.neptune import NeptuneFolder
from everloop.interop.importers.source import Skip
from everloop.interop.importers.tensorboard import TensorboardFolder
from everloop.interop.importers.wandb import WandbFolder
from tests.kit import World
from tests.unit.interop.imported import (
    VECTORS,
    a_world,
    bring_in,
    files_of,
    history,
    runs_by_origin,
)

WANDB = VECTORS.parent / "wandb"
TENSORBOARD = VECTORS.parent / "tensorboard"


@pytest.fixture
def place() -> World:
    return a_world()


def values(place: World, run: str, key: str) -> list[float]:
    return [float(value) for _, _, value in history(place, run, key)]


def test_an_offline_run_of_wandb_comes_over(place: World) -> None:
    report = bring_in(place, WandbFolder(WANDB))

    (found,) = runs_by_origin(place).values()
    run = found.run
    assert ("credit", "first", "finished") == (found.experiment, run.name, run.status)
    assert {"lr": "0.1", "net.depth": "3"} == run.params
    assert ("a", "n", "g") == tuple(run.tags[f"wandb.{key}"] for key in ("tags", "notes", "group"))
    assert [1 / (n + 1) for n in range(5)] == values(place, run.id, "loss")
    assert list(map(float, range(5))) == values(place, run.id, "nested.x")
    assert [math.inf] == values(place, run.id, "inf")
    assert math.isnan(values(place, run.id, "nan")[0])
    assert [0.5] == values(place, run.id, "best")
    assert {"requirements.txt"} == set(files_of(place, run.id))
    assert 2026 == run.started_at.year
    assert 1 == report.runs.new


def test_a_log_of_wandb_that_was_cut_off_comes_over_as_far_as_it_goes(
    place: World, tmp_path: Path
) -> None:
    whole = (WANDB / "offline-run" / "run-pi1b0fw9.wandb").read_bytes()
    (tmp_path / "run-x.wandb").write_bytes(whole[: len(whole) * 2 // 3])

    bring_in(place, WandbFolder(tmp_path))

    (found,) = runs_by_origin(place).values()
    assert "killed" == found.run.status
    assert {"lr": "0.1", "net.depth": "3"} == found.run.params


def test_a_parquet_history_of_wandb_comes_over(place: World, tmp_path: Path) -> None:
    folder = tmp_path / "run-abc123-history:v0"
    folder.mkdir()
    table = pa.table(
        {
            "_step": [0, 1, 2],
            "_timestamp": [1.7e9, 1.7e9 + 1, 1.7e9 + 2],
            "loss": [1.0, None, 0.25],
            "eval": [{"auc": 0.5}, None, {"auc": 0.75}],
            "note": ["a", "b", "c"],
        }
    )
    pq.write_table(table, folder / "0000.parquet")
    (folder / "config.yaml").write_text(
        "wandb_version: 1\nlr: {desc: null, value: 0.1}\nnet: {value: {depth: 3}}\n"
    )

    bring_in(place, WandbFolder(tmp_path, "mine"))

    (found,) = runs_by_origin(place).values()
    run = found.run
    assert ("mine", "abc123") == (found.experiment, run.name)
    assert {"lr": "0.1", "net.depth": "3"} == run.params
    points = history(place, run.id, "loss")
    assert [[0, 1_700_000_000_000, "1.0"], [2, 1_700_000_002_000, "0.25"]] == points
    assert [0.5, 0.75] == values(place, run.id, "eval.auc")
    assert datetime.fromtimestamp(1.7e9, UTC) == run.started_at


def test_event_files_of_tensorboard_come_over(place: World) -> None:
    bring_in(place, TensorboardFolder(TENSORBOARD))

    found = {details.run.name: details for details in runs_by_origin(place).values()}
    assert {"run1", "run1/hp"} == set(found)
    run = found["run1"].run
    points = history(place, run.id, "loss/train")
    assert [(n, (1_700_000_000 + n) * 1000) for n in range(5)] == [(s, t) for s, t, _ in points]
    assert [1 / (n + 1) for n in range(5)] == pytest.approx([float(v) for *_, v in points])
    assert math.isnan(values(place, run.id, "nan")[0])
    assert "text" in run.tags["tensorboard.left_out"]
    assert {"lr": "0.1", "opt": "adam", "b": "True"} == found["run1/hp"].run.params
    assert [0.5] == values(place, found["run1/hp"].run.id, "hp/acc")


def test_a_second_import_of_event_files_adds_only_new_points(place: World, tmp_path: Path) -> None:
    shutil.copytree(TENSORBOARD, tmp_path / "logs")
    (file,) = (tmp_path / "logs" / "run1").glob("events*")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    first = bring_in(place, TensorboardFolder(tmp_path / "logs"))
    file.write_bytes(whole)

    second = bring_in(place, TensorboardFolder(tmp_path / "logs"))

    assert (1, 1) == (second.runs.changed, second.runs.same)
    assert 7 == first.points + second.points
    names = {details.run.name: details.run.id for details in runs_by_origin(place).values()}
    assert 5 == len(values(place, names["run1"], "loss/train"))


def test_a_damaged_event_file_is_said_and_the_others_come_over(
    place: World, tmp_path: Path
) -> None:
    shutil.copytree(TENSORBOARD, tmp_path / "logs")
    (file,) = (tmp_path / "logs" / "run1").glob("events*")
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)

    report = bring_in(place, TensorboardFolder(tmp_path / "logs"))

    assert ["damaged" in skip.why for skip in report.skipped] == [True]
    assert {"run1/hp"} == {details.run.name for details in runs_by_origin(place).values()}


def neptune_row(path: str, kind: str, **given: Any) -> dict[str, Any]:
    return {"project_id": "team/credit", "run_id": "CR-1", "attribute_path": path,
            "attribute_type": kind, **given}  # fmt: skip


SCHEMA = pa.schema(
    [
        ("project_id", pa.string()), ("run_id", pa.string()), ("attribute_path", pa.string()),
        ("attribute_type", pa.string()), ("step", pa.decimal128(18, 6)),
        ("timestamp", pa.timestamp("ms", tz="UTC")), ("int_value", pa.int64()),
        ("float_value", pa.float64()), ("string_value", pa.string()), ("bool_value", pa.bool_()),
        ("datetime_value", pa.timestamp("ms", tz="UTC")),
        ("string_set_value", pa.list_(pa.string())),
        ("file_value", pa.struct([("path", pa.string())])),
        ("histogram_value", pa.struct([("type", pa.string()), ("edges", pa.list_(pa.float64())),
                                       ("values", pa.list_(pa.float64()))])),
    ]
)  # fmt: skip


def test_what_the_exporter_of_neptune_wrote_comes_over(place: World, tmp_path: Path) -> None:
    at = datetime(2025, 5, 1, tzinfo=UTC)
    rows = [
        neptune_row("sys/name", "string", string_value="the first"),
        neptune_row("sys/creation_time", "datetime", datetime_value=at),
        neptune_row("sys/failed", "bool", bool_value=True),
        neptune_row("sys/tags", "string_set", string_set_value=["a", "b"]),
        neptune_row("config/lr", "float", float_value=0.1),
        neptune_row("config/depth", "int", int_value=3),
        *(
            neptune_row("train/loss", "float_series", step=Decimal(n), timestamp=at,
                        float_value=1 / (n + 1))
            for n in range(4)
        ),
        neptune_row("log", "string_series", step=Decimal(0), timestamp=at, string_value="hello"),
        neptune_row("model", "file", file_value={"path": "CR-1/model.bin"}),
    ]  # fmt: skip
    data, files = tmp_path / "data" / "credit-1a2b", tmp_path / "files" / "credit-1a2b" / "CR-1"
    data.mkdir(parents=True)
    files.mkdir(parents=True)
    (files / "model.bin").write_bytes(b"model")
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), data / "CR-1_part_0.parquet")

    bring_in(place, NeptuneFolder(tmp_path / "data"))

    (found,) = runs_by_origin(place).values()
    run = found.run
    assert ("team/credit", "the first", "failed", at) == (
        found.experiment, run.name, run.status, run.started_at,
    )  # fmt: skip
    assert {"config/lr": "0.1", "config/depth": "3"} == run.params
    assert "a, b" == run.tags["sys/tags"]
    assert [1 / (n + 1) for n in range(4)] == values(place, run.id, "train/loss")
    kept = files_of(place, run.id)
    assert b"model" == kept["model.bin"]
    assert b'"value": "hello"' in kept["log.jsonl"]


def test_a_file_outside_the_export_is_not_read(place: World, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "data").mkdir()
    (tmp_path / "files").mkdir()
    row = neptune_row("x", "file", file_value={"path": "../secret"})
    pq.write_table(pa.Table.from_pylist([row], SCHEMA), tmp_path / "data" / "r_part_0.parquet")

    report = bring_in(place, NeptuneFolder(tmp_path / "data"))

    assert 0 == report.files
    assert any("is not below" in skip.why for skip in report.skipped)


@pytest.mark.parametrize("source", [WandbFolder, NeptuneFolder, TensorboardFolder])
def test_a_folder_without_anything_known_is_refused(source: Any, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")

    with pytest.raises(InvalidInput) as refused:
        source(tmp_path)

    assert "import.source_invalid" == refused.value.code


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_or_said_to_be_damaged(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "run-x.wandb"
    path.write_bytes(b":W&B\xe1\xbe\x00" + data)
    with suppress(Skip):
        list(wire.fields(data))
    list(wire.block_records(path, b":W&B\xe1\xbe\x00"))
    (head,) = WandbFolder(tmp_path).runs()
    with suppress(Skip):
        head.read()
