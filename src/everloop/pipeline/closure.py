"""Everything of the project's own that a function can reach: the source part of a cache key.

From the function's syntax tree the walk follows each name to what defines it: functions, classes,
constants and other statements of first-party modules, through imports and re-exports, and notes
third-party packages on the way. Where a name cannot be followed the walk gives up and says why,
because a key that left something out would return a stale result.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Final

from everloop.core.errors import InvalidInput
from everloop.pipeline.codecs import WORKER_MAIN, encode
from everloop.pipeline.liveness import find_stale
from everloop.pipeline.packages import describe_package
from everloop.pipeline.source import (
    OWN_PACKAGE,
    ModuleSource,
    Unreadable,
    dump,
    find_module,
    is_first_party,
    read_module,
)

_MODULE_NAMES: Final = frozenset(
    {
        "__annotations__", "__builtins__", "__class__", "__dict__", "__doc__", "__file__",
        "__loader__", "__module__", "__name__", "__package__", "__path__", "__qualname__",
        "__spec__",
    }
)  # fmt: skip
_BUILTINS: Final = frozenset(dir(builtins)) | _MODULE_NAMES
_OPAQUE: Final = frozenset({"eval", "exec", "__import__"})
Chain = tuple[str, ...]


class Closure:
    """What was found.

    Attributes:
        parts: For the key: ``code:module.name`` to a digest, ``package:name`` to a version.
        files: The source files read, with the state in which they were read.
        constants: What to compare again with live values before this is used once more.
    """

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}
        self.files: dict[Path, tuple[int, int]] = {}
        self.constants: list[tuple[ModuleSource, str, list[ast.stmt]]] = []
        self._seen: set[tuple[str, str, Chain]] = set()

    def add_function(self, function: FunctionType) -> None:
        """Follow a function.

        Raises:
            Unreadable: something it reaches cannot be told from source.
        """
        source = self._read(function.__module__, find_module(function.__module__))
        if "." not in function.__qualname__ and function.__name__ in source.bindings:
            self._visit(source, function.__name__, (), is_root=True)
            return
        node = _find_nested(source.tree, function.__qualname__)
        if node is None:
            raise Unreadable(f"{function.__qualname__} is not in the source of {source.name}")
        label = f"{module_label(source.name)}.{function.__qualname__}"
        self.parts[f"code:{label}"] = dump([node], is_step=True)
        free = set(function.__code__.co_freevars)
        self._follow(source, [node], label, known=free)
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            self._add_captured(f"{label}.{name}", cell.cell_contents)

    def add_type(self, kind: type) -> None:
        """Follow a class, whose methods a step may call on a value.

        Raises:
            Unreadable: something it reaches cannot be told from source.
        """
        path = find_module(kind.__module__)
        if path is None or not is_first_party(path):
            self._add_package(kind.__module__)
            return
        source = self._read(kind.__module__, path)
        name = kind.__qualname__.partition(".")[0]
        if name not in source.bindings:
            raise Unreadable(f"the type {kind.__qualname__} is not in the source of {source.name}")
        self._visit(source, name, ())

    def _add_captured(self, label: str, value: object) -> None:
        function = getattr(value, "function", value)
        if isinstance(function, FunctionType):
            self.add_function(function)
        elif isinstance(value, type):
            self.add_type(value)
        elif isinstance(value, ModuleType):
            self._add_module(value.__name__, ())
        else:
            try:
                self.parts[f"value:{label}"] = encode(value, label).digest
            except InvalidInput as error:
                raise Unreadable(f"it captures {label}: {error.message}") from error

    def _read(self, name: str, path: Path | None) -> ModuleSource:
        if path is None:
            raise Unreadable(f"the module {name} has no source file")
        source = read_module(name, path)
        status = path.stat()
        self.files[path] = (status.st_mtime_ns, status.st_size)
        return source

    def _visit(
        self, source: ModuleSource, name: str, rest: Chain, *, is_root: bool = False
    ) -> None:
        """Take in what one top-level name is bound to."""
        statements = source.bindings[name]
        imports = [item for item in statements if isinstance(item, ast.Import | ast.ImportFrom)]
        others = [item for item in statements if item not in imports]
        key = (source.name, name, rest if imports else ())
        if key in self._seen:
            return
        self._seen.add(key)
        label = f"{module_label(source.name)}.{name}"
        for item in imports:
            self._import(source, item, name, rest)
        if others:
            stale = find_stale(source, name, others)
            if stale:
                raise Unreadable(stale)
            if not isinstance(others[0], ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self.constants.append((source, name, others))
            self.parts[f"code:{label}"] = dump(others, is_step=is_root)
            self._follow(source, others, label)

    def _follow(
        self,
        source: ModuleSource,
        statements: Iterable[ast.stmt],
        label: str,
        *,
        known: Iterable[str] = (),
    ) -> None:
        found = _References()
        for statement in statements:
            found.visit(statement)
        if found.opaque:
            raise Unreadable(f"{label} uses {found.opaque}, which hides what it runs")
        for item in found.imports:
            for alias in item.names:
                self._import(source, item, alias.asname or alias.name.partition(".")[0], ())
        for module in found.named_modules:
            self._add_module(module, ())
        for chain in sorted(found.chains):
            self._resolve(source, chain, label, found.local | set(known))

    def _resolve(self, source: ModuleSource, chain: Chain, label: str, local: set[str]) -> None:
        name, rest = chain[0], chain[1:]
        if name in source.bindings:
            self._visit(source, name, rest)
            return
        if name in local or name in _BUILTINS:
            return
        for star in source.stars:
            if self._resolve_star(star, name, rest):
                return
        raise Unreadable(f"{label} uses the name {name}, which {source.name} does not define")

    def _resolve_star(self, star: str, name: str, rest: Chain) -> bool:
        path = find_module(star)
        if path is None or not is_first_party(path):
            self._add_package(star)
            return hasattr(sys.modules.get(star), name)
        inner = self._read(star, path)
        if name in inner.bindings:
            self._visit(inner, name, rest)
            return True
        return any(self._resolve_star(deeper, name, rest) for deeper in inner.stars)

    def _import(
        self, source: ModuleSource, item: ast.Import | ast.ImportFrom, name: str, rest: Chain
    ) -> None:
        for alias in item.names:
            if (alias.asname or alias.name.partition(".")[0]) != name and alias.name != "*":
                continue
            if isinstance(item, ast.ImportFrom):
                module = source.absolute(item)
                chain = rest if alias.name == "*" else (alias.name, *rest)
                self.parts[f"code:{module_label(source.name)}.{name}"] = f"{module}:{alias.name}"
                self._add_module(module, chain)
            else:
                # `import a.b` binds a, and a.b with it; with `as` it binds a.b itself.
                module = alias.name if alias.asname else alias.name.partition(".")[0]
                self.parts[f"code:{module_label(source.name)}.{name}"] = alias.name
                self._add_module(module, rest)

    def _add_module(self, name: str, chain: Chain) -> None:
        """Take in a module's attribute at the end of the chain, or all of it without one."""
        path = find_module(name)
        if path is None or not is_first_party(path):
            if path is None and chain and find_module(f"{name}.{chain[0]}") is not None:
                self._add_module(f"{name}.{chain[0]}", chain[1:])
                return
            self._add_package(name)
            return
        source = self._read(name, path)
        if not chain or chain[0] == "*":
            self._add_whole(source)
        elif chain[0] in source.bindings:
            self._visit(source, chain[0], chain[1:])
        elif find_module(f"{name}.{chain[0]}") is not None:
            self._add_module(f"{name}.{chain[0]}", chain[1:])
        elif not any(self._resolve_star(star, chain[0], chain[1:]) for star in source.stars):
            # A module with __getattr__, or an attribute set from elsewhere.
            self._add_whole(source)

    def _add_whole(self, source: ModuleSource) -> None:
        if (source.name, "*", ()) in self._seen:
            return
        self._seen.add((source.name, "*", ()))
        for name in sorted(source.bindings):
            self._visit(source, name, ())
        for star in source.stars:
            self._add_module(star, ())

    def _add_package(self, module: str) -> None:
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or f"package:{top}" in self.parts:
            return
        described = describe_package(top)
        if top == OWN_PACKAGE:
            version = described[1].partition("+")[0] if described else ""
            self.parts[f"package:{top}"] = version
        else:
            self.parts[f"package:{top}"] = described[1] if described else "not installed"


def module_label(name: str) -> str:
    """Return a module's name as it stands in keys: that of the file for ``__main__``."""
    if name not in {"__main__", WORKER_MAIN}:
        return name
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != WORKER_MAIN:
        return str(spec.name).removesuffix(".__main__")
    return Path(getattr(main, "__file__", None) or "__main__").stem


class _References(ast.NodeVisitor):
    """Collects what statements refer to, and which names they bind themselves."""

    def __init__(self) -> None:
        self.chains: set[Chain] = set()
        self.local: set[str] = set()
        self.imports: list[ast.Import | ast.ImportFrom] = []
        self.named_modules: set[str] = set()
        self.opaque = ""

    def visit_Name(self, node: ast.Name) -> None:
        self.chains.add((node.id,))
        if not isinstance(node.ctx, ast.Load):
            self.local.add(node.id)
        elif node.id in _OPAQUE:
            self.opaque = node.id

    def visit_Attribute(self, node: ast.Attribute) -> None:
        attributes: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            attributes.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self.chains.add((inner.id, *reversed(attributes)))
        else:
            self.visit(inner)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name == "import_module":
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                self.named_modules.add(first.value)
            else:
                self.opaque = "import_module with a computed name"
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self._add_import(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._add_import(node)

    def visit_arg(self, node: ast.arg) -> None:
        self.local.add(node.arg)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.local.add(node.name)
        self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.local.add(node.name)
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.local.add(node.name)
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self.local.add(node.name or "")
        self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> None:
        # Names that patterns and type parameters bind are plain texts in the tree.
        if isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
            self.local.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            self.local.add(node.rest)
        elif type(node).__name__ in {"TypeVar", "ParamSpec", "TypeVarTuple"}:
            self.local.add(node.name)  # type: ignore[attr-defined]
        super().generic_visit(node)

    def _add_import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.imports.append(node)
        self.local |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}


def _find_nested(tree: ast.AST, qualname: str) -> ast.stmt | None:
    found: ast.AST = tree
    for name in qualname.replace(".<locals>", "").split("."):
        matches = [
            node
            for node in ast.walk(found)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and node.name == name
            and node is not found
        ]
        if len(matches) != 1:
            return None
        found = matches[0]
    return found if isinstance(found, ast.stmt) else None
