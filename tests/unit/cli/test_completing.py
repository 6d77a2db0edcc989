"""The shell completes the names of fields inside filters and orders."""

from __future__ import annotations

import click
import pytest

from everloop.cli.binding import VerbGroup
from everloop.cli.main import cli


def complete(group: str, command: str, option: str, incomplete: str) -> list[str]:
    found = cli.get_command(click.Context(cli), group)
    assert isinstance(found, VerbGroup)
    made = found.get_command(click.Context(found), command)
    assert made is not None
    (param,) = (each for each in made.params if each.name == option)
    return [str(item.value) for item in param.shell_complete(click.Context(made), incomplete)]


@pytest.mark.parametrize(
    ("incomplete", "completed"),
    [
        ("sta", ["status", "started_at"]),
        ("not exp", ["not experiment_id", "not experiment."]),
        ("zzz", []),
    ],
)
def test_the_last_word_of_a_filter_is_completed(incomplete: str, completed: list[str]) -> None:
    assert completed == complete("runs", "list", "filter", incomplete)


def test_orders_are_completed_too_and_other_options_are_not() -> None:
    assert ["number"] == complete("models", "versions", "order", "num")
    assert [] == complete("models", "versions", "limit", "num")
