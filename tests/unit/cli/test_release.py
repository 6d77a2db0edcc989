"""The commands that show how a release stands, and the names that the shell completes."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.shell_completion import CompletionItem

from everloop.cli.binding import VerbGroup
from everloop.cli.main import cli
from everloop.cli.release import from_seconds
from everloop.cli.session import Session


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("shop")
    (place / "everloop.yaml").write_text("version: 1\nproject: shop\nmodels: {price: {}}\n")
    return place


def complete(folder: Path, command: str, argument: str, incomplete: str) -> list[CompletionItem]:
    group = cli.get_command(click.Context(cli), "release")
    assert isinstance(group, VerbGroup)
    made = group.get_command(click.Context(group), command)
    assert made is not None
    (param,) = (each for each in made.params if each.name == argument)
    return param.shell_complete(click.Context(made, obj=Session(folder=folder)), incomplete)


def test_times_are_shown_in_utc() -> None:
    assert "2026-01-01 00:00:00" == from_seconds(1_767_225_600.0)


@pytest.mark.parametrize("command", ["start", "status", "halt", "drill"])
def test_nobody_gets_an_error_where_there_is_no_name_to_complete(
    folder: Path, command: str
) -> None:
    assert [] == complete(folder, command, "deployment", "b")
