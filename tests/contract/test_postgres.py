"""What is special about PostgreSQL: a server that goes away, and a driver that is not there."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from everloop.core.errors import InvalidInput, Unavailable
from everloop.storage.postgres import PostgresMetadataStore
from tests.contract.kinds import KINDS, Named, named
from tests.contract.stores import make_postgres_tables, open_store

ROOT = Path(__file__).resolve().parents[2]


def test_a_store_finds_its_server_again(postgres_address: str) -> None:
    make_postgres_tables(postgres_address)
    store = open_store(postgres_address)
    with store.write() as tx:
        tx.insert(named("1", "a"))
    end_connections(postgres_address)

    with store.read() as view:
        assert 1 == view.count(Named)
    store.close()


def test_a_connection_lost_inside_a_transaction_is_unavailable(postgres_address: str) -> None:
    make_postgres_tables(postgres_address)
    store = open_store(postgres_address)

    def lose() -> None:
        with store.write() as tx:
            tx.insert(named("1", "a"))
            end_connections(postgres_address)
            tx.insert(named("2", "b"))

    with pytest.raises(Unavailable, match=r"store\.unavailable"):
        lose()

    with store.read() as view:
        assert 0 == view.count(Named)
    store.close()


def end_connections(address: str) -> None:
    plain = address.replace("+psycopg", "")
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'everloop' AND datname = current_database()"
        )


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: nobody answers
        port = taken.getsockname()[1]

        with pytest.raises(Unavailable, match=r"store\.unavailable"):
            PostgresMetadataStore(f"postgresql+psycopg://nobody@127.0.0.1:{port}/none", KINDS)


@pytest.mark.parametrize("url", ["mysql://a/b", "x", "sqlite:///x.db"])
def test_another_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"database\.unknown"):
        PostgresMetadataStore(url, KINDS)


def test_a_text_too_long_for_an_index_is_refused(postgres_address: str) -> None:
    make_postgres_tables(postgres_address)
    store = open_store(postgres_address)
    incompressible = "".join(chr(0x4E00 + (n * 7919) % 20_000) for n in range(4000))

    with pytest.raises(InvalidInput, match=r"record\.too_long"), store.write() as tx:
        tx.insert(named("1", incompressible))
    store.close()


@pytest.mark.parametrize(
    ("library", "module", "extra"),
    [
        ("psycopg", "everloop.storage.postgres", "everloop[postgres]"),
        ("obstore", "everloop.storage.s3", "everloop[s3]"),
    ],
)
def test_a_missing_driver_names_its_install_line(library: str, module: str, extra: str) -> None:
    program = (
        f"import sys; sys.modules['{library}'] = None\n"
        "from everloop.core.errors import MissingExtra\n"
        f"try: import {module}\n"
        "except MissingExtra as error: print(error.hint)"
    )

    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert f'pip install "{extra}"' in result.stdout
