"""The prediction log of a device: append-only, crash-safe, bounded, with nothing lost uncounted.

Each answer is one line with its checksum, handed to the system by one write, so that it survives
``kill -9`` at once and a power cut after a second. When the log is full the oldest segment is
folded: its rows are counted in the sketch, and their bodies are dropped and counted as dropped.

A batch for the control plane is what the sketch and the log hold at that moment. Writing its file
into the outbox is the one step that moves it: whatever crashes before leaves it in the log, and
whatever crashes after finds it in the outbox, under a number that is given once.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from everloop.edge.device.files import locked, read_json, sync_folder, write_json
from everloop.edge.device.ids import new_id
from everloop.edge.device.sketch import Sketch

LOG_BYTES = 16 * 1024 * 1024
SEGMENTS = 4
BATCH_ROWS = 2_000
BATCH_BYTES = 4_000_000  # of rows; the control plane takes bodies of 8 MiB
FSYNC_PAUSE_S = 1.0


class Journal:
    """The log in one folder, which any number of processes may write to.

    Args:
        folder: Where it lies; made when it is not there.
        limit_bytes: How large all of it may be before bodies are dropped.

    Attributes:
        unlogged: Answers that this process could not write, for a full or broken disk.
    """

    def __init__(self, folder: Path, *, limit_bytes: int = LOG_BYTES) -> None:
        self._folder = folder
        self._segment_bytes = max(limit_bytes // SEGMENTS, 1)
        for part in (folder, folder / "outbox", folder / "references"):
            part.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._path = folder / "journal.log"
        self._file = -1
        self._synced_at = time.monotonic()
        self.unlogged = 0

    def close(self) -> None:
        """Close its files; idempotent."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def learn(self, version: str, columns: List[Dict[str, Any]]) -> None:
        """Keep how a version's inputs are counted, for rows that are folded after its time."""
        path = self._reference(version)
        if read_json(path) != columns:
            write_json(path, columns)

    def append(self, row: List[Any]) -> bool:
        """Write one answer; return whether it is on its way to the disk.

        Args:
            row: Id, time in microseconds, version, status, answer, latency in microseconds, and
                the inputs in the signature's order.
        """
        text = json.dumps(row, separators=(",", ":")).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        try:
            with locked(self._lock):
                self._open()
                size = os.lseek(self._file, 0, os.SEEK_END)
                if size >= self._segment_bytes:
                    self._rotate()
                    size = 0
                is_whole = os.write(self._file, line) == len(line)
                if not is_whole:  # a full disk takes a part
                    os.ftruncate(self._file, size)
        except OSError:
            is_whole = False
        if not is_whole:
            self.unlogged += 1
            return False
        if time.monotonic() - self._synced_at >= FSYNC_PAUSE_S:
            self._synced_at = time.monotonic()
            os.fsync(self._file)
        return True

    def seal(self) -> Optional[Dict[str, Any]]:
        """Return the batch to send: the one that waits, else all that is new; None without any."""
        with locked(self._lock):
            folded = self._folded()  # first of all puts right what a crash left half done
            waiting = self._waiting()
            if waiting is not None:
                return waiting
            self._open()
            if os.fstat(self._file).st_size:
                self._rotate(fold=False)
            segments = self._segments()
            rows = self._fold(folded, segments, keep=BATCH_ROWS)
            if not (folded["sketches"] or folded["torn"]):
                for _, path in segments:  # nothing but ends of lines
                    path.unlink()
                return None
            batch = {
                "series": folded["series"],
                "number": folded["batch"],
                "first": (segments[-1][0] if segments else folded["first"] - 1) + 1,
                "dropped": folded["dropped"],
                "torn": folded["torn"],
                "sketches": folded["sketches"],
                "rows": rows,
            }
            # This file is the step: from here on the batch exists, and the log's rows do not.
            write_json(self._outbox(batch["number"]), batch)
            self._settle(batch)
            return batch

    def sent(self, batch: Dict[str, Any]) -> None:
        """Forget a batch that the control plane has."""
        with locked(self._lock):
            try:
                self._outbox(batch["number"]).unlink()
            except FileNotFoundError:
                pass  # another process was told so first
            sync_folder(self._folder / "outbox")

    def standing(self) -> Dict[str, Any]:
        """Return what is in the log: rows, bytes, dropped, torn, and batches that wait."""
        with locked(self._lock):
            folded = self._folded()
            paths = [path for _, path in self._segments()]
            paths += [self._path] if self._path.exists() else []
            return {
                "bytes": sum(path.stat().st_size for path in paths),
                "rows": sum(len(_read_rows(path)[0]) for path in paths),
                "folded": sum(sketch["answers"] for sketch in folded["sketches"].values()),
                "dropped": folded["dropped"],
                "torn": folded["torn"],
                "unlogged": self.unlogged,
                "waiting": len(list((self._folder / "outbox").glob("batch-*.json"))),
                "next_batch": folded["batch"],
            }

    def _open(self) -> None:
        """Open the present segment, also when another process has closed the one before."""
        if self._file >= 0:
            try:
                if self._path.stat().st_ino == os.fstat(self._file).st_ino:
                    return
            except FileNotFoundError:
                pass
            os.close(self._file)
        self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")  # a line that a power cut tore must not swallow the next

    def _rotate(self, *, fold: bool = True) -> None:
        """Close the present segment; fold the oldest ones beyond the limit."""
        folded = self._folded()
        segments = self._segments()
        number = segments[-1][0] + 1 if segments else folded["first"]
        os.fsync(self._file)
        self._path.rename(self._folder / f"journal-{number:08}.log")
        self._open()
        segments = self._segments()
        full = segments[: max(len(segments) - SEGMENTS + 1, 0)]
        if fold and full:
            self._fold(folded, full, keep=0)
            folded["first"] = full[-1][0] + 1
            write_json(self._folder / "folded.json", folded)
            for _, path in full:
                path.unlink()

    def _fold(
        self, folded: Dict[str, Any], segments: List[Tuple[int, Path]], *, keep: int
    ) -> List[List[Any]]:
        """Count the rows of segments in the sketches; return the first of them with bodies."""
        sketches: Dict[str, Sketch] = {}
        kept: List[List[Any]] = []
        room = BATCH_BYTES
        for _, path in segments:
            rows, torn = _read_rows(path)
            folded["torn"] += torn
            for row in rows:
                version = row[2]
                if version not in sketches:
                    columns = read_json(self._reference(version)) or []
                    sketches[version] = Sketch(columns, folded["sketches"].get(version))
                sketches[version].add(row[6], row[4], row[3], row[5])
                if len(kept) < keep:
                    room -= len(json.dumps(row, separators=(",", ":")))
                if len(kept) < keep and room >= 0:
                    kept.append(row)
                else:
                    folded["dropped"] += 1
        folded["sketches"].update({name: sketch.told for name, sketch in sketches.items()})
        return kept

    def _folded(self) -> Dict[str, Any]:
        """Return what was folded, put right after a crash between two steps."""
        folded = read_json(self._folder / "folded.json")
        if folded is None:
            folded = _nothing(new_id(), 1, 1)
            write_json(self._folder / "folded.json", folded)
        waiting = self._waiting()
        if waiting is not None and waiting["number"] >= folded["batch"]:
            return self._settle(waiting)
        for number, path in self._segments():
            if number < folded["first"]:
                path.unlink()
        return dict(folded)

    def _settle(self, batch: Dict[str, Any]) -> Dict[str, Any]:
        """Take out of the log what a batch of the outbox holds."""
        folded = _nothing(batch["series"], batch["number"] + 1, batch["first"])
        write_json(self._folder / "folded.json", folded)
        for number, path in self._segments():
            if number < folded["first"]:
                path.unlink()
        return folded

    def _waiting(self) -> Optional[Dict[str, Any]]:
        for path in sorted((self._folder / "outbox").glob("batch-*.json")):
            found: Optional[Dict[str, Any]] = read_json(path)
            if found is not None:
                return found
        return None

    def _segments(self) -> List[Tuple[int, Path]]:
        found = self._folder.glob("journal-*.log")
        return sorted((int(path.stem.partition("-")[2]), path) for path in found)

    def _outbox(self, number: int) -> Path:
        return self._folder / "outbox" / f"batch-{number:08}.json"

    def _reference(self, version: str) -> Path:
        return self._folder / "references" / f"{version}.json"


def _nothing(series: str, batch: int, first: int) -> Dict[str, Any]:
    return {
        "series": series,
        "batch": batch,
        "first": first,
        "dropped": 0,
        "torn": 0,
        "sketches": {},
    }


def _read_rows(path: Path) -> Tuple[List[List[Any]], int]:
    """Return the whole rows of a segment, and how many lines are none."""
    rows: List[List[Any]] = []
    torn = 0
    for line in path.read_bytes().split(b"\n"):
        if not line:
            continue
        checksum, _, text = line.partition(b" ")
        if checksum == b"%08x" % zlib.crc32(text):
            rows.append(json.loads(text))
        else:
            torn += 1
    return rows, torn
