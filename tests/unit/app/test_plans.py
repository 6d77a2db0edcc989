"""What belongs to one thing is found by it, and not by walking all that its project has."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from everloop.app.client import connect_home
from everloop.app.home import Home
from everloop.core.ports import Compare, Condition, where
from everloop.core.records import Record, declared_kinds
from everloop.storage.statements import SQLITE, Query, joined
from everloop.storage.tables import table_of


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = Home(tmp_path_factory.mktemp("home") / ".everloop")
    home.create()
    connect_home(home, project="demo").close()
    return home.database


def plan(database: Path, kind: str, *conditions: Condition) -> str:
    table = table_of(declared_kinds()[kind])
    clause = joined(Query(table, SQLITE).filters(conditions))
    text = f'EXPLAIN QUERY PLAN SELECT * FROM "{kind}"{clause.text}'
    with sqlite3.connect(database) as connection:
        rows = connection.execute(text, clause.values).fetchall()
    connection.close()
    return " ".join(row[3] for row in rows)


IN_PROJECT = where(project="p")
TWO = ("a", "b")


@pytest.mark.parametrize(
    ("kind", "conditions", "led_by"),
    [
        ("metric_summary", (Condition("run", Compare.IN, TWO),), "run=?"),
        ("metric_summary", (*where(run="a"), Condition("key", Compare.IN, TWO)), "run=?"),
        ("run_field", (Condition("run", Compare.IN, TWO),), "run=?"),
        ("run", (Condition("id", Compare.IN, TWO),), "id=?"),
        ("run", where(parent="a"), "parent=?"),
        ("alias_move", where(model="a"), "model=?"),
        ("run", where(status="running"), "project=? AND status=?"),
        ("run", where(experiment="x"), "project=? AND experiment=?"),
    ],
)
def test_what_is_asked_for_leads(
    database: Path, kind: str, conditions: tuple[Condition, ...], led_by: str
) -> None:
    assert led_by in plan(database, kind, *IN_PROJECT, *conditions)


def test_every_kind_is_still_found_by_its_project(database: Path) -> None:
    assert issubclass(declared_kinds()["run"].type, Record)
    assert "project=?" in plan(database, "run", *IN_PROJECT)
