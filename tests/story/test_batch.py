"""Rows of files answered from the command line, by a version that passed its gate."""

from __future__ import annotations

import json

import pytest
from pyarrow import csv, parquet

from tests.story.test_export import Shop, shop

__all__ = ["shop"]  # the project of the story of exports, made anew for these tests
pytestmark = pytest.mark.slow


def test_a_file_is_answered_and_the_ledger_tells_who_took_the_version(shop: Shop) -> None:
    told = json.loads(
        shop.must("predict", "model:demand@1", "hours.csv", "-o", "a.parquet", "--json")
    )

    assert {
        "version", "rows", "ok", "invalid", "refused", "parts", "resumed", "written",
    } == set(told)  # fmt: skip
    assert (400, 1, 0) == (told["rows"], told["parts"], told["resumed"])
    assert (400, 0, 0) == (told["ok"], told["invalid"], told["refused"])
    found = parquet.read_table(shop.folder / "a.parquet")
    assert ["prediction_id", "model_version", "status", "reason", "cnt"] == found.column_names
    shop.must("models", "predict", "demand@1", "hours.csv", "-o", "b.csv")
    assert csv.read_csv(shop.folder / "b.csv")["cnt"].to_pylist() == found["cnt"].to_pylist()
    assert "bundle.score" in shop.must("audit", "list")


def test_a_version_that_passed_no_gate_answers_nothing(shop: Shop) -> None:
    done = shop.run("predict", "model:demand@2", "hours.csv", "-o", "c.parquet")

    assert 0 != done.code
    assert "gate." in done.err
    assert not (shop.folder / "c.parquet").exists()


def test_a_missing_column_is_told_and_leaves_no_file(shop: Shop) -> None:
    (shop.folder / "narrow.csv").write_text("hour\n3\n")

    done = shop.run("predict", "model:demand@1", "narrow.csv", "-o", "d.parquet")

    assert 0 != done.code
    assert "temperature" in done.err
    assert "Traceback" not in done.err
    assert not (shop.folder / "d.parquet").exists()
