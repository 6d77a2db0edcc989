"""The declared tables in SQLAlchemy's words, for the migrations and what checks them.

Only migrations, tools and tests import this module: SQLAlchemy takes half a second to load.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import sqlalchemy as sa

from everloop.core.records import Kind
from everloop.storage.tables import ColumnType, table_of

SqlType: TypeAlias = sa.types.TypeEngine[Any]

MAX_NAME = 60  # PostgreSQL cuts identifiers at 63 bytes

# Compared by code point on every database; PostgreSQL would else use the cluster's language.
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
# SQLite rewrites minus zero in a column of a floating point type; one without a type keeps it.
DOUBLE: SqlType = sa.Double().with_variant(sa.BLOB(), "sqlite")

TYPES: dict[ColumnType, SqlType] = {
    ColumnType.TEXT: TEXT,
    ColumnType.INSTANT: TEXT,
    ColumnType.JSON: TEXT,
    ColumnType.INTEGER: sa.BigInteger(),
    ColumnType.DOUBLE: DOUBLE,
    ColumnType.BOOLEAN: sa.Boolean(create_constraint=False),
    ColumnType.BINARY: sa.LargeBinary(),
}


def metadata_of(kinds: Mapping[str, Kind]) -> sa.MetaData:
    """Return the tables of all kinds."""
    metadata = sa.MetaData()
    for kind in kinds.values():
        sa.Table(kind.name, metadata, *_columns(kind), *_constraints(kind))
    return metadata


def constraint_name(prefix: str, table: str, fields: tuple[str, ...]) -> str:
    """Return the name of an index or a unique constraint, short enough for every database."""
    name = "_".join((prefix, table, *fields))
    if len(name) <= MAX_NAME:
        return name
    return name[: MAX_NAME - 9] + "_" + hashlib.sha256(name.encode()).hexdigest()[:8]


def _columns(kind: Kind) -> list[sa.Column[Any]]:
    return [
        sa.Column(column.name, TYPES[column.type], nullable=column.nullable)
        for column in table_of(kind).columns
    ]


def _constraints(kind: Kind) -> list[sa.Constraint | sa.Index]:
    found: list[sa.Constraint | sa.Index] = [sa.PrimaryKeyConstraint("id", name=f"pk_{kind.name}")]
    found += [
        sa.UniqueConstraint(*group, name=constraint_name("uq", kind.name, group))
        for group in kind.unique
    ]
    # A unique group is an index already.
    found += [
        sa.Index(constraint_name("ix", kind.name, group), *group)
        for group in kind.index
        if group not in kind.unique
    ]
    return found
