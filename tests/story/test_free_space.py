"""Space that was deleted comes back: files and database on the disk shrink."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from everloop.core.records import declared_kinds
from everloop.govern.collecting import CollectBlobs, Collected, CompactStore
from everloop.govern.trash import Purged, PurgeTrash
from everloop.storage.localfs import LocalBlobStore
from everloop.storage.sqlite import SqliteMetadataStore
from everloop.track import columns
from everloop.track.lifecycle import RunNamed, RunShown
from everloop.track.verbs import (
    ArtifactFile,
    LogRun,
    MetricSeries,
    RunLogged,
    RunStarted,
    StartRun,
)
from tests.kit import World, world

RUNS = 10
LARGE = 200_000
SMALL = 3_000


@pytest.fixture
def place(tmp_path: Path) -> World:
    store = SqliteMetadataStore(tmp_path / "store.db", declared_kinds())
    made = world(store, LocalBlobStore(tmp_path / "blobs"))
    made.clock.push(days=3650)  # later than the times of the files on this machine
    return made


def fill(place: World) -> list[str]:
    runs = []
    noise = np.random.default_rng(7).normal(size=1000).tolist()
    points = columns.encode(columns.to_columns(range(1000), range(1000), noise))
    for number in range(RUNS):
        run = place.kernel.services.ids.new()
        place.owner.perform("run.start", StartRun(run=run), RunStarted)
        large, *small = place.blobs.put_many(
            [os.urandom(LARGE), *(os.urandom(SMALL) for _ in range(3))]
        )
        files = [ArtifactFile(path="model.bin", digest=large, size_bytes=LARGE)]
        files += [
            ArtifactFile(path=f"{n}.txt", digest=digest, size_bytes=SMALL)
            for n, digest in enumerate(small)
        ]
        metrics = tuple(MetricSeries(key=f"m{n}", data=points) for n in range(30))
        log = LogRun(run=run, artifacts=tuple(files), metrics=metrics)
        place.owner.perform("run.log", log, RunLogged)
        if number:
            place.owner.perform("run.delete", RunNamed(run=run), RunShown)
        runs.append(str(run))
    return runs


def blocks(folder: Path) -> int:
    """How many bytes of the disk the blobs below a folder take, without the index of packs."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sum(path.lstat().st_blocks * 512 for path in files if "index" not in path.name)


def test_purged_runs_give_their_space_back(place: World, tmp_path: Path) -> None:
    fill(place)
    place.clock.push(days=31)
    place.kernel.store.scrub()
    blobs, database = blocks(tmp_path / "blobs"), (tmp_path / "store.db").stat().st_size

    done = place.owner.perform("trash.purge", PurgeTrash(), Purged)
    while not place.instance(CollectBlobs(), "blob.collect").is_done:  # type: ignore[attr-defined]
        pass
    place.instance(CompactStore(), "store.compact")

    assert RUNS - 1 == len(done.things)
    gone = (RUNS - 1) * (LARGE + 3 * SMALL)
    assert blobs - blocks(tmp_path / "blobs") >= 0.95 * gone
    assert (tmp_path / "store.db").stat().st_size < database / 2
    assert 4 == sum(1 for _ in place.blobs.digests())


KILLED = """
import os, signal, sys
from tests.story import test_free_space as story
from pathlib import Path
from everloop.storage.localfs import LocalBlobStore
import everloop.storage.localfs as localfs
from everloop.govern.collecting import CollectBlobs

left = int(sys.argv[2])
original = LocalBlobStore.delete
def delete(self, digest):
    global left
    left -= 1
    done = original(self, digest)
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return done
LocalBlobStore.delete = delete
place = story.open_again(Path(sys.argv[1]))
while not place.instance(CollectBlobs(), "blob.collect").is_done:
    pass
"""


def open_again(folder: Path) -> World:
    store = SqliteMetadataStore(folder / "store.db", declared_kinds())
    made = world(store, LocalBlobStore(folder / "blobs"))
    made.clock.push(days=3650 + 31)
    return made


@pytest.mark.parametrize("deleted", [0, 7])
def test_a_collection_that_is_killed_leaves_nothing_that_a_record_needs_missing(
    place: World, tmp_path: Path, deleted: int
) -> None:
    fill(place)
    place.clock.push(days=31)
    place.owner.perform("trash.purge", PurgeTrash(), Purged)
    kept = {file.digest for file in _entries(place)}

    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(deleted)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert -9 == killed.returncode, killed.stderr
    assert kept <= set(place.blobs.digests())
    again = open_again(tmp_path)
    while True:
        step = again.instance(CollectBlobs(), "blob.collect")
        assert isinstance(step, Collected)
        if step.is_done:
            break
    assert kept == set(again.blobs.digests())


def _entries(place: World) -> list[ArtifactFile]:
    from everloop.track.model import ArtifactEntry

    with place.kernel.store.read() as tx:
        return [
            ArtifactFile(path=row.path, digest=row.digest, size_bytes=row.size_bytes)
            for row in tx.select(ArtifactEntry)
        ]
