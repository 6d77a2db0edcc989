"""A real PostgreSQL cluster for the tests, made in a temporary folder and thrown away.

Every xdist worker has its own, so workers share nothing. `postgres_url` gives each test a fresh,
empty database in it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
import pytest

from tests.parts.found import find_postgres_folder

# A test cluster is thrown away, so it need not survive a power cut; all else is PostgreSQL's own.
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
# A cluster for benchmarks keeps what it has committed, as a shared instance would.
DURABLE = ("shared_buffers=512MB", "listen_addresses=127.0.0.1")
LEAN = ("shared_buffers=32MB", "max_connections=100", "listen_addresses=127.0.0.1")


@dataclass(frozen=True)
class PostgresServer:
    """A running cluster: where it listens, and how to get a database of one's own."""

    port: int
    log: Path
    _numbers: Iterator[int]

    def url(self, database: str) -> str:
        """Return the SQLAlchemy address of a database."""
        return f"postgresql+psycopg://tester@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """Create an empty database and return its SQLAlchemy address."""
        name = f"everloop_{next(self._numbers)}"
        self._administer(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop a database with whatever is still connected to it."""
        self._administer(f'DROP DATABASE IF EXISTS "{url.rsplit("/", 1)[1]}" WITH (FORCE)')

    def _administer(self, statement: str) -> None:
        address = f"postgresql://tester@127.0.0.1:{self.port}/postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement.encode())


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Start a PostgreSQL cluster for this worker; stop and remove it at the end."""
    with running_cluster((*FAST, *LEAN)) as server:
        yield server


@contextmanager
def running_cluster(settings: Sequence[str]) -> Iterator[PostgresServer]:
    """Run a cluster of its own with these settings for the length of the block."""
    folder = find_postgres_folder()
    assert folder is not None, "a test that uses this fixture carries the marker needs_postgres"
    home = Path(tempfile.mkdtemp(prefix="everloop-postgres-"))
    log = home / "log"
    as_user = _unprivileged(home)
    cluster = home / "cluster"
    pg_ctl = [*as_user, str(folder / "pg_ctl"), "-D", str(cluster), "-w", "-t", "60"]
    try:
        initdb = [*as_user, str(folder / "initdb"), "-D", str(cluster)]
        _run([*initdb, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"], log)
        port = _start(pg_ctl, home, log, settings)
        try:
            yield PostgresServer(port, log, count(1))
        finally:
            _run([*pg_ctl, "-m", "immediate", "stop"], log)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """Give the test an empty database; the value is a SQLAlchemy address."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


def _start(pg_ctl: list[str], home: Path, log: Path, settings: Sequence[str]) -> int:
    # Between choosing a free port and binding it another process may take it: choose again.
    for attempt in range(3):
        port = _free_port()
        own = (f"port={port}", f"unix_socket_directories={home}")
        options = " ".join(f"-c {setting}" for setting in (*settings, *own))
        try:
            _run([*pg_ctl, "-l", str(home / "server.log"), "-o", options, "start"], log)
        except RuntimeError:
            if attempt == 2:
                raise
        else:
            return port
    raise AssertionError("unreachable")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _unprivileged(home: Path) -> list[str]:
    """Return the prefix that leaves root, which PostgreSQL refuses to run as."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam("postgres")
    os.chown(home, user.pw_uid, user.pw_gid)
    ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return ["setpriv", *ids, "--"]


def _run(command: list[str], log: Path) -> None:
    # To a file, not a pipe: the server would inherit the pipe and hold it open for ever.
    with log.open("ab") as output:
        result = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
        )
    if result.returncode != 0:
        server_log = log.parent / "server.log"
        texts = [path.read_text(errors="replace") for path in (log, server_log) if path.exists()]
        raise RuntimeError(f"{command[-1]} failed:\n" + "\n".join(texts)[-4000:])
