"""Files of a run by folder and by path."""

from __future__ import annotations

import math

import pytest

from everloop.core.errors import NotFound
from everloop.core.ids import Id
from everloop.track import files
from everloop.track.files import FindFile, Folder, ListFolder
from everloop.track.model import ArtifactEntry
from everloop.track.verbs import ArtifactFile, LogRun, RunLogged, RunStarted, StartRun
from tests.kit import World, world

PATHS = ("a.txt", "plots/one.png", "plots/deep/two.png", "plots2/x", "z/y")


@pytest.fixture
def fresh() -> World:
    return world()


@pytest.fixture
def run(fresh: World) -> Id:
    run = fresh.kernel.services.ids.new()
    fresh.owner.perform("run.start", StartRun(run=run), RunStarted)
    kept = tuple(
        ArtifactFile(path=path, digest=fresh.blobs.put(path.encode()), size_bytes=len(path))
        for path in PATHS
    )
    fresh.owner.perform("run.log", LogRun(run=run, artifacts=kept), RunLogged)
    return run


def folder(fresh: World, run: Id, path: str = "") -> Folder:
    return fresh.owner.perform("run.folder", ListFolder(run=run, path=path), Folder)


def test_a_folder_lists_folders_first_with_all_that_they_hold(fresh: World, run: Id) -> None:
    found = folder(fresh, run).items

    assert [("plots", 2, 31), ("plots2", 1, 8), ("z", 1, 3), ("a.txt", 1, 5)] == [
        (entry.name, entry.files, entry.size_bytes) for entry in found
    ]


def test_a_folder_within_lists_only_its_own(fresh: World, run: Id) -> None:
    assert ["plots/deep", "plots/one.png"] == [e.path for e in folder(fresh, run, "plots/").items]
    assert () == folder(fresh, run, "nowhere").items


def test_a_folder_with_too_many_files_says_so(
    fresh: World, run: Id, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not folder(fresh, run).is_cut
    monkeypatch.setattr(files, "MAX_ENTRIES", 2)

    assert folder(fresh, run).is_cut


@pytest.mark.parametrize("most", [1, 2, 3, 4])
@pytest.mark.parametrize("path", ["", "plots"])
def test_the_pages_of_a_folder_together_are_the_whole(
    fresh: World, run: Id, monkeypatch: pytest.MonkeyPatch, most: int, path: str
) -> None:
    whole = folder(fresh, run, path)
    monkeypatch.setattr(files, "MAX_ENTRIES", most)
    pages = [folder(fresh, run, path)]
    while (after := pages[-1].next) is not None:
        ask = ListFolder(run=run, path=path, after=after)
        pages.append(fresh.owner.perform("run.folder", ask, Folder))

    assert math.ceil(sum(item.files for item in whole.items) / most) == len(pages)
    assert list(whole.items) == files.merged(pages)


def test_a_file_is_found_by_its_exact_path(fresh: World, run: Id) -> None:
    found = fresh.owner.perform("run.file", FindFile(run=run, path="plots/one.png"), ArtifactEntry)

    assert fresh.blobs.get(found.digest) == b"plots/one.png"
    for path in ("plots", "plots/../a.txt", "A.TXT"):
        with pytest.raises(NotFound, match=r"artifact\.not_found"):
            fresh.owner.perform("run.file", FindFile(run=run, path=path), ArtifactEntry)
