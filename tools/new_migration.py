"""Write the migration from the newest schema version to the record kinds as declared now.

`python -m tools.new_migration add loop pauses` compares, writes one explicit file and the new
snapshot of a SQLite database. Read the file before committing it: a column that is not nullable
needs a value for the rows that exist. There is no way down: an older version's backup is restored.
`--restart` writes all of them anew; only before a release.
"""

from __future__ import annotations

import argparse
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import ops

from everloop.app.verbs import load_verbs
from everloop.core.records import Kind, declared_kinds
from everloop.storage import migrate
from everloop.storage.schema import metadata_of

VERSIONS = migrate.FOLDER / "versions"
MANY_STATEMENTS = 40
LONG = "  # noqa: PLR0915 -- written by a tool, one table after the other"
SNAPSHOT = migrate.FOLDER / "sqlite.sql"

TEMPLATE = '''"""{title}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision: str | None = {previous}
branch_labels = None
depends_on = None

# By code point on every database.
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
# SQLite rewrites minus zero in a column of a floating point type.
DOUBLE: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.BLOB(), "sqlite")


def upgrade() -> None:{long}
{body}
'''


def main() -> int:
    """Write the migration and the snapshot; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="*", help="what changes, in a few words")
    parser.add_argument("--restart", action="store_true", help="write all migrations anew")
    chosen = parser.parse_args()
    load_verbs()
    kinds = dict(declared_kinds())
    if chosen.restart:
        for path in VERSIONS.glob("*.py"):
            path.unlink()
        kernel = {n: k for n, k in kinds.items() if k.type.__module__.startswith("everloop.kernel")}
        write_migration("kernel", kernel)
        write_migration("domain", kinds)
    elif not chosen.words:
        parser.error("say what changes")
    elif not write_migration("_".join(chosen.words), kinds):
        print("The declared kinds are those of the newest migration; nothing written.")
        return 0
    SNAPSHOT.write_text(snapshot(), encoding="utf-8")
    print(f"Wrote {SNAPSHOT}.")
    return 0


def write_migration(name: str, kinds: dict[str, Kind]) -> bool:
    """Write the step from the newest version to these kinds; return whether there is one."""
    migrate.revisions.cache_clear()
    known = migrate.revisions()
    upgrade = with_newest_schema(lambda connection: compare(connection, kinds))
    if upgrade.is_empty():
        return False
    revision = f"{len(known) + 1:04d}"
    body = render(upgrade)
    slug = re.sub(r"\W+", "_", name.lower())
    path = VERSIONS / f"{revision}_{slug}.py"
    text = TEMPLATE.format(
        title=slug.replace("_", " ").capitalize(),
        revision=revision,
        previous=f'"{known[-1]}"' if known else None,
        body=body,
        long=LONG if body.count("op.") > MANY_STATEMENTS else "",
    )
    path.write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(path)], check=True)
    migrate.revisions.cache_clear()
    print(f"Wrote {path}.")
    warn_of_required_columns(upgrade)
    return True


def compare(connection: sa.Connection, kinds: dict[str, Kind]) -> ops.UpgradeOps:
    """Return the operations that lead from the connected database to these kinds."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    found = produce_migrations(context, metadata_of(kinds)).upgrade_ops
    assert found is not None
    return found


def render(upgrade: ops.UpgradeOps) -> str:
    """Return the operations as Python."""
    code = render_python_code(upgrade, render_as_batch=True)
    lines = [line for line in code.splitlines() if not line.lstrip().startswith("#")]
    text = "\n".join(lines)
    text = text.replace("sa.Text().with_variant(sa.Text(collation='C'), 'postgresql')", "TEXT")
    return text.replace("sa.Double().with_variant(sa.BLOB(), 'sqlite')", "DOUBLE")


def warn_of_required_columns(upgrade: ops.UpgradeOps) -> None:
    """Name new columns of existing tables that refuse the rows which are there."""
    for group in upgrade.ops:
        for change in getattr(group, "ops", ()):
            if isinstance(change, ops.AddColumnOp) and not change.column.nullable:
                print(f"Give existing rows a value: {change.table_name}.{change.column.name}")


def with_newest_schema(use: Callable[[sa.Connection], ops.UpgradeOps]) -> ops.UpgradeOps:
    """Run a function on a new database of the newest version."""
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        if migrate.revisions():
            migrate.run_migrations(connection)
        return use(connection)


def snapshot() -> str:
    """Return the SQL text that makes a new SQLite database of the newest version."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new.db"
        engine = sa.create_engine(f"sqlite:///{path}")
        migrate.upgrade(engine)
        engine.dispose()
        connection = sqlite3.connect(path)
        try:
            rows = connection.execute(
                "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type DESC, name"
            ).fetchall()
        finally:
            connection.close()
    version = f"INSERT INTO {migrate.VERSION_TABLE} VALUES ('{migrate.head()}')"
    statements = [re.sub(r"\s+", " ", row[0]).replace("( ", "(").replace(" )", ")") for row in rows]
    return f"-- revision: {migrate.head()}\n" + ";\n".join([*statements, version]) + ";\n"


if __name__ == "__main__":
    sys.exit(main())
