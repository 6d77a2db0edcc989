"""Brings the files of a run over: what is here already is not transferred again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from blake3 import blake3

from everloop.core.canonical import canonical_json
from everloop.core.digest import Digest
from everloop.core.errors import InvalidInput
from everloop.core.ids import Id
from everloop.interop.importers.cleaning import LONG_TEXTS
from everloop.interop.importers.report import Report
from everloop.interop.importers.source import Skip, SourceFile, SourceRun
from everloop.kernel.performer import Performer
from everloop.track import limits
from everloop.track.queries import ArtifactList, ListArtifacts
from everloop.track.verbs import ArtifactFile

SMALL_BYTES = 64 * 1024
SMALL_TOGETHER_BYTES = 16 << 20
PIECE_BYTES = 1 << 20
Kept = Mapping[str, tuple[str, int]]
"""Digest and length of the files that a run has here, by path."""


class FileStore:
    """Stores files of runs under their digests; with ``dry_run`` it only counts."""

    def __init__(self, performer: Performer, report: Report, *, dry_run: bool) -> None:
        self._performer = performer
        self._report = report
        self._dry_run = dry_run

    def kept(self, run: Id) -> dict[str, tuple[str, int]]:
        """Return the files that a run has here."""
        kept: dict[str, tuple[str, int]] = {}
        after: str | None = None
        while True:
            ask = ListArtifacts(run=run, limit=1_000, after=after)
            page = self._performer.perform("run.artifacts", ask, ArtifactList)
            kept |= {item.path: (item.digest, item.size_bytes) for item in page.items}
            after = page.next
            if after is None:
                return kept

    def store_run(self, there: SourceRun, kept: Kept) -> Iterator[ArtifactFile]:
        """Store the files of a run that are not here yet, and yield them."""
        usable: list[SourceFile] = []
        try:
            for file in there.files():
                try:
                    limits.check_artifact_path(file.path)
                    usable.append(file)
                except InvalidInput as error:
                    self._report.skip(f"run {there.id}, file {file.path[:100]!r}", error.message)
        except Skip as reason:
            self._report.skip(f"run {there.id}, files", str(reason))
        yield from self.store(usable, kept)

    def store_texts(self, texts: dict[str, str], kept: Kept) -> Iterator[ArtifactFile]:
        """Store texts that are too long for parameters and tags as one file."""
        if texts:
            data = canonical_json(texts)
            held = SourceFile(path=LONG_TEXTS, size_bytes=len(data), fetch=lambda: iter([data]))
            yield from self.store([held], kept)

    def store(self, files: Iterable[SourceFile], kept: Kept) -> Iterator[ArtifactFile]:
        """Store the files that are not here yet, and yield them."""
        small: list[tuple[str, bytes]] = []
        together = 0
        for file in files:
            if _is_same(file, kept.get(file.path)):
                continue
            self._report.files += 1
            self._report.file_bytes += file.size_bytes or 0
            if self._dry_run:
                # Something must stand for it, so that the run counts as changed.
                yield ArtifactFile(path=file.path, digest="", size_bytes=file.size_bytes or 0)
                continue
            if file.local is not None and (file.size_bytes or 0) <= SMALL_BYTES:
                data = file.local.read_bytes()
                small.append((file.path, data))
                together += len(data)
            else:
                digest, size = put_source_file(self._performer, file)
                yield ArtifactFile(path=file.path, digest=digest, size_bytes=size)
            if together > SMALL_TOGETHER_BYTES:
                yield from self._store_small(small)
                small, together = [], 0
        yield from self._store_small(small)

    def _store_small(self, small: list[tuple[str, bytes]]) -> Iterator[ArtifactFile]:
        digests = self._performer.blobs.put_many([data for _, data in small])
        for (path, data), digest in zip(small, digests, strict=True):
            yield ArtifactFile(path=path, digest=digest, size_bytes=len(data))


def put_source_file(performer: Performer, file: SourceFile) -> tuple[Digest, int]:
    """Store a file's bytes, never whole in memory; return digest and size.

    Raises:
        Skip: it can't be read.
    """
    if file.local is not None:
        size = file.local.stat().st_size
        return performer.blobs.put_file(file.local), size
    assert file.fetch is not None
    total = 0
    with performer.blobs.incoming() as incoming:
        for piece in file.fetch():
            incoming.write(piece)
            total += len(piece)
        return incoming.keep(), total


def _is_same(file: SourceFile, kept: tuple[str, int] | None) -> bool:
    if kept is None or (file.size_bytes is not None and file.size_bytes != kept[1]):
        return False
    if file.local is None:
        return True  # the same name and length; reading it again would cost a transfer
    return f"blake3:{_hash(file.local)}" == kept[0]


def _hash(path: Path) -> str:
    hasher = blake3()
    with path.open("rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            hasher.update(piece)
    return hasher.hexdigest()
