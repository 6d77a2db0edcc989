"""The hand-written pages hold: links lead somewhere, shown files and commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from everloop.app.config import parse_config
from everloop.app.starting import start_project
from everloop.app.verbs import load_verbs
from everloop.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md")) + [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")
]
WRITTEN = [page for page in PAGES if DOCS / "reference" not in page.parents]
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)\s]+)\)")
INCLUDE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
NAMED_PAGE = re.compile(r"docs/[a-z-]+/[\w./-]+\.(?:md|json)")
NAMED_TEST = re.compile(r"`((?:attack|contract|property|story|unit)/[\w/]+)`")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = unquote(target).partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{name(page)} links to {target}"
        assert not anchor or anchor in anchors(place), f"{name(page)} links to {target}"


def test_every_page_can_be_reached_from_the_front_door() -> None:
    seen: set[Path] = set()
    waiting = [DOCS / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        links = LINK.findall(page.read_text(encoding="utf-8"))
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links]

    assert [] == [name(page) for page in sorted(DOCS.rglob("*.md")) if page not in seen]


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_a_shown_file_is_the_file(page: Path) -> None:
    for path, text in INCLUDE.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / path).read_text(encoding="utf-8") == text, f"{name(page)}: {path}"


def test_a_page_that_the_program_names_exists() -> None:
    named = {
        page
        for file in (ROOT / "src").rglob("*.py")
        for page in NAMED_PAGE.findall(file.read_text(encoding="utf-8"))
    }

    assert named
    assert [] == sorted(page for page in named if not (ROOT / page).exists())


def test_a_test_that_the_threat_model_names_exists() -> None:
    text = (DOCS / "explanation" / "threat-model.md").read_text(encoding="utf-8")
    named = set(NAMED_TEST.findall(text))

    assert named
    assert [] == sorted(test for test in named if not (ROOT / "tests" / f"{test}.py").exists())


def commands() -> list[tuple[str, str]]:
    found = []
    for page in WRITTEN:
        for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            if kind in {"console", "bash", "sh"}:
                lines = text.replace("\\\n", " ").splitlines()
                found += [(name(page), line.strip()[2:]) for line in lines if "$ " in line[:6]]
    return found


@pytest.mark.parametrize(
    ("page", "line"), [(page, line) for page, line in commands() if "everloop " in line]
)
def test_a_shown_command_exists_with_its_options(page: str, line: str) -> None:
    load_verbs()
    words = shlex.split(re.sub(r"^export \w+=\$\(|^\w+=\$\(", "", line), comments=True)
    if words[0] != "everloop":
        return
    words = words[1 : words.index("|")] if "|" in words else words[1:]
    command: click.Command = cli
    context = click.Context(cli, info_name="everloop")
    while isinstance(command, click.Group):
        word = words.pop(0)
        found = command.get_command(context, word)
        assert found is not None, f"{page}: {line}"
        command, context = found, click.Context(found, parent=context, info_name=word)
    known = {option for param in command.params for option in param.opts}
    for word in words:
        if word.startswith("-"):
            assert word.partition("=")[0] in known, f"{page}: {line}: {word}"


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_shown_settings_are_settings(page: Path) -> None:
    for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind != "yaml":
            continue
        lines = text.splitlines()
        indent = min((len(row) - len(row.lstrip()) for row in lines if row.strip()), default=0)
        body = "\n".join(row[indent:] for row in lines)
        whole = body if "project:" in body else f"version: 1\nproject: shown\n{body}"
        parse_config(whole)


def test_the_file_that_init_writes_is_right_with_its_comments_taken_away(tmp_path: Path) -> None:
    start_project(tmp_path, "shown")
    file = tmp_path / "everloop.yaml"
    settings = re.compile(r"^# (?=(?:\w+:| ))", re.MULTILINE)

    config = parse_config(settings.sub("", file.read_text(encoding="utf-8")))

    assert {"demand"} == set(config.models) == set(config.datasets)


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_shown_python_is_python(page: Path) -> None:
    for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind == "python":
            lines = text.splitlines()
            indent = min((len(row) - len(row.lstrip()) for row in lines if row.strip()), default=0)
            compile("\n".join(row[indent:] for row in lines), name(page), "exec")
