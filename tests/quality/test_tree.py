"""What is committed names no machine and leaves nothing half done."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.fragments import find_problems, known_kinds

ROOT = Path(__file__).resolve().parents[2]

# Put together from halves, so that this file does not find itself.
MARKS = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "raise NotImplemented" + "Error")
UNFINISHED = re.compile(r"\b(" + "|".join(MARKS) + r")\b")
MACHINE = re.compile(r"(?<![\w.])/(home|root|work|farm|Users|tmp)/[\w.-]+")
TEXT_SUFFIXES = {
    "", ".cfg", ".css", ".html", ".ini", ".js", ".json", ".md", ".mako", ".py", ".sh", ".sql",
    ".toml", ".txt", ".yaml", ".yml",
}  # fmt: skip
VENDORED = ("src/everloop/ui/static/vendor/",)


def tracked_lines() -> Iterator[tuple[str, str]]:
    """Yield the place and the text of every line under version control that is ours."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("this is not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file() or path.suffix not in TEXT_SUFFIXES or name.startswith(VENDORED):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            yield f"{name}:{number}", line


def test_no_line_is_marked_as_unfinished() -> None:
    assert [] == [place for place, line in tracked_lines() if UNFINISHED.search(line)]


def test_no_line_names_a_path_of_a_machine() -> None:
    assert [] == [
        f"{place}: {line.strip()[:80]}" for place, line in tracked_lines() if MACHINE.search(line)
    ]


def test_the_lock_names_the_standard_index_and_no_path() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))

    sources = {
        str(package["source"]) for package in lock["package"] if package["name"] != "everloop"
    }
    files = [
        file.get("url", "no url")
        for package in lock["package"]
        for file in [*package.get("wheels", []), package.get("sdist", {"url": "https://files."})]
    ]
    assert {"{'registry': 'https://pypi.org/simple'}"} == sources
    assert [] == [url for url in files if not url.startswith("https://files.")]


def test_the_base_install_stays_small() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    packages = {package["name"]: package for package in lock["package"]}

    wanted, reached = ["everloop"], set[str]()
    while wanted:
        name = wanted.pop()
        if name not in reached:
            reached.add(name)
            wanted += [need["name"] for need in packages[name].get("dependencies", [])]

    assert len(reached) <= 36, sorted(reached)
    assert not reached & {"torch", "xgboost", "onnxruntime", "lightgbm", "scikit-learn"}


def test_every_changelog_fragment_can_be_read_by_towncrier() -> None:
    assert [] == find_problems(ROOT / "changes", known_kinds(ROOT / "pyproject.toml"))


@pytest.mark.parametrize("name", ["a.novel.md", "Spaces here.added.md", "empty.added.md"])
def test_a_changelog_fragment_that_would_be_lost_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")

    assert 1 == len(find_problems(tmp_path, ["added"]))
