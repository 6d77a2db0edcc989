"""Records in PostgreSQL: the store of a shared instance.

Write transactions queue for one advisory lock, so they run one after the other, as if alone; the
ledger needs that anyway, for each entry follows the one before. Reads are repeatable-read
snapshots and never wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TypeAlias
from urllib.parse import urlsplit

from everloop.core.errors import EverloopError, InvalidInput, MissingExtra, Unavailable
from everloop.core.records import Kind
from everloop.storage.migrate import WRITE_LOCK, upgrade_postgres
from everloop.storage.pool import Pool
from everloop.storage.sql import Cursor, DuplicateRow, Schema, SqlTransaction
from everloop.storage.statements import POSTGRES, require_few
from everloop.storage.tables import Row, SqlValue

try:
    import psycopg
    from psycopg.pq import TransactionStatus
except ImportError as missing:
    raise MissingExtra(
        "extra.missing",
        "PostgreSQL needs the driver psycopg, which is not installed.",
        hint='Install it with: pip install "everloop[postgres]"',
    ) from missing

Connection: TypeAlias = "psycopg.Connection[Row]"

CONNECT_SECONDS = 10
LOCK_MILLISECONDS = 30_000
IDLE_CONNECTIONS = 8
MOST_BOUND = 65_535  # values of a statement; the protocol counts them with 16 bits
BEGIN_WRITE = f"BEGIN; SELECT pg_advisory_xact_lock({WRITE_LOCK})"
BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_FULL = "53100"
_TOO_LONG = "54000"


class PostgresMetadataStore:
    """The metadata store in a PostgreSQL database, migrated when it is opened.

    Safe between threads, processes and machines.
    """

    def __init__(
        self,
        url: str,
        kinds: Mapping[str, Kind],
        *,
        prepare: Callable[[Connection], None] = upgrade_postgres,
    ) -> None:
        """Open the store.

        Args:
            url: ``postgresql+psycopg://user@host:port/database`` or ``postgresql://...``.
            kinds: The kinds of record it holds.
            prepare: Brings the schema up to date; tests with kinds of their own replace it.

        Raises:
            InvalidInput: ``database.unknown`` when the address is not PostgreSQL's.
            Conflict: ``store.newer`` when a newer version of Everloop wrote the database.
            Unavailable: ``store.unavailable`` or ``store.full``.
        """
        self._address = _address(url)
        self._schema = Schema(kinds, POSTGRES)
        self._pool: Pool[Connection] = Pool(self._connect, keep=IDLE_CONNECTIONS)
        self._writers = threading.local()
        with _translated():
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
        if getattr(self._writers, "is_writing", False):
            message = "this thread has a write transaction open already"
            raise RuntimeError(message)
        self._writers.is_writing = True
        try:
            with self._transaction(BEGIN_WRITE, is_read_only=False) as work:
                yield work
        finally:
            self._writers.is_writing = False

    @contextmanager
    def read(self) -> Iterator[SqlTransaction]:
        """Open a read-only snapshot."""
        with self._transaction(BEGIN_READ, is_read_only=True) as work:
            yield work

    def scrub(self) -> None:
        """Vacuum the database, so that the space of dead rows is used again.

        PostgreSQL does not overwrite it at once, and its own log and replicas keep older states.

        Raises:
            Unavailable: ``store.unavailable`` or ``store.full``.
        """
        with _translated():
            connection = self._pool.take()
            try:
                connection.execute("VACUUM")
            except BaseException:
                connection.close()
                raise
            self._pool.give_back(connection)

    def compact(self) -> None:
        """Vacuum the database, which gives back the free pages at the ends of its tables.

        A table is not rewritten, for that locks readers out; run VACUUM FULL yourself for it.

        Raises:
            Unavailable: ``store.unavailable`` or ``store.full``.
        """
        self.scrub()

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._pool.close()

    @contextmanager
    def _transaction(self, begin: str, *, is_read_only: bool) -> Iterator[SqlTransaction]:
        connection = self._begin(begin)
        work = SqlTransaction(self._schema, _Runner(connection), is_read_only=is_read_only)
        try:
            yield work
            work.require_sound()
            with _translated():
                connection.execute("COMMIT")
        except BaseException:
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")
            raise
        finally:
            work.end()
            if connection.info.transaction_status is TransactionStatus.IDLE:
                self._pool.give_back(connection)
            else:
                connection.close()

    def _begin(self, begin: str) -> Connection:
        """Return a connection inside a transaction; an idle one may have been lost meanwhile."""
        with _translated():
            connection = self._pool.take()
            try:
                connection.execute(begin)
            except psycopg.OperationalError:
                is_lost = connection.broken
                connection.close()
                if not is_lost:
                    raise
                self._pool.drop_idle()
                connection = self._pool.take()
                connection.execute(begin)
            return connection

    def _connect(self) -> Connection:
        return psycopg.connect(
            self._address,
            autocommit=True,  # transactions are begun and ended by our own statements
            connect_timeout=CONNECT_SECONDS,
            application_name="everloop",
            options=f"-c lock_timeout={LOCK_MILLISECONDS} -c timezone=UTC -c jit=off",
        )


class _Runner:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run(self, text: str, values: Sequence[SqlValue]) -> Cursor:
        require_few(values, MOST_BOUND)
        with _in_our_words():
            return self._connection.execute(text.encode(), values)

    def run_many(self, text: str, rows: Sequence[Row]) -> int:
        with _in_our_words(), self._connection.cursor() as cursor:
            cursor.executemany(text.encode(), rows)
            return cursor.rowcount


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except psycopg.errors.UniqueViolation as error:
        raise DuplicateRow from error
    except psycopg.Error as error:
        raise _explain(error) from error


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise _explain(error) from error


def _explain(error: psycopg.Error) -> EverloopError | psycopg.Error:
    if error.sqlstate == _FULL:
        return Unavailable(
            "store.full",
            "The disk of the database is full; nothing of this change was kept.",
            hint="Free some space on the database server, then try again.",
        )
    if error.sqlstate == _TOO_LONG:
        return InvalidInput(
            "record.too_long",
            "A text is too long for an index of the database.",
            hint="Shorten it to 2,000 characters.",
        )
    if isinstance(error, psycopg.OperationalError):
        return Unavailable(
            "store.unavailable",
            f"The database does not answer: {str(error).partition(chr(10))[0]}.",
            hint="Look whether PostgreSQL runs and its address is right, then try again.",
        )
    return error  # our own mistake, such as a statement that is wrong: let it be seen


def _address(url: str) -> str:
    scheme = urlsplit(url).scheme
    if scheme not in {"postgresql", "postgresql+psycopg", "postgres"}:
        raise InvalidInput(
            "database.unknown",
            "This is not the address of a PostgreSQL database.",
            hint="Write postgresql+psycopg://user@host:port/database.",
        )
    return "postgresql" + url[len(scheme) :]
