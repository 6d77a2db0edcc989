"""Blobs as files of a folder, and the few durable file operations that other stores need.

A blob lies at ``blake3/ab/<62 more hex digits>``. It is written beside, flushed, then linked into
its place, so that a name never stands for half a file, whatever is killed or loses power.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from errno import EDQUOT, ELOOP, ENOSPC, ENOTDIR
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from everloop.core.digest import Digest, content_digest
from everloop.core.errors import EverloopError, IntegrityError, NotFound, Unavailable

CHUNK_BYTES = 1 << 20
PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
TEMPORARY_PREFIX = ".incoming-"
ABANDONED_SECONDS = 24 * 3600
_ALGORITHM = "blake3"
_FOLDER_DIGITS = 2
_NAME = re.compile(r"blake3:[0-9a-f]{64}")
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalBlobStore:
    """A blob store in a local folder, private to its owner."""

    def __init__(self, folder: Path) -> None:
        """Open the store, making the folder if needed.

        Raises:
            Unavailable: ``blob.unavailable`` when the folder can't be made.
        """
        self._root = folder / _ALGORITHM
        try:
            self._root.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            _sweep(self._root)
        except OSError as error:
            raise _explain(error) from error

    def put(self, data: bytes) -> Digest:
        """Store bytes; return their digest.

        Raises:
            Unavailable: ``store.full`` or ``blob.unavailable``.
        """
        digest = content_digest(data)
        place = self._place(digest)
        try:
            if _is_whole(place, len(data)):
                sync_folder(place.parent)  # another process may have put it there just now
                return digest
            with _Incoming(self._root) as incoming:
                incoming.file.write(data)
                self._settle(incoming, place)
        except OSError as error:
            raise _explain(error) from error
        return digest

    def put_file(self, path: Path) -> Digest:
        """Store a file's bytes without holding them in memory.

        Raises:
            NotFound: ``file.not_found``.
            Unavailable: ``store.full`` or ``blob.unavailable``.
        """
        with open_source(path) as source:
            try:
                with _Incoming(self._root) as incoming:
                    hasher = blake3()
                    while chunk := source.read(CHUNK_BYTES):
                        hasher.update(chunk)
                        incoming.file.write(chunk)
                    digest = Digest(f"{_ALGORITHM}:{hasher.hexdigest()}")
                    self._settle(incoming, self._place(digest))
            except OSError as error:
                raise _explain(error) from error
        return digest

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
        except (FileNotFoundError, NotFound):
            return None
        return state.st_size if stat.S_ISREG(state.st_mode) else None

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

    def delete(self, digest: Digest) -> bool:
        """Remove the bytes; return whether they were there."""
        try:
            place = self._place(digest)
            place.unlink()
        except (FileNotFoundError, NotFound):
            return False
        except OSError as error:
            raise _explain(error) from error
        sync_folder(place.parent)
        return True

    def _place(self, digest: Digest) -> Path:
        # The text becomes a path: nothing but hex digits may pass.
        if _NAME.fullmatch(digest) is None:
            raise not_found(digest)
        digits = digest.partition(":")[2]
        return self._root / digits[:_FOLDER_DIGITS] / digits[_FOLDER_DIGITS:]

    def _settle(self, incoming: _Incoming, place: Path) -> None:
        try:
            place.parent.mkdir(mode=PRIVATE_FOLDER)
        except FileExistsError:
            pass
        else:
            sync_folder(self._root)
        incoming.settle(place)

    def _open(self, digest: Digest) -> BinaryIO:
        place = self._place(digest)
        try:
            folder = os.open(place.parent, _FOLDER_FLAGS)
            try:
                handle = os.open(place.name, _READ_FLAGS, dir_fd=folder)
            finally:
                os.close(folder)
        except FileNotFoundError as error:
            raise not_found(digest) from error
        except OSError as error:
            if error.errno in {ELOOP, ENOTDIR}:  # somebody put a symbolic link in its place
                raise corrupt(digest) from error
            raise _explain(error) from error
        return os.fdopen(handle, "rb")


class _Incoming:
    """A private file being written, which vanishes unless it is settled in its place."""

    def __init__(self, folder: Path) -> None:
        handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=folder)  # mode 0600
        self._path = Path(name)
        self.file: BinaryIO = os.fdopen(handle, "wb")

    def __enter__(self) -> _Incoming:
        return self

    def __exit__(self, *details: object) -> None:
        self.file.close()
        with suppress(FileNotFoundError):
            self._path.unlink()

    def settle(self, place: Path) -> None:
        """Give the finished bytes their name, durably; the first of several writers wins."""
        if not self.link(place) and not _is_whole(place, self.file.tell()):
            # Cut off after it was written, as by a damaged disk: these bytes have its digest.
            self._path.replace(place)
        sync_folder(place.parent)

    def link(self, place: Path) -> bool:
        """Give the finished bytes a name; return False when it is taken."""
        self.file.flush()
        os.fsync(self.file.fileno())
        folder = os.open(place.parent, _FOLDER_FLAGS)
        try:
            os.link(self._path, place.name, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            return False
        finally:
            os.close(folder)
        return True


def create_durably(path: Path, data: bytes) -> bool:
    """Make a file of mode 0600 that is there whole or not at all; return False when it exists.

    Raises:
        OSError: it can't be made.
    """
    with _Incoming(path.parent) as incoming:
        incoming.file.write(data)
        is_made = incoming.link(path)
    sync_folder(path.parent)
    return is_made


def append_line(path: Path, text: str) -> None:
    """Append text as whole lines to a file of mode 0600.

    One write call appends it, so lines of several processes never mix. It survives a crash of this
    process; a power cut may take the last lines, which nobody who keeps anchors relies on.

    Raises:
        Unavailable: ``store.full`` or ``file.unavailable``.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    data = (text if text.endswith("\n") else text + "\n").encode()
    try:
        handle = os.open(path, flags, PRIVATE_FILE)
        try:
            while data:
                data = data[os.write(handle, data) :]
        finally:
            os.close(handle)
    except OSError as error:
        raise _explain(error, "file.unavailable") from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, _FOLDER_FLAGS)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove what writers that were killed left behind."""
    too_old = time.time() - ABANDONED_SECONDS
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with suppress(FileNotFoundError):
            if path.lstat().st_mtime < too_old:
                path.unlink()


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


def _is_whole(place: Path, size: int) -> bool:
    try:
        state = place.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(state.st_mode) and state.st_size == size


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


def _explain(error: OSError, code: str = "blob.unavailable") -> EverloopError:
    if isinstance(error, EverloopError):
        return error
    if error.errno in {ENOSPC, EDQUOT}:
        return Unavailable(
            "store.full",
            "The disk is full; nothing of this change was kept.",
            hint="Free some space, then try again.",
        )
    return Unavailable(
        code,
        f"A file can't be used: {error.strerror or error}.",
        hint="Check the folder's rights and its disk, then try again.",
    )
