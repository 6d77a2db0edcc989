"""A release from the command line: begin, look, complete names, halt, resume, roll back."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from dataclasses import dataclass

import click
import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest

from everloop.app.client import connect
from everloop.cli.binding import VerbGroup
from everloop.cli.main import cli
from everloop.cli.session import Session
from everloop.gate.verbs import WaiveGate
from everloop.registry.client import register
from everloop.registry.evidence import Waiver
from everloop.registry.signature import infer_signature
from tests.story.project import Project, clean_environment, make_project

X = np.random.default_rng(1).normal(size=(60, 2))
TABLE = pa.table({"a": X[:, 0], "b": X[:, 1], "y": X[:, 0] - X[:, 1]})


@dataclass
class Shop:
    """A project with two versions that may be released, and a deployment."""

    project: Project

    def complete(self, command: str, argument: str, incomplete: str) -> list[str]:
        """Return what the shell offers."""
        group = cli.get_command(click.Context(cli), "release")
        assert isinstance(group, VerbGroup)
        made = group.get_command(click.Context(group), command)
        assert made is not None
        (param,) = (each for each in made.params if each.name == argument)
        context = click.Context(made, obj=Session(folder=self.project.folder))
        return [str(item.value) for item in param.shell_complete(context, incomplete)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    project = make_project(tmp_path_factory.mktemp("shop"))
    with connect(project.folder) as client:
        for trees in (1, 2):
            settings = {"verbose": -1, "num_threads": 1, "num_leaves": 3, "min_data_in_leaf": 5}
            booster = lgb.train(settings, lgb.Dataset(X, TABLE["y"].to_numpy()), trees)
            signature = infer_signature(TABLE, ["a", "b"], "y", "regression")
            made = register(client, "bike", booster, signature=signature)
            ask = WaiveGate(version=made.id, why="a test of commands")
            client.perform("gate.waive", ask, Waiver)
    project.run("release", "deploy", "shop", "bike")
    project.run("release", "start", "shop", "bike@1")
    return Shop(project)


def test_a_release_is_begun_looked_at_halted_and_gone_on_with(shop: Shop) -> None:
    run = shop.project.run
    begun = shop.project.json("release", "start", "shop", "bike@2", "--strategy", "canary")
    key = begun["release"]["id"]

    status = run("release", "status", "shop").stdout
    history = shop.project.json("release", "history", key)
    names = shop.complete("status", "deployment", "sh")
    releases = shop.complete("promote", "release", key[:30])
    run("release", "halt", "shop", "--answer", "4.5", "--yes", "--reason", "smoke")
    halted = run("release", "status", "shop").stdout
    refused = run("release", "start", "shop", "bike@2", check=False)
    run("release", "resume", "shop")
    after = shop.project.json("release", "status", "shop")

    assert ("canary" in status, "0.01" in status) == (True, True)
    assert [] == history["points"]
    assert (["shop"], True) == (names, key in releases)
    assert "the constant 4.5 answers: smoke" in halted
    assert "is halted: smoke" in refused.stderr
    assert (None, "rolled_back") == (
        after["deployment"]["deployment"]["halt"],
        after["release"]["release"]["state"],
    )


def test_a_watched_status_is_drawn_over_on_a_terminal_and_told_in_lines_elsewhere(
    shop: Shop,
) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "everloop", "release", "status", "shop", "--watch"]
    places = {"cwd": shop.project.folder, "env": clean_environment() | {"TERM": "xterm"}}
    with (
        subprocess.Popen(command, stdout=theirs, stderr=theirs, **places) as drawn,  # type: ignore[call-overload]
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **places) as told,  # type: ignore[call-overload]
    ):
        try:
            assert told.stdout is not None
            lines = [told.stdout.readline()]
            seen = os.read(ours, 65_536)
            while b"deployment" not in seen:
                seen += os.read(ours, 65_536)
            shop.project.run("release", "halt", "shop", "--yes", "--reason", "seen by a test")
            while "seen by a test" not in lines[-1]:
                lines.append(told.stdout.readline())
                assert lines[-1]
            while b"the champion answers: seen by a test" not in seen:
                seen += os.read(ours, 65_536)
        finally:
            drawn.kill()
            told.kill()
            os.close(ours)
            os.close(theirs)
            shop.project.run("release", "resume", "shop")

    assert 2 == seen.count(b"\x1b[2J")
    assert "halted: the champion answers: seen by a test" in lines[-1]
    assert 1 == len([line for line in lines if line.startswith("last_drill ")])


def test_a_drill_is_told_by_the_names_behind_its_ids(shop: Shop) -> None:
    run = shop.project.run
    run("release", "deploy", "drilled", "bike")
    run("release", "start", "drilled", "bike@1")
    run("release", "start", "drilled", "bike@2", "--strategy", "all_at_once")

    told = run("release", "drill", "drilled", "--yes").stdout
    listed = run("release", "drills", "drilled").stdout

    assert ["pinned      1.0.0"] == [line for line in told.splitlines() if "pinned" in line]
    assert "1.0.0" in listed
