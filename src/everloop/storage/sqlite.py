"""Records in one SQLite file: the store of an embedded instance.

Write-ahead logging lets readers go on while one writer writes; ``synchronous=FULL`` makes a
finished transaction survive a power cut (https://www.sqlite.org/wal.html, section 3).
``secure_delete`` fills what is deleted or overwritten with zeros
(https://www.sqlite.org/pragma.html#pragma_secure_delete); older pages stay in the write-ahead log
until a checkpoint truncates it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from everloop.core.errors import EverloopError, IntegrityError, Unavailable
from everloop.core.records import Kind
from everloop.storage.migrate import upgrade_sqlite
from everloop.storage.pool import Pool
from everloop.storage.sql import DuplicateRow, Schema, SqlTransaction
from everloop.storage.statements import SQLITE, require_few
from everloop.storage.tables import Row, SqlValue

BUSY_SECONDS = 30.0
SCRUB_MILLISECONDS = 2_000
IDLE_CONNECTIONS = 8
CACHED_STATEMENTS = 512
MAPPED_BYTES = 4 * 2**30  # read through the system's page cache, without a call for each page
BOUND_ANYWHERE = 32_766  # values of a statement; some builds of SQLite take more
PRIVATE_FILE = 0o600
PRIMARY_CODE = 0xFF  # the low byte of an extended result code
_DUPLICATE = frozenset({sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY})


class SqliteMetadataStore:
    """The metadata store in a SQLite file, made and migrated when it is opened.

    Safe between threads and processes on one machine. Not for network file systems.
    """

    def __init__(
        self,
        path: Path,
        kinds: Mapping[str, Kind],
        *,
        prepare: Callable[[sqlite3.Connection], None] = upgrade_sqlite,
    ) -> None:
        """Open the store.

        Args:
            path: The file; made with mode 0600 when it is not there.
            kinds: The kinds of record it holds.
            prepare: Brings the schema up to date; tests with kinds of their own replace it.

        Raises:
            Conflict: ``store.newer`` when a newer version of Everloop wrote the file.
            IntegrityError: ``store.corrupt``.
            Unavailable: ``store.unavailable`` or ``store.full``.
        """
        self._path = path
        self._schema = Schema(kinds, SQLITE)
        self._pool: Pool[sqlite3.Connection] = Pool(self._connect, keep=IDLE_CONNECTIONS)
        self._write_lock = threading.Lock()
        self._writer: int | None = None
        with self._translated():
            _create_private(path)
            connection = self._pool.take()
            try:
                prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._pool.give_back(connection)

    @contextmanager
    def write(self) -> Iterator[SqlTransaction]:
        """Open a serial read-write transaction."""
        thread = threading.get_ident()
        if self._writer == thread:
            message = "this thread has a write transaction open already"
            raise RuntimeError(message)
        # Threads queue here, in order and asleep, instead of polling the file's lock.
        with self._write_lock:
            self._writer = thread
            try:
                with self._transaction("BEGIN IMMEDIATE", is_read_only=False) as work:
                    yield work
            finally:
                self._writer = None

    @contextmanager
    def read(self) -> Iterator[SqlTransaction]:
        """Open a read-only snapshot."""
        with self._transaction("BEGIN", is_read_only=True) as work:
            yield work

    def scrub(self) -> None:
        """Truncate the write-ahead log, the one place where overwritten rows may still be.

        A reader of an older snapshot keeps it; then the next call, or closing, does the rest.

        Raises:
            Unavailable: ``store.unavailable`` or ``store.full``.
        """
        with self._write_lock, self._translated(), closing(self._connect()) as connection:
            connection.execute(f"PRAGMA busy_timeout = {SCRUB_MILLISECONDS}")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def compact(self) -> None:
        """Rewrite the file without its free pages, and truncate the write-ahead log.

        Needs as much free disk space as the file has content (https://www.sqlite.org/lang_vacuum).

        Raises:
            Unavailable: ``store.unavailable`` or ``store.full``.
        """
        with self._write_lock, self._translated(), closing(self._connect()) as connection:
            connection.execute("VACUUM")
        self.scrub()

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._pool.close()

    @contextmanager
    def _transaction(self, begin: str, *, is_read_only: bool) -> Iterator[SqlTransaction]:
        with self._translated():
            connection = self._pool.take()
            try:
                connection.execute(begin)
            except BaseException:
                connection.close()
                raise
        work = SqlTransaction(self._schema, _Runner(connection), is_read_only=is_read_only)
        try:
            yield work
            work.require_sound()
            with self._translated():
                connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        finally:
            work.end()
            if connection.in_transaction:
                connection.close()
            else:
                self._pool.give_back(connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=CACHED_STATEMENTS,
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}").fetchall()
        connection.execute("PRAGMA secure_delete = ON").fetchall()
        return connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _explain(error, self._path) from error
        except OSError as error:
            if isinstance(error, EverloopError):
                raise
            raise _unavailable(self._path, error.strerror or str(error)) from error


def _create_private(path: Path) -> None:
    """Make the file before SQLite does; its companions get the same mode from SQLite."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, PRIVATE_FILE))


class _Runner:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, text: str, values: Sequence[SqlValue]) -> sqlite3.Cursor:
        if len(values) > BOUND_ANYWHERE:
            require_few(values, self._connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER))
        with _IN_OUR_WORDS:
            return self._connection.execute(text, values)

    def run_many(self, text: str, rows: Sequence[Row]) -> int:
        with _IN_OUR_WORDS:
            return self._connection.executemany(text, rows).rowcount


class _InOurWords:
    # A class and not a generator: it stands around every statement.
    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if isinstance(error, sqlite3.IntegrityError) and error.sqlite_errorcode in _DUPLICATE:
            raise DuplicateRow from error
        if isinstance(error, sqlite3.IntegrityError):
            return
        if isinstance(error, sqlite3.Error):
            raise _explain(error, Path("the database")) from error


_IN_OUR_WORDS = _InOurWords()


def _explain(error: sqlite3.Error, path: Path) -> EverloopError:
    code = getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE
    if code == sqlite3.SQLITE_FULL:
        return Unavailable(
            "store.full",
            "The disk of the database is full; nothing of this change was kept.",
            hint="Free some space, then try again.",
        )
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return IntegrityError(
            "store.corrupt",
            f"{path.name} is not a sound database: {error}.",
            hint="Restore it from a backup; `everloop audit verify` tells what is affected.",
        )
    return _unavailable(path, str(error))


def _unavailable(path: Path, why: str) -> Unavailable:
    return Unavailable(
        "store.unavailable",
        f"{path.name} can't be used: {why}.",
        hint="Look for another process that holds it, and at the rights of its folder; try again.",
    )
