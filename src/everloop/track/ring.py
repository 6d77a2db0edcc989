"""Points that a run logged and that are not in its spool yet, in memory that outlives the process.

A ring of fixed records in a file of the memory file system, mapped into the process: what is
written there by plain stores stands when the process is killed in the next moment, without a
system call and without a disk that could be full or slow. Whoever opens the spool next finds what
is left there and adds it. A machine that loses power loses the ring; what is in the spool stays.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np

from everloop.track.columns import Columns
from everloop.track.frames import Points

SLOTS: Final = 16_384
MEMORY_FOLDER: Final = Path("/dev/shm")  # noqa: S108 -- private files of unguessable names
STALE_S: Final = 3_600.0
_PREFIX: Final = "everloop-"
_SUFFIX: Final = ".ring"
_MAGIC: Final = b"everloop-ring-1\n"
_HEADER_BYTES: Final = 4_096
# Step, seconds since 1970, value, metric, and at last the count that says that the record is whole.
_RECORD: Final = struct.Struct("<qddII")
_DTYPE: Final = np.dtype(
    [("step", "<i8"), ("time", "<f8"), ("value", "<f8"), ("key", "<u4"), ("count", "<u4")]
)
RECORD_BYTES: Final = _RECORD.size
_LAST: Final = 2**32 - 1


class LoggedPoint(NamedTuple):
    """One point as a ring holds it; ``seconds`` since 1970, which keeps whole microseconds."""

    key: int
    step: int
    seconds: float
    value: float


def pack_point(point: LoggedPoint) -> bytes:
    """Return the record of a point that has no place in a ring."""
    return _RECORD.pack(point.step, point.seconds, point.value, point.key, 0)


def pack_points(
    key: str, steps: Sequence[int], times_us: Sequence[int], values: Sequence[float]
) -> Points:
    """Return points of one metric as they stand in a spool."""
    rows = zip(steps, times_us, values, strict=True)
    records = (_RECORD.pack(step, at / 1e6, value, 0, 0) for step, at, value in rows)
    return Points(keys={0: key}, data=b"".join(records), upto=None)


def split_points(frame: Points) -> Iterator[tuple[str, Columns]]:
    """Yield the points of a frame by metric, each in the order in which they were logged."""
    records = np.frombuffer(frame.data, _DTYPE)
    for place, key in frame.keys.items():
        own = records if len(frame.keys) == 1 else records[records["key"] == place]
        times_us = np.rint(own["time"] * 1e6).astype(np.int64)
        yield key, Columns(own["step"].copy(), times_us, own["value"].copy())


def frame_points(data: bytes, names: Mapping[int, str] | Sequence[str], upto: int | None) -> Points:
    """Return records as a frame that also tells the names of their metrics."""
    used = np.flatnonzero(np.bincount(np.frombuffer(data, _DTYPE)["key"])).tolist()
    return Points(keys={place: names[place] for place in used}, data=data, upto=upto)


class Ring:
    """The newest points of one process, each at its count modulo the slots.

    Not thread-safe: whoever writes it holds a lock. It never overwrites by itself; its owner keeps
    count of what has been taken out.
    """

    def __init__(self, spool: Path) -> None:
        """Make the ring of a spool, all of its memory taken at once.

        Raises:
            OSError: there is no memory file system (as on macOS), or it is full.
        """
        self.path, self._map = _make(spool)

    def writer(self) -> Callable[[int, int, float, float, int], None]:
        """Return the function that writes step, seconds, value and metric of the point of a count.

        The point stands once its last field is written. A closure, for it is the hot path.
        """
        pack, area = _RECORD.pack_into, self._map

        def write(count: int, step: int, seconds: float, value: float, key: int) -> None:
            pack(area, 4_096 + 32 * (count & 16_383), step, seconds, value, key, count + 1 & _LAST)

        return write

    def take(self, start: int, end: int) -> bytes:
        """Return the records of these counts."""
        return _cut(self._map, start, end)

    def remove(self) -> None:
        """Delete the file; idempotent."""
        self.path.unlink(missing_ok=True)


class Leftover:
    """The ring that a process which died left behind."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        self._data = data

    @classmethod
    def of(cls, spool: Path) -> Self | None:
        """Return what is left of the process that wrote a spool, or None."""
        path = _place(spool)
        with suppress(OSError):
            data = _read_own(path)
            if _spool_of(data) is not None:
                return cls(path, data)
        return None

    def points(self, after: int, names: Mapping[int, str]) -> Points | None:
        """Return the whole points from a count on as one frame, or None without any."""
        end = after
        while end < after + SLOTS and self._stands(end):
            end += 1
        data = _cut(self._data, after, end)
        known = np.isin(np.frombuffer(data, _DTYPE)["key"], list(names))
        data = np.frombuffer(data, _DTYPE)[known].tobytes()
        return frame_points(data, names, end) if data else None

    def remove(self) -> None:
        """Delete the file; idempotent."""
        self._path.unlink(missing_ok=True)

    def _stands(self, count: int) -> bool:
        place = _HEADER_BYTES + (count % SLOTS) * RECORD_BYTES
        found: int = _RECORD.unpack_from(self._data, place)[4]
        return found == count + 1 & _LAST


def stale_spools() -> list[Path]:
    """Return the spools of rings that nobody has begun lately, and delete those without a spool.

    Memory is dear: a process that was killed and whose spool nobody ships would hold it for ever.
    """
    found = []
    for path in sorted(MEMORY_FOLDER.glob(f"{_PREFIX}*{_SUFFIX}")):
        with suppress(OSError):
            age_s = time.time() - path.stat().st_mtime  # noqa: TID251 -- as files have it
            if age_s < STALE_S:
                continue
            spool = _spool_of(_read_own(path, _HEADER_BYTES))
            if spool is not None and spool.exists():
                found.append(spool)
            elif spool is not None:
                path.unlink()
    return found


def _make(spool: Path) -> tuple[Path, mmap.mmap]:
    header = _MAGIC + os.fsencode(spool.resolve())
    if len(header) >= _HEADER_BYTES:
        raise OSError(36, "the spool's path is too long", str(spool))
    path, size = _place(spool), _HEADER_BYTES + SLOTS * RECORD_BYTES
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # Without it, memory that runs out would end the process at a later store.
        os.posix_fallocate(file, 0, size)
        mapped = mmap.mmap(file, size)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)
    mapped[: len(header)] = header
    return path, mapped


def _place(spool: Path) -> Path:
    return MEMORY_FOLDER / f"{_PREFIX}{spool.stem}{_SUFFIX}"


def _read_own(path: Path, size: int = -1) -> bytes:
    """Return a file's bytes; of another user's, who may have put it there, none."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(file, "rb") as opened:  # noqa: PTH123 -- of an open file
        if os.fstat(file).st_uid != os.geteuid():
            return b""
        return opened.read(size)


def _spool_of(data: bytes) -> Path | None:
    if not data.startswith(_MAGIC) or len(data) < _HEADER_BYTES:
        return None
    return Path(os.fsdecode(data[len(_MAGIC) : _HEADER_BYTES].rstrip(b"\0")))


def _cut(data: bytes | mmap.mmap, start: int, end: int) -> bytes:
    """Return the records of these counts, which may go round the end."""
    first, last = start % SLOTS, start % SLOTS + (end - start)
    pieces = [(first, min(last, SLOTS)), (0, max(last - SLOTS, 0))]
    return b"".join(
        data[_HEADER_BYTES + a * RECORD_BYTES : _HEADER_BYTES + b * RECORD_BYTES] for a, b in pieces
    )
