"""Names say what a thing is for, and packages stay small at the front door."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "everloop"
SAYS_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base", "impl"}
MOST_EXPORTS = 25


def test_no_module_is_named_for_nothing() -> None:
    found = [
        str(path.relative_to(ROOT))
        for folder in ("src", "tests", "tools")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {"", ".py"} and SAYS_NOTHING & set(path.stem.lower().split("_"))
    ]

    assert [] == found


def test_no_package_exports_more_than_twenty_five_names() -> None:
    found = {
        str(path.relative_to(ROOT)): count
        for path in PACKAGE.rglob("__init__.py")
        if (count := count_exports(path)) > MOST_EXPORTS
    }

    assert {} == found


def test_every_package_has_a_front_door() -> None:
    missing = [
        str(folder.relative_to(ROOT))
        for folder in {path.parent for path in PACKAGE.rglob("*.py")}
        if not (folder / "__init__.py").exists() and "migrations" not in folder.parts
    ]

    assert [] == missing


def count_exports(path: Path) -> int:
    """Count the names in `__all__`, wherever it is assigned."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        named = any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)
        value = getattr(node, "value", None)
        if named and isinstance(value, ast.List | ast.Tuple | ast.Set):
            return len(value.elts)
    return 0
