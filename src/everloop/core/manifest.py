"""Manifests: which files a snapshot holds, by safe relative path and digest, under one root.

Paths come from clients and end up in folders on other machines, so a manifest holds only paths that
mean the same one file everywhere. The root is the RFC 9162 Merkle root over the entries in the
order of their paths, so that one file can be proven to belong to a snapshot.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Annotated, Final
from urllib.parse import unquote

from msgspec import Meta, Struct

from everloop.core.canonical import canonical_json
from everloop.core.digest import Digest
from everloop.core.errors import InvalidInput
from everloop.core.merkle import tree_root

LONGEST_PATH: Final = 1_024
MOST_FILES: Final = 10_000
_LONGEST_SEGMENT_BYTES: Final = 255
_DECODINGS: Final = 4
_RESERVED: Final = frozenset(
    ["CON", "PRN", "AUX", "NUL"] + [f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10)]
)


class FileEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a snapshot.

    Attributes:
        path: Relative POSIX path.
        digest: Digest of its bytes, under which they are stored.
        size_bytes: Its length.
    """

    path: Annotated[str, Meta(min_length=1, max_length=LONGEST_PATH)]
    digest: Annotated[Digest, Meta(max_length=80)]
    size_bytes: Annotated[int, Meta(ge=0, le=2**53)]


Files = Annotated[tuple[FileEntry, ...], Meta(min_length=1, max_length=MOST_FILES)]
"""The files of an ask; their number is part of the type."""


class Manifest(Struct, frozen=True, kw_only=True):
    """The files of a snapshot, sorted by path."""

    files: tuple[FileEntry, ...]


def make_manifest(files: Iterable[FileEntry]) -> Manifest:
    """Return the manifest of these files after checking their paths.

    Raises:
        InvalidInput: ``path.invalid`` or ``path.collision``.
    """
    ordered = tuple(sorted(files, key=lambda entry: entry.path))
    check_paths(entry.path for entry in ordered)
    return Manifest(files=ordered)


def manifest_root(manifest: Manifest) -> Digest:
    """Return the Merkle root over the entries' canonical JSON."""
    return Digest("sha256:" + tree_root(map(canonical_json, manifest.files)).hex())


def check_paths(paths: Iterable[str]) -> None:
    """Let a set of paths pass if each is safe and no two can mean one file on some system.

    Raises:
        InvalidInput: ``path.invalid`` or ``path.collision``.
    """
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in paths:
        check_path(path)
        key = _key(path)
        if key in seen:
            raise _collision(seen[key], path)
        seen[key] = path
        parent = key.rpartition("/")[0]
        while parent:
            folders.setdefault(parent, path)
            parent = parent.rpartition("/")[0]
    for key, path in seen.items():
        if key in folders:
            raise _collision(folders[key], path)


def check_path(path: str) -> str:
    """Return a relative POSIX path unchanged if it is safe on every system.

    What it would mean after percent-decoding or Unicode normalisation must be safe as well,
    since some layer between here and a disk may do either.

    Raises:
        InvalidInput: ``path.invalid``.
    """
    problem = _problem(path)
    form = path
    for _ in range(_DECODINGS):
        if problem:
            break
        decoded = unicodedata.normalize("NFKC", unquote(form, errors="replace"))
        if decoded == form:
            return path
        form, problem = decoded, _problem(decoded)
    raise InvalidInput(
        "path.invalid",
        f"The path {path[:80]!a} {problem or 'is encoded too many times'}.",
        hint="Use relative paths of plain names joined by '/', such as data/2011/train.parquet.",
    )


def _problem(path: str) -> str | None:
    if not path or len(path) > LONGEST_PATH:
        return f"has {len(path)} characters, not 1 to {LONGEST_PATH}"
    if any(unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for letter in path):
        return "holds a control character"
    if "\\" in path or ":" in path:
        return "holds a backslash or a colon"
    if path.startswith("/"):
        return "is absolute"
    for segment in path.split("/"):
        if segment in {"", ".", ".."}:
            return "has an empty, '.' or '..' part"
        if segment != segment.rstrip(". ") or segment != segment.lstrip():
            return "has a part that ends in a dot or has spaces around it"
        if segment.partition(".")[0].rstrip().upper() in _RESERVED:
            return "has a part that names a device on some systems"
        if len(segment.encode()) > _LONGEST_SEGMENT_BYTES:
            return f"has a part longer than {_LONGEST_SEGMENT_BYTES} bytes"
    return None


def _key(path: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())


def _collision(one: str, other: str) -> InvalidInput:
    return InvalidInput(
        "path.collision",
        f"{one[:80]!r} and {other[:80]!r} would be one file on some systems.",
        hint="Give files names that differ by more than case or spelling of the same letters.",
    )
