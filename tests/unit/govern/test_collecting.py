"""Bytes that no record names are collected, and nothing else, whoever writes meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from everloop.core.clock import Instant
from everloop.core.digest import Digest
from everloop.core.errors import NotFound
from everloop.core.ports import where
from everloop.govern.collecting import CollectBlobs, Collected, Garbage, ShowGarbage
from everloop.kernel.condemned import CondemnedBlob, Sentence
from everloop.kernel.ledger.log import LedgerEntry
from everloop.storage.memory_blobs import MemoryBlobStore
from everloop.track.verbs import ArtifactFile, LogRun, RunLogged, RunStarted, StartRun
from tests.kit import World, world


@pytest.fixture
def place() -> World:
    made = world()
    blobs = made.whole
    assert isinstance(blobs, MemoryBlobStore)
    blobs._clock = made.clock
    return made


def step(place: World, **ask: Any) -> Collected:
    made = place.instance(CollectBlobs(**ask), "blob.collect")
    assert isinstance(made, Collected)
    return made


def collect(place: World, **ask: Any) -> list[Collected]:
    steps = [step(place, **ask)]
    while not steps[-1].is_done:
        steps.append(step(place, **ask))
    return steps


def log_artifact(place: World, data: bytes) -> Digest:
    digest = place.blobs.put(data)
    name_artifact(place, digest, len(data))
    return digest


def name_artifact(place: World, digest: Digest, size: int) -> None:
    run = place.owner.perform(
        "run.start", StartRun(run=place.kernel.services.ids.new()), RunStarted
    ).run
    file = ArtifactFile(path="a.txt", digest=digest, size_bytes=size)
    place.owner.perform("run.log", LogRun(run=run, artifacts=(file,)), RunLogged)


def test_old_bytes_that_nothing_names_go_and_others_stay(place: World) -> None:
    kept = log_artifact(place, b"kept")
    orphan = place.blobs.put(b"orphan")
    place.clock.push(hours=25)
    young = place.blobs.put(b"young")

    steps = collect(place)

    assert {kept, young} == set(place.blobs.digests())
    assert place.blobs.size(orphan) is None
    assert [("condemn", 1), ("confirm", 1), ("delete", 1)] == [(s.step, s.blobs) for s in steps]
    assert len(b"orphan") == steps[-1].size_bytes
    assert 1 == steps[0].spared


def test_the_ledger_names_what_was_deleted(place: World) -> None:
    orphan = place.blobs.put(b"orphan")
    place.clock.push(hours=25)

    collect(place)

    with place.kernel.store.read() as tx:
        entries = tx.select(LedgerEntry, *where(action="blob.collect"))
        assert 1 == len(entries)
        assert [(Sentence.DELETED, orphan)] == [
            (row.stage, Digest(row.id)) for row in tx.select(CondemnedBlob)
        ]


@pytest.mark.parametrize("steps", [1, 2])
def test_naming_condemned_bytes_saves_them(place: World, steps: int) -> None:
    orphan = place.blobs.put(b"orphan")
    place.clock.push(hours=25)
    for _ in range(steps):
        step(place)

    name_artifact(place, orphan, len(b"orphan"))
    collect(place)

    assert b"orphan" == place.blobs.get(orphan)


def test_bytes_named_between_the_walk_and_the_sentence_are_saved(place: World) -> None:
    orphan = place.blobs.put(b"orphan")
    place.clock.push(hours=25)
    condemn_after(place, lambda: name_artifact(place, orphan, len(b"orphan")))

    steps = collect(place)

    assert 1 == steps[0].spared
    assert b"orphan" == place.blobs.get(orphan)


def condemn_after(place: World, meanwhile: Any) -> None:
    """Condemn what is found, with something happening after the walk and before its commit."""
    kernel = place.kernel
    original = kernel._commit

    def commit(*given: Any) -> Any:
        kernel._commit = original  # type: ignore[method-assign]
        meanwhile()
        return original(*given)

    kernel._commit = commit  # type: ignore[method-assign, assignment]
    step(place)


def test_bytes_put_again_before_they_go_are_spared(place: World) -> None:
    orphan = place.blobs.put(b"orphan")
    place.clock.push(hours=25)
    step(place)
    step(place)
    place.blobs.put(b"orphan")

    last = step(place)

    assert (0, 1) == (last.blobs, last.spared)
    assert place.blobs.size(orphan) is not None


def test_naming_bytes_that_just_went_is_refused(place: World) -> None:
    orphan = place.blobs.put(b"orphan")
    place.clock.push(hours=25)
    run = place.owner.perform(
        "run.start", StartRun(run=place.kernel.services.ids.new()), RunStarted
    ).run
    file = ArtifactFile(path="a.txt", digest=orphan, size_bytes=6)
    kernel, original = place.kernel, place.kernel._commit

    def commit(*given: Any) -> Any:
        kernel._commit = original  # type: ignore[method-assign]
        collect(place)
        return original(*given)

    kernel._commit = commit  # type: ignore[method-assign, assignment]
    with pytest.raises(NotFound) as refused:
        place.owner.perform("run.log", LogRun(run=run, artifacts=(file,)), RunLogged)

    assert "blob.not_found" == refused.value.code
    place.blobs.put(b"orphan")
    place.owner.perform("run.log", LogRun(run=run, artifacts=(file,)), RunLogged)


def test_a_collection_killed_after_it_deleted_bytes_ends_well(place: World) -> None:
    orphan = place.blobs.put(b"orphan")
    place.clock.push(hours=25)
    step(place)
    step(place)
    place.whole.delete(orphan)  # as a process does that dies before its commit

    (last,) = collect(place)

    assert ("delete", 1, 0) == (last.step, last.blobs, last.size_bytes)


def test_what_reminds_of_deleted_bytes_goes_after_a_day(place: World) -> None:
    place.blobs.put(b"orphan")
    place.clock.push(hours=25)
    collect(place)
    place.clock.push(hours=25)

    collect(place)

    with place.kernel.store.read() as tx:
        assert 0 == tx.count(CondemnedBlob)


def test_looking_at_the_garbage_deletes_nothing(place: World) -> None:
    log_artifact(place, b"kept")
    place.blobs.put(b"orphan")
    place.clock.push(hours=25)
    place.blobs.put(b"new")

    garbage = place.instance(ShowGarbage(), "blob.garbage")

    assert (
        Garbage(stored=3, stored_bytes=13, blobs=1, size_bytes=6, young=1, young_bytes=3) == garbage
    )
    assert 3 == len(set(place.blobs.digests()))


def test_the_age_of_bytes_is_an_instant_in_utc(place: World) -> None:
    found = place.blobs.find(place.blobs.put(b"x"))

    assert found is not None
    at: Instant = found.at
    assert place.clock.now() == at
