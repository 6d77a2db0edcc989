"""First-party modules as syntax trees: what each top-level name is bound to, without comments.

Everything is read from source, so a comment, a docstring, blank lines or a moved function change
nothing, and any change of meaning does. This module knows nothing of steps or keys.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import Final

from everloop.core.digest import Digest, content_digest

OWN_PACKAGE: Final = "everloop"
_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})


class ModuleSource:
    """One parsed module.

    Attributes:
        name: Dotted name by which it was imported.
        package: Package against which its relative imports are resolved.
        bindings: The top-level statements that define or change each name, in order.
        stars: Modules whose every name it imports.
    """

    def __init__(self, name: str, path: Path, text: bytes) -> None:
        self.name = name
        self.path = path
        self.digest = content_digest(text)
        self.text = text
        self.tree = _without_docstrings(ast.parse(text, filename=str(path)))
        is_package = path.name == "__init__.py"
        self.package = name if is_package else name.rpartition(".")[0]
        self.stars: list[str] = []
        self.bindings: dict[str, list[ast.stmt]] = {}
        for statement in self.tree.body:
            for bound in self._names(statement):
                self.bindings.setdefault(bound, []).append(statement)

    def absolute(self, node: ast.ImportFrom) -> str:
        """Return the absolute name of the module that an import statement names."""
        if not node.level:
            return node.module or ""
        base = self.package.split(".") if self.package else []
        base = base[: len(base) - (node.level - 1)]
        return ".".join([*base, *([node.module] if node.module else [])])

    def _names(self, statement: ast.stmt) -> set[str]:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return {statement.name}
        if _is_main_block(statement):
            return set()
        if isinstance(statement, ast.Import):
            return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
        if isinstance(statement, ast.ImportFrom):
            if any(alias.name == "*" for alias in statement.names):
                self.stars.append(self.absolute(statement))
            return {alias.asname or alias.name for alias in statement.names}
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            return {name for target in targets for name in _mentioned(target)}
        # Whatever else runs at import may change any name that it mentions.
        return _mentioned(statement)


class Unreadable(Exception):
    """A module's meaning cannot be told from its source."""


def find_module(name: str) -> Path | None:
    """Return the file of a module, or None when it has none (built in, namespace, missing)."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None and module is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return None
        file = spec.origin if spec is not None and spec.has_location else None
    return Path(file) if file else None


def is_first_party(path: Path) -> bool:
    """Tell whether a file belongs to the project: not the standard library, not an install."""
    resolved = path.resolve()
    if _INSTALLED & set(resolved.parts):
        return False
    return not str(resolved).startswith(_installed_roots())


def read_module(name: str, path: Path) -> ModuleSource:
    """Return a parsed first-party module; parsed once for each state of its file.

    Raises:
        Unreadable: the file is gone, compiled, or does not parse.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise Unreadable(f"the source of {name} is gone: {error}") from error
    if path.suffix != ".py":
        raise Unreadable(f"{name} has no Python source ({path.name})")
    return _read_module(name, path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=512)
def _read_module(name: str, path: Path, mtime_ns: int, size: int) -> ModuleSource:
    try:
        return ModuleSource(name, path, path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        raise Unreadable(f"the source of {name} cannot be read: {error}") from error


def dump(statements: list[ast.stmt], *, is_step: bool = False) -> Digest:
    """Return the digest of statements without places, comments and docstrings.

    For a step, the step decorator itself is left out: its options change how, not what.
    """
    parts = []
    for statement in statements:
        if is_step and isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            every = statement.decorator_list
            statement.decorator_list = [item for item in every if not _is_step_decorator(item)]
            parts.append(ast.dump(statement))
            statement.decorator_list = every
        else:
            parts.append(ast.dump(statement))
    return content_digest("\n".join(parts).encode("utf-8", "surrogatepass"))


def _is_step_decorator(node: ast.expr) -> bool:
    called = node.func if isinstance(node, ast.Call) else node
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name == "step"


@lru_cache(maxsize=1)
def _installed_roots() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    roots = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    own = Path(__file__).resolve().parents[1]
    return tuple(sorted({str(Path(root).resolve()) + "/" for root in roots} | {f"{own}/"}))


def _is_main_block(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and ast.unparse(statement.test) in {
        "__name__ == '__main__'",
        "'__main__' == __name__",
    }


def _mentioned(node: ast.AST) -> set[str]:
    names = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            names.add(part.id)
        elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(part.name)
        elif isinstance(part, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in part.names}
    return names


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [item for item in body if not _is_bare_text(item)]
            # A function that was only a docstring still needs a body to be dumped alike.
            node.body = kept or ([] if isinstance(node, ast.Module) else [ast.Pass()])  # type: ignore[attr-defined]
    return tree


def _is_bare_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
