"""Files that are there whole or not at all, and stay there."""

from __future__ import annotations

import ctypes
import os
import stat
import tempfile
import time
from contextlib import suppress
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import BinaryIO

from everloop.core.errors import EverloopError, Unavailable
from everloop.core.ports import Chunk

PRIVATE_FILE = 0o600
TEMPORARY_PREFIX = ".incoming-"
ABANDONED_SECONDS = 24 * 3600
WRITEBACK_BYTES = 16 << 20
_SYNC_FILE_RANGE_WRITE = 2
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Draft:
    """A private file being written, which vanishes unless it is settled in its place."""

    def __init__(self, folder: Path) -> None:
        handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=folder)  # mode 0600
        self._path = Path(name)
        self.file: BinaryIO = os.fdopen(handle, "wb")
        self.is_given = False
        self._size = 0
        self._started = 0

    @classmethod
    def of(cls, given: Path, folder: Path) -> Draft:
        """Return a draft that is a file which its owner gives away.

        Raises:
            OSError: it lies on another file system.
        """
        draft = cls(folder)
        try:
            draft._path.unlink()
            os.link(given, draft._path, follow_symlinks=False)
            draft.file.close()
            draft.file = draft._path.open("ab")
        except BaseException:
            draft.__exit__()
            raise
        draft.is_given = True
        draft._path.chmod(PRIVATE_FILE)
        return draft

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *details: object) -> None:
        self.file.close()
        with suppress(FileNotFoundError):
            self._path.unlink()

    def write(self, data: Chunk) -> None:
        """Add bytes.

        Of a large file the disk begins early with what is there: left to the flush at the end, a
        gigabyte took up to six times as long on a busy disk.
        """
        self.file.write(data)
        self._size += len(data)
        if self._size - self._started >= WRITEBACK_BYTES:
            self.file.flush()
            _start_writeback(self.file.fileno(), self._started, self._size - self._started)
            self._started = self._size

    def settle(self, place: Path) -> None:
        """Give the finished bytes their name, durably; what lies there gives way.

        These bytes were just seen to have the digest of the name. What lies there may have rotted
        since it was written, and to compare the two would cost more than to take its place.
        """
        if not self.link(place):
            os.utime(self._path)
            self._path.replace(place)
        sync_folder(place.parent)

    def link(self, place: Path) -> bool:
        """Give the finished bytes a name; return False when it is taken."""
        self.file.flush()
        os.fsync(self.file.fileno())
        folder = os.open(place.parent, FOLDER_FLAGS)
        try:
            os.link(self._path, place.name, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            return False
        finally:
            os.close(folder)
        return True


def _start_writeback(handle: int, start: int, size: int) -> None:
    """Ask for a range to be written soon, where the platform can; durable it is after fsync."""
    try:
        begin = ctypes.CDLL(None).sync_file_range
    except AttributeError:
        return
    begin.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    begin(handle, start, size, _SYNC_FILE_RANGE_WRITE)


def create_durably(path: Path, data: bytes) -> bool:
    """Make a file of mode 0600 that is there whole or not at all; return False when it exists.

    Raises:
        OSError: it can't be made.
    """
    with Draft(path.parent) as incoming:
        incoming.write(data)
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
        raise explain(error, "file.unavailable") from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, FOLDER_FLAGS)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove what writers that were killed left behind."""
    too_old = time.time() - ABANDONED_SECONDS
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with suppress(FileNotFoundError):
            if path.lstat().st_mtime < too_old:
                path.unlink()


def renew(place: Path, size: int) -> bool:
    """Mark a file as written just now; return False when it is not there, or not whole."""
    if not is_whole(place, size):
        return False
    with suppress(FileNotFoundError):
        os.utime(place, follow_symlinks=False)
    return is_whole(place, size)  # else it was deleted between the two looks


def is_whole(place: Path, size: int) -> bool:
    """Tell whether a plain file of this size is there."""
    try:
        state = place.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(state.st_mode) and state.st_size == size


def explain(error: OSError, code: str = "blob.unavailable") -> EverloopError:
    """Return what a failed file operation means to the caller."""
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
