"""Seals what the serving processes logged: JSON lines become Parquet segments with their roots."""

from __future__ import annotations

from pathlib import Path

import msgspec

from everloop.app.home import Home
from everloop.core.errors import Conflict, IntegrityError
from everloop.core.ids import Id
from everloop.core.wire import Applied
from everloop.kernel.performer import Performer
from everloop.monitor.queries import ListSegments, SegmentList
from everloop.monitor.segments import encode_rows
from everloop.monitor.verbs import SealedSegment, SealSegment
from everloop.serve.log import list_files, read_rows
from everloop.serve.log.file import counted_bytes

OWNER_FILE = "deployment.json"
APPLIED_FILE = "applied.json"
PAGE = 1_000


class LogSource:
    """The prediction logs below a home folder; used by one thread.

    What was sealed is known from the records, so a crash between reading and sealing loses and
    doubles nothing: the stretch is read again.
    """

    def __init__(self, home: Home, performer: Performer) -> None:
        self._home = home
        self._performer = performer
        self._offsets: dict[Id, dict[str, int]] = {}
        self._finished: set[tuple[Id, str]] = set()

    def size_bytes(self) -> int:
        """Return how much is logged in all: a cheap sign that there is something to seal."""
        logs = (self._home.path / "serve").glob("*/log/*.log")
        return sum(counted_bytes(file) for file in logs)

    def seal(self, deployment: Id, name: str, champion: Id | None) -> int:
        """Seal what was logged since the last time; return the number of new rows.

        Raises:
            IntegrityError: a line of a log is none of ours.
        """
        folder = find_log(self._home, deployment, name)
        if folder is None:
            return 0
        offsets = self._offsets.get(deployment)
        if offsets is None:
            offsets = self._offsets[deployment] = self._read_offsets(deployment)
        sealed = 0
        for file in list_files(folder):
            if (deployment, file.name) in self._finished:
                continue
            try:
                sealed += self._seal_file(folder, file.name, deployment, champion)
            except Conflict:  # somebody else sealed it: believe the records
                self._offsets.pop(deployment, None)
                break
        return sealed

    def applied(self, deployment: Id, name: str) -> Applied | None:
        """Return what the server last made of a deployment's routes; None when nobody can tell."""
        folder = find_log(self._home, deployment, name)
        return None if folder is None else read_applied(folder.parent)

    def _seal_file(self, folder: Path, name: str, deployment: Id, champion: Id | None) -> int:
        offsets, rows = self._offsets[deployment], 0
        while True:
            start = offsets.get(name, 0)
            chunk = read_rows(folder, name, start)
            if chunk.rows:
                ask = SealSegment(
                    deployment=deployment,
                    file=name,
                    offset_start=start,
                    offset_end=chunk.next_offset,
                    blob=self._performer.blobs.put(encode_rows(chunk.rows)),
                    champion=champion,
                )
                request = f"seal:{deployment}:{name}:{start}:{chunk.next_offset}"
                self._performer.perform("prediction.seal", ask, SealedSegment, request=request)
                offsets[name] = chunk.next_offset
                rows += len(chunk.rows)
            if chunk.is_finished:
                self._finished.add((deployment, name))
            if chunk.is_finished or not chunk.rows:
                return rows

    def _read_offsets(self, deployment: Id) -> dict[str, int]:
        offsets: dict[str, int] = {}
        cursor = 0
        while True:
            ask = ListSegments(deployment=deployment, after_seq=cursor, limit=PAGE)
            page = self._performer.perform("prediction.segments", ask, SegmentList).items
            for segment in page:
                offsets[segment.file] = max(offsets.get(segment.file, 0), segment.offset_end)
            if len(page) < PAGE:
                return offsets
            cursor = page[-1].seq


class _Owner(msgspec.Struct, frozen=True, kw_only=True):
    deployment: Id


def read_applied(folder: Path) -> Applied | None:
    """Return the server's report in a serving folder, or None before there is a readable one."""
    try:
        return msgspec.json.decode((folder / APPLIED_FILE).read_bytes(), type=Applied)
    except (OSError, msgspec.MsgspecError):
        return None


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
