"""The schema on disk is the declared one, however the database came to be."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from everloop.app.verbs import load_verbs
from everloop.core.errors import Conflict
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.core.records import Kind, declared_kinds
from everloop.kernel.authz import Project
from everloop.storage import migrate
from everloop.storage.postgres import PostgresMetadataStore
from everloop.storage.schema import metadata_of
from everloop.storage.sqlite import SqliteMetadataStore

ROOT = Path(__file__).resolve().parents[2]
START = datetime(2026, 1, 1, tzinfo=UTC)
Shape = dict[str, object]


@pytest.fixture(scope="module")
def kinds() -> dict[str, Kind]:
    load_verbs()
    return {
        name: kind
        for name, kind in declared_kinds().items()
        if kind.type.__module__.startswith("everloop.")
    }


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    made = sa.create_engine(f"sqlite:///{tmp_path / 'store.db'}")
    yield made
    made.dispose()


@pytest.fixture
def postgres_engine(postgres_url: str) -> Iterator[sa.Engine]:
    made = sa.create_engine(postgres_url)
    yield made
    made.dispose()


def shape_of(engine: sa.Engine) -> dict[str, Shape]:
    """Return what the database itself says about its tables."""
    inspector = sa.inspect(engine)
    return {
        table: {
            "columns": {
                c["name"]: (str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)
            },
            "key": inspector.get_pk_constraint(table)["constrained_columns"],
            "unique": {
                c["name"]: c["column_names"] for c in inspector.get_unique_constraints(table)
            },
            "index": {
                i["name"]: i["column_names"]
                for i in inspector.get_indexes(table)
                if "duplicates_constraint" not in i
            },
        }
        for table in inspector.get_table_names()
        if table != migrate.VERSION_TABLE
    }


def declared_shape(engine: sa.Engine, kinds: dict[str, Kind]) -> dict[str, Shape]:
    metadata_of(kinds).create_all(engine)
    return shape_of(engine)


def test_migrations_lead_to_the_declared_tables(
    engine: sa.Engine, kinds: dict[str, Kind], tmp_path: Path
) -> None:
    migrate.upgrade(engine)
    declared = sa.create_engine(f"sqlite:///{tmp_path / 'declared.db'}")

    assert declared_shape(declared, kinds) == shape_of(engine), (
        "run `python -m tools.new_migration <what changes>`"
    )
    declared.dispose()


def test_migrations_lead_to_the_declared_tables_on_postgres(
    postgres_engine: sa.Engine, kinds: dict[str, Kind]
) -> None:
    engine = postgres_engine
    migrate.upgrade(engine)
    migrated = shape_of(engine)
    with engine.begin() as connection:
        metadata_of(kinds).drop_all(connection)

    assert declared_shape(engine, kinds) == migrated


def test_text_is_compared_by_code_point_on_postgres(postgres_engine: sa.Engine) -> None:
    engine = postgres_engine
    migrate.upgrade(engine)
    statement = (
        "SELECT table_name, column_name FROM information_schema.columns WHERE data_type = 'text'"
        " AND table_schema = 'public' AND collation_name IS DISTINCT FROM 'C'"
    )

    with engine.connect() as connection:
        assert [] == connection.exec_driver_sql(statement).all()


def test_a_new_file_is_what_the_migrations_make(
    engine: sa.Engine, tmp_path: Path, kinds: dict[str, Kind]
) -> None:
    migrate.upgrade(engine)
    SqliteMetadataStore(tmp_path / "new.db", kinds).close()

    new = sa.create_engine(f"sqlite:///{tmp_path / 'new.db'}")

    assert shape_of(engine) == shape_of(new)
    assert version_of(engine) == version_of(new) == migrate.head()
    new.dispose()


def test_the_snapshot_is_of_the_newest_version() -> None:
    assert migrate._snapshot() is not None, "run `python -m tools.new_migration`"


def version_of(engine: sa.Engine) -> str:
    with engine.connect() as connection:
        return str(connection.exec_driver_sql(migrate.READ_VERSION).scalar_one())


@pytest.mark.parametrize("revision", migrate.revisions()[:-1])
def test_an_older_file_is_brought_forward_with_its_rows(
    engine: sa.Engine, tmp_path: Path, kinds: dict[str, Kind], revision: str
) -> None:
    with engine.begin() as connection:
        migrate.run_migrations(connection, revision)
        connection.exec_driver_sql(
            "INSERT INTO project (id, revision, name, created_at)"
            " VALUES ('p1', 3, 'old', '2026-01-01T00:00:00.000000Z')"
        )

    store = SqliteMetadataStore(tmp_path / "store.db", kinds)

    with store.read() as view:
        found = view.select(Project, *where(name="old"))
    store.close()
    assert [Project(id=Id("p1"), revision=3, name="old", created_at=START)] == found
    assert migrate.head() == version_of(engine)


def test_an_older_postgres_is_brought_forward_with_its_rows(
    postgres_engine: sa.Engine, postgres_url: str, kinds: dict[str, Kind]
) -> None:
    engine = postgres_engine
    with engine.begin() as connection:
        migrate.run_migrations(connection, migrate.revisions()[0])
        connection.exec_driver_sql(
            "INSERT INTO project (id, revision, name, created_at)"
            " VALUES ('p1', 3, 'old', '2026-01-01T00:00:00.000000Z')"
        )

    store = PostgresMetadataStore(postgres_url, kinds)

    with store.read() as view:
        assert START == view.select(Project)[0].created_at
    store.close()
    assert migrate.head() == version_of(engine)


def test_a_failed_migration_leaves_the_older_file_as_it_was(
    engine: sa.Engine, tmp_path: Path, kinds: dict[str, Kind]
) -> None:
    with engine.begin() as connection:
        migrate.run_migrations(connection, migrate.revisions()[0])
        connection.exec_driver_sql("CREATE TABLE run (in_the_way TEXT)")
    before = shape_of(engine)

    with pytest.raises(sa.exc.OperationalError, match="already exists"):
        SqliteMetadataStore(tmp_path / "store.db", kinds)

    sa.inspect(engine).clear_cache()
    assert before == shape_of(engine)
    assert migrate.revisions()[0] == version_of(engine)


def test_a_newer_file_is_refused(tmp_path: Path, kinds: dict[str, Kind]) -> None:
    path = tmp_path / "store.db"
    SqliteMetadataStore(path, kinds).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '9999'")
    connection.close()

    with pytest.raises(Conflict, match=r"store\.newer"):
        SqliteMetadataStore(path, kinds)


def test_a_newer_postgres_is_refused(
    postgres_engine: sa.Engine, postgres_url: str, kinds: dict[str, Kind]
) -> None:
    PostgresMetadataStore(postgres_url, kinds).close()
    with postgres_engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '9999'")

    with pytest.raises(Conflict, match=r"store\.newer"):
        PostgresMetadataStore(postgres_url, kinds)


def test_processes_that_make_the_same_file_all_succeed(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "import everloop.kernel.authz\n"
        "from everloop.core.records import declared_kinds\n"
        "from everloop.storage.sqlite import SqliteMetadataStore\n"
        "store = SqliteMetadataStore(Path(sys.argv[1]), declared_kinds())\n"
        "store.close(); print(sorted({'alembic', 'sqlalchemy', 'psycopg'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "store.db")]

    children = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)
    ]

    # An empty list: neither a new file nor one that is up to date loads the migration tool.
    assert ["[]\n"] * 3 == [child.communicate(timeout=60)[0] for child in children]
