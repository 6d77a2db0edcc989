"""Brings a spool to the server, in batches that may be repeated without harm.

A batch is named by the run and the bytes of the spool that it carries, and the server keeps a
cursor per run: however often a process or a connection dies in between, each point is stored once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypedDict

import msgspec

from everloop.core.digest import Digest, content_digest, parse_digest
from everloop.core.errors import (
    Conflict,
    EverloopError,
    InvalidInput,
    LimitExceeded,
    NotFound,
    StaleVersion,
    Unavailable,
)
from everloop.core.ids import Id
from everloop.kernel.performer import Performer
from everloop.track import columns
from everloop.track.columns import Columns
from everloop.track.frames import (
    Described,
    Ended,
    Frame,
    Kept,
    Points,
    Read,
    Resumed,
    Started,
    Surroundings,
)
from everloop.track.lifecycle import RunShown, UpdateRun
from everloop.track.mixed import MixedPoints, encode_mixed, mix
from everloop.track.model import RunStatus
from everloop.track.ring import split_points
from everloop.track.series import FEW_POINTS
from everloop.track.spool import SUFFIX, Spool
from everloop.track.verbs import (
    ArtifactFile,
    Ending,
    FinishRun,
    LogRun,
    MetricSeries,
    RunFinished,
    RunLogged,
    RunStarted,
    SpoolRange,
    StartRun,
)

BATCH_POINTS: Final = 50_000
BATCH_FRAMES: Final = 5_000
BATCH_FILE_BYTES: Final = 32 * 1024 * 1024
# A body has 8 MiB at most, and one character takes six bytes of JSON at worst.
BATCH_CHARS: Final = 750_000
MOST_MISSES: Final = 3
REFUSALS: Final = (InvalidInput, NotFound, Conflict, LimitExceeded)
# A slow disk's rate: below it, a copy into the spool would have been sooner done.
LEAST_RATE: Final = 50e6

_log = logging.getLogger(__name__)


class Batch(msgspec.Struct, kw_only=True):
    """Frames gathered for one ``run.log``."""

    start: int
    end: int
    frames: int = 0
    points: int = 0
    file_bytes: int = 0
    chars: int = 0
    metrics: dict[str, list[Columns]] = msgspec.field(default_factory=dict)
    params: dict[str, str] = msgspec.field(default_factory=dict)
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    files: list[Kept] = msgspec.field(default_factory=list)
    reads: list[str] = msgspec.field(default_factory=list)
    surroundings: Surroundings | None = None
    ended: Ended | None = None

    def add(self, frame: Frame, end: int) -> None:
        """Take one frame."""
        self.end = end
        self.frames += 1
        if isinstance(frame, Points):
            for key, points in split_points(frame):
                self.points += len(points.steps)
                self.metrics.setdefault(key, []).append(points)
        elif isinstance(frame, Described):
            self.params |= frame.params
            self.tags |= frame.tags
            texts = (*frame.params.items(), *frame.tags.items())
            self.chars += sum(len(key) + len(value) for key, value in texts)
        elif isinstance(frame, Kept):
            self.files.append(frame)
            self.file_bytes += len(frame.data or b"")
        elif isinstance(frame, Read):
            self.reads.append(frame.dataset_version)
        elif isinstance(frame, Surroundings):
            self.surroundings = frame
        elif isinstance(frame, Ended):
            self.ended = frame

    @property
    def is_full(self) -> bool:
        """Whether it should be sent before it grows further."""
        is_large = self.points >= BATCH_POINTS or self.frames >= BATCH_FRAMES
        is_large |= self.file_bytes >= BATCH_FILE_BYTES or self.chars >= BATCH_CHARS
        return is_large or self.ended is not None


class Shipment:
    """How far one spool has been brought to the server.

    Thread-safe: one thread ships at a time.

    Attributes:
        points: How many have arrived through this shipment.
        refused: Frames that the server refused; they are set aside, and the rest goes on.
        ended: How the run ended, once its end has arrived.
    """

    def __init__(self, spool: Spool, performer: Performer) -> None:
        self._spool = spool
        self._performer = performer
        self._offset = 0
        self._name = ""
        self._run: Id | None = None
        self._misses = 0
        self._most_frames = BATCH_FRAMES
        self._is_away = False
        self._lock = threading.Lock()
        self.points = 0
        self.refused = 0
        self.ended: RunStatus | None = None

    def ship(self) -> None:
        """Send everything that the spool holds and the server has not.

        Raises:
            Unavailable: the server is away; what was sent before counts.
            EverloopError: the server refuses; sending the same again would not help.
        """
        with self._lock:
            try:
                while self._ship_one():
                    pass
            except Unavailable:
                self._is_away = True
                raise
            self._is_away = False

    def bring(self, file: Path) -> tuple[Digest, int] | None:
        """Store a large file's bytes right away, without a copy in the spool.

        Returns None when its caller would have to wait longer than for that copy, or in vain: the
        server is away, far, or refuses.
        """
        blobs = self._performer.blobs
        if self._is_away:
            return None
        try:
            digest = blobs.put_file(file, least_rate=LEAST_RATE)
            size = blobs.size(digest)
        except (EverloopError, OSError) as error:
            _log.info("everloop: %s goes through the spool: %s", file.name, error)
            return None
        return None if size is None else (digest, size)

    def progress(self) -> tuple[int, int]:
        """Return numbers that change while something moves: whoever waits looks at them."""
        # Only a performer that sends over a wire counts what it has sent of a file.
        return self._offset, getattr(self._performer.blobs, "sent_bytes", 0)

    def seek(self) -> None:
        """Ask the server how far this spool has arrived, for one that another process began.

        Raises:
            Unavailable: the server is away.
            EverloopError: the server refuses.
        """
        with self._lock:
            first = next((frame for frame, _ in self._spool.read(0)), None)
            if not isinstance(first, Started | Resumed):
                return
            name = first.spool if isinstance(first, Resumed) else ""
            ask = LogRun(run=first.run, spool=SpoolRange(start=0, end=0, spool=name))
            try:
                self._offset = self._performer.perform("run.log", ask, RunLogged).offset
            except NotFound:
                return  # it is announced with the first batch
            if self._offset:
                self._name, self._run = name, Id(first.run)
            for frame, end in self._spool.read(0):
                if isinstance(frame, Ended) and end <= self._offset:
                    self.ended = frame.status

    def finish(self, status: RunStatus) -> None:
        """End the run on the server for a process that did not live to say so."""
        with self._lock:
            if self._run is not None:
                ask = FinishRun(run=self._run, status=status)
                self._performer.perform("run.finish", ask, RunFinished)
                self.ended = status

    def _ship_one(self) -> bool:
        """Send the next batch; return whether there may be another."""
        batch = Batch(start=self._offset, end=self._offset)
        for frame, end in self._spool.read(self._offset):
            if isinstance(frame, Started):
                self._announce(frame, end)
                self._offset = batch.start = batch.end = end
                continue
            if isinstance(frame, Resumed):
                self._resume(frame)
            batch.add(frame, end)
            if batch.is_full or batch.frames >= self._most_frames:
                break
        if batch.end == batch.start:
            return False
        try:
            self._send(batch)
        except REFUSALS as error:
            self._get_past(batch, error)
        else:
            self._most_frames = min(2 * self._most_frames, BATCH_FRAMES)
        return self.ended is None

    def _get_past(self, batch: Batch, error: EverloopError) -> None:
        """Go on with less, down to the one frame that is refused, which is set aside.

        One wrong thing must not hold up all that a run logs after it.
        """
        if isinstance(error, StaleVersion):
            raise error
        if batch.frames > 1:
            self._most_frames = max(batch.frames // 2, 1)
            return
        (frame,) = (frame for frame, end in self._spool.read(batch.start) if end == batch.end)
        if not isinstance(frame, Described | Points | Read | Surroundings):
            raise error
        assert self._run is not None
        span = SpoolRange(start=batch.start, end=batch.end, spool=self._name)
        request = f"run.log:{self._name or self._run}:{batch.start}:{batch.end}:skip"
        try:
            ask = LogRun(run=self._run, spool=span)
            answer = self._performer.perform("run.log", ask, RunLogged, request=request)
        except REFUSALS:
            raise error from None  # it is the run that is refused, and not this frame
        self._spool.set_aside(frame, str(error))
        self._offset = answer.offset
        self.refused += 1
        _log.warning("everloop: run %s: the server refuses one thing: %s", self._run, error)

    def _resume(self, resumed: Resumed) -> None:
        if self._run is None:
            self._name = resumed.spool
            ship_earlier(self._spool.path, resumed.run, self._performer)
            request = f"run.resume:{resumed.spool}"
            ask = UpdateRun(run=resumed.run, status=RunStatus.RUNNING)
            self._performer.perform("run.update", ask, RunShown, request=request)
            self._run = Id(resumed.run)

    def _announce(self, started: Started, end: int) -> None:
        if self._run is not None:
            return
        environment = None
        if started.environment:
            environment = self._performer.blobs.put(started.environment)
        ask = StartRun(
            run=started.run,
            experiment=started.experiment,
            name=started.name,
            parent=started.parent,
            pipeline=started.pipeline,
            params=started.params,
            tags=started.tags,
            started_at=started.started_at,
            environment=environment,
            code_commit=started.code_commit,
            spool=SpoolRange(start=0, end=end),
        )
        request = f"run.start:{started.run}"
        self._run = self._performer.perform("run.start", ask, RunStarted, request=request).run

    def _send(self, batch: Batch) -> None:
        assert self._run is not None
        self._send_files(batch.files)
        ask = LogRun(
            run=self._run,
            **_to_points(batch),
            params=batch.params,
            tags=batch.tags,
            artifacts=tuple(
                ArtifactFile(path=kept.path, digest=kept.digest, size_bytes=kept.size_bytes)
                for kept in batch.files
            ),
            reads=tuple(batch.reads),
            spool=SpoolRange(start=batch.start, end=batch.end, spool=self._name),
            environment=self._keep(batch.surroundings),
            code_commit=batch.surroundings.code_commit if batch.surroundings else None,
            ending=_to_ending(batch.ended),
        )
        request = f"run.log:{self._name or self._run}:{batch.start}:{batch.end}"
        answer = self._performer.perform("run.log", ask, RunLogged, request=request)
        self.points += answer.points
        self._offset = answer.offset
        self._misses = 0 if answer.offset > batch.start else self._misses + 1
        if self._misses > MOST_MISSES:
            raise Conflict(
                "spool.out_of_step",
                f"The server wants run {self._run} from byte {answer.offset} on, again and again.",
                hint="Was it restored from a backup? Move the file out of the spool folder.",
            )
        if batch.ended is not None and answer.offset >= batch.end:
            self.ended = batch.ended.status

    def _send_files(self, files: Sequence[Kept]) -> None:
        blobs = self._performer.blobs
        small = {kept.digest: kept.data for kept in files if kept.data is not None}
        if small:
            blobs.put_many(list(small.values()))
        for digest in dict.fromkeys(kept.digest for kept in files if kept.data is None):
            if blobs.size(parse_digest(digest)) is None:
                blobs.put_file(self._spool.kept_file(digest), move=True)

    def _keep(self, surroundings: Surroundings | None) -> str | None:
        if surroundings is None:
            return None
        digest = content_digest(surroundings.environment)
        if self._performer.blobs.size(digest) is None:
            self._performer.blobs.put(surroundings.environment)
        return digest


def _to_ending(ended: Ended | None) -> Ending | None:
    if ended is None:
        return None
    return Ending(status=ended.status, error=ended.error, ended_at=ended.ended_at)


class _Points(TypedDict, total=False):
    metrics: tuple[MetricSeries, ...]
    mixed: MixedPoints


def _to_points(batch: Batch) -> _Points:
    """Return the points by metric, or in one piece where there are few of each."""
    series = [(key, columns.join(parts)) for key, parts in batch.metrics.items()]
    if batch.points < FEW_POINTS * len(series):
        return {"mixed": encode_mixed(mix(series), columns.ZLIB)}
    return {
        "metrics": tuple(
            MetricSeries(key=key, data=columns.encode(points, columns.ZLIB))
            for key, points in series
        )
    }


def ship_earlier(later: Path, run: str, performer: Performer) -> None:
    """Ship what earlier processes left of one run, before it is taken up again.

    Args:
        later: The spool that takes it up; those beside it that sort before it are shipped.
        run: Id of the run.
        performer: The server.

    Raises:
        Unavailable: the server is away.
        EverloopError: the server refuses.
    """
    for path in sorted(later.parent.glob(f"{run}*{SUFFIX}")):
        if path.name >= later.name:
            return
        try:
            spool = Spool(path)
        except Conflict:
            continue
        try:
            shipment = Shipment(spool, performer)
            shipment.seek()
            shipment.ship()
            spool.remove()
        finally:
            spool.close()
