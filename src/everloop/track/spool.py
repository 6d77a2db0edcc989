"""The local file into which a run is written first, whatever happens to the server.

One run is one append-only file in the spool folder. A process that dies leaves at worst one torn
frame at the end; opening the file again cuts it off there. While a process writes, it holds a
lock on the file, so that nobody takes a live run for a dead one.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from blake3 import blake3

from everloop.core.digest import Digest
from everloop.core.errors import Conflict, IntegrityError
from everloop.track.frames import (
    MAGIC,
    MAX_FRAME_BYTES,
    Frame,
    Named,
    Points,
    decode_frames,
    encode_frame,
)
from everloop.track.ring import Leftover

SUFFIX: Final = ".spool"
# Parts a run's id from the id of a spool that took it up again; sorts behind the suffix's point.
SEPARATOR: Final = "~"
_READ_BYTES: Final = 4 * 1024 * 1024
_COPY_BYTES: Final = 1024 * 1024


class Spool:
    """One run's file, open for appending and reading.

    Thread-safe: appends are single writes to a file opened with ``O_APPEND``.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the file, take its lock and cut off what a crash left unfinished.

        Raises:
            Conflict: ``spool.in_use`` when a live process writes it.
            IntegrityError: ``spool.foreign`` when the file is no spool.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        self._lock = threading.Lock()
        try:
            self._take_lock()
            self._recover()
        except BaseException:
            os.close(self._file)
            raise

    def append(self, data: bytes) -> None:
        """Add encoded frames with one write; a write that fails half way leaves nothing.

        Raises:
            OSError: the disk is full or gone.
        """
        with self._lock:
            written = os.write(self._file, data)
            if written != len(data):
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)
                raise OSError(28, "the spool's disk is full", str(self.path))

    def read(self, offset: int) -> Iterator[tuple[Frame, int]]:
        """Yield frames from an offset on, each with the offset behind it; 0 means the start."""
        offset = max(offset, len(MAGIC))
        want = _READ_BYTES
        while data := os.pread(self._file, want, offset):
            moved = 0
            for frame, end in decode_frames(data):
                moved = end
                yield frame, offset + end
            if moved == 0:
                # Either the end of what is whole, or one frame larger than the window.
                if len(data) < want or want > MAX_FRAME_BYTES:
                    return
                want = MAX_FRAME_BYTES + _READ_BYTES
            offset += moved

    def sync(self) -> None:
        """Force what was appended onto the disk."""
        os.fsync(self._file)

    def settle(self) -> None:
        """Force what was appended onto the disk as far as it takes it, and close the file."""
        with suppress(OSError):
            self.sync()
        self.close()

    def after_fork(self) -> None:
        """Forget, in a forked child, a lock that a thread of the parent may have held."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the file and give the lock back; idempotent."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def keep_file(self, source: Path) -> tuple[Digest, int]:
        """Copy a file into the spool folder under its digest; return digest and size."""
        self.files.mkdir(exist_ok=True, mode=0o700)
        hasher, size = blake3(), 0
        partial = self.files / f"partial-{os.getpid()}-{threading.get_ident()}"
        with source.open("rb") as reader, partial.open("wb") as writer:
            while piece := reader.read(_COPY_BYTES):
                hasher.update(piece)
                writer.write(piece)
                size += len(piece)
        return self._settle(partial, hasher.hexdigest()), size

    def keep_bytes(self, data: bytes) -> tuple[Digest, int]:
        """Keep bytes in the spool folder under their digest; return digest and size."""
        self.files.mkdir(exist_ok=True, mode=0o700)
        partial = self.files / f"partial-{os.getpid()}-{threading.get_ident()}"
        partial.write_bytes(data)
        return self._settle(partial, blake3(data).hexdigest()), len(data)

    def kept_file(self, digest: str) -> Path:
        """Return where the bytes of an artifact wait."""
        return self.files / digest.partition(":")[2]

    @property
    def refused(self) -> Path:
        """The file beside the spool for what the server refused; it outlives the spool."""
        return self.path.with_suffix(".refused.jsonl")

    def set_aside(self, frame: Frame, why: str) -> None:
        """Keep a frame that the server refused, as a line of JSON with the reason."""
        line = msgspec.json.encode({"refused": why, "frame": frame}) + b"\n"
        with self.refused.open("ab") as file:
            file.write(line)

    @property
    def files(self) -> Path:
        """The folder beside the spool in which artifacts wait."""
        return self.path.with_suffix(".files")

    def remove(self) -> None:
        """Delete the file and what waits beside it; for a run that has arrived whole."""
        if self.files.is_dir():
            for path in self.files.iterdir():
                path.unlink()
            self.files.rmdir()
        self.path.unlink(missing_ok=True)
        self.close()

    def _settle(self, partial: Path, name: str) -> Digest:
        partial.replace(self.files / name)
        return Digest(f"blake3:{name}")

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                "spool.in_use",
                f"Another process is writing {self.path.name}.",
                hint="Wait until that run ends; it ships its own points.",
            ) from error

    def _recover(self) -> None:
        size = os.fstat(self._file).st_size
        head = os.pread(self._file, len(MAGIC), 0)
        if size and not MAGIC.startswith(head[: len(MAGIC)]):
            raise IntegrityError(
                "spool.foreign",
                f"{self.path.name} is not a spool of this version.",
                hint="Move the file out of the spool folder.",
            )
        if size < len(MAGIC):
            os.ftruncate(self._file, 0)
            os.write(self._file, MAGIC)
            return
        sound, taken, names = len(MAGIC), 0, dict[int, str]()
        for frame, end in self.read(0):
            sound = end
            if isinstance(frame, Named):
                names[frame.place] = frame.key
            elif isinstance(frame, Points):
                taken = frame.upto or taken
        if sound < size:
            os.ftruncate(self._file, sound)
        self._take_over(taken, names)

    def _take_over(self, taken: int, names: dict[int, str]) -> None:
        """Add what a process that died had logged and not written; cut short, it is done again."""
        left = Leftover.of(self.path)
        if left is None:
            return
        points = left.points(taken, names)
        if points is not None:
            self.append(encode_frame(points))
        left.remove()
