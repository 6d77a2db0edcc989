"""Commands are made from verbs and cannot drift away from them."""

from __future__ import annotations

import click
import msgspec
import pytest

from everloop.app.verbs import load_verbs
from everloop.cli.binding import Bound, VerbGroup, make_command, to_ask
from everloop.cli.main import COMMANDS, cli
from everloop.core.errors import InvalidInput
from everloop.kernel.verbs import declared_verbs

load_verbs()


def bound_commands() -> list[tuple[str, Bound]]:
    found = []
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        if isinstance(command, VerbGroup):
            found += [(f"{name} {inner}", bound) for inner, bound in command.table.bound.items()]
    return found


BOUND = bound_commands()


@pytest.mark.parametrize(
    ("name", "bound"), BOUND, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_bound_command_offers_what_its_verb_takes(name: str, bound: Bound) -> None:
    command = make_command(name, bound)
    verb = declared_verbs()[bound.verb]
    fields = {field.name: field for field in msgspec.structs.fields(verb.ask)}

    offered = {param.name for param in command.params}

    required = {name for name, field in fields.items() if field.required}
    assert required <= offered
    assert offered <= set(fields) | {"as_json", "reason", "yes", "columns"}
    assert ("reason" in offered) == (not verb.is_query)


@pytest.mark.parametrize(
    ("name", "bound"), BOUND, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_columns_of_a_listing_exist_in_its_items(name: str, bound: Bound) -> None:
    verb = declared_verbs()[bound.verb]
    for column in bound.columns:
        path = column.partition("=")[2] or column
        shape: object = item_type(verb.answer, bound.rows)
        for step in path.split("."):
            fields = {field.name: field.type for field in msgspec.structs.fields(shape)}  # type: ignore[arg-type]
            assert step in fields, f"{bound.verb} has no {path}"
            shape = plain(fields[step])


def item_type(answer: type[msgspec.Struct], rows: str) -> object:
    (field,) = [field for field in msgspec.structs.fields(answer) if field.name == rows]
    return field.type.__args__[0]


def plain(kind: object) -> object:
    options = [part for part in getattr(kind, "__args__", ()) if part is not type(None)]
    return options[0] if options and type(kind).__name__ == "UnionType" else kind


def test_every_change_that_cannot_be_taken_back_easily_asks_first() -> None:
    asking = {bound.verb for _, bound in BOUND if bound.confirm}

    assert {"token.revoke", "gate.waive", "actor.disable", "role.revoke", "loop.pause"} <= asking


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"limit": 5_000}, "limit: expected a whole number <= 1000."),
        ({"limit": "many"}, "limit: expected a whole number, got a text."),
        ({"status": "odd"}, "status: invalid enum value 'odd'."),
    ],
)
def test_input_of_a_wrong_type_is_told_by_the_name_of_its_option(
    given: dict[str, object], told: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        to_ask("run.search", given)

    assert told == refused.value.message


@pytest.mark.parametrize("given", ["NaN", "inf", "-Infinity", "many", "4,5", ""])
def test_a_number_that_is_none_is_told_with_what_to_give(given: str) -> None:
    command = make_command("halt", Bound("deployment.halt", arguments=("deployment",)))

    with pytest.raises(click.BadParameter) as refused:
        command.make_context("halt", ["shop", f"--answer={given}"])

    told = f"Invalid value for '--answer': {given!r} is no finite number; give one such as 0.5."
    assert told == refused.value.format_message()
