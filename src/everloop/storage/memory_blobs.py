"""Blobs in a dictionary: for tests and for stores that live as long as their process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from everloop.core.clock import Clock, Instant, SystemClock
from everloop.core.digest import Digest, content_digest
from everloop.core.errors import NotFound
from everloop.core.ports import StoredBlob
from everloop.storage.incoming import FileIncoming, through_a_file


class MemoryBlobStore:
    """A blob store that forgets with its process; meets the port's contract but for durability."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._bytes: dict[Digest, bytes] = {}
        self._times: dict[Digest, Instant] = {}
        self._lock = threading.Lock()

    def put(self, data: bytes) -> Digest:
        """Store bytes; return their digest."""
        digest = content_digest(data)
        with self._lock:
            self._bytes.setdefault(digest, bytes(data))
            self._times[digest] = self._clock.now()
        return digest

    def put_file(self, path: Path, *, move: bool = False, least_rate: float = 0.0) -> Digest:
        """Store a file's bytes."""
        return self.put(path.read_bytes())

    def put_many(self, items: Sequence[bytes]) -> list[Digest]:
        """Store several bytes; return their digests in order."""
        return [self.put(data) for data in items]

    def incoming(self) -> AbstractContextManager[FileIncoming]:
        """Open a blob whose bytes come in pieces."""
        return through_a_file(self.put_file)

    def get(self, digest: Digest) -> bytes:
        """Return the bytes.

        Raises:
            NotFound: ``blob.not_found``.
        """
        with self._lock:
            found = self._bytes.get(digest)
        if found is None:
            raise NotFound(
                "blob.not_found",
                f"No bytes are stored under {digest}.",
                hint="Put them first, or restore the blob store from a backup.",
            )
        return found

    def stream(self, digest: Digest) -> Iterator[bytes]:
        """Yield the bytes."""
        yield self.get(digest)

    def size(self, digest: Digest) -> int | None:
        """Return the size in bytes, or None."""
        with self._lock:
            found = self._bytes.get(digest)
        return None if found is None else len(found)

    def find(self, digest: Digest) -> StoredBlob | None:
        """Return size and age of the bytes, or None."""
        with self._lock:
            data, at = self._bytes.get(digest), self._times.get(digest)
        return None if data is None or at is None else StoredBlob(digest, len(data), at)

    def stored(self) -> Iterator[StoredBlob]:
        """Yield everything that is stored."""
        for digest in self.digests():
            found = self.find(digest)
            if found is not None:
                yield found

    def digests(self) -> Iterator[Digest]:
        """Yield every stored digest."""
        with self._lock:
            present = list(self._bytes)
        yield from present

    def delete(self, digest: Digest) -> bool:
        """Remove the bytes; return whether they were there."""
        with self._lock:
            return self._bytes.pop(digest, None) is not None
