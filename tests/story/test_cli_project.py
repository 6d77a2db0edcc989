"""A first hour with the command line, every command a process of its own."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.story.project import Project, write_hours

PIPELINE = """\
from everloop import current_run, pipeline, step


@step
def double(number):
    current_run().log_metric("seen", number)
    return 2 * number


@pipeline
def chain(number=1):
    return double(double(number))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("first hour"))
    made.run("init", "--name", "demo")
    return made


def test_a_new_project_has_its_settings_a_private_folder_and_an_ignore_line(
    project: Project,
) -> None:
    assert "project: demo" in (project.folder / "everloop.yaml").read_text()
    assert "/.everloop/" in (project.folder / ".gitignore").read_text().splitlines()
    assert 0o700 == stat.S_IMODE(project.home.stat().st_mode)
    for key in (project.home / "keys").iterdir():
        assert 0o600 == stat.S_IMODE(key.stat().st_mode)


def test_beginning_a_project_again_changes_nothing(project: Project) -> None:
    before = project.json("audit", "list")

    assert [] == project.json("init")["written"]

    assert before == project.json("audit", "list")


def test_the_same_data_committed_twice_is_one_version(project: Project) -> None:
    write_hours(project.folder / "rows.csv", first=0, count=60)

    first = project.json("data", "commit", "rows", "rows.csv")
    again = project.json("data", "commit", "rows", "rows.csv", "-m", "again")

    assert first == again
    assert [1] == [v["number"] for v in project.json("data", "versions", "rows")["items"]]
    assert 60 == project.json("data", "show", "rows@1")["rows"]
    assert "temperature" in project.run("data", "profile", "rows").stdout


def test_a_pipeline_runs_once_and_then_comes_from_the_cache(project: Project) -> None:
    (project.folder / "chain_of_steps.py").write_text(PIPELINE)

    first = project.json("run", "chain_of_steps:chain", "-p", "number=3")
    again = project.json("run", "chain_of_steps:chain", "-p", "number=3")

    assert {"hit"} == {step["status"] for step in again["steps"]}
    assert 2 == len(first["steps"])
    listed = project.json("runs", "pipelines")["items"]
    assert [2, 0] == [row["hits"] for row in listed]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("models", "show", "nothing"), 3, "models list"),
        (("models", "show", "a b c"), 2, "hint:"),
        (("run", "nothing:here"), 2, "imported"),
        (("run", "not a target"), 2, "module:function"),
        (("release", "start", "nowhere", "x@1"), 3, "deployment"),
        (("data", "commit", "../escape", "everloop.yaml"), 2, "name"),
        (("token", "create", "x", "--days", "9999"), 2, "days"),
        (("rollback", "nowhere", "--yes"), 3, "deployment"),
        (("lineage", "model:nothing"), 3, "hint:"),
    ],
)
def test_a_refused_command_says_why_and_what_to_do(
    project: Project, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = project.run(*arguments, check=False)

    assert code == done.returncode, done.stderr
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_wrong_key_in_the_settings_is_refused_with_its_line(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.run("init", "--name", "demo")
    with (tmp_path / "everloop.yaml").open("a") as file:
        file.write("modles: {}\n")
    lines = len((tmp_path / "everloop.yaml").read_text().splitlines())

    done = project.run("configure", check=False)

    assert 2 == done.returncode
    assert f"line {lines}" in done.stderr
    assert "Did you mean 'models'?" in done.stderr


def test_stored_text_cannot_steer_the_terminal(project: Project) -> None:
    (project.folder / "evil.csv").write_text("x\n1\n")
    project.run("data", "commit", "evil", "evil.csv", "-m", "\x1b[2J\x1b]0;owned\x07 \u202egnp.exe")

    for arguments in (("data", "versions", "evil"), ("data", "show", "evil", "--json")):
        shown = project.run(*arguments).stdout
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert "\u202e" not in shown
    assert "\x1b[2J" in json.loads(project.run("data", "show", "evil", "--json").stdout)["message"]


def test_what_cannot_be_taken_back_asks_first(project: Project) -> None:
    made = project.json("token", "create", "kept")

    refused = project.run("token", "revoke", made["id"], check=False)  # no one to answer

    assert 0 != refused.returncode
    tokens = {row["id"]: row for row in project.json("token", "list")["items"]}
    assert tokens[made["id"]]["revoked_at"] is None
    assert made["secret"] not in project.run("token", "list", "--json").stdout


def test_the_ledger_verifies_and_a_changed_database_is_found(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.run("init", "--name", "demo")
    project.run("token", "create", "one")
    assert 0 == project.run("audit", "verify").returncode
    project.run("audit", "export", "ledger.zip", "--reason", "A look from outside.")
    assert 0 == project.run("audit", "verify", "ledger.zip").returncode

    with sqlite3.connect(project.home / "everloop.db") as database:
        database.execute("UPDATE token SET name = 'two'")
    database.close()
    done = project.run("audit", "verify", check=False)

    assert 7 == done.returncode, done.stdout
    assert "TAMPERED" in done.stdout


def test_the_doctor_finds_a_key_that_others_can_read(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.run("init", "--name", "demo")
    assert 0 == project.run("doctor").returncode

    (project.home / "keys" / "ledger.key").chmod(0o644)
    found = project.run("doctor", "--json", check=False)

    bad = {item["name"] for item in json.loads(found.stdout)["checks"] if item["mark"] == "BAD"}
    assert 1 == found.returncode
    assert "keys" in bad


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_completion(project: Project, shell: str) -> None:
    assert "_EVERLOOP_COMPLETE" in project.run("completion", shell).stdout


def test_completion_knows_the_commands(project: Project) -> None:
    told = Project(
        project.folder,
        {"_EVERLOOP_COMPLETE": "bash_complete", "COMP_WORDS": "everloop mod", "COMP_CWORD": "1"},
    ).run(check=False)

    assert "plain,models" in told.stdout


def test_a_reader_that_goes_away_is_no_error_to_shout_about(project: Project) -> None:
    done = subprocess.run(
        f"{sys.executable} -m everloop audit list --whole --json | head -c 1",
        shell=True,
        cwd=project.folder,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "{" == done.stdout
    assert "Traceback" not in done.stderr
