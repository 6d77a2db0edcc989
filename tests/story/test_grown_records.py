"""A newer version adds fields to a kind of record; older rows still verify."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import StaticPool, create_engine

from everloop.app.verbs import load_verbs
from everloop.core import records
from everloop.core.clock import Instant
from everloop.core.ids import Id, ProjectId
from everloop.core.records import Kind, Record, declared_kinds
from everloop.govern.exporting import LedgerVerdict, VerifyLedger
from everloop.kernel import verbs
from everloop.kernel.unit_of_work import Work
from everloop.kernel.verbs import verb
from everloop.storage.schema import metadata_of
from everloop.storage.sqlite import SqliteMetadataStore
from tests.kit import World, world

load_verbs()


class Part(msgspec.Struct, frozen=True, kw_only=True):
    name: str


class Memo(Record, frozen=True, kw_only=True):
    project: ProjectId
    parts: tuple[Part, ...]
    at: Instant


class GrownPart(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    weight: float = 1.0


class GrownMemo(Record, frozen=True, kw_only=True):
    project: ProjectId
    parts: tuple[GrownPart, ...]
    at: Instant
    stars: int = 3
    note: str | None = None


class Write(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    text: str


class Written(msgspec.Struct, frozen=True, kw_only=True):
    id: Id


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A place whose memos were written by the older version, opened by the newer one."""
    monkeypatch.setattr(verbs, "_VERBS", dict(verbs._VERBS))
    _know(monkeypatch, Memo)

    @verb("memo.write", permission="memo:write")
    def write_memo(ask: Write, work: Work) -> Written:
        """Write a memo."""
        memo = Memo(
            id=work.new_id(), project=work.project, parts=(Part(name=ask.text),), at=work.now
        )
        return Written(id=work.insert(memo).id)

    path = tmp_path / "everloop.db"
    older = SqliteMetadataStore(path, declared_kinds(), prepare=_make_tables)
    world(older).owner.perform("memo.write", Write(text="remember"), Written)
    older.close()

    with sqlite3.connect(path) as connection:
        connection.execute('ALTER TABLE memo ADD COLUMN "stars" BIGINT NOT NULL DEFAULT 3')
        connection.execute('ALTER TABLE memo ADD COLUMN "note" TEXT')
    connection.close()
    _know(monkeypatch, GrownMemo)
    newer = SqliteMetadataStore(path, declared_kinds(), prepare=lambda _: None)
    yield world(newer)
    newer.close()


def _know(monkeypatch: pytest.MonkeyPatch, shape: type[Record]) -> None:
    kind = Kind("memo", shape)
    monkeypatch.setitem(records._KINDS, "memo", kind)
    monkeypatch.setitem(records._BY_TYPE, shape, kind)


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    metadata_of(declared_kinds()).create_all(engine)


def verify(place: World) -> LedgerVerdict:
    return place.owner.perform("audit.verify", VerifyLedger(), LedgerVerdict)


def test_rows_from_before_the_new_fields_still_verify(place: World) -> None:
    with place.kernel.store.read() as tx:
        (memo,) = tx.select(GrownMemo)
    assert ((GrownPart(name="remember"),), 3, None) == (memo.parts, memo.stars, memo.note)

    found = verify(place)

    assert found.ok, found.problems


@pytest.mark.parametrize(
    "change", ["stars = 4", "note = 'x'", 'parts = \'[{"name":"remember","weight":2.0}]\'']
)
def test_a_new_field_changed_behind_the_ledgers_back_is_found(
    place: World, tmp_path: Path, change: str
) -> None:
    with sqlite3.connect(tmp_path / "everloop.db") as connection:
        connection.execute(f"UPDATE memo SET {change}")
    connection.close()

    found = verify(place)

    assert not found.ok
    assert any("memo" in problem for problem in found.problems)
