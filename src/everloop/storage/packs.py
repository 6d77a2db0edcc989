"""Small blobs many at a time: one file and one flush for all of them.

A pack is written once: the blobs one behind the other, then a table of their digests, then a
footer. It gets its name after it was flushed, so it is there whole or not at all. Where a digest
lies is kept in a SQLite file beside, which is made anew from the packs when it is lost.

Deleting punches a hole, so that the disk gets the space back at once and the bytes are gone; the
rest of the pack stays where it is, and the last blob's end takes the file away. The index forgets
a blob before its bytes go, so that it never names a hole, and remembers where the hole has to be.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sqlite3
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from everloop.core.digest import Digest, content_digest
from everloop.core.errors import Unavailable
from everloop.core.ports import StoredBlob
from everloop.storage.files import Draft, sync_folder

MAX_PACKED_BYTES = 64 * 1024
MAX_PACK_BYTES = 32 * 1024 * 1024
SUFFIX = ".pack"
INDEX = "index.sqlite"
BUSY_S = 30.0
_MAGIC = b"EVLPACK1"
_FOOTER = struct.Struct("<QII8s")  # where the table begins, its rows, its checksum, the magic
_ROW = struct.Struct("<32sQI")  # raw digest, offset, size
_PUNCH = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE of Linux
_ALGORITHM = "blake3:"
_ASKED_AT_ONCE = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS pack (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS blob (
  digest BLOB NOT NULL, pack INTEGER NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL,
  at INTEGER NOT NULL DEFAULT (unixepoch()), -- when it was put last, in seconds since 1970
  PRIMARY KEY (digest, pack)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS blob_pack ON blob (pack);
CREATE TABLE IF NOT EXISTS doomed (
  pack INTEGER NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL
);
"""

_log = logging.getLogger(__name__)


class _Place(NamedTuple):
    pack: str
    start: int
    size: int


class Packs:
    """The packs of one folder; thread-safe and safe between processes."""

    def __init__(self, folder: Path) -> None:
        """Take up the packs of a folder that may not exist yet.

        Raises:
            Unavailable: ``blob.unavailable`` when the index can't be used.
        """
        self._folder = folder
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._owner = 0
        if folder.is_dir():
            self._index_strays()
            self._bury()

    def add(self, blobs: Mapping[Digest, bytes]) -> None:
        """Store blobs durably; more than one pack holds are written as several.

        Raises:
            OSError: the disk is full or gone; what was written in full stays.
            Unavailable: ``blob.unavailable``.
        """
        if blobs:
            self._folder.mkdir(mode=0o700, exist_ok=True)
        waiting: dict[Digest, bytes] = {}
        size = 0
        for digest, data in blobs.items():
            if waiting and size + len(data) > MAX_PACK_BYTES:
                self._write(waiting)
                waiting, size = {}, 0
            waiting[digest] = data
            size += len(data)
        if waiting:
            self._write(waiting)

    def get(self, digest: Digest) -> bytes | None:
        """Return what is stored under a digest, unverified; None when it is in no pack."""
        for place in self._find(digest):
            try:
                handle = os.open(self._folder / place.pack, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # deleted since
            try:
                return os.pread(handle, place.size, place.start)
            finally:
                os.close(handle)
        return None

    def renew(self, digests: Iterable[Digest]) -> set[Digest]:
        """Return which of the digests are in a pack, and mark them as put just now."""
        if not self._is_used():
            return set()
        wanted = [_raw(digest) for digest in digests]
        found: set[Digest] = set()
        with self._writing() as db:
            for first in range(0, len(wanted), _ASKED_AT_ONCE):
                group = wanted[first : first + _ASKED_AT_ONCE]
                marks = ", ".join("?" * len(group))
                text = (
                    f"UPDATE blob SET at = unixepoch() WHERE digest IN ({marks}) RETURNING digest"
                )
                found |= {Digest(_ALGORITHM + raw.hex()) for (raw,) in db.execute(text, group)}
        return found

    def stat(self, digest: Digest) -> StoredBlob | None:
        """Return size and age of a blob, or None when it is in no pack."""
        if not self._is_used():
            return None
        with self._reading() as db:
            rows = db.execute(
                "SELECT max(size), max(at) FROM blob WHERE digest = ?", (_raw(digest),)
            ).fetchall()
        size, at = rows[0]
        return None if at is None else StoredBlob(digest, size, datetime.fromtimestamp(at, UTC))

    def size(self, digest: Digest) -> int | None:
        """Return the size in bytes, or None when it is in no pack."""
        found = self._find(digest)
        return found[0].size if found else None

    def digests(self) -> Iterator[Digest]:
        """Yield every digest that is in a pack."""
        last = b""
        while self._is_used():
            with self._reading() as db:
                rows = db.execute(
                    "SELECT DISTINCT digest FROM blob WHERE digest > ? ORDER BY digest LIMIT 1000",
                    (last,),
                ).fetchall()
            if not rows:
                return
            yield from (Digest(_ALGORITHM + raw.hex()) for (raw,) in rows)
            last = rows[-1][0]

    def delete(self, digest: Digest) -> bool:
        """Take a blob away and give its space back; return whether it was there.

        Raises:
            OSError: the pack can't be changed.
            Unavailable: ``blob.unavailable``.
        """
        if not self._find(digest):
            return False
        where = "FROM blob WHERE digest = ?"
        with self._writing() as db:
            db.execute(f"INSERT INTO doomed SELECT pack, start, size {where}", (_raw(digest),))
            db.execute(f"DELETE {where}", (_raw(digest),))
        self._bury()
        return True

    def _bury(self) -> None:
        """Take away the bytes that the index has forgotten, those of a killed process too."""
        if not self._is_used():
            return
        with self._reading() as db:
            if db.execute("SELECT 1 FROM doomed LIMIT 1").fetchone() is None:
                return
        with self._writing() as db:
            for row in db.execute(
                "SELECT name, start, size FROM doomed JOIN pack ON pack.number = doomed.pack"
            ).fetchall():
                place = _Place(*row)
                self._erase(place.pack, *_gap(db, place))
            db.execute("DELETE FROM doomed")
            empty = db.execute(
                "SELECT number, name FROM pack"
                " WHERE NOT EXISTS (SELECT 1 FROM blob WHERE blob.pack = pack.number)"
            ).fetchall()
            for number, name in empty:
                (self._folder / name).unlink(missing_ok=True)
                db.execute("DELETE FROM pack WHERE number = ?", (number,))
        sync_folder(self._folder)

    def _write(self, blobs: Mapping[Digest, bytes]) -> None:
        rows, start = [], 0
        with Draft(self._folder) as draft:
            for digest, data in blobs.items():
                draft.write(data)
                rows.append((_raw(digest), start, len(data)))
                start += len(data)
            table = b"".join(_ROW.pack(*row) for row in rows)
            draft.write(table)
            draft.write(_FOOTER.pack(start, len(rows), zlib.crc32(table), _MAGIC))
            # Not named by its blobs: such a pack may be there already, and about to go.
            name = os.urandom(16).hex() + SUFFIX
            draft.link(self._folder / name)
        sync_folder(self._folder)
        self._record(name, rows)

    def _record(self, name: str, rows: list[tuple[bytes, int, int]]) -> None:
        with self._writing() as db:
            db.execute("INSERT OR IGNORE INTO pack (name) VALUES (?)", (name,))
            (number,) = db.execute("SELECT number FROM pack WHERE name = ?", (name,)).fetchone()
            db.executemany(
                "INSERT OR IGNORE INTO blob (digest, pack, start, size) VALUES (?, ?, ?, ?)",
                [(raw, number, start, size) for raw, start, size in rows],
            )

    def _find(self, digest: Digest) -> list[_Place]:
        if not self._is_used():
            return []
        with self._reading() as db:
            rows = db.execute(
                "SELECT name, start, size FROM blob JOIN pack ON pack.number = blob.pack"
                " WHERE digest = ?",
                (_raw(digest),),
            ).fetchall()
        return [_Place(*row) for row in rows]

    def _erase(self, pack: str, start: int, end: int) -> None:
        try:
            handle = os.open(self._folder / pack, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            if start < end and not _punch(handle, start, end - start):
                os.pwrite(handle, bytes(end - start), start)
            os.fsync(handle)
        finally:
            os.close(handle)

    def _index_strays(self) -> None:
        """Take up packs that the index does not know: it was lost, or a crash came between."""
        names = {path.name for path in self._folder.glob(f"*{SUFFIX}")}
        if not names and not self._is_used():
            return
        with self._reading() as db:
            known = {name for (name,) in db.execute("SELECT name FROM pack")}
        for name in sorted(names - known):
            rows = _read_table(self._folder / name)
            if rows is None:
                _log.error("everloop: pack %s is damaged and left out", name)
            else:
                self._record(name, rows)

    def _is_used(self) -> bool:
        return self._connection is not None or (self._folder / INDEX).exists()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._open()
            except sqlite3.Error as error:
                raise _unusable(error) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _open(self) -> sqlite3.Connection:
        # A connection must not be used across a fork.
        if self._connection is None or self._owner != os.getpid():
            path = self._folder / INDEX
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.close(handle)
            db = sqlite3.connect(
                path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.executescript(_SCHEMA)
            self._connection, self._owner = db, os.getpid()
        return self._connection


def _gap(db: sqlite3.Connection, place: _Place) -> tuple[int, int]:
    """Return where the last blob before a deleted one ends and the next one after it begins.

    A file system takes back whole blocks: neighbours that were deleted count as one hole.
    """
    of_pack = "FROM blob JOIN pack ON pack.number = blob.pack WHERE name = ?"
    end = place.start + place.size
    before = f"SELECT max(start + size) {of_pack} AND start < ? AND start + size <= ?"
    after = f"SELECT min(start) {of_pack} AND start >= ? AND size > 0"
    (low,) = db.execute(before, (place.pack, place.start, place.start)).fetchone()
    (high,) = db.execute(after, (place.pack, end)).fetchone()
    return low or 0, end if high is None else high


def _read_table(path: Path) -> list[tuple[bytes, int, int]] | None:
    """Return the rows of a pack whose bytes are still under their digest; None if it is damaged."""
    data = path.read_bytes()
    if len(data) < _FOOTER.size:
        return None
    start, count, checksum, magic = _FOOTER.unpack(data[-_FOOTER.size :])
    table = data[start : -_FOOTER.size]
    if magic != _MAGIC or len(table) != count * _ROW.size or zlib.crc32(table) != checksum:
        return None
    return [
        (raw, at, size)
        for raw, at, size in _ROW.iter_unpack(table)
        # A hole is a blob that was deleted.
        if content_digest(data[at : at + size]) == _ALGORITHM + raw.hex()
    ]


def _raw(digest: Digest) -> bytes:
    return bytes.fromhex(digest.removeprefix(_ALGORITHM))


def _punch(handle: int, start: int, size: int) -> bool:
    """Let the file system take back a range; return False where it can't."""
    try:
        fallocate = ctypes.CDLL(None).fallocate
    except AttributeError:
        return False
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return bool(fallocate(handle, _PUNCH, start, size) == 0)


def _unusable(error: sqlite3.Error) -> Unavailable:
    return Unavailable(
        "blob.unavailable",
        f"The index of the packed blobs can't be used: {error}.",
        hint="Check the folder's rights and its disk; a damaged index may be deleted, and is"
        " made anew from the packs.",
    )
