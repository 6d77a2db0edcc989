"""What must change a step's key, and what must not, each edit seen by a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from everloop.pipeline.fingerprint import explain

SRC = Path(__file__).resolve().parents[3] / "src"

STEP = '''
"""A module."""
import helper
from helper import scale
import fakelib

LIMIT = 10

def unrelated():
    return 1

def wrong(x):
    return LIMIT

def step(function):
    return function

@step
def work(table, rate):
    """Do the work."""
    return min(scale(table) * rate * fakelib.times(), LIMIT, helper.deep.floor(1.5))
'''
HELPER = """
import deep

FACTOR = 3

def scale(x):
    return shift(x) * FACTOR

def shift(x):
    return x + 1

def unused(x):
    return x
"""
DEEP = """
def floor(x):
    return int(x)
"""
PROBE = """
import json, sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import flow
from pathlib import Path
from everloop.pipeline.codecs import FileRef, encode
from everloop.pipeline.fingerprint import fingerprint, read_surroundings
root = Path(sys.argv[1])
inputs = {"table": encode(FileRef(str(root / "table.csv")), "table"), "rate": encode(2.0, "rate")}
made = fingerprint(flow.work, inputs, variables=("TZ",), surroundings=read_surroundings(root))
print(json.dumps([made.key, made.parts, made.reason]))
"""


class Project:
    """A folder with a step, its modules, an installed library and an input file."""

    def __init__(self, root: Path) -> None:
        self.root = root / "project"
        self.site = root / "lib" / "site-packages"
        self.root.mkdir()
        self.site.mkdir(parents=True)
        self.write("flow.py", STEP)
        self.write("helper.py", HELPER)
        self.write("deep.py", DEEP)
        self.write("table.csv", "a\n1\n")
        self.write("uv.lock", "version = 1\n")
        self.install("1.0")
        self.environ = {**os.environ, "PYTHONPATH": str(SRC), "TZ": "UTC"}

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))

    def install(self, version: str) -> None:
        for info in self.site.glob("*.dist-info"):
            for file in info.iterdir():
                file.unlink()
            info.rmdir()
        (self.site / "fakelib.py").write_text("def times():\n    return 1\n")
        info = self.site / f"fakelib-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: fakelib\nVersion: {version}\n"
        )
        (info / "RECORD").write_text(f"fakelib.py,sha256={version},9\n")

    def key(self) -> tuple[str, dict[str, str]]:
        done = subprocess.run(
            [sys.executable, "-c", PROBE, str(self.root), str(self.site)],
            capture_output=True,
            text=True,
            check=False,
            env=self.environ,
            cwd=self.root,
        )
        assert "" == done.stderr
        key, parts, reason = json.loads(done.stdout)
        assert "" == reason
        return key, parts


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    return Project(tmp_path_factory.mktemp("baseline")).key()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_key_stays_when_only_words_for_people_change(
    project: Project, baseline: tuple[str, dict[str, str]]
) -> None:
    before, parts = baseline

    project.edit("flow.py", '"""Do the work."""', '"""Do it."""  # a comment\n    # another')
    project.edit("flow.py", "LIMIT = 10\n", "\n\nLIMIT = 10  # ten\n")
    project.edit("flow.py", "def unrelated():\n    return 1", "def unrelated():\n    return 2")
    project.edit("helper.py", "def unused(x):\n    return x", "def unused(x):\n    return -x")

    assert before == project.key()[0]
    assert "package:fakelib" in parts


EDITS: dict[str, Callable[[Project], None]] = {
    "code flow.work": lambda p: p.edit("flow.py", "* rate", "+ rate"),
    "code helper.shift": lambda p: p.edit("helper.py", "x + 1", "x + 2"),
    "code helper.FACTOR": lambda p: p.edit("helper.py", "FACTOR = 3", "FACTOR = 4"),
    "code flow.LIMIT": lambda p: p.edit("flow.py", "LIMIT = 10", "LIMIT = 11"),
    "code deep.floor": lambda p: p.edit("deep.py", "int(x)", "int(x) + 1"),
    "package fakelib": lambda p: p.install("1.1"),
    "variable TZ": lambda p: p.environ.update(TZ="Europe/Rome"),
    "input table": lambda p: p.write("table.csv", "a\n2\n"),
    "the lock file": lambda p: p.write("uv.lock", "version = 2\n"),
}


@pytest.mark.parametrize("words", EDITS)
def test_the_key_changes_and_tells_why_when_meaning_changes(
    project: Project, baseline: tuple[str, dict[str, str]], words: str
) -> None:
    before, old_parts = baseline

    EDITS[words](project)

    after, parts = project.key()
    assert before != after
    assert [words] == [change.split(" changed")[0] for change in explain(parts, old_parts)]
