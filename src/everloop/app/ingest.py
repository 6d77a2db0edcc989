"""Seals what the serving processes logged: their files become Parquet segments with their roots."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

import msgspec

from everloop.app.home import Home
from everloop.app.taking import LabelTaker
from everloop.core.errors import Conflict, IntegrityError
from everloop.core.ids import Id
from everloop.core.wire import Applied
from everloop.kernel.performer import Performer
from everloop.monitor.feedback import CountWaiting, Retried, RetryFeedback, WaitingCount
from everloop.monitor.queries import ListSegments, SegmentList
from everloop.monitor.refusals import ListRefused, RefusedList
from everloop.monitor.segments import encode_rows
from everloop.monitor.verbs import SealedSegment, SealSegment
from everloop.serve.applied import read_applied
from everloop.serve.feedback import FOLDER, REFUSED_FILE, read_refused
from everloop.serve.files import write_atomically
from everloop.serve.log import Chunk, list_files, read_rows
from everloop.serve.log.file import counted_bytes

OWNER_FILE = "deployment.json"
_LOG = logging.getLogger(__name__)
PAGE = 1_000
TELL_S: Final = 5.0
GATHERED_BYTES: Final = 4 * 1024 * 1024
"""About ten thousand answers of thirty inputs: enough for a segment."""


class LogSource:
    """The prediction logs below a home folder; used by one thread.

    What was sealed is known from the records, so a crash between reading and sealing loses and
    doubles nothing: the stretch is read again. A file that is complete and sealed is deleted.
    """

    def __init__(
        self, home: Home, performer: Performer, clock: Callable[[], float] = monotonic
    ) -> None:
        self._home = home
        self._performer = performer
        self._labels = LabelTaker(performer)
        self._offsets: dict[tuple[Id, str], int] = {}
        self._clock = clock
        self._sealed_at: dict[Id, float] = {}
        self._told_at: dict[Id, float] = {}

    def size_bytes(self) -> int:
        """Return how much is logged in all: a cheap sign that there is something to seal."""
        size = 0
        for pattern in ("*/log/[a-z]*.log", f"*/log/{FOLDER}/[a-z]*.log"):
            for file in (self._home.path / "serve").glob(pattern):
                with suppress(OSError):
                    size += counted_bytes(file)
        return size

    def seal(self, deployment: Id, name: str, champion: Id | None, *, pause_s: float = 0.0) -> int:
        """Seal what was logged since the last time, and hand on labels; return the number of rows.

        The first answers after a pause are sealed at once; those that follow are gathered for
        ``pause_s`` seconds or a few megabytes, for each segment costs an entry of the ledger, rows
        of the database and some kilobytes, however few answers it holds.

        Raises:
            IntegrityError: a file of the log is damaged; the others were sealed all the same.
        """
        folder = find_log(self._home, deployment, name)
        if folder is None or not folder.is_dir():
            return 0
        if self._is_early(deployment, folder, pause_s):
            return 0
        task = _Task(folder, deployment, champion)
        sealed = 0
        damage: IntegrityError | None = None
        for found in list_files(folder):
            try:
                for rows in self._seal_file(task, found.name):
                    sealed += rows
            except Conflict:  # somebody else sealed it: believe the records
                self._offsets.pop((deployment, found.name), None)
            except IntegrityError as error:
                damage = damage or error
        try:
            self._labels.take(deployment, folder / FOLDER)
        except IntegrityError as error:
            damage = damage or error
        if sealed:
            self._sealed_at[deployment] = self._clock()
            self._retry()
        self._tell_refused(deployment, folder.parent)
        if damage is not None:
            raise damage
        return sealed

    def _tell_refused(self, deployment: Id, folder: Path) -> None:
        """Let the serving process know, for its metrics, how many labels could not be used."""
        now = self._clock()
        if now < self._told_at.get(deployment, -math.inf) + TELL_S:
            return
        self._told_at[deployment] = now
        ask = ListRefused(deployment=deployment)
        rows = self._performer.perform("feedback.refused", ask, RefusedList).items
        counts = {row.reason.value: row.count for row in rows}
        if counts != read_refused(folder):
            write_atomically(folder / REFUSED_FILE, msgspec.json.encode(counts))

    def _is_early(self, deployment: Id, folder: Path, pause_s: float) -> bool:
        """Tell whether to gather more: not for long, and not much."""
        if self._clock() >= self._sealed_at.get(deployment, -math.inf) + pause_s:
            return False
        waiting = 0
        for found in list_files(folder):
            with suppress(OSError):
                size = counted_bytes(folder / found.name)
                waiting += size - self._offsets.get((deployment, found.name), 0)
        return waiting < GATHERED_BYTES

    def _retry(self) -> None:
        """Join the labels that came before their predictions were sealed."""
        waiting = self._performer.perform("feedback.waiting", CountWaiting(names=0), WaitingCount)
        after: Id | None = None
        while waiting.batches:
            done = self._performer.perform("feedback.retry", RetryFeedback(after=after), Retried)
            if done.next is None:
                return
            after = done.next

    def applied(self, deployment: Id, name: str) -> Applied | None:
        """Return what the server last made of a deployment's routes; None when nobody can tell."""
        folder = find_log(self._home, deployment, name)
        return None if folder is None else read_applied(folder.parent)

    def _seal_file(self, task: _Task, name: str) -> Iterator[int]:
        """Yield how many rows were sealed, a stretch at a time."""
        key = (task.deployment, name)
        if key not in self._offsets:
            self._offsets[key] = self._sealed_until(task.deployment, name)
        # Not what comes meanwhile: it would be chased with a segment of a few rows each, for ever
        # under a steady load, while other deployments and all labels waited.
        end = counted_bytes(task.folder / name)
        chunk = None
        while chunk is None or (chunk.rows and self._offsets[key] < end):
            chunk = read_rows(task.folder, name, self._offsets[key])
            if chunk.rows:
                self._seal_chunk(task, name, chunk)
                yield len(chunk.rows)
        if chunk.lost_bytes:
            _LOG.warning("%s: a power cut took its last %d bytes.", name, chunk.lost_bytes)
        if chunk.is_finished:
            (task.folder / name).unlink(missing_ok=True)
            del self._offsets[key]

    def _seal_chunk(self, task: _Task, name: str, chunk: Chunk) -> None:
        start = self._offsets[task.deployment, name]
        ask = SealSegment(
            deployment=task.deployment,
            file=name,
            offset_start=start,
            offset_end=chunk.next_offset,
            blob=self._performer.blobs.put(encode_rows(chunk.rows)),
            champion=task.champion,
            dropped=chunk.dropped,
        )
        request = f"seal:{task.deployment}:{name}:{start}:{chunk.next_offset}"
        self._performer.perform("prediction.seal", ask, SealedSegment, request=request)
        self._offsets[task.deployment, name] = chunk.next_offset

    def _sealed_until(self, deployment: Id, name: str) -> int:
        offset = cursor = 0
        while True:
            ask = ListSegments(deployment=deployment, file=name, after_seq=cursor, limit=PAGE)
            page = self._performer.perform("prediction.segments", ask, SegmentList).items
            offset = max([offset, *(segment.offset_end for segment in page)])
            if len(page) < PAGE:
                return offset
            cursor = page[-1].seq


class _Task(NamedTuple):
    folder: Path
    deployment: Id
    champion: Id | None


class _Owner(msgspec.Struct, frozen=True, kw_only=True):
    deployment: Id


def find_log(home: Home, deployment: Id, name: str) -> Path | None:
    """Return the log folder of a deployment, or None before it is served.

    Raises:
        IntegrityError: ``serving.folder_unreadable``.
    """
    for folder in (home.serve(name), home.serve(f"{name}~{deployment}")):
        owner = folder / OWNER_FILE
        try:
            found = msgspec.json.decode(owner.read_bytes(), type=_Owner).deployment
        except FileNotFoundError:
            continue
        except (OSError, msgspec.MsgspecError) as error:
            raise IntegrityError(
                "serving.folder_unreadable",
                f"{owner} can't be read: {error}.",
                hint="Restore or delete the file; the records say which deployment it is.",
            ) from error
        if found == deployment:
            return folder / "log"
    return None
