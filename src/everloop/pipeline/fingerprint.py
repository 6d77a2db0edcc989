"""The key under which a step's result is kept: everything that the result depends on.

Parts: the source of the step and of all first-party code it reaches, third-party packages by
version, the content of every argument, the lock file, declared environment variables, the
interpreter and the platform. Nothing is left out silently: where a part cannot be told there is
no key, and the reason is kept.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import FunctionType

import msgspec

from everloop.core.digest import Digest, content_digest, value_digest
from everloop.pipeline.closure import Closure, module_label
from everloop.pipeline.codecs import Encoded
from everloop.pipeline.liveness import find_stale
from everloop.pipeline.source import Unreadable
from everloop.track.environment import find_lock

FORMAT = "1"
SHORT = 16
MOST_PARTS = 500


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """A step's key and what it was made of.

    Attributes:
        key: None when the step cannot be cached.
        parts: Part by part, for explaining why a key changed.
        reason: Why there is no key; empty when there is one.
    """

    key: str | None
    parts: dict[str, str]
    reason: str = ""


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that all steps of one execution share."""

    parts: dict[str, str]


def step_name(function: FunctionType) -> str:
    """Return ``module:qualified.name``, with a script's file name for ``__main__``."""
    return f"{module_label(function.__module__)}:{function.__qualname__}"


def read_surroundings(root: Path) -> Surroundings:
    """Return interpreter, platform and lock file as key parts."""
    lock = find_lock(root)
    return Surroundings(
        parts={
            "format": FORMAT,
            "lock": lock.digest if lock else "none",
            "platform": f"{sys.platform}-{platform.machine()}",
            "python": f"{platform.python_implementation()} {platform.python_version()}",
        }
    )


def fingerprint(
    function: FunctionType,
    inputs: Mapping[str, Encoded],
    *,
    variables: tuple[str, ...],
    surroundings: Surroundings,
    environ: Mapping[str, str] | None = None,
) -> Fingerprint:
    """Return the key of one call of a step."""
    kinds = tuple(dict.fromkeys(kind for encoded in inputs.values() for kind in encoded.types))
    try:
        source = read_closure(function, kinds)
    except Unreadable as error:
        return Fingerprint(key=None, parts={}, reason=str(error))
    source_of = os.environ if environ is None else environ
    parts = surroundings.parts | _collapse(source)
    parts |= {f"input:{name}": encoded.digest for name, encoded in inputs.items()}
    for name in variables:
        # Only a digest: a variable may hold a secret.
        value = source_of.get(name)
        parts[f"env:{name}"] = "unset" if value is None else _short(value)
    key = value_digest("step", {"name": step_name(function), "parts": parts})
    return Fingerprint(key=key, parts=parts)


def _collapse(parts: Mapping[str, str]) -> dict[str, str]:
    """Return the parts, by module instead of by name where they are very many."""
    if len(parts) <= MOST_PARTS:
        return dict(parts)
    modules: dict[str, dict[str, str]] = {}
    for name, part in parts.items():
        kind, _, subject = name.partition(":")
        place = f"{kind}:{subject.rpartition('.')[0]}" if kind == "code" else name
        modules.setdefault(place, {})[name] = part
    return {
        place: group[place] if place in group else value_digest("parts", group)
        for place, group in modules.items()
    }


def source_digest(function: FunctionType) -> Digest:
    """Return one digest over the source parts of a function, or of why there are none."""
    try:
        return value_digest("source", read_closure(function))
    except Unreadable as error:
        return value_digest("source", str(error))


def read_closure(function: FunctionType, kinds: tuple[type, ...] = ()) -> dict[str, str]:
    """Return the source and package parts of a function and of the types it is given.

    Read once for each state of the files involved.

    Raises:
        Unreadable: something it reaches cannot be told from source.
    """
    known = _CLOSURES.get((function, kinds))
    if known is None or not _is_fresh(known):
        known = Closure()
        known.add_function(function)
        for kind in kinds:
            known.add_type(kind)
        if function.__closure__ is None:
            _CLOSURES[function, kinds] = known
    return known.parts


_CLOSURES: dict[tuple[FunctionType, tuple[type, ...]], Closure] = {}


def _is_fresh(closure: Closure) -> bool:
    if any(find_stale(*constant) for constant in closure.constants):
        return False
    try:
        return all(
            (status.st_mtime_ns, status.st_size) == state
            for path, state in closure.files.items()
            for status in (path.stat(),)
        )
    except OSError:
        return False


@lru_cache(maxsize=256)
def _short(value: str) -> str:
    return content_digest(value.encode("utf-8", "surrogateescape"))[: len("blake3:") + SHORT]


def explain(parts: Mapping[str, str], before: Mapping[str, str]) -> tuple[str, ...]:
    """Return in words which parts of a key changed since another one."""
    changes = []
    for name in sorted(parts.keys() | before.keys()):
        old, new = before.get(name), parts.get(name)
        if old == new:
            continue
        kind, _, subject = name.partition(":")
        words = _WORDS.get(kind, "{subject}").format(subject=subject or kind)
        if old is None:
            changes.append(f"{words} is new")
        elif new is None:
            changes.append(f"{words} is gone")
        elif kind in {"package", "python", "platform"}:
            changes.append(f"{words} changed from {old} to {new}")
        else:
            changes.append(f"{words} changed")
    return tuple(changes)


_WORDS = {
    "code": "code {subject}",
    "env": "variable {subject}",
    "input": "input {subject}",
    "lock": "the lock file",
    "package": "package {subject}",
    "value": "captured value {subject}",
}
