"""Batch answers are the server's answers; rows that cannot be answered cost the others nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from everloop.core.errors import InvalidInput
from everloop.serve.batch import (
    ID,
    REASON,
    REFUSED,
    STATUS,
    VERSION,
    Task,
    answer_table,
    plan_parts,
    score_part,
)
from everloop.serve.bundle import LoadedBundle
from everloop.serve.decode import FloatArray
from everloop.serve.runtime import open_model
from tests.unit.serve.served import MODEL, make_bundle, version_id
from tests.unit.serve.standalone import SIGNER, seal

LOADED = LoadedBundle(make_bundle(3), open_model("lightgbm", {"model.txt": MODEL}, 4).predict)


def rows(count: int) -> pa.Table:
    generator = np.random.default_rng(5)
    temperature = generator.normal(15, 9, count)
    return pa.table(
        {
            "name": [f"r{k}" for k in range(count)],
            "weather": generator.choice(["clear", "mist", "rain", "snow", "hail"], count),
            "hour": generator.integers(0, 24, count),
            "temperature": pa.array(temperature, mask=temperature > 30),
            "working_day": generator.integers(0, 2, count).astype(bool),
        }
    )


def served(table: pa.Table) -> list[float]:
    """What plain JSON is answered for the same rows."""
    names = [field.name for field in LOADED.bundle.inputs]
    body = msgspec.json.encode({"inputs": table.select(names).to_pylist()})
    asked = LOADED.rows.decode(body)
    return [float(each) for each in LOADED.model(LOADED.rows.to_matrix(asked.inputs))]


def test_answers_are_those_of_the_server_in_the_order_of_the_rows() -> None:
    table = rows(5_000)

    found = answer_table(LOADED, table, ["name"])

    assert ["name", ID, VERSION, STATUS, REASON, "rentals"] == found.column_names
    assert served(table) == found["rentals"].to_pylist()
    assert table["name"].to_pylist() == found["name"].to_pylist()
    assert 5_000 == len(set(found[ID].to_pylist()))
    assert {version_id(3)} == set(found[VERSION].to_pylist())
    assert {"ok"} == set(found[STATUS].to_pylist())


def test_a_row_without_what_must_be_there_is_refused_alone() -> None:
    table = rows(10)
    hours = table["hour"].to_pylist()
    hours[4] = None
    broken = table.set_column(2, "hour", pa.array(hours, pa.int64()))

    found = answer_table(LOADED, broken)

    assert REFUSED == found[STATUS][4].as_py()
    assert found["rentals"][4].as_py() is None
    assert [None] * 4 + ["hour is missing"] + [None] * 5 == found[REASON].to_pylist()
    expected = served(table)
    assert expected[:4] == found["rentals"].to_pylist()[:4]
    assert expected[5:] == found["rentals"].to_pylist()[5:]


def test_an_answer_out_of_bounds_is_invalid() -> None:
    narrow = LoadedBundle(make_bundle(3, output_maximum=-1e9), LOADED.model)

    assert {"invalid"} == set(answer_table(narrow, rows(3))[STATUS].to_pylist())


def test_several_numbers_have_columns_of_their_own() -> None:
    def model(matrix: FloatArray) -> FloatArray:
        return np.stack([matrix[:, 0], -matrix[:, 0]], axis=1)

    loaded = LoadedBundle(make_bundle(3, outputs=("yes", "no"), output_minimum=None), model)
    table = rows(6)

    found = answer_table(loaded, table)

    assert [float(hour) for hour in table["hour"].to_pylist()] == found["yes"].to_pylist()
    assert [-float(hour) for hour in table["hour"].to_pylist()] == found["no"].to_pylist()


@pytest.mark.parametrize("name", ["weather", "hour"])
def test_a_missing_column_is_named(name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        answer_table(LOADED, rows(3).drop_columns([name]))

    assert name in refused.value.message


def test_parquet_is_cut_at_row_groups_and_csv_is_one_part(tmp_path: Path) -> None:
    parquet.write_table(rows(1_000), tmp_path / "a.parquet", row_group_size=100)
    csv.write_csv(rows(10), tmp_path / "b.csv")

    parts = plan_parts([tmp_path / "a.parquet", tmp_path / "b.csv"], part_rows=350)

    assert [400, 400, 200, 0] == [part.rows for part in parts]
    assert (0, 1, 2, 3) == parts[0].groups


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_part_that_is_answered_is_left_alone(tmp_path: Path, kind: str) -> None:
    folder = seal(tmp_path / "bundle")
    source = tmp_path / f"rows.{kind}"
    write = csv.write_csv if kind == "csv" else parquet.write_table
    write(rows(50), source)
    task = Task(
        bundle=str(folder), seal="", public_key=SIGNER.public_key.hex(), target=str(tmp_path)
    )
    (part,) = plan_parts([source])

    assert 50 == score_part(task, part)
    first = (tmp_path / part.name).read_bytes()
    source.unlink()
    assert 50 == score_part(task, part)

    assert first == (tmp_path / part.name).read_bytes()
    assert served(rows(50)) == parquet.read_table(tmp_path / part.name)["rentals"].to_pylist()
