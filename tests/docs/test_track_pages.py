"""The programs on the page about tracking run as they stand there."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from everloop.app import sdk
from everloop.app.client import Client
from everloop.app.home import Home
from everloop.track.search import FoundRun, FoundRuns, SearchRuns
from tests.kit import World, world

CODE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "code"


@pytest.fixture
def w() -> World:
    return world()


@pytest.fixture(autouse=True)
def connected(w: World, tmp_path: Path) -> Iterator[None]:
    sdk.use(Client(w.owner, home=Home(tmp_path / ".everloop")))
    yield
    sdk.use(None)


def run(w: World, name: str) -> dict[str, FoundRun]:
    runpy.run_path(str(CODE / name))
    ask = SearchRuns(fields=("metrics",))
    return {row.name: row for row in w.owner.perform("run.search", ask, FoundRuns).items}


def test_the_first_program_logs_what_it_says(w: World) -> None:
    (row,) = run(w, "track_a_run.py").values()

    assert ("pricing", "6", "0.01", "nan") == (
        row.experiment, row.params["depth"], row.metrics["loss"], row.metrics["note"],
    )  # fmt: skip


def test_runs_are_nested_and_taken_up_again(w: World) -> None:
    rows = run(w, "nest_runs.py")

    assert {"all folds", "fold 0", "fold 1", "fold 2"} == rows.keys()
    assert "0.9" == rows["all folds"].metrics["mean score"]


def test_a_framework_logs_by_itself(w: World) -> None:
    rows = run(w, "log_automatically.py")

    assert ["0.5", "2.0"] == sorted(row.params["alpha"] for row in rows.values())
