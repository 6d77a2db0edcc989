"""Writes the prediction log: a copy into memory, and never a wait for a disk.

When the space that unsealed answers may take is used up, answers go on and their blocks are
dropped and counted; the count is written into the log itself as soon as there is space again.
"""

from __future__ import annotations

import operator
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import msgspec
import numpy as np

from everloop.core.wire import Scalar
from everloop.serve.log.block import Block, Numbers, Source
from everloop.serve.log.file import HEAD_BYTES, HEADER_BYTES, FrameFile, remove_drafts
from everloop.serve.log.flusher import Flusher
from everloop.serve.log.frames import BLOCK, GAP, SHADOW, SOURCE, WrittenSource

FIRST_FILE_BYTES: Final = 1024 * 1024
FILE_BYTES: Final = 32 * 1024 * 1024
MAX_BYTES: Final = 1024 * 1024 * 1024
RETRY_S: Final = 0.25
_FILE: Final = re.compile(r"(?P<worker>[a-z][a-z0-9]*)-(?P<number>\d{14})\.log")
COPIED: Final = 256
_GAP_BYTES: Final = 64
_SHADOW_BYTES: Final = 64 + HEAD_BYTES
_encode: Final = msgspec.msgpack.Encoder().encode
_Values: TypeAlias = Sequence[Sequence[Scalar]] | bytes | memoryview | None


class FoundFile(NamedTuple):
    """A file of the log, by worker and number."""

    worker: str
    number: int
    name: str


def list_files(folder: Path) -> list[FoundFile]:
    """Return the files of a log, sorted by worker and age."""
    found = (_FILE.fullmatch(path.name) for path in folder.iterdir())
    return sorted(
        FoundFile(match["worker"], int(match["number"]), match[0]) for match in found if match
    )


class _OpenFile:
    """A file with the sources defined in it, open until the shadows of its rows have answered."""

    __slots__ = ("awaited", "file", "places", "reserved")

    def __init__(self, file: FrameFile) -> None:
        self.file = file
        self.places: dict[Source, tuple[int, _Pick | None]] = {}
        self.awaited = 0
        self.reserved = 0


class _Pick(NamedTuple):
    """Which inputs are written when some are masked."""

    columns: list[int]
    row: Callable[[Sequence[Scalar]], tuple[Scalar, ...]]


class LogWriter:
    """The log of one worker for one deployment. Used by one thread, but for ``sync``.

    Attributes:
        written: Rows written since the start.
        dropped: Rows that were answered and could not be written.
    """

    def __init__(
        self,
        folder: Path,
        worker: str = "w0",
        *,
        flusher: Flusher | None = None,
        file_bytes: int = FILE_BYTES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Prepare to write; the first file is made with the first block.

        Args:
            folder: Where the files are; made if need be.
            worker: Name of the process among those that write there at the same time: letters and
                digits.
            flusher: The process's own; None starts one for this log alone.
            file_bytes: Most bytes of a file; the first ones are smaller.
            max_bytes: Space that all files of the folder may take, those of other workers
                included, where the source does not say it.

        Raises:
            OSError: the folder cannot be made.
        """
        self.is_kept = True
        self.written = 0
        self.dropped = 0
        self._folder = folder
        self._worker = worker
        self._file_bytes = file_bytes
        self._next_bytes = min(FIRST_FILE_BYTES, file_bytes)
        self._max_bytes = max_bytes
        self._file: _OpenFile | None = None
        self._awaiting: dict[bytes, tuple[_OpenFile, int]] = {}
        self._untold = 0
        self._retry_at = 0.0
        self._retired: deque[FrameFile] = deque()
        self._syncing = threading.Lock()
        self._own_flusher = Flusher() if flusher is None else None
        self._flusher = flusher or self._own_flusher
        folder.mkdir(parents=True, exist_ok=True)
        remove_drafts(folder)
        assert self._flusher is not None
        self._flusher.add(self)

    def append_all(self, blocks: Sequence[Block]) -> list[bool]:
        """Write blocks; False for each that had no space, which was dropped and counted.

        What stands when it returns outlives the process.
        """
        if self._append_together(blocks):
            return [True] * len(blocks)
        return [self.append(block) for block in blocks]

    def _append_together(self, blocks: Sequence[Block]) -> bool:
        """Write blocks at once, if nothing is particular about any of them."""
        opened = self._file
        if opened is None:
            return False
        payloads = []
        for block in blocks:
            known = opened.places.get(block.source)
            if known is None or block.has_shadow:
                return False
            try:
                payloads.append(_payload(block, *known))
            except (TypeError, ValueError, OverflowError):
                return False
        if not opened.file.append(BLOCK, *payloads, reserved=opened.reserved):
            return False
        self.written += sum([block.rows for block in blocks])
        return True

    def append(self, block: Block) -> bool:
        """Write one block; False when it was dropped and counted."""
        source, opened = block.source, self._file
        known = None if opened is None else opened.places.get(source)
        if opened is None or known is None:
            return self._append_first(block)
        place, pick = known
        try:
            payload = _payload(block, place, pick)
        except (TypeError, ValueError, OverflowError):  # what has no place in a file, as half a
            return self._drop(block.rows)  # character: an answer must not fail for its log
        if block.has_shadow:
            return self._append_awaiting(opened, block, payload)
        if not opened.file.append(BLOCK, payload, reserved=opened.reserved):
            return self._append_next(block, len(payload))
        self.written += block.rows
        return True

    def append_shadow(
        self, first: bytes, outputs: Sequence[float] | Numbers, statuses: bytes | None = None
    ) -> bool:
        """Write what the shadow answered to a block that said so; False if that was dropped.

        Shadows answer in the order of their blocks. One without any output was not asked.
        """
        opened, reserved = self._awaiting.pop(first, (None, 0))
        if opened is None:
            return False
        opened.awaited -= 1
        opened.reserved -= reserved
        told = _raw(outputs) if isinstance(outputs, np.ndarray) else outputs
        is_written = opened.file.append(SHADOW, _encode((first, told, statuses)))
        if opened is not self._file and not opened.awaited:
            self._retired.append(opened.file)
        return is_written

    def try_again(self) -> None:
        """Look for space at once, however short ago there was none."""
        self._retry_at = 0.0

    def sync(self) -> None:
        """Bring everything onto the disk, if there is something; close files that are full.

        Raises:
            OSError: the disk is broken.
        """
        with self._syncing:
            while self._retired:
                self._retired.popleft().close()
            opened = self._file
            if opened is not None and opened.file.is_dirty():
                opened.file.sync()

    def close(self) -> None:
        """Make everything durable and close; idempotent."""
        assert self._flusher is not None
        self._flusher.drop(self)
        if self._own_flusher is not None:
            self._own_flusher.close()
        waiting = [opened.file for opened, _ in self._awaiting.values()]
        self._awaiting.clear()
        last = [] if self._file is None else [self._file.file]
        self._file = None
        with self._syncing:
            for file in dict.fromkeys([*self._retired, *waiting, *last]):
                with suppress(OSError):
                    file.close()
            self._retired.clear()

    def _append_first(self, block: Block) -> bool:
        """Write a block whose source, or whose file, is new."""
        definition = _encode(_definition(block.source))
        if self._file is None and not self._open(block, len(definition) + HEAD_BYTES + _GAP_BYTES):
            return self._drop(block.rows)
        opened = self._file
        assert opened is not None
        place = opened.file.end
        if not opened.file.append(SOURCE, definition, reserved=opened.reserved):
            return self._append_next(block, len(definition))
        opened.places[block.source] = place, _pick(block.source)
        return self.append(block)

    def _append_next(self, block: Block, size: int) -> bool:
        """Write a block into a new file, for this one is full."""
        before, self._file = self._file, None
        if before is not None and not before.awaited:
            self._retired.append(before.file)  # even without a next one: sealing it makes space
        needed = len(_encode(_definition(block.source))) + size + _shadow_bytes(block)
        if not self._open(block, needed + 3 * HEAD_BYTES + _GAP_BYTES):
            return self._drop(block.rows)
        return self.append(block)

    def _append_awaiting(self, opened: _OpenFile, block: Block, payload: bytes) -> bool:
        """Write a block and keep room for the answer of its shadow."""
        reserved = _shadow_bytes(block)
        if not opened.file.append(BLOCK, payload, reserved=opened.reserved + reserved):
            return self._append_next(block, len(payload))
        opened.awaited += 1
        opened.reserved += reserved
        self._awaiting[block.first] = opened, reserved
        self.written += block.rows
        return True

    def _drop(self, rows: int) -> bool:
        self.dropped += rows
        self._untold += rows
        return False

    def _open(self, block: Block, needed: int) -> bool:
        """Open the next file with room for so many bytes at least."""
        now = time.monotonic()
        if now < self._retry_at:
            return False
        size = max(self._next_bytes, needed)
        limit = block.source.max_bytes or self._max_bytes
        file = new_file(self._folder, self._worker, size, limit)
        if file is None:
            self._retry_at = now + RETRY_S
            return False
        self._file = _OpenFile(file)
        self._next_bytes = min(2 * self._next_bytes, self._file_bytes)
        if self._untold and file.append(GAP, _encode((self._untold,))):
            self._untold = 0
        return True


def new_file(folder: Path, worker: str, size: int, max_bytes: int) -> FrameFile | None:
    """Make a worker's next file; None when there is no space for it in the folder's bounds."""
    try:
        files = list_files(folder)
        taken = sum((folder / found.name).stat().st_size for found in files)
        if taken + size + HEADER_BYTES > max_bytes:
            return None
        numbers = [found.number for found in files if found.worker == worker]
        # The time, for a number must not come again after its file was sealed and removed.
        number = max(max(numbers, default=0) + 1, time.time_ns() // 1_000_000)
        return FrameFile(folder / f"{worker}-{number:014}.log", size)
    except OSError:
        return None


def _definition(source: Source) -> WrittenSource:
    kept = [place for place, name in enumerate(source.names) if name not in source.masked]
    return WrittenSource(
        version=source.version,
        arm=source.arm,
        share=source.share,
        epoch=source.epoch,
        names=tuple(source.names[place] for place in kept),
        dtypes=tuple(source.dtypes[place] for place in kept) if source.dtypes else (),
        outputs=source.outputs,
        fallback_version=source.fallback_version,
        shadow_version=source.shadow_version,
    )


def _pick(source: Source) -> _Pick | None:
    if not source.masked.intersection(source.names):
        return None
    kept = [place for place, name in enumerate(source.names) if name not in source.masked]
    if len(kept) > 1:
        return _Pick(kept, operator.itemgetter(*kept))
    return _Pick(kept, lambda row: tuple(row[place] for place in kept))


def _payload(block: Block, place: int, pick: _Pick | None) -> bytes:
    values, dtype = _kept(block, block.source, pick)
    outputs, fallback = block.outputs, block.fallback
    return _encode(
        (
            place,
            block.first,
            block.rows,
            block.at_us,
            block.logged_us,
            block.latency_us,
            values,
            dtype,
            _raw(outputs) if type(outputs) is np.ndarray else outputs,
            block.statuses,
            _raw(fallback) if type(fallback) is np.ndarray else fallback,
            block.has_shadow,
            block.unit,
            block.keys,
            block.request,
        )
    )


def _kept(block: Block, source: Source, pick: _Pick | None) -> tuple[_Values, str | None]:
    """Return the inputs as they are written, and the type of a matrix."""
    values = block.values
    if source.sample < 1.0 and not is_sampled(block.first, source.sample):
        return None, None
    if type(values) is np.ndarray:
        kept = values if pick is None else values[:, pick.columns]
        return _raw(kept), kept.dtype.str
    rows: Sequence[Sequence[Scalar]] = values  # type: ignore[assignment]  # it is no array
    return (rows if pick is None else [pick.row(row) for row in rows]), None


def _raw(array: Numbers) -> bytes | memoryview:
    """Return an array's bytes row by row; of a large one without the copy, which costs most."""
    if array.size > COPIED and array.flags.c_contiguous:
        return array.data.cast("B")
    return array.tobytes()


def is_sampled(first: bytes, share: float) -> bool:
    """Tell whether the inputs of a request are kept: by chance of its id, which no one chooses."""
    return int.from_bytes(first[9:14], "big") < share * (1 << 40)


def _shadow_bytes(block: Block) -> int:
    return _SHADOW_BYTES + block.rows * (1 + 9 * max(1, len(block.source.outputs)))
