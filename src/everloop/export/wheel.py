"""The serving part of this installation as a wheel of its own.

An image needs no database, no web pages and no training: the wheel holds the modules that
``everloop.serve`` imports, however deep, and what they require and nothing else. It is made of the
installed sources, so a server answers with the same code that proved the bundle.
"""

from __future__ import annotations

import ast
import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from everloop.core.digest import Digest, sha256_digest
from everloop.export.archives import to_zip

NAME: Final = "everloop-serve"
ROOT: Final = "everloop"
# Where the walk along imports begins: the server, and what it imports by a name made at run time.
ENTRANCES: Final = ("serve", "registry/adapters")
COMMAND: Final = "everloop-serve = everloop.serve.main:main"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel: its file name and its bytes."""

    file: str
    data: bytes

    @property
    def digest(self) -> Digest:
        """Its SHA-256, as pip checks it."""
        return sha256_digest(self.data)


@cache
def serving_wheel() -> Wheel:
    """Return the wheel of this installation's serving part; the same bytes every time."""
    number = installed_version()
    stem = f"{NAME.replace('-', '_')}-{number}"
    sources = serving_sources(Path(__file__).resolve().parents[1])
    described = {
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {number}\n"
        "Summary: The serving part of Everloop: a sealed bundle in, answers out.\n"
        "License: Apache-2.0\nRequires-Python: >=3.11\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: everloop\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n",
        f"{stem}.dist-info/entry_points.txt": f"[console_scripts]\n{COMMAND}\n",
    }
    contents = sources | {name: text.encode() for name, text in described.items()}
    record = "".join(_recorded(name, data) for name, data in contents.items())
    place = f"{stem}.dist-info/RECORD"
    contents[place] = f"{record}{place},,\n".encode()
    return Wheel(f"{stem}-py3-none-any.whl", to_zip(contents))


def installed_version() -> str:
    """Return the version of this installation; ``0`` for sources that are not installed."""
    try:
        return version(ROOT)
    except PackageNotFoundError:
        return "0"


def serving_sources(package: Path) -> dict[str, bytes]:
    """Return the sources that serving needs, by their place in the wheel, sorted.

    Args:
        package: The folder of the installed package.
    """
    waiting = [path for entrance in ENTRANCES for path in (package / entrance).rglob("*.py")]
    found: dict[Path, bytes] = {}
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found[path] = path.read_bytes()
        # The front door imports the whole product, but only what is asked of it.
        if path != package / "__init__.py":
            waiting += _imported(package, path, found[path])
        waiting += [parent / "__init__.py" for parent in _packages(package, path)]
    # What lies beside the modules and is read by them: pages, and the messages of gRPC.
    others = [path for entrance in ENTRANCES for path in (package / entrance).rglob("*")]
    for path in [*others, package / "py.typed"]:
        if path.is_file() and path.suffix not in {".py", ".pyc"}:
            found[path] = path.read_bytes()
    named = {path.relative_to(package.parent).as_posix(): data for path, data in found.items()}
    return dict(sorted(named.items()))


def _packages(package: Path, path: Path) -> list[Path]:
    return [parent for parent in path.parents if parent.is_relative_to(package)]


def _imported(package: Path, path: Path, source: bytes) -> Iterator[Path]:
    """Yield the files of our own that a module imports, at its top or within a function."""
    for node in _nodes(ast.parse(source, str(path))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from everloop.serve import bundle` may name a module as well as a value.
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] == ROOT:
                yield from _files(package, name)


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a module without what only a type checker sees."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _nodes(child)


def _files(package: Path, name: str) -> Iterator[Path]:
    place = package.parent.joinpath(*name.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            yield path


def _recorded(name: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"
