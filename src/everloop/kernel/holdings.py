"""Whose bytes are whose: a project may use bytes that were put into it, and no others.

Bytes lie once under their digest, whoever puts them. So that nobody gets another project's bytes
by naming their digest, a row says which project has put which bytes. To name bytes in a record
gives no right to them: only to put them does, and verbs refuse what their project does not hold as
if it were not there.

A process remembers what was put through it, so that a training run pays no transaction for each
file: the row is written with the first record that needs the bytes, in the same transaction, or
by ``blob.keep`` where another process may come next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock

from everloop.core.clock import Clock, Instant
from everloop.core.digest import Digest
from everloop.core.errors import NotFound
from everloop.core.ids import Id, ProjectId
from everloop.core.ports import (
    BlobStore,
    Chunk,
    Compare,
    Condition,
    Incoming,
    StoredBlob,
    Transaction,
)
from everloop.core.records import Record, record

MOST_REMEMBERED = 100_000
IDS_A_QUERY = 500
REMEMBERED_FOR = timedelta(hours=1)
"""Shorter than a collection spares bytes, which removes the rows of what it deleted."""
_NEVER = datetime.min.replace(tzinfo=UTC)
OpenStore = Callable[[], AbstractContextManager[Transaction]]


@record("held_blob", covered=False)
class HeldBlob(Record, frozen=True, kw_only=True):
    """That a project has put bytes; the id is their digest, a slash and the project."""

    project: ProjectId


class Holdings:
    """What the projects of one store hold; thread-safe.

    Args:
        write: Opens a write transaction, for what is remembered when that becomes too much.
        clock: For how long a row is taken as being there still.
        most: How much is remembered.
    """

    def __init__(self, write: OpenStore, clock: Clock, *, most: int = MOST_REMEMBERED) -> None:
        self._write = write
        self._clock = clock
        self._most = most
        self._lock = Lock()
        # What was put through this process, and when a row was written that says so.
        self._seen: dict[Id, Instant | None] = {}

    def remember(
        self, project: ProjectId, digests: Iterable[Digest], *, may_write: bool = True
    ) -> None:
        """Note that a project has put bytes.

        ``may_write`` is False inside a transaction, which another one would wait for.
        """
        with self._lock:
            for digest in digests:
                self._seen[_key(project, digest)] = None
            if not may_write or len(self._seen) <= self._most:
                return
            full, self._seen = self._seen, {}
        keys = [key for key, written in full.items() if written is None]
        try:
            with self._write() as tx:
                _write(tx, keys)
        except BaseException:
            with self._lock:
                self._seen = full | self._seen
            raise

    def holds(self, tx: Transaction, project: ProjectId, digest: Digest) -> bool:
        """Tell whether a project has put bytes."""
        key = _key(project, digest)
        written = self._seen.get(key, _NEVER)
        if written is None or written > self._clock.now() - REMEMBERED_FOR:
            return True
        return tx.find(HeldBlob, key) is not None

    def is_unwritten(self, project: ProjectId, digest: Digest) -> bool:
        """Tell whether only this process knows that a project has put bytes."""
        return self._seen.get(_key(project, digest), _NEVER) is None

    def write(self, tx: Transaction, project: ProjectId, digests: Iterable[Digest]) -> None:
        """Add the rows that are not there yet; ``written`` follows when they are committed."""
        _write(tx, [_key(project, digest) for digest in digests])

    def written(self, project: ProjectId, digests: Iterable[Digest]) -> None:
        """Note that rows were committed."""
        now = self._clock.now()
        with self._lock:
            for digest in digests:
                self._seen[_key(project, digest)] = now


def hold(tx: Transaction, project: ProjectId, digest: Digest) -> None:
    """Let a project have bytes that an instance verb has put for it."""
    _write(tx, [_key(project, digest)])


def forget_holders(tx: Transaction, digest: Digest) -> None:
    """Remove the rows of bytes that are gone."""
    begins = Condition("id", Compare.GE, f"{digest}/")
    ends = Condition("id", Compare.LT, f"{digest}0")  # "0" comes after "/"
    for row in tx.select(HeldBlob, begins, ends):
        tx.delete(row)


def _key(project: ProjectId, digest: Digest) -> Id:
    return Id(f"{digest}/{project}")


def _write(tx: Transaction, keys: Sequence[Id]) -> None:
    for first in range(0, len(keys), IDS_A_QUERY):
        group = tuple(keys[first : first + IDS_A_QUERY])
        there = {row.id for row in tx.select(HeldBlob, Condition("id", Compare.IN, group))}
        missing = [key for key in group if key not in there]
        if missing:
            rows = [HeldBlob(id=key, project=ProjectId(key.partition("/")[2])) for key in missing]
            tx.insert_many(rows)


class ProjectBlobs:
    """A blob store as one project sees it: what others put is not there.

    Args:
        whole: The store itself.
        read: Opens a snapshot of records; inside a transaction, gives that.
        used: Collects what one call puts and uses; None outside a call.
    """

    def __init__(
        self,
        whole: BlobStore,
        holdings: Holdings,
        project: ProjectId,
        read: OpenStore,
        used: dict[Digest, None] | None = None,
    ) -> None:
        self.whole = whole
        self._holdings = holdings
        self._project = project
        self._read = read
        self._used = used

    def within(self, tx: Transaction) -> ProjectBlobs:
        """Return the same store for use inside a transaction."""
        return ProjectBlobs(
            self.whole, self._holdings, self._project, lambda: nullcontext(tx), self._used
        )

    def is_held(self, digest: Digest) -> bool:
        """Tell whether the project has put bytes; a call that asks is about to use them."""
        if self.is_unwritten(digest):
            self.use([digest])
            return True
        with self._read() as tx:
            return self._holdings.holds(tx, self._project, digest)

    def is_unwritten(self, digest: Digest) -> bool:
        """Tell whether no row says yet that the project has put bytes."""
        return self._holdings.is_unwritten(self._project, digest)

    def use(self, digests: Iterable[Digest]) -> None:
        """Note what a call's records name; it matters for bytes that were just put."""
        if self._used is not None:
            self._used.update((digest, None) for digest in digests if self.is_unwritten(digest))

    def write_used(self, tx: Transaction) -> None:
        """Add the rows of what the call put or used."""
        if self._used:
            self._holdings.write(tx, self._project, self._used)

    def written(self) -> None:
        """Note that ``write_used`` is committed."""
        if self._used:
            self._holdings.written(self._project, self._used)

    def put(self, data: bytes) -> Digest:
        """Store bytes; return their digest."""
        return self._own([self.whole.put(data)])[0]

    def put_file(self, path: Path, *, move: bool = False, least_rate: float = 0.0) -> Digest:
        """Store a file's bytes without holding them in memory."""
        return self._own([self.whole.put_file(path, move=move, least_rate=least_rate)])[0]

    def put_many(self, items: Sequence[bytes]) -> list[Digest]:
        """Store several bytes; return their digests in order."""
        return self._own(self.whole.put_many(items))

    @contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """Open a blob whose bytes come in pieces."""
        with self.whole.incoming() as opened:
            yield _OwnIncoming(opened, self._own)

    def get(self, digest: Digest) -> bytes:
        """Return the bytes.

        Raises:
            NotFound: ``blob.not_found``, also when only other projects have put them.
            IntegrityError: ``blob.corrupt``.
        """
        self._require(digest)
        return self.whole.get(digest)

    def stream(self, digest: Digest) -> Iterator[bytes]:
        """Yield the bytes in pieces; raises as ``get``."""
        self._require(digest)
        return self.whole.stream(digest)

    def size(self, digest: Digest) -> int | None:
        """Return the size in bytes, or None when absent."""
        return self.whole.size(digest) if self.is_held(digest) else None

    def find(self, digest: Digest) -> StoredBlob | None:
        """Return size and age of the bytes, or None when absent."""
        return self.whole.find(digest) if self.is_held(digest) else None

    def stored(self) -> Iterable[StoredBlob]:
        """Yield everything that the project has put."""
        return (blob for blob in self.whole.stored() if self.is_held(blob.digest))

    def digests(self) -> Iterable[Digest]:
        """Yield every digest that the project has put."""
        return (digest for digest in self.whole.digests() if self.is_held(digest))

    def delete(self, digest: Digest) -> bool:
        """Refuse: the same bytes may be another project's.

        Raises:
            TypeError: always.
        """
        message = f"{digest} may be needed by other projects; only a collection deletes bytes"
        raise TypeError(message)

    def _own(self, digests: list[Digest]) -> list[Digest]:
        self._holdings.remember(self._project, digests, may_write=self._used is None)
        self.use(digests)
        return digests

    def _require(self, digest: Digest) -> None:
        if not self.is_held(digest):
            raise NotFound(
                "blob.not_found",
                f"No bytes are stored under {digest}.",
                hint="Put them first.",
            )


class _OwnIncoming:
    def __init__(self, inner: Incoming, own: Callable[[list[Digest]], list[Digest]]) -> None:
        self._inner = inner
        self._own = own

    def write(self, data: Chunk) -> None:
        self._inner.write(data)

    def keep(self, expected: Digest | None = None) -> Digest:
        return self._own([self._inner.keep(expected)])[0]
