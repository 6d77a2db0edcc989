"""Check the changelog fragments in `changes/`: each has a known kind, a name and a sentence.

A fragment is one file per change, `changes/<slug>.<kind>.md`; towncrier joins them into
CHANGELOG.md at a release. This check needs no git history, so it also works in a shallow clone.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = {"README.md"}
NAME = re.compile(r"^[+a-z0-9][a-z0-9-]*\.(?P<kind>[a-z]+)(\.\d+)?\.md$")


def main() -> int:
    """Print what is wrong with each fragment; return 1 if anything is."""
    problems = find_problems(ROOT / "changes", known_kinds(ROOT / "pyproject.toml"))
    for problem in problems:
        print(f"changes/{problem}", file=sys.stderr)
    return 1 if problems else 0


def known_kinds(pyproject: Path) -> list[str]:
    """Return the kinds of change that towncrier is set up for, in their order."""
    settings = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    return [str(kind["directory"]) for kind in settings["tool"]["towncrier"]["type"]]


def find_problems(folder: Path, kinds: list[str]) -> list[str]:
    """Return one line for each fragment that towncrier would drop or a reader could not use."""
    problems = []
    for path in sorted(folder.iterdir()):
        if path.name in KEPT:
            continue
        match = NAME.match(path.name)
        if match is None:
            problems.append(f"{path.name}: name it <slug>.<kind>.md, in lower case")
        elif match["kind"] not in kinds:
            problems.append(f"{path.name}: the kind is one of {', '.join(kinds)}")
        elif not path.read_text(encoding="utf-8").strip().endswith("."):
            problems.append(f"{path.name}: write at least one sentence, ending with a full stop")
    return problems


if __name__ == "__main__":
    raise SystemExit(main())
