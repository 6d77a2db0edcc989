"""Tells when a file was edited after it was imported.

A long-lived process runs the code it imported, while its files may say something newer by now. A
key made from the newer source would file the older result under it. So functions are compared
with what their source compiles to, and literal constants with their live value.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.machinery import SourceFileLoader
from types import CodeType, FunctionType, ModuleType

from everloop.pipeline.source import ModuleSource


def find_stale(source: ModuleSource, name: str, statements: list[ast.stmt]) -> str | None:
    """Return why a top-level name's live value does not come from its source, or None.

    Modules not imported yet, and those loaded in other ways than from their file, pass.
    """
    module = sys.modules.get(source.name)
    # Test runners rewrite assertions, so their modules never equal their source.
    if module is None or type(_loader(module)) is not SourceFileLoader:
        return None
    if name not in vars(module):
        return None
    live = vars(module)[name]
    live = getattr(live, "function", live)
    reason = f"{source.name}.{name} is no longer what its source says: it was edited or changed"
    if isinstance(live, FunctionType | type):
        changed = any(
            not _has_code(source, function)
            for function in _functions(live)
            if function.__code__.co_filename == str(source.path)
        )
        return reason if changed else None
    return reason if len(statements) == 1 and _differs(statements[0], live) else None


def _loader(module: ModuleType) -> object:
    return getattr(module, "__loader__", None)


def _functions(live: FunctionType | type) -> Iterator[FunctionType]:
    if isinstance(live, FunctionType):
        yield live
        return
    for member in vars(live).values():
        if isinstance(member, property):
            parts: tuple[object, ...] = (member.fget, member.fset, member.fdel)
        else:
            parts = (getattr(member, "__func__", member),)
        for part in parts:
            if isinstance(part, FunctionType):
                yield part


def _has_code(source: ModuleSource, function: FunctionType) -> bool:
    codes = _compiled(source).get(function.__code__.co_qualname, ())
    return any(_is_same(function.__code__, code) for code in codes)


@lru_cache(maxsize=256)
def _compiled(source: ModuleSource) -> dict[str, list[CodeType]]:
    found: dict[str, list[CodeType]] = {}
    waiting = [compile(source.text, str(source.path), "exec", dont_inherit=True)]
    while waiting:
        for constant in waiting.pop().co_consts:
            if isinstance(constant, CodeType):
                found.setdefault(constant.co_qualname, []).append(constant)
                waiting.append(constant)
    return found


def _is_same(one: CodeType, other: CodeType) -> bool:
    """Compare what code does; its place in the file does not count."""
    if (
        one.co_code != other.co_code
        or one.co_names != other.co_names
        or one.co_varnames != other.co_varnames
        or len(one.co_consts) != len(other.co_consts)
    ):
        return False
    return all(
        _is_same(mine, yours)
        if isinstance(mine, CodeType) and isinstance(yours, CodeType)
        else repr(mine) == repr(yours) or isinstance(mine, frozenset)
        for mine, yours in zip(one.co_consts, other.co_consts, strict=True)
    )


def _differs(statement: ast.stmt, live: object) -> bool:
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
        return False
    if isinstance(statement, ast.Assign) and not isinstance(statement.targets[0], ast.Name):
        return False
    try:
        literal = ast.literal_eval(statement.value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    if isinstance(literal, set):
        return bool(literal != live)
    return repr(literal) != repr(live)
