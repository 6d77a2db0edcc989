"""Lists of runs as files."""

from __future__ import annotations

import csv
import io

import pyarrow.parquet as pq
import pytest

from everloop.ui import sheets
from tests.unit.ui.filled import Reader
from tests.unit.ui.tracked import Tracked


@pytest.fixture(scope="module")
def tracked() -> Tracked:
    found = Tracked(count=6)
    found.start("=HYPERLINK('x')", {"model": "@SUM(1)", "rate": "-0.5"})
    return found


@pytest.fixture(scope="module")
def reader(tracked: Tracked) -> Reader:
    return tracked.reader()


def rows(reader: Reader, query: str) -> list[dict[str, str]]:
    answer = reader.get(f"/p/demo/runs/export?{query}")
    assert 200 == answer.status_code
    return list(csv.DictReader(io.StringIO(answer.text)))


def test_a_sheet_holds_the_columns_the_filter_and_the_order_of_the_list(reader: Reader) -> None:
    found = rows(
        reader,
        "col=params.model&col=metrics.accuracy&filter=status+%3D+%27finished%27"
        "&order=metrics.accuracy+DESC",
    )

    assert ["id", "name", "params.model", "metrics.accuracy"] == list(found[0])
    values = [float(row["metrics.accuracy"]) for row in found]
    assert 6 == len(values)
    assert sorted(values, reverse=True) == values


def test_a_sheet_goes_on_past_a_page_and_has_an_end(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rows(reader, "col=status")
    monkeypatch.setattr(sheets, "PAGE", 2)

    assert whole == rows(reader, "col=status")
    monkeypatch.setattr(sheets, "MOST_ROWS", 4)
    assert whole[:4] == rows(reader, "col=status")


def test_no_cell_is_a_formula_and_numbers_stay_numbers(reader: Reader) -> None:
    row = rows(reader, "col=params.model&col=params.rate&filter=name+LIKE+%27%3DHYPER%25%27")[0]

    assert ("'=HYPERLINK('x')", "'@SUM(1)", "-0.5") == (
        row["name"],
        row["params.model"],
        row["params.rate"],
    )


def test_metrics_are_numbers_in_parquet(reader: Reader) -> None:
    query = "format=parquet&col=metrics.loss&col=started&col=status&col=took"
    table = pq.read_table(io.BytesIO(reader.get(f"/p/demo/runs/export?{query}").content))

    assert "double" == str(table.schema.field("metrics.loss").type)
    assert 8 == table.num_rows
    assert str(table.schema.field("started").type).startswith("timestamp")


@pytest.mark.parametrize("query", ["format=xlsx", "filter=%28"])
def test_what_cannot_be_exported_is_told(reader: Reader, query: str) -> None:
    assert 400 == reader.get(f"/p/demo/runs/export?{query}").status_code
