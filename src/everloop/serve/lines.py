"""The prediction log: one JSON line an answer, on disk before the caller has the answer.

Every process start opens a file of its own, ``<worker>-<n>.jsonl``, so a line torn by a crash is
always the last of its file. A line is handed to the kernel by one ``write`` before the answer goes
out, which survives ``kill -9``; ``fsync`` follows within 50 ms for power cuts. A shadow's answer
comes later as a line of its own in the same file, and reading joins the two.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from everloop.core.errors import IntegrityError
from everloop.core.ids import Id
from everloop.core.wire import PredictionRow, Status

ROTATE_BYTES = 64 * 1024 * 1024
FSYNC_PAUSE_S = 0.05
READ_BYTES = 8 * 1024 * 1024
_FILE = re.compile(r"(?P<worker>[a-z0-9]+)-(?P<number>\d{8})\.jsonl")
_ENCODER = msgspec.json.Encoder()


class ShadowLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="shadow", tag=1):
    """What the shadow answered to an earlier line of the same file."""

    id: Id
    shadow_version: Id
    shadow_output: float | None
    shadow_status: Status


class _Line(msgspec.Struct, frozen=True):
    """Enough of a line to tell its kind."""

    shadow: int = 0


_KIND = msgspec.json.Decoder(_Line)
_ROW = msgspec.json.Decoder(PredictionRow)
_SHADOW = msgspec.json.Decoder(ShadowLine)


class LogFile:
    """One open file of the log; stays open until the shadows of its rows have answered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        self.size = 0
        self.awaited = 0
        self.is_rotated = False

    def write(self, data: bytes) -> None:
        """Append all of the data or nothing.

        Raises:
            OSError: the disk is full or broken.
        """
        written = os.write(self.descriptor, data)
        if written != len(data):
            # A full disk takes a part. The torn line must not swallow the one after it.
            os.ftruncate(self.descriptor, self.size)
            raise OSError("short write")
        self.size += written


class LogWriter:
    """Appends to the log. Used by one thread; a second thread of its own calls ``fsync``."""

    def __init__(
        self, folder: Path, worker: str = "w0", *, rotate_bytes: int = ROTATE_BYTES
    ) -> None:
        self._folder = folder
        self._worker = worker
        self._rotate_bytes = rotate_bytes
        folder.mkdir(parents=True, exist_ok=True)
        numbers = [found.number for found in list_files(folder) if found.worker == worker]
        self._number = max(numbers, default=0)
        self._file = self._open_next()
        self._lock = threading.Lock()
        self._dirty: set[int] = set()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self.fsync_errors = 0
        self._syncer = threading.Thread(target=self._sync, name="log-fsync", daemon=True)
        self._syncer.start()

    def append(self, rows: Iterable[PredictionRow], *, awaited: int = 0) -> LogFile:
        """Write rows with one system call and return the file they are in.

        Args:
            rows: The rows of one request.
            awaited: How many shadow lines will follow for them.

        Raises:
            OSError: nothing was written.
        """
        if self._file.size >= self._rotate_bytes:
            self._rotate()
        file = self._file
        file.write(b"".join(_ENCODER.encode(row) + b"\n" for row in rows))
        file.awaited += awaited
        self._mark(file)
        return file

    def append_shadow(self, file: LogFile, lines: Iterable[ShadowLine]) -> None:
        """Write the shadow's answers to rows of this file.

        Raises:
            OSError: nothing was written.
        """
        found = list(lines)
        file.awaited -= len(found)
        try:
            file.write(b"".join(_ENCODER.encode(line) + b"\n" for line in found))
            self._mark(file)
        finally:
            self._close_if_done(file)

    def close(self) -> None:
        """Make everything durable and close; idempotent."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake.set()
        self._syncer.join()
        os.fsync(self._file.descriptor)
        os.close(self._file.descriptor)

    def _open_next(self) -> LogFile:
        self._number += 1
        return LogFile(self._folder / f"{self._worker}-{self._number:08}.jsonl")

    def _rotate(self) -> None:
        old, self._file = self._file, self._open_next()
        old.is_rotated = True
        self._close_if_done(old)

    def _close_if_done(self, file: LogFile) -> None:
        if file.is_rotated and file.awaited <= 0:
            with self._lock:
                self._dirty.discard(file.descriptor)
                os.fsync(file.descriptor)
                os.close(file.descriptor)

    def _mark(self, file: LogFile) -> None:
        with self._lock:
            self._dirty.add(file.descriptor)
        self._wake.set()

    def _sync(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(FSYNC_PAUSE_S)
            self._wake.clear()
            with self._lock:
                dirty, self._dirty = self._dirty, set()
                copies = [os.dup(descriptor) for descriptor in dirty]
            for descriptor in copies:  # copies, so that closing a file cannot pull it away here
                try:
                    os.fsync(descriptor)
                except OSError:
                    self.fsync_errors += 1
                finally:
                    os.close(descriptor)


class FoundFile(NamedTuple):
    """A file of the log, by worker and number."""

    worker: str
    number: int
    name: str


def list_files(folder: Path) -> list[FoundFile]:
    """Return the files of a log, sorted by worker and number."""
    found = (_FILE.fullmatch(path.name) for path in folder.iterdir())
    return sorted(
        FoundFile(match["worker"], int(match["number"]), match[0]) for match in found if match
    )


class Chunk(NamedTuple):
    """Rows read from one file, and where to go on.

    Attributes:
        next_offset: Where the next read of this file begins.
        is_finished: Whether the file will never have more: a newer one of its worker exists.
    """

    rows: list[PredictionRow]
    next_offset: int
    is_finished: bool


def read_rows(folder: Path, name: str, offset: int = 0, *, limit_bytes: int = READ_BYTES) -> Chunk:
    """Read whole rows from ``offset``, joined with what their shadows answered.

    A row whose shadow has not answered yet is held back, with all after it, as long as the answer
    can still come: until a later row's shadow has answered, or a newer file exists. So each row
    is read once and its shadow is not missed.

    Raises:
        IntegrityError: ``prediction_log.corrupt`` for a whole line that is none of ours.
    """
    worker = name.partition("-")[0]
    newest = [file.name for file in list_files(folder) if file.worker == worker][-1:]
    is_finished = newest != [name]
    while True:
        data, is_all = _read(folder / name, offset, limit_bytes)
        rows, shadows, ends = _split(data, f"{name}, from byte {offset}")
        kept = _settled(rows, shadows, is_final=is_finished and is_all)
        if kept or is_all:
            break
        limit_bytes *= 2  # what the first row waits for lies further on
    next_offset = offset + (len(data) if kept == len(rows) else ends[kept - 1] if kept else 0)
    joined = [_join(row, shadows.get(row.id)) for row in rows[:kept]]
    return Chunk(joined, next_offset, is_finished and is_all and kept == len(rows))


def _read(path: Path, offset: int, limit_bytes: int) -> tuple[bytes, bool]:
    """Return whole lines, and whether there were no more."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(limit_bytes)
    return data[: data.rfind(b"\n") + 1], len(data) < limit_bytes


def _split(data: bytes, place: str) -> tuple[list[PredictionRow], dict[Id, ShadowLine], list[int]]:
    rows: list[PredictionRow] = []
    shadows: dict[Id, ShadowLine] = {}
    ends: list[int] = []
    position = 0
    try:
        for line in data.splitlines(keepends=True):
            position += len(line)
            if _KIND.decode(line).shadow:
                shadow = _SHADOW.decode(line)
                shadows[shadow.id] = shadow
            else:
                rows.append(_ROW.decode(line))
                ends.append(position)
    except msgspec.MsgspecError as error:
        raise IntegrityError(
            "prediction_log.corrupt",
            f"A line of the prediction log cannot be read ({place}): {error}.",
            hint="Keep the file for inspection; somebody or something else wrote into it.",
        ) from error
    return rows, shadows, ends


def _settled(rows: list[PredictionRow], shadows: dict[Id, ShadowLine], *, is_final: bool) -> int:
    """Return how many rows from the start have all they will ever have."""
    if is_final:
        return len(rows)
    # Shadows answer in the order of the rows: one answer settles all rows before it.
    answered = max((place for place, row in enumerate(rows) if row.id in shadows), default=-1)
    for place, row in enumerate(rows):
        if place > answered and row.shadow_version is not None:
            return place
    return len(rows)


def _join(row: PredictionRow, shadow: ShadowLine | None) -> PredictionRow:
    if shadow is None:
        return row
    return msgspec.structs.replace(
        row, shadow_output=shadow.shadow_output, shadow_status=shadow.shadow_status
    )
