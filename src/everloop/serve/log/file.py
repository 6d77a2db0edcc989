"""A file of frames that is written through memory and can be read while it grows.

The first page says how far the file counts (``committed``), how far it has certainly reached the
disk (``synced``) and whether it is complete (``closed``). A frame is ``length | crc32 | kind``
and its payload; the checksum begins with length and kind. It counts once ``committed`` has moved
behind it, which is one store of eight bytes, so a process that is killed at any instruction leaves
whole frames and nothing else. After a power cut pages may be missing: the checksums tell, and what
was synced before must be there.

The writer holds a lock on the file for as long as it lives: whoever can take it knows that the
file will not grow.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from everloop.core.errors import IntegrityError

HEADER_BYTES: Final = 4_096
MAGIC: Final = b"everloop-log-1\n\0"
_COMMITTED_AT: Final = 16
_CLOSED_AT: Final = 32
_COMMITTED_WORD: Final = 2
_SYNCED_WORD: Final = 3
_CLOSED_WORD: Final = 4
_WORD: Final = struct.Struct("<Q")
_WORDS: Final = struct.Struct("<QQQ")
_HEAD: Final = struct.Struct("<IIB")
HEAD_BYTES: Final = _HEAD.size
_pack: Final = _HEAD.pack
DRAFT_NS: Final = 1_000_000_000


class FrameFile:
    """A file being written. One thread appends; another may call ``sync``.

    Attributes:
        end: Up to where it counts; ``synced`` has certainly reached the disk.
        room: Bytes of frames that it takes.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        """Make a file with room for so many bytes of frames, all of them taken at once.

        Raises:
            OSError: there is such a file, or no space.
        """
        self.path = path
        self.end = 0
        self.room = size_bytes
        self.synced = 0
        self._is_name_synced = False
        # Under its own name only once it is locked and has its header.
        draft = path.with_name(f".{path.name}")
        self._descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            # Without it a full disk would end the process at a later store.
            os.posix_fallocate(self._descriptor, 0, HEADER_BYTES + size_bytes)
            self._map = mmap.mmap(self._descriptor, HEADER_BYTES + size_bytes)
            self._map[: len(MAGIC)] = MAGIC
            # Words of eight bytes that are stored at once: byte by byte, as `struct` stores what is
            # not native, a reader would now and then see half of a count, and so would all readers
            # for ever if the process were killed just then.
            self._words = memoryview(self._map)[:HEADER_BYTES].cast("Q")
            os.link(draft, path)
        except OSError:
            os.close(self._descriptor)
            raise
        finally:
            draft.unlink(missing_ok=True)

    def append(self, kind: int, *payloads: bytes, reserved: int = 0) -> bool:
        """Write frames, all or none; False when there is no room for them beside what is reserved.

        They count together: no instruction lies between the first and the last.
        """
        parts = []
        for payload in payloads:
            size = len(payload)
            parts.append(_pack(size, crc32(payload, size << 8 | kind), kind))
            parts.append(payload)
        data = b"".join(parts)
        end, behind = self.end, self.end + len(data)
        if behind + reserved > self.room:
            return False
        self._map[HEADER_BYTES + end : HEADER_BYTES + behind] = data
        self._words[_COMMITTED_WORD] = behind
        self.end = behind
        return True

    def is_dirty(self) -> bool:
        """Tell whether there are frames that may not have reached the disk."""
        return self.synced < self.end

    def sync(self) -> int:
        """Bring what stands onto the disk and return how many bytes of frames that are.

        Raises:
            OSError: the disk is broken.
        """
        end = self.end
        os.fdatasync(self._descriptor)
        if not self._is_name_synced:
            _sync_folder(self.path.parent)
            self._is_name_synced = True
        self._words[_SYNCED_WORD] = end
        self.synced = end
        return end

    def close(self) -> None:
        """Give back the space that was not needed, and say that the file is complete.

        Raises:
            OSError: the disk is broken.
        """
        try:
            self.sync()
            self._words[_CLOSED_WORD] = 1
            self._words.release()
            self._map.close()
            os.ftruncate(self._descriptor, HEADER_BYTES + self.end)
            os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)


def remove_drafts(folder: Path) -> None:
    """Delete what processes left that were killed while they made a file of a folder.

    One that is being made now is kept: its maker holds the lock a moment after it began.
    """
    for draft in folder.glob(".*.log"):
        with suppress(OSError):
            descriptor = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
            try:
                age_ns = time.time_ns() - os.fstat(descriptor).st_mtime_ns
                if age_ns > DRAFT_NS and _can_lock(descriptor):
                    draft.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make the name of a new file outlive a power cut, as its bytes do."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Frame(NamedTuple):
    """A frame and the offset behind it."""

    kind: int
    payload: bytes
    start: int
    end: int


class Stretch(NamedTuple):
    """What a reader found.

    Attributes:
        is_whole: Whether the frames reach to where the file counted when it was looked at.
        is_final: Whether the file will not grow any more.
        lost_bytes: Bytes behind the frames that a power cut took.
    """

    frames: list[Frame]
    is_whole: bool
    is_final: bool
    lost_bytes: int


class _State(NamedTuple):
    committed: int
    synced: int
    is_final: bool


def read_frames(path: Path, offset: int = 0, *, limit_bytes: int) -> Stretch:
    """Read whole frames from an offset, at least one if there is one.

    Raises:
        IntegrityError: ``prediction_log.corrupt`` when bytes that were on the disk have changed.
        OSError: the file cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        state = _read_state(descriptor, path)
        wanted = max(limit_bytes, HEAD_BYTES)
        while True:
            size = max(min(wanted, state.committed - offset), 0)
            data = os.pread(descriptor, size, HEADER_BYTES + offset)
            frames, end = _split(data, offset)
            is_all = offset + size >= state.committed or len(data) < size
            wanted = 0 if is_all else HEAD_BYTES + _HEAD.unpack_from(data)[0]
            if frames or wanted <= size:
                break
    finally:
        os.close(descriptor)
    if end < state.committed and (is_all or not frames):
        if end < state.synced or not state.is_final:
            raise _corrupt(path, end)
        return Stretch(frames, True, True, state.committed - end)
    return Stretch(frames, end >= state.committed, state.is_final, 0)


def read_frame(path: Path, offset: int) -> Frame:
    """Read the frame at an offset.

    Raises:
        IntegrityError: ``prediction_log.corrupt``.
        OSError: the file cannot be read.
    """
    frames = read_frames(path, offset, limit_bytes=65_536).frames
    if not frames:
        raise _corrupt(path, offset)
    return frames[0]


def counted_bytes(path: Path) -> int:
    """Return up to where a file counts; 0 for one that is none of ours.

    Raises:
        OSError: the file cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(descriptor, _CLOSED_AT, 0)
    finally:
        os.close(descriptor)
    if len(head) < _CLOSED_AT or head[: len(MAGIC)] != MAGIC:
        return 0
    found: int = _WORD.unpack_from(head, _COMMITTED_AT)[0]
    return found


def _read_state(descriptor: int, path: Path) -> _State:
    # In this order: what a writer that has gone left behind is what is read after.
    is_alone = _can_lock(descriptor)
    head = os.pread(descriptor, HEADER_BYTES, 0)
    if len(head) < HEADER_BYTES or head[: len(MAGIC)] != MAGIC:
        raise _corrupt(path, 0)
    committed, synced, closed = _WORDS.unpack_from(head, _COMMITTED_AT)
    return _State(committed, synced, is_final=bool(closed) or is_alone)


def _can_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def _split(data: bytes, offset: int) -> tuple[list[Frame], int]:
    frames: list[Frame] = []
    unpack: Callable[[bytes, int], tuple[int, int, int]] = _HEAD.unpack_from
    start, total = 0, len(data)
    while start + HEAD_BYTES <= total:
        size, checksum, kind = unpack(data, start)
        end = start + HEAD_BYTES + size
        payload = data[start + HEAD_BYTES : end]
        # Kinds begin with 1, for zeros, which a power cut leaves, must be no frame.
        if end > total or not kind or crc32(payload, size << 8 | kind) != checksum:
            break
        frames.append(Frame(kind, payload, offset + start, offset + end))
        start = end
    return frames, offset + start


def _corrupt(path: Path, offset: int) -> IntegrityError:
    return IntegrityError(
        "prediction_log.corrupt",
        f"{path.name} cannot be read from byte {offset} on: somebody else wrote into it.",
        hint="Keep the file for inspection; what was sealed before is not touched.",
    )
