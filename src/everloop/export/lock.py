"""The lock of a serving image: exactly the distributions that serving imports, with their hashes.

It is much less than Everloop installs elsewhere, so it is installed without resolving
(``--no-deps``): the tree packages are called through their C libraries and need no SciPy here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from everloop.core.errors import InvalidInput, UnsafeArtifact

LOCK_FILE: Final = "serving_lock.json"
# What a server does only where it is asked to: fetch bundles from object storage, answer over gRPC,
# send traces.
ALSO: Final = ("storage", "grpc", "otel")
# Debian's packages that a format's library needs beside its wheel.
SYSTEM_PACKAGES: Final = {"lightgbm": ("libgomp1",)}


@dataclass(frozen=True, slots=True)
class Locked:
    """One distribution of the lock.

    Attributes:
        name: As the package index has it.
        version: The only version that is installed.
        hashes: SHA-256 of the wheels for Linux, for each kind of processor.
    """

    name: str
    version: str
    hashes: tuple[str, ...]


def known_pythons() -> tuple[str, ...]:
    """Return the versions of Python for which there is a lock, oldest first."""
    return tuple(_content())


def locked(python: str, formats: tuple[str, ...], also: tuple[str, ...] = ()) -> tuple[Locked, ...]:
    """Return what a server of these formats installs, sorted by name.

    Args:
        python: Such as ``3.11``.
        formats: Formats of the models' files.
        also: What else it is to do, of `ALSO`.

    Raises:
        InvalidInput: ``export.python_unknown`` or ``export.part_unknown``.
        UnsafeArtifact: ``export.format_unsupported``.
    """
    content = _content()
    if python not in content:
        raise InvalidInput(
            "export.python_unknown",
            f"There is no lock for Python {python[:20]!r}.",
            hint=f"Choose one of {', '.join(content)}.",
        )
    groups: dict[str, list[str]] = content[python]["groups"]
    known = sorted(set(groups) - {"base", *ALSO})
    for part in also:
        if part not in ALSO:
            raise InvalidInput(
                "export.part_unknown",
                f"A server has no part {part[:40]!r}.",
                hint=f"There are {' and '.join(ALSO)}.",
            )
    for name in formats:
        if name not in known:
            raise UnsafeArtifact(
                "export.format_unsupported",
                f"An image cannot answer for the format {name[:40]!r}.",
                hint=f"Register the model as one of {', '.join(known)}.",
            )
    wanted = ("base", *formats, *also)
    names = sorted({name for group in wanted for name in groups[group]})
    told: dict[str, dict[str, Any]] = content[python]["distributions"]
    return tuple(Locked(name, told[name]["version"], tuple(told[name]["hashes"])) for name in names)


def requirements(distributions: tuple[Locked, ...], wheel: str, wheel_hash: str) -> str:
    """Return the lock as pip reads it, the wheel beside it first.

    Args:
        distributions: What is installed from a package index.
        wheel: Name of our own wheel's file.
        wheel_hash: Its digest, as ``sha256:<hex>``.
    """
    lines = [
        "# Install from the folder in which this file lies:",
        "#   pip install --no-deps --require-hashes --only-binary=:all: -r requirements.lock",
        f"./{wheel} --hash={wheel_hash}",
    ]
    for one in distributions:
        lines.append(f"{one.name}=={one.version} \\")
        lines += [f"    --hash={digest} \\" for digest in one.hashes[:-1]]
        lines.append(f"    --hash={one.hashes[-1]}")
    return "\n".join(lines) + "\n"


@cache
def _content() -> dict[str, Any]:
    text = files("everloop.export").joinpath(LOCK_FILE).read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return dict(sorted(found.items(), key=lambda item: tuple(map(int, item[0].split(".")))))
