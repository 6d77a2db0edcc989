"""Somebody exchanges whole versions in the database; every row still fits its own bytes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression

from everloop.app.models import load_model, verify_model
from everloop.core.errors import IntegrityError
from everloop.core.records import declared_kinds
from everloop.registry.client import register
from everloop.registry.model import AliasMove, ModelVersion
from everloop.registry.queries import ResolveModel
from everloop.registry.signature import infer_signature
from everloop.registry.verbs import MoveAlias
from everloop.storage.sqlite import SqliteMetadataStore
from tests.kit import World, world

X = np.arange(8.0)
TABLE = pa.table({"a": X, "y": X})
SIGNATURE = infer_signature(TABLE, ["a"], "y", "regression")
EXCHANGE = """
UPDATE model_version SET artifact = 'sha256:' || hex(zeroblob(32)) WHERE number = 1;
UPDATE model_version SET (artifact, files, examples) =
  (SELECT :artifact1, :files1, :examples1) WHERE number = 2;
UPDATE model_version SET (artifact, files, examples) =
  (SELECT :artifact2, :files2, :examples2) WHERE number = 1;
"""


class Shelf:
    """Two versions of a model in a database file, the alias ``best`` at the first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.here: World = world(SqliteMetadataStore(path, declared_kinds()))
        for slope in (1, 2):
            model = LinearRegression().fit(X[:, None], slope * X)
            register(self.here.owner, "line", model, signature=SIGNATURE, examples=TABLE)
        ask = MoveAlias(model="line", alias="best", version="1", why="it is the better one")
        self.here.owner.perform("model.alias", ask, AliasMove)

    def tamper(self, change: str, **values: object) -> None:
        connection = sqlite3.connect(self.path)
        for statement in filter(str.strip, change.split(";")):
            connection.execute(statement, values)
        connection.commit()
        connection.close()

    def exchange(self) -> None:
        connection = sqlite3.connect(self.path)
        rows = connection.execute(
            "SELECT number, artifact, files, examples FROM model_version"
        ).fetchall()
        connection.close()
        values = {
            f"{name}{number}": value
            for number, *row in rows
            for name, value in zip(("artifact", "files", "examples"), row, strict=True)
        }
        self.tamper(EXCHANGE, **values)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "everloop.db")
    yield shelf
    shelf.here.kernel.store.close()


def test_versions_left_alone_load(shelf: Shelf) -> None:
    with load_model(shelf.here.owner, "line@best") as model:
        np.testing.assert_allclose(model.predict(TABLE), X, atol=1e-9)


@pytest.mark.parametrize("ref", ["line", "line@1", "line@2", "line@best"])
def test_exchanged_versions_are_not_loaded(shelf: Shelf, ref: str) -> None:
    shelf.exchange()

    with pytest.raises(IntegrityError, match="changed outside the ledger"):
        load_model(shelf.here.owner, ref)
    with pytest.raises(IntegrityError, match="changed outside the ledger"):
        verify_model(shelf.here.owner, ref)


def test_an_alias_that_was_turned_to_another_version_is_not_followed(shelf: Shelf) -> None:
    shelf.tamper("UPDATE alias_move SET version = (SELECT id FROM model_version WHERE number = 2)")
    owner = shelf.here.owner

    with pytest.raises(IntegrityError, match="alias_move"):
        owner.perform("model.resolve", ResolveModel(ref="line@best"), ModelVersion)
    assert 2 == owner.perform("model.resolve", ResolveModel(ref="line@2"), ModelVersion).number


def test_a_version_that_was_slipped_in_is_not_loaded(shelf: Shelf) -> None:
    shelf.tamper(
        "UPDATE model_version SET id = '01900000-0000-7000-8000-000000000000' WHERE number = 2"
    )

    with pytest.raises(IntegrityError, match="never heard of it"):
        load_model(shelf.here.owner, "line@2")
