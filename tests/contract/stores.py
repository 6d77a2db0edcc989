"""Opens the metadata stores for the contract tests, here and in processes of their own."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from everloop.core.ports import MetadataStore
from everloop.storage.memory import MemoryMetadataStore
from everloop.storage.sqlite import SqliteMetadataStore
from tests.contract.kinds import KINDS


def open_store(address: str) -> MetadataStore:
    """Open ``memory``, a path or an address of PostgreSQL with the kinds of these tests."""
    if address == "memory":
        return MemoryMetadataStore(KINDS)
    if address.startswith("postgresql"):
        from everloop.storage.postgres import PostgresMetadataStore

        return PostgresMetadataStore(address, KINDS, prepare=lambda _: None)
    return SqliteMetadataStore(Path(address), KINDS, prepare=make_sqlite_tables)


def make_sqlite_tables(connection: sqlite3.Connection) -> None:
    if connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
        return
    from sqlalchemy import StaticPool, create_engine

    from everloop.storage.schema import metadata_of

    connection.execute("PRAGMA journal_mode = WAL")
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    metadata_of(KINDS).create_all(engine)


def make_postgres_tables(url: str) -> None:
    """Make the tables, or empty those that are there."""
    from sqlalchemy import create_engine, inspect

    from everloop.storage.schema import metadata_of

    engine = create_engine(url)
    tables: Any = metadata_of(KINDS).sorted_tables
    with engine.begin() as connection:
        if inspect(connection).has_table("thing"):
            names = ", ".join(f'"{table.name}"' for table in tables)
            connection.exec_driver_sql(f"TRUNCATE {names}")
        else:
            metadata_of(KINDS).create_all(connection)
    engine.dispose()
