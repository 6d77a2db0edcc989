"""Labels from files and tables, whatever their form, reach the verb as they were meant."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from everloop.app.labels import Columns, Telling, labels_in, tell_labels
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.ids import Id
from everloop.core.wire import Label
from tests.kit import World, world
from tests.unit.monitor.test_verbs import seal, some_rows


@pytest.fixture
def made() -> World:
    return world()


def read(made: World, file: Path, **columns: str) -> list[Label]:
    return list(labels_in(made.owner, str(file), Columns(**columns)))


def test_a_csv_file_keeps_keys_as_they_are_written(made: World, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("order_id,paid,overridden\n007,1,\n008,true,yes\n009,cat,\n")

    assert [
        Label(key="007", value=1.0),
        Label(key="008", value=True, overridden=True),
        Label(key="009", value="cat"),
    ] == read(made, file, key="order_id", value="paid")


def test_a_parquet_file_may_say_when_a_label_was_known(made: World, tmp_path: Path) -> None:
    file = tmp_path / "labels.parquet"
    rows = {"prediction": ["a", "b"], "value": [1.5, 2.5], "at": ["2026-01-01T00:00:00Z", None]}
    parquet.write_table(pa.table(rows), file)

    one, two = read(made, file)

    assert ("a", 1.5, 2026) == (one.prediction, one.value, one.at.year if one.at else None)
    assert (2.5, None) == (two.value, two.at)


def test_lines_of_json_are_read(made: World, tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text('{"prediction": "a", "value": 1}\n\n{"prediction": "b", "overridden": true}\n')

    one, two = read(made, file)

    assert (1.0, None, True) == (one.value, two.value, two.overridden)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "order,value\n1,2\n", "no column 'prediction'"),
        ("a.csv", "prediction,other\n1,2\n", "no column 'value'"),
        ("a.csv", "", "a.csv"),
        ("a.csv", "prediction,value\n1,2,3\n", "a.csv"),
        ("a.parquet", "no parquet", "a.parquet"),
        ("a.jsonl", '{"prediction": "a", "value": 1}\n[1]\n', "line 2"),
        ("a.jsonl", '{"prediction": "a", "value": [1]}\n', "line 1"),
        ("a.jsonl", "{" * 5, "line 1"),
        ("a.jsonl", '{"prediction": "a", "value": 1, "at": "noon"}\n', "line 1"),
    ],
)
def test_a_file_that_can_not_be_read_is_refused_with_the_place(
    made: World, tmp_path: Path, name: str, text: str, told: str
) -> None:
    (tmp_path / name).write_text(text)

    with pytest.raises(InvalidInput, match=told) as refused:
        read(made, tmp_path / name)

    assert "--key" in refused.value.hint


def test_a_file_that_is_not_there_is_told(made: World, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read(made, tmp_path / "none.csv")


def test_labels_in_any_number_are_told_in_pieces(made: World) -> None:
    rows = some_rows(7)
    seal(made, rows)
    labels = [Label(prediction=row.id, value=1.0) for row in rows]
    strangers = [Label(prediction=Id(f"x{n}"), value=1.0) for n in range(12_000)]
    counts: list[int] = []

    told = tell_labels(made.owner, [*labels, *strangers], Telling(), counts.append)

    assert (7, 1_000) == (told.joined, len(told.unknown))
    assert [5_000, 5_000, 2_007] == counts
