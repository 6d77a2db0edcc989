"""Blobs as files of a folder.

A blob lies at ``blake3/ab/<62 more hex digits>``. It is written beside, flushed, then linked into
its place, so that a name never stands for half a file, whatever is killed or loses power. Small
blobs that come together lie in packs.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from errno import ELOOP, ENOTDIR
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from everloop.core.digest import Digest, content_digest, require_digest
from everloop.core.errors import IntegrityError, NotFound
from everloop.core.ports import Chunk, StoredBlob
from everloop.storage.files import FOLDER_FLAGS, Draft, explain, renew, sweep, sync_folder
from everloop.storage.packs import MAX_PACKED_BYTES, Packs

CHUNK_BYTES = 1 << 20
PRIVATE_FOLDER = 0o700
_ALGORITHM = "blake3"
_FOLDER_DIGITS = 2
_NAME = re.compile(r"blake3:[0-9a-f]{64}")
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalBlobStore:
    """A blob store in a local folder, private to its owner."""

    def __init__(self, folder: Path) -> None:
        """Open the store, making the folder if needed.

        Raises:
            Unavailable: ``blob.unavailable`` when the folder can't be made.
        """
        self._root = folder / _ALGORITHM
        packs = folder / "packs"
        try:
            self._root.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            for place in (self._root, packs):
                sweep(place)
            self._packs = Packs(packs)
        except OSError as error:
            raise explain(error) from error

    def put(self, data: bytes) -> Digest:
        """Store bytes; return their digest.

        Raises:
            Unavailable: ``store.full`` or ``blob.unavailable``.
        """
        digest = content_digest(data)
        place = self._place(digest)
        try:
            if renew(place, len(data)) and _holds(place, data):
                sync_folder(place.parent)  # another process may have put it there just now
                return digest
            is_small = len(data) <= MAX_PACKED_BYTES
            if is_small and self._packs.get(digest) == data and self._packs.renew([digest]):
                return digest
            with Draft(self._root) as draft:
                draft.write(data)
                self._settle(draft, place)
        except OSError as error:
            raise explain(error) from error
        return digest

    def put_file(self, path: Path, *, move: bool = False, least_rate: float = 0.0) -> Digest:
        """Store a file's bytes without holding them in memory.

        With ``move``, a file of the same file system becomes the blob itself.

        Raises:
            NotFound: ``file.not_found``.
            Unavailable: ``store.full`` or ``blob.unavailable``.
        """
        with open_source(path) as source:
            try:
                with self._draft_of(path, move=move) as draft:
                    hasher = blake3()
                    while chunk := source.read(CHUNK_BYTES):
                        hasher.update(chunk)
                        if not draft.is_given:
                            draft.write(chunk)
                    digest = Digest(f"{_ALGORITHM}:{hasher.hexdigest()}")
                    self._settle(draft, self._place(digest))
            except OSError as error:
                raise explain(error) from error
        return digest

    def _draft_of(self, path: Path, *, move: bool) -> Draft:
        if move and not path.is_symlink():
            with suppress(OSError):  # another file system, or one without links
                return Draft.of(path, self._root)
        return Draft(self._root)

    def put_many(self, items: Sequence[bytes]) -> list[Digest]:
        """Store several bytes, the small ones together; return their digests in order.

        Raises:
            Unavailable: ``store.full`` or ``blob.unavailable``.
        """
        digests = [content_digest(data) for data in items]
        named = dict(zip(digests, items, strict=True))
        small = {name: data for name, data in named.items() if len(data) <= MAX_PACKED_BYTES}
        if len(small) == 1:
            small = {}
        try:
            known = self._packs.renew(small)
            self._packs.add({name: data for name, data in small.items() if name not in known})
            # A disk may have changed what was known: then the right bytes go beside.
            small = {n: d for n, d in small.items() if n not in known or self._packs.get(n) == d}
        except OSError as error:
            raise explain(error) from error
        for name, data in named.items():
            if name not in small:
                self.put(data)
        return digests

    @contextmanager
    def incoming(self) -> Iterator[LocalIncoming]:
        """Open a blob whose bytes come in pieces."""
        try:
            draft = Draft(self._root)
        except OSError as error:
            raise explain(error) from error
        with draft:
            yield LocalIncoming(self, draft)

    def get(self, digest: Digest) -> bytes:
        """Return the bytes.

        Raises:
            NotFound: ``blob.not_found``.
            IntegrityError: ``blob.corrupt``.
        """
        with self._open(digest) as file:
            data = file.read()
        if content_digest(data) != digest:
            raise corrupt(digest)
        return data

    def stream(self, digest: Digest) -> Iterator[bytes]:
        """Yield the bytes in pieces; raises as ``get``, a mismatch after the last piece."""
        hasher = blake3()
        with self._open(digest) as file:
            while chunk := file.read(CHUNK_BYTES):
                hasher.update(chunk)
                yield chunk
        if f"{_ALGORITHM}:{hasher.hexdigest()}" != digest:
            raise corrupt(digest)

    def size(self, digest: Digest) -> int | None:
        """Return the size in bytes, or None when absent."""
        try:
            state = self._place(digest).lstat()
        except FileNotFoundError:
            return self._packs.size(digest)
        except NotFound:
            return None
        return state.st_size if stat.S_ISREG(state.st_mode) else None

    def find(self, digest: Digest) -> StoredBlob | None:
        """Return size and age of the bytes, or None when absent."""
        try:
            state = self._place(digest).lstat()
        except FileNotFoundError:
            return self._packs.stat(digest)
        except NotFound:
            return None
        if not stat.S_ISREG(state.st_mode):
            return None
        return StoredBlob(digest, state.st_size, datetime.fromtimestamp(state.st_mtime, UTC))

    def stored(self) -> Iterator[StoredBlob]:
        """Yield everything that is stored."""
        for digest in self.digests():
            found = self.find(digest)
            if found is not None:  # else somebody deleted it meanwhile
                yield found

    def digests(self) -> Iterator[Digest]:
        """Yield every stored digest."""
        with os.scandir(self._root) as folders:
            names = [entry.name for entry in folders if entry.is_dir(follow_symlinks=False)]
        for name in names:
            with os.scandir(self._root / name) as files:
                found = [entry.name for entry in files if entry.is_file(follow_symlinks=False)]
            for rest in found:
                digest = f"{_ALGORITHM}:{name}{rest}"
                if _NAME.fullmatch(digest):
                    yield Digest(digest)
        yield from (each for each in self._packs.digests() if not self._place(each).exists())

    def delete(self, digest: Digest) -> bool:
        """Remove the bytes; return whether they were there."""
        try:
            place = self._place(digest)
        except NotFound:
            return False
        try:
            was_packed = self._packs.delete(digest)
            if not place.exists():
                return was_packed
            place.unlink(missing_ok=True)
            sync_folder(place.parent)
        except OSError as error:
            raise explain(error) from error
        return True

    def _place(self, digest: Digest) -> Path:
        # The text becomes a path: nothing but hex digits may pass.
        if _NAME.fullmatch(digest) is None:
            raise not_found(digest)
        digits = digest.partition(":")[2]
        return self._root / digits[:_FOLDER_DIGITS] / digits[_FOLDER_DIGITS:]

    def _settle(self, draft: Draft, place: Path) -> None:
        try:
            place.parent.mkdir(mode=PRIVATE_FOLDER)
        except FileExistsError:
            pass
        else:
            sync_folder(self._root)
        draft.settle(place)

    def _open(self, digest: Digest) -> BinaryIO:
        place = self._place(digest)
        try:
            folder = os.open(place.parent, FOLDER_FLAGS)
            try:
                handle = os.open(place.name, _READ_FLAGS, dir_fd=folder)
            finally:
                os.close(folder)
        except FileNotFoundError as error:
            packed = self._packs.get(digest)
            if packed is None:
                raise not_found(digest) from error
            return io.BytesIO(packed)
        except OSError as error:
            if error.errno in {ELOOP, ENOTDIR}:  # somebody put a symbolic link in its place
                raise corrupt(digest) from error
            raise explain(error) from error
        return os.fdopen(handle, "rb")


class LocalIncoming:
    """A blob that is written where it will lie, so that keeping it copies nothing."""

    def __init__(self, store: LocalBlobStore, draft: Draft) -> None:
        self._store = store
        self._draft = draft
        self._hasher = blake3()

    def write(self, data: Chunk) -> None:
        """Take the next bytes.

        Raises:
            Unavailable: ``store.full`` or ``blob.unavailable``.
        """
        self._hasher.update(data)
        try:
            self._draft.write(data)
        except OSError as error:
            raise explain(error) from error

    def keep(self, expected: Digest | None = None) -> Digest:
        """Store what was written and return its digest.

        Raises:
            InvalidInput: ``blob.wrong_digest``.
            Unavailable: ``store.full`` or ``blob.unavailable``.
        """
        digest = require_digest(Digest(f"{_ALGORITHM}:{self._hasher.hexdigest()}"), expected)
        try:
            self._store._settle(self._draft, self._store._place(digest))
        except OSError as error:
            raise explain(error) from error
        return digest


def _holds(place: Path, data: bytes) -> bool:
    """Say whether a file still has these bytes; a disk may have changed them since."""
    view, at = memoryview(data), 0
    try:
        with place.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                if view[at : at + len(chunk)] != chunk:
                    return False
                at += len(chunk)
    except FileNotFoundError:  # deleted meanwhile
        return False
    return at == len(data)


def open_source(path: Path) -> BinaryIO:
    """Open a caller's file for reading.

    Raises:
        NotFound: ``file.not_found``.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise NotFound(
            "file.not_found",
            f"The file {path.name} can't be read: {error.strerror}.",
            hint="Check its name and its rights.",
        ) from error


def not_found(digest: Digest) -> NotFound:
    """Return the refusal of a digest under which nothing lies."""
    return NotFound(
        "blob.not_found",
        f"No bytes are stored under {digest}.",
        hint="Put them first, or restore the blob store from a backup.",
    )


def corrupt(digest: Digest) -> IntegrityError:
    """Return the report of bytes that changed after they were stored."""
    return IntegrityError(
        "blob.corrupt",
        f"The bytes stored under {digest} are not those that were put there.",
        hint="Restore this blob from a backup and look at who can write to the blob store.",
    )
