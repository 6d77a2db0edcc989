"""What a model was and is, from the command line and from Python, on a project in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv, parquet

from everloop.app import registry
from everloop.app.client import Client, connect
from everloop.core.errors import NotFound
from everloop.registry.client import register
from everloop.registry.signature import infer_signature
from tests.story.project import Project, make_project

X = np.random.default_rng(1).normal(size=(60, 2))
TABLE = pa.table({"a": X[:, 0], "b": X[:, 1], "y": X[:, 0] - X[:, 1]})


@dataclass
class Shelf:
    """A project with two versions of a model, and a connection to it."""

    project: Project
    client: Client


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    project = make_project(tmp_path_factory.mktemp("registry"))
    with connect(project.folder) as client:
        for trees in (1, 2):
            settings = {"verbose": -1, "num_threads": 1, "num_leaves": 3, "min_data_in_leaf": 5}
            booster = lgb.train(settings, lgb.Dataset(X, TABLE["y"].to_numpy()), trees)
            signature = infer_signature(TABLE, ["a", "b"], "y", "regression")
            register(client, "bike", booster, signature=signature)
        yield Shelf(project, client)


def test_what_is_said_about_a_model_and_a_version_is_shown(shelf: Shelf) -> None:
    run = shelf.project.run
    run("models", "describe", "bike", "Hires of an hour", "--owner", "ann", "--licence", "MIT")
    run("models", "describe", "bike@2", "Two trees")
    run("models", "tag", "bike@2", "reviewed=yes", "old=1")
    run("models", "tag", "bike@2", "--remove", "old")
    run("models", "tag", "bike", "team=night")

    shown = shelf.project.json("models", "show", "bike@2")

    assert ("Hires of an hour", "ann", "MIT", {"team": "night"}) == tuple(
        shown["model"][name] for name in ("description", "owner", "licence", "tags")
    )
    assert ("Two trees", {"reviewed": "yes"}) == (
        shown["notes"]["description"],
        shown["notes"]["tags"],
    )
    assert "Two trees" in run("models", "show", "bike@2").stdout


def test_an_owner_is_said_of_a_model_and_not_of_a_version(shelf: Shelf) -> None:
    told = shelf.project.run("models", "describe", "bike@2", "--owner", "ann", check=False)

    assert told.returncode != 0
    assert "its model has the owner" in told.stderr


def test_the_past_of_an_alias_is_told_in_both_ways(shelf: Shelf) -> None:
    registry.set_alias("bike", "best", "1", why="first", client=shelf.client)
    then = registry.alias_history("bike", "best", client=shelf.client)[0].move.when
    registry.set_alias("bike", "best", "2", why="better", client=shelf.client)

    past = registry.alias_at("bike", "best", as_of=then, client=shelf.client)
    told = shelf.project.json("models", "at", "bike", "best", "--as-of", then.isoformat())
    now = shelf.project.run("models", "at", "bike").stdout

    assert ("1.0.0", "first", "owner", None) == (past.version, past.why, past.who, past.before)
    assert ("1.0.0", "first") == (told["items"][0]["version"], told["items"][0]["why"])
    assert "better" in now
    with pytest.raises(NotFound):
        registry.alias_at("bike", "best", as_of="2020-01-01", client=shelf.client)


def test_a_version_goes_to_the_trash_and_comes_back(shelf: Shelf) -> None:
    project = shelf.project
    asked = project.run("models", "delete", "bike@1", check=False)
    gone = project.run("models", "delete", "bike@1", "--yes", "--reason", "too old").stdout
    listed = [
        item["version"]["number"] for item in project.json("models", "versions", "bike")["items"]
    ]

    back = project.run("models", "restore", "bike@1").stdout

    assert asked.returncode != 0  # nobody is there to answer
    assert ("in the trash" in gone, [2], "in use" in back) == (True, listed, True)
    registry.delete("bike@1", client=shelf.client)
    registry.restore("bike@1", client=shelf.client)


def test_a_model_is_made_renamed_deleted_and_restored(shelf: Shelf) -> None:
    project = shelf.project
    registry.create("empty", tags={"a": "b"}, client=shelf.client)
    project.run("models", "rename", "empty", "vacant")
    project.run("models", "delete", "vacant", "--yes")

    trash = project.json("models", "list", "--deleted", "deleted")["items"]
    project.run("models", "restore", "vacant")

    assert ["vacant"] == [item["name"] for item in trash]
    assert registry.show("bike", client=shelf.client).version.number == 2


def test_a_stage_is_kept_beside_a_version(shelf: Shelf) -> None:
    shelf.project.run("models", "stage", "bike@1", "Staging")

    shown = registry.show("bike@1", client=shelf.client).notes
    described = registry.describe("bike@1", tags={"x": "y"}, client=shelf.client)

    assert shown is not None
    assert ("Staging", "y") == (shown.stage, described.tags["x"])


def test_a_version_number_by_hand_needs_a_reason_and_shows_both(shelf: Shelf) -> None:
    project = shelf.project
    pq.write_table(TABLE, project.folder / "hires.parquet")
    project.run("data", "commit", "hires", "hires.parquet")
    settings = {"verbose": -1, "num_threads": 1, "num_leaves": 3, "min_data_in_leaf": 5}
    made = lgb.Dataset(X, TABLE["y"].to_numpy(), feature_name=["a", "b"])
    data = ("--training", "hires@1", "--target", "y")
    for trees in (1, 2):
        booster = lgb.train(settings, made, trees, keep_training_booster=True)
        booster.save_model(project.folder / f"{trees}.txt")
    project.run("models", "register", "hand", "1.txt", *data)
    told = ("models", "register", "hand", "2.txt", *data, "--bump", "major")

    refused = project.run(*told, check=False)
    project.run(*told, "--reason", "Hires of a day.")
    shown = project.run("models", "show", "hand@2.0.0").stdout

    assert "needs a reason" in refused.stderr
    assert "By hand: Hires of a day. (The rule said " in " ".join(shown.split())


def test_an_alias_is_moved_and_taken_away_with_a_reason(shelf: Shelf) -> None:
    run = shelf.project.run

    assert (
        "bike@test -> 1.0.0\n" == run("models", "alias", "bike", "test", "1", "--why", "a").stdout
    )
    moved = run("models", "alias", "bike", "test", "2", "--reason", "better").stdout
    assert moved.startswith("bike@test -> ")
    assert "(was 1.0.0)" in moved
    gone = run("models", "alias", "bike", "test", "--remove", "--reason", "unused").stdout
    assert gone.startswith("bike@test -> nothing (was ")

    for wrong in (["3"], ["2"], ["2", "--remove", "--reason", "both"], ["--reason", "none"]):
        told = run("models", "alias", "bike", "test", *wrong, check=False)
        assert told.returncode != 0
        assert "Traceback" not in told.stderr


def test_answers_go_to_a_file_that_can_hold_them(shelf: Shelf) -> None:
    folder = shelf.project.folder
    csv.write_csv(TABLE, folder / "rows.csv")
    run = shelf.project.run

    run("models", "predict", "bike@1", "rows.csv", "-o", "out.parquet")
    assert 60 == parquet.read_table(folder / "out.parquet").num_rows
    for target in ("out.parquet", "out.xlsx", "nowhere/out.csv"):
        told = run("models", "predict", "bike@1", "rows.csv", "-o", target, check=False)
        assert told.returncode != 0
        assert target.rpartition("/")[2] in told.stderr
        assert "inside Everloop" not in told.stderr
    run("models", "predict", "bike@1", "rows.csv", "-o", "out.parquet", "--force")


def test_columns_are_chosen_by_the_names_that_are_shown(shelf: Shelf) -> None:
    told = shelf.project.run("models", "versions", "bike", "--columns", "number,version").stdout

    assert ["number", "version"] == told.split()[:2]
    assert "1.0.0" == told.split()[-1]
