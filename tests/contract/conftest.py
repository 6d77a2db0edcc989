"""Every metadata store, under one name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from everloop.core.ports import MetadataStore
from tests.contract.stores import make_postgres_tables, open_store
from tests.parts.postgres import PostgresServer

POSTGRES = pytest.param("postgres", marks=pytest.mark.needs_postgres)


@pytest.fixture(scope="session")
def postgres_address(postgres_server: PostgresServer) -> str:
    """One database for all contract tests of this worker; each test empties it."""
    return postgres_server.create_database()


@pytest.fixture(params=["memory", "sqlite", POSTGRES])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the store at hand lies; see ``open_store``."""
    return find_address(request, tmp_path)


@pytest.fixture(params=["sqlite", POSTGRES])
def shared_address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store lies that several processes can open."""
    return find_address(request, tmp_path)


def find_address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    if request.param == "memory":
        return "memory"
    url: str = request.getfixturevalue("postgres_address")
    make_postgres_tables(url)
    return url


@pytest.fixture
def store(address: str) -> Iterator[MetadataStore]:
    """A fresh, empty store."""
    opened = open_store(address)
    yield opened
    opened.close()


@pytest.fixture
def shared(shared_address: str) -> Iterator[MetadataStore]:
    """A fresh, empty store that other processes can open too."""
    opened = open_store(shared_address)
    yield opened
    opened.close()
