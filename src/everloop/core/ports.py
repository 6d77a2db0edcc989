"""Ports: what the domain asks of the outside world.

Each *Contract* sentence has a test in the conformance suite that runs over every implementation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from everloop.core.clock import Clock, Instant
from everloop.core.digest import Digest
from everloop.core.ids import Id
from everloop.core.records import R, Record
from everloop.core.search import Compare, Filter, Order, Page

__all__ = [
    "BlobStore",
    "Chunk",
    "Clock",
    "Compare",
    "Condition",
    "Incoming",
    "MetadataStore",
    "Signer",
    "StoredBlob",
    "Transaction",
    "where",
]

Chunk = bytes | bytearray | memoryview
Scalar = None | bool | int | float | str | Instant


class Condition(NamedTuple):
    """One comparison; several are joined by AND. EQ and NE with None test for null."""

    field: str
    compare: Compare
    value: Scalar | tuple[Scalar, ...]


def where(**equal: Scalar) -> tuple[Condition, ...]:
    """Return equality conditions: ``where(project=p, name=n)``."""
    return tuple(Condition(name, Compare.EQ, value) for name, value in equal.items())


class Transaction(Protocol):
    """One unit of work on the metadata store.

    Contract: all writes become visible together at the end of the ``with`` block or, if it
    raises, not at all; a transaction sees its own writes; it is used by one thread.
    """

    def insert(self, record: Record) -> None:
        """Add a row.

        Raises:
            Conflict: ``record.exists`` when the id or a unique group is taken; the transaction
                must then be abandoned.
        """
        ...

    def replace(self, record: R) -> R:
        """Overwrite the row of the same id and revision; return it with the next revision.

        Raises:
            StaleVersion: ``record.stale`` when the stored revision differs or the row is gone.
            Conflict: ``record.exists`` when a unique group is taken.
        """
        ...

    def insert_many(self, records: Sequence[Record]) -> None:
        """Add rows of one kind; raises as ``insert``."""
        ...

    def replace_many(self, records: Sequence[R]) -> list[R]:
        """Overwrite rows of one kind; returns and raises as ``replace`` for each."""
        ...

    def delete(self, record: Record) -> None:
        """Remove the row of the same id and revision.

        Raises:
            StaleVersion: ``record.stale``.
        """
        ...

    def find(self, kind: type[R], id: Id) -> R | None:
        """Return the row with this id, or None."""
        ...

    def select(
        self,
        kind: type[R],
        *conditions: Condition,
        order: str = "id",
        descending: bool = False,
        limit: int | None = None,
        after: R | None = None,
    ) -> list[R]:
        """Return rows that meet all conditions, sorted by ``order``, then id.

        Nulls sort first. ``after`` is the last row of the page before (keyset paging).
        """
        ...

    def values(
        self, kind: type[Record], fields: Sequence[str], *conditions: Condition
    ) -> list[tuple[object, ...]]:
        """Return these fields of all rows that meet all conditions, in no certain order.

        For pages that show a few fields of thousands of rows: making records costs more.

        Raises:
            TypeError: a field does not exist.
        """
        ...

    def count(self, kind: type[Record], *conditions: Condition) -> int:
        """Return how many rows meet all conditions."""
        ...

    def search(
        self,
        kind: type[R],
        filter: Filter,
        *,
        order: Sequence[Order] = (),
        limit: int,
        after: str | None = None,
    ) -> Page[R]:
        """Return one page of the rows that meet a filter, sorted by all of ``order``, then by id.

        Rows without a value come last in both directions. Pages put together are the whole, each
        row once, as long as the rows stay as they are; a row that is added or removed between two
        pages moves no other.

        ``after`` is the ``next`` of the page before, which was asked for with the same order.

        Raises:
            InvalidInput: ``query.cursor_invalid``, ``text.invalid`` or ``number.invalid``.
            LimitExceeded: ``query.too_complex`` or ``query.too_many_values``.
            TypeError: a field does not exist, is not a scalar or has another type.
        """
        ...

    def distinct(
        self, kind: type[Record], field: str, *conditions: Condition, limit: int
    ) -> list[str]:
        """Return the first of the different texts of a field in rows that meet all conditions.

        They ascend by code point; null is none of them. With an index that begins with the fields
        of EQ conditions and then this one, it costs one step an answer, whatever the rows.
        """
        ...

    def mentions(self, kind: type[Record], text: str) -> Iterator[tuple[Id, str, str]]:
        """Yield id, field and content of every text or structure that contains a text.

        Structures are searched and yielded as their canonical JSON; bytes are not searched. The
        text must be ASCII without quotes and backslashes. Costs a walk over all rows of the kind,
        inside the database.
        """
        ...


class MetadataStore(Protocol):
    """The one transactional store of records.

    Contract: thread-safe and safe between processes; ``write`` transactions run one after the
    other, as if alone (serial); ``read`` sees one consistent snapshot and never blocks writers
    for long; a finished ``write`` survives ``kill -9`` and, on disk, a power cut.
    """

    def write(self) -> AbstractContextManager[Transaction]:
        """Open a serial read-write transaction; commits at the end of the block."""
        ...

    def read(self) -> AbstractContextManager[Transaction]:
        """Open a read-only snapshot; writing through it raises ``TypeError``."""
        ...

    def scrub(self) -> None:
        """Rid the store's own files of what committed changes overwrote or deleted.

        As far as the database can: what an open read still sees stays until the next call.
        Backups, replicas and the blocks that a file system gave back are out of its reach.

        Raises:
            Unavailable: ``store.unavailable`` or ``store.full``; repeat it.
        """
        ...

    def compact(self) -> None:
        """Give the space of deleted rows back to the disk, as far as the database can.

        Rewrites what it has to and keeps writers waiting meanwhile: for an hour of little work.

        Raises:
            Unavailable: ``store.unavailable`` or ``store.full``; repeat it.
        """
        ...

    def close(self) -> None:
        """Release connections; idempotent."""
        ...


class Incoming(Protocol):
    """A blob whose bytes are still coming; it vanishes unless it is kept."""

    def write(self, data: Chunk) -> None:
        """Take the next bytes.

        Raises:
            Unavailable: ``store.full`` or ``blob.unavailable``.
        """
        ...

    def keep(self, expected: Digest | None = None) -> Digest:
        """Store what was written, once, and return its digest.

        Raises:
            InvalidInput: ``blob.wrong_digest`` when it is not the expected one.
            Unavailable: ``store.full`` or ``blob.unavailable``.
        """
        ...


class StoredBlob(NamedTuple):
    """Bytes in a store: their name, length, and when they were put last."""

    digest: Digest
    size_bytes: int
    at: Instant


class BlobStore(Protocol):
    """Bytes under their digest.

    Contract: thread-safe and safe between processes; ``put`` is atomic and idempotent and, when
    it returns, durable; bytes read are verified against the digest; nothing is ever overwritten.
    """

    def put(self, data: bytes) -> Digest:
        """Store bytes; return their BLAKE3 digest."""
        ...

    def put_file(self, path: Path, *, move: bool = False, least_rate: float = 0.0) -> Digest:
        """Store a file's bytes without holding them in memory.

        With ``move`` the caller gives the file away and will not write to it again: the store may
        take it as it is, or leave it behind. With ``least_rate``, in bytes a second, the caller
        would rather do something else than wait for a store that is slower.

        Raises:
            NotFound: ``file.not_found``.
            Unavailable: ``blob.too_slow``; nothing was stored.
        """
        ...

    def put_many(self, items: Sequence[bytes]) -> list[Digest]:
        """Store several bytes at about the price of one; return their digests in order.

        Atomic for each, not for all: when it raises, some may have been stored.
        """
        ...

    def incoming(self) -> AbstractContextManager[Incoming]:
        """Open a blob whose bytes come in pieces."""
        ...

    def get(self, digest: Digest) -> bytes:
        """Return the bytes.

        Raises:
            NotFound: ``blob.not_found``.
            IntegrityError: ``blob.corrupt`` when the stored bytes do not match.
        """
        ...

    def stream(self, digest: Digest) -> Iterator[bytes]:
        """Yield the bytes in pieces; raises as ``get``, a mismatch after the last piece."""
        ...

    def size(self, digest: Digest) -> int | None:
        """Return the size in bytes, or None when absent."""
        ...

    def find(self, digest: Digest) -> StoredBlob | None:
        """Return size and age of the bytes, or None when absent; putting them again renews them."""
        ...

    def stored(self) -> Iterable[StoredBlob]:
        """Yield everything that is stored, in no particular order."""
        ...

    def digests(self) -> Iterable[Digest]:
        """Yield every stored digest, in no particular order."""
        ...

    def delete(self, digest: Digest) -> bool:
        """Remove the bytes; return whether they were there."""
        ...


class Signer(Protocol):
    """Signs with one Ed25519 key.

    Contract: thread-safe; the private key never leaves the implementation.
    """

    @property
    def name(self) -> str:
        """Key name, such as ``ledger`` or ``evaluator``."""
        ...

    @property
    def public_key(self) -> bytes:
        """The 32 raw bytes of the public key."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte signature."""
        ...
