"""Brings a database's schema to the version that this code works with.

The common cases never load the migration tool, which takes a second: a database that is up to
date (one row is read), and a new SQLite file (made from the text the migrations lead to).
"""

from __future__ import annotations

import re
import sqlite3
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everloop.core.errors import Conflict

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Connection, Engine

FOLDER = Path(__file__).parent / "migrations"
VERSION_TABLE = "alembic_version"
READ_VERSION = f"SELECT version_num FROM {VERSION_TABLE}"
MODE_SECONDS = 30.0
WRITE_LOCK = 0x45564552  # "EVER": the advisory lock that all writers to PostgreSQL queue for
_REVISION_FILE = re.compile(r"(\d{4})_\w+\.py")
_SNAPSHOT_REVISION = re.compile(r"-- revision: (\d{4})\n")


@cache
def revisions() -> tuple[str, ...]:
    """Return all schema versions this code knows, oldest first."""
    names = (_REVISION_FILE.fullmatch(path.name) for path in (FOLDER / "versions").iterdir())
    return tuple(sorted(found[1] for found in names if found is not None))


def head() -> str:
    """Return the schema version this code works with."""
    return revisions()[-1]


def is_current(found: str | None) -> bool:
    """Tell whether a database needs no migration.

    Raises:
        Conflict: ``store.newer`` when this code does not know its version.
    """
    if found is not None and found not in revisions():
        raise Conflict(
            "store.newer",
            f"The database has schema version {found[:20]}; this program knows up to {head()}.",
            hint="Upgrade Everloop to the version that wrote this database, or a newer one.",
        )
    return found == head()


def upgrade_sqlite(connection: sqlite3.Connection) -> None:
    """Make or migrate the schema of a SQLite database; does nothing when it is up to date.

    Processes that open the same new file at once wait for each other.

    Raises:
        Conflict: ``store.newer``.
        sqlite3.Error: whatever the database refuses.
    """
    if is_current(_sqlite_version(connection)):
        return
    _switch_to_wal(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = _sqlite_version(connection)
        if not is_current(found):
            if found is None and _snapshot() is not None:
                _make_from_snapshot(connection)
            else:
                _migrate_sqlite(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def upgrade_postgres(connection: psycopg.Connection[Any]) -> None:
    """Make or migrate the schema of a PostgreSQL database; does nothing when it is up to date.

    Takes the writers' lock, so processes that open the same database at once wait for each other.

    Raises:
        Conflict: ``store.newer``.
        psycopg.Error: whatever the database refuses.
    """
    if is_current(_postgres_version(connection)):
        return
    import psycopg
    from sqlalchemy import NullPool, create_engine, text

    def connect() -> psycopg.Connection[Any]:
        return psycopg.connect(connection.info.dsn, password=connection.info.password or None)

    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    with engine.begin() as wrapped:
        wrapped.execute(text(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})"))
        if not is_current(_postgres_version(connection)):
            run_migrations(wrapped)


def _postgres_version(connection: psycopg.Connection[Any]) -> str | None:
    found = connection.execute("SELECT to_regclass(%s)", (VERSION_TABLE,)).fetchone()
    if found is None or found[0] is None:
        return None
    row = connection.execute(READ_VERSION.encode()).fetchone()
    return None if row is None else str(row[0])


def upgrade(engine: Engine) -> None:
    """Make or migrate the schema behind a SQLAlchemy engine with the migration tool."""
    with engine.begin() as connection:
        run_migrations(connection)


def run_migrations(connection: Connection, target: str = "head") -> None:
    """Run the migrations up to a version within the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.attributes["connection"] = connection
    command.upgrade(config, target)


def _migrate_sqlite(connection: sqlite3.Connection) -> None:
    from sqlalchemy import StaticPool, create_engine

    guarded = _WithinTransaction(connection)
    engine = create_engine("sqlite://", creator=lambda: guarded, poolclass=StaticPool)
    with engine.connect() as wrapped, wrapped.begin():
        run_migrations(wrapped)


class _WithinTransaction:
    """A connection whose transaction is ended by its owner alone."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def commit(self) -> None:
        """Leave it to the owner."""

    def rollback(self) -> None:
        """Leave it to the owner, whom an error reaches anyway."""


def _sqlite_version(connection: sqlite3.Connection) -> str | None:
    try:
        row = connection.execute(READ_VERSION).fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise
    return None if row is None else str(row[0])


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # The busy timeout does not cover the change of the journal mode.
    deadline = time.monotonic() + MODE_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _snapshot() -> str | None:
    """Return the SQL text of a new SQLite database, or None unless it is of the newest version."""
    path = FOLDER / "sqlite.sql"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = _SNAPSHOT_REVISION.match(text)
    return text if found is not None and found[1] == head() else None


def _make_from_snapshot(connection: sqlite3.Connection) -> None:
    for statement in (_snapshot() or "").split(";\n"):
        if statement.strip():
            connection.execute(statement)
