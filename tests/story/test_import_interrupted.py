"""An import that is killed and started again, as often as it takes, makes no doubles."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from everloop.app.client import Client, connect
from everloop.core.ports import BlobStore
from everloop.interop.importers.mlflow import open_mlflow
from everloop.registry.search import FoundVersions, SearchVersions
from tests.story.project import make_project
from tests.unit.interop.imported import (
    VERSIONS_WITH_ALL,
    a_world,
    as_mlflow_says,
    bring_in,
    files_of,
    make_database,
    runs_by_origin,
)

FEW_CALLS = 7
SCRIPT = """
import os, signal, sys
from everloop.app.client import connect
from everloop.interop.importers import batching, loading
from everloop.interop.importers.mlflow import open_mlflow

class Killed:
    def __init__(self, inner, after):
        self.inner, self.left = inner, after
    def __getattr__(self, name):
        return getattr(self.inner, name)
    def perform(self, *given, **options):
        answer = self.inner.perform(*given, **options)
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

loading.RUNS_A_BATCH = 2
batching.FEW_PARTS = 0  # a run with a file is several calls
client = connect(sys.argv[1])
options = loading.Options(with_deleted=True)
loading.Importer(Killed(client, int(sys.argv[3])), open_mlflow(sys.argv[2]), options).run()
"""


@dataclass
class Place:
    """What the comparison asks of a world, of a project in a folder."""

    owner: Client

    @property
    def blobs(self) -> BlobStore:
        return self.owner.blobs


def test_an_import_killed_again_and_again_ends_as_one_that_never_was(tmp_path: Path) -> None:
    address = make_database(VERSIONS_WITH_ALL, tmp_path)
    whole = a_world()
    bring_in(whole, open_mlflow(address), with_deleted=True)
    folder = make_project(tmp_path / "project").folder

    kills = 0
    for turn in count():
        # Each time a little further: what is here already costs calls, too.
        command = [sys.executable, "-c", SCRIPT, str(folder), address, str(FEW_CALLS * (turn + 1))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode == 0:
            break
        assert -signal.SIGKILL == done.returncode, done.stderr
        kills += 1

    assert kills > 2
    with connect(folder) as client:
        told, expected = (told_of(place) for place in (Place(client), whole))
    assert expected == told


def told_of(place: object) -> object:
    found = runs_by_origin(place)  # type: ignore[arg-type]
    runs = {}
    for key, run in found.items():
        said = as_mlflow_says(place, run)  # type: ignore[arg-type]
        said["tags"].pop("mlflow.parentRunId", None)  # ids differ with the project
        runs[key] = (said, sorted(files_of(place, run.run.id).items()))  # type: ignore[arg-type]
    ask = SearchVersions(limit=100)
    page = place.owner.perform("version.search", ask, FoundVersions)  # type: ignore[attr-defined]
    versions = sorted((item.version.name, item.version.number) for item in page.items)
    return runs, versions
