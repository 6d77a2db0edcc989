"""The reference is generated, complete and fresh."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import jsonschema
import pytest
import yaml

from everloop.app.config import json_schema, parse_config
from everloop.app.verbs import load_verbs
from everloop.cli.main import COMMANDS
from everloop.core.errors import InvalidInput
from everloop.kernel.verbs import declared_verbs
from tools.reference import error_codes, pages, walk

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"
CODE = re.compile(r"(?:[a-z][a-z_]*|<\.\.\.>)\.(?:[a-z][a-z_]*|<\.\.\.>)")


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    load_verbs()
    return pages()


@pytest.mark.parametrize(
    "name", ["cli.md", "http.md", "verbs.md", "errors.md", "settings.md", "everloop.schema.json"]
)
def test_a_page_is_what_the_code_says(made: dict[str, str], name: str) -> None:
    path = FOLDER / name

    assert path.exists(), f"docs/reference/{name} is missing: run `make docs`"
    assert made[name] == path.read_text(encoding="utf-8"), f"{name} is stale: run `make docs`"


def test_every_verb_has_its_section(made: dict[str, str]) -> None:
    sections = set(re.findall(r"^## `([^`]+)`$", made["verbs.md"], re.MULTILINE))

    assert set(declared_verbs()) == sections


def test_every_verb_says_what_it_does_in_one_sentence() -> None:
    load_verbs()
    lacking = [
        name
        for name, verb in declared_verbs().items()
        if not verb.summary.endswith((".", "?")) or not verb.summary[0].isupper()
    ]

    assert [] == lacking


def test_every_command_has_its_section_and_a_help(made: dict[str, str]) -> None:
    commands = list(walk())

    sections = set(re.findall(r"^## `([^`]+)`$", made["cli.md"], re.MULTILINE))
    assert {" ".join(path) for path, _ in commands} == sections
    assert [] == [path for path, command in commands if not command.help]


def test_every_listing_and_every_answer_can_be_json() -> None:
    quiet = {"up", "completion"}  # one runs until it is stopped, the other prints a script

    without = [
        " ".join(path)
        for path, command in walk()
        if not isinstance(command, click.Group)
        and path[-1] not in quiet
        and "--json" not in {option for param in command.params for option in param.opts}
    ]

    assert [] == without


def test_every_error_code_has_the_form_noun_dot_what() -> None:
    assert [] == [code for code, _ in error_codes() if CODE.fullmatch(code) is None]


def test_every_setting_of_the_schema_is_described(made: dict[str, str]) -> None:
    schema = json_schema()
    definitions = schema["$defs"]
    assert isinstance(definitions, dict)

    rows = set(re.findall(r"^\| `(\w+)` \|", made["settings.md"], re.MULTILINE))

    reached = {key for shape in definitions.values() for key in shape.get("properties", {})}
    assert set() == reached - rows


def test_the_published_schema_and_the_reader_agree() -> None:
    schema = json.loads((FOLDER / "everloop.schema.json").read_text(encoding="utf-8"))
    good = "version: 1\nproject: demo\nmodels: {m: {task: regression, loop: {train_days: 30}}}\n"
    bad = good.replace("train_days", "trian_days")

    parse_config(good)
    jsonschema.validate(yaml.safe_load(good), schema)

    with pytest.raises(InvalidInput):
        parse_config(bad)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(bad), schema)


def test_the_help_of_the_root_names_every_command_in_its_module() -> None:
    names = {path[1] for path, _ in walk()}

    assert set(COMMANDS) == names
