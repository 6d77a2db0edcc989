"""A model from a script to a file of answers, by real processes, and a version that rotted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.story.project import Project, clean_environment

SCRIPT = """\
import json

import everloop
import numpy as np
import xgboost as xgb

rng = np.random.default_rng(3)
columns = {"a": rng.normal(size=80), "b": rng.normal(size=80)}
columns["y"] = columns["a"] * 2 - columns["b"]
matrix = xgb.DMatrix(np.column_stack([columns["a"], columns["b"]]), columns["y"])
with everloop.start_run("price") as run:
    model = xgb.train({"max_depth": 2, "nthread": 1}, matrix, 4)
    version = run.log_model(model, "price", examples=columns, target="y", inputs=["a", "b"])
with everloop.load_model("price@1") as loaded:
    answers = loaded.predict({"a": [0.5, -1.0], "b": [0.0, 2.0]})
print(json.dumps({"run": version.run, "own": run.id, "answers": answers.tolist()}))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("models"))
    made.run("init", "--name", "demo")
    (made.folder / "rows.csv").write_text("a,b\n0.5,0.0\n-1.0,2.0\n")
    (made.folder / "wrong.csv").write_text("a,c\n0.5,x\n")
    return made


def run_script(project: Project) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=project.folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def told(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run_script(project))
    return found


def test_a_run_logs_a_model_and_a_script_loads_it(told: dict[str, Any]) -> None:
    assert told["own"] == told["run"]


def test_the_command_line_gives_the_same_answers(project: Project, told: dict[str, Any]) -> None:
    shown = project.json("models", "predict", "price", "rows.csv")
    project.run("models", "predict", "price@1", "rows.csv", "-o", "answers.csv")

    assert told["answers"] == [row["y"] for row in shown]
    lines = (project.folder / "answers.csv").read_text().splitlines()
    assert ['"y"', *map(str, told["answers"])] == lines


@pytest.mark.usefixtures("told")
def test_the_environment_of_the_run_is_kept_with_the_version(project: Project) -> None:
    digits = project.json("models", "show", "price@1")["version"]["environment"].partition(":")[2]

    kept = json.loads((project.home / "blobs" / "blake3" / digits[:2] / digits[2:]).read_bytes())

    assert any(package.startswith("xgboost-cpu==") for package in kept["packages"])


@pytest.mark.usefixtures("told")
def test_rows_that_do_not_fit_are_refused_with_their_columns(project: Project) -> None:
    done = project.run("models", "predict", "price@1", "wrong.csv", check=False)

    assert 0 != done.returncode
    assert "there is no column 'b'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("told")
def test_a_version_that_rotted_is_found_and_heals_when_it_is_registered_again(
    project: Project,
) -> None:
    assert project.json("models", "verify", "price@1")["held"]
    entry = project.json("models", "show", "price@1")["version"]["files"][0]
    digits = str(entry["digest"]).partition(":")[2]
    place = Path(project.home / "blobs" / "blake3" / digits[:2] / digits[2:])
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(bytes(data))

    found = project.run("models", "verify", "price@1", check=False)
    refused = project.run("models", "load", "price@1", check=False)

    assert 1 == found.returncode
    assert "DOES NOT HOLD" in found.stdout
    assert "are not those that were put there" in refused.stderr
    run_script(project)
    assert project.json("models", "verify", "price@1")["held"]
