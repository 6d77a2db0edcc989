"""What is special about the SQLite file: who may read it, and what happens when it is unusable."""

from __future__ import annotations

import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from everloop.core.errors import IntegrityError, Unavailable
from everloop.core.ids import Id
from everloop.storage.sqlite import SqliteMetadataStore
from tests.contract.kinds import KINDS, Named, named
from tests.contract.stores import make_sqlite_tables


def open_at(path: Path) -> SqliteMetadataStore:
    return SqliteMetadataStore(path, KINDS, prepare=make_sqlite_tables)


def test_the_file_and_its_companions_are_their_owners_alone(tmp_path: Path) -> None:
    store = open_at(tmp_path / "inner" / "store.db")
    with store.write() as tx:
        tx.insert(named("1"))

    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "inner").iterdir()}
    store.close()

    assert {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600} == modes
    assert 0o700 == stat.S_IMODE((tmp_path / "inner").stat().st_mode)


def test_every_connection_waits_for_the_disk(tmp_path: Path) -> None:
    store = open_at(tmp_path / "store.db")
    connection = store._connect()

    found = [
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("synchronous", "journal_mode")
    ]
    connection.close()
    store.close()

    assert [2, "wal"] == found  # 2 is FULL


def test_rows_are_there_after_reopening(tmp_path: Path) -> None:
    first = open_at(tmp_path / "store.db")
    with first.write() as tx:
        tx.insert(named("1", "a"))
    first.close()

    second = open_at(tmp_path / "store.db")
    with second.read() as view:
        assert named("1", "a") == view.find(Named, Id("1"))
    second.close()


def test_a_file_that_is_no_database_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"this is not a database, " * 100)

    with pytest.raises(IntegrityError, match=r"store\.corrupt"):
        open_at(path)


def test_a_path_that_is_a_folder_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"store\.unavailable"):
        open_at(tmp_path)


def test_a_full_disk_keeps_nothing_of_the_change(tmp_path: Path) -> None:
    def prepare(connection: sqlite3.Connection) -> None:
        make_sqlite_tables(connection)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    store = SqliteMetadataStore(tmp_path / "store.db", KINDS, prepare=prepare)

    def fill() -> None:
        with store.write() as tx:
            for number in range(1000):
                tx.insert(named(str(number), "x" * 100 + str(number)))

    with pytest.raises(Unavailable, match=r"store\.full"):
        fill()

    with store.read() as view:
        assert 0 == view.count(Named)
    store.close()


def test_a_closed_store_is_not_used(tmp_path: Path) -> None:
    store = open_at(tmp_path / "store.db")
    store.close()

    with pytest.raises(RuntimeError, match="closed"), store.read():
        pass


def test_readers_of_many_threads_each_have_a_snapshot(tmp_path: Path) -> None:
    store = open_at(tmp_path / "store.db")
    with store.write() as tx:
        for number in range(50):
            tx.insert(named(str(number), str(number)))
    found: list[int] = []

    def read() -> None:
        for _ in range(20):
            with store.read() as view:
                found.append(view.count(Named))

    threads = [threading.Thread(target=read) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()

    assert [50] * 240 == found


def test_no_file_of_the_store_holds_what_was_scrubbed(tmp_path: Path) -> None:
    store = open_at(tmp_path / "store.db")
    texts = [f"{mark}-{'secret' * 2_000}" for mark in ("short", "deleted")]
    with store.write() as tx:
        tx.insert(named("1", texts[0]))
        tx.insert(named("2", texts[1]))
    with store.write() as tx:
        tx.replace(named("1", "nothing"))
        tx.delete(named("2", texts[1]))
    assert b"secret" in b"".join(path.read_bytes() for path in tmp_path.iterdir())

    store.scrub()

    assert b"secret" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    store.close()
