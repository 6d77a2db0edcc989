"""Print the largest modules and functions: a list to look at, never a failure.

Modules over 400 lines are worth a look and over 600 a second thought (`!`); the same for function
bodies over 60 and 80 lines, and for more than 6 and 8 parameters.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src", "tests", "tools", "examples", "benchmarks")
MODULE_LINES = (400, 600)
BODY_LINES = (60, 80)
PARAMETERS = (6, 8)


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """One thing larger than the house style aims at."""

    place: str
    what: str
    size: int
    limits: tuple[int, int]

    def is_large(self) -> bool:
        """Tell whether it is over the first limit."""
        return self.size > self.limits[0]

    def line(self) -> str:
        """Return the line of the report."""
        mark = "!" if self.size > self.limits[1] else " "
        return f"{mark} {self.place}: {self.size} {self.what} (aim: {self.limits[0]})"


def main() -> int:
    """Print the outliers, the furthest over their limit first; always return 0."""
    found = [outlier for path in _modules() for outlier in find_outliers(path, ROOT)]
    found.sort(key=lambda outlier: outlier.size / outlier.limits[0], reverse=True)
    for outlier in found:
        print(outlier.line())
    print(f"{len(found)} larger than the style aims at" if found else "nothing is too large")
    return 0


def find_outliers(path: Path, root: Path) -> list[Outlier]:
    """Return what is too large in one file; a file that is no Python yet has nothing."""
    text = path.read_text(encoding="utf-8")
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        print(f"{path.relative_to(root)}: {error}", file=sys.stderr)
        return []
    place = str(path.relative_to(root))
    lines = Outlier(place=place, what="lines", size=text.count("\n"), limits=MODULE_LINES)
    candidates = [lines, *_functions(tree, place)]
    return [candidate for candidate in candidates if candidate.is_large()]


def _functions(tree: ast.AST, place: str) -> Iterator[Outlier]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        where = f"{place}:{node.lineno} {node.name}"
        yield Outlier(place=where, what="body lines", size=_body_lines(node), limits=BODY_LINES)
        if not place.startswith("tests"):  # a test takes the fixtures it takes
            count = _parameters(node)
            yield Outlier(place=where, what="parameters", size=count, limits=PARAMETERS)


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = node.body
    if ast.get_docstring(node) is not None and len(body) > 1:
        body = body[1:]
    return (node.end_lineno or node.lineno) - body[0].lineno + 1


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len([argument for argument in named if argument.arg not in {"self", "cls"}])


def _modules() -> Iterator[Path]:
    for folder in FOLDERS:
        yield from sorted((ROOT / folder).rglob("*.py"))


if __name__ == "__main__":
    raise SystemExit(main())
