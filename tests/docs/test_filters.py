"""The filters on the pages are read, and mean something."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from everloop.app.verbs import load_verbs
from everloop.core.filter.vocabulary import declared_vocabularies
from everloop.kernel.verbs import declared_verbs
from tests.kit import World, world

load_verbs()
DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```filter\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ everloop (\w+) (\w+) .*--filter \"([^\"]*)\"", re.MULTILINE)
NOUNS = {
    ("runs", "list"): "run",
    ("models", "versions"): "version",
    ("data", "versions"): "dataset",
    ("release", "deployments"): "deployment",
    ("predictions", "list"): "prediction",
}
MISSPELT = "statsu = 'failed'"


def _examples() -> list[tuple[str, str]]:
    found = []
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        for block in BLOCK.findall(text):
            found += [("run", line) for line in block.splitlines()]
        for group, command, filter in COMMAND.findall(text):
            if filter != MISSPELT:
                noun = command.removesuffix("s") if group == "export" else NOUNS[group, command]
                found.append((noun, filter))
    return found


@pytest.fixture(scope="module")
def empty() -> World:
    """An empty project."""
    return world()


@pytest.mark.parametrize(("noun", "filter"), _examples())
def test_a_filter_on_a_page_is_understood(empty: World, noun: str, filter: str) -> None:
    verb = declared_verbs()[f"{noun}.search"]

    answer = empty.owner.perform(verb.name, verb.ask(filter=filter), verb.answer)

    assert () == answer.items  # type: ignore[attr-defined]  # every search answers with items


@pytest.mark.parametrize("noun", declared_vocabularies())
def test_every_name_of_the_reference_sorts_or_compares(empty: World, noun: str) -> None:
    verb = declared_verbs()[f"{noun}.search"]
    vocabulary = declared_vocabularies()[noun]
    names = [*vocabulary.fields, *vocabulary.synonyms]
    for name in names:
        whole = vocabulary.synonyms.get(name, name)
        key = ".x" if whole in vocabulary.spaces and whole not in vocabulary.fields else ""
        told = {"experiments": ()} if "experiments" in verb.ask.__struct_fields__ else {}
        ask = verb.ask(filter=f"`{name}`{key} IS NULL", **told)
        assert () == empty.owner.perform(verb.name, ask, verb.answer).items  # type: ignore[attr-defined]  # as above
