"""What a run ran in, as it was captured: read from its blob, and written as rows for a table."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from everloop.core.digest import Digest
from everloop.core.errors import EverloopError
from everloop.kernel.blobs import BlobState
from everloop.track.model import ArtifactEntry, Run
from everloop.ui.render import size
from everloop.ui.visit import Visit

MAX_ENVIRONMENT_BYTES: Final = 4 * 1024 * 1024
PATCH: Final = "environment/uncommitted.patch"
MAX_PATCH_BYTES: Final = 256 * 1024
_ALSO: Final = (
    "python", "implementation", "platform", "machine", "processor", "cpus",
)  # fmt: skip


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the git repository."""

    commit: str = ""
    branch: str | None = None
    patch: str | None = None


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """The lock file in force."""

    name: str = ""
    digest: str = ""


class RunEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """A captured environment; what a client of another version left out is empty."""

    code: Code | None = None
    lock: Lock | None = None
    python: str | None = None
    implementation: str | None = None
    platform: str | None = None
    machine: str | None = None
    cpus: int | None = None
    memory_bytes: int | None = None
    command: tuple[str, ...] = ()
    variables: dict[str, str] = {}
    packages: tuple[str, ...] = ()
    processor: str | None = None
    gpus: tuple[str, ...] = ()
    seeds: dict[str, str] = {}


class DiffLine(NamedTuple):
    """A line of a patch and what it does: ``plus``, ``minus``, ``head`` or ``same``."""

    kind: str
    text: str


def read_environment(visit: Visit, run: Run) -> RunEnvironment | None:
    """Return the environment of a run; None when it has none or it cannot be read."""
    if run.environment is None:
        return None
    data = read_blob(visit, run.environment, MAX_ENVIRONMENT_BYTES)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=RunEnvironment)
    except msgspec.MsgspecError:
        return None


def read_blob(visit: Visit, digest: Digest, most: int) -> bytes | None:
    """Return bytes that the visitor may read; None when they are gone, broken or too many."""
    try:
        state = visit.query("blob.get", BlobState, digest=digest)
        if state is None or state.size_bytes is None or state.size_bytes > most:
            return None
        return visit.blobs.get(digest)
    except EverloopError:
        return None


def environment_rows(found: RunEnvironment | None) -> dict[str, str]:
    """Return what of an environment fits a line each, by its name."""
    if found is None:
        return {}
    rows: dict[str, str] = {}
    if found.code is not None:
        rows["commit"] = found.code.commit
        rows["branch"] = found.code.branch or "detached"
        rows["uncommitted changes"] = found.code.patch or "none"
    if found.lock is not None:
        rows["lock"] = f"{found.lock.name} {found.lock.digest}"
    for name in _ALSO:
        value = getattr(found, name)
        if value is not None:
            rows[name.replace("_", " ")] = str(value)
    if found.memory_bytes is not None:
        rows["memory"] = size(found.memory_bytes)
    if found.command:
        rows["command"] = " ".join(found.command)
    rows |= {f"GPU {number}": name for number, name in enumerate(found.gpus, 1)}
    rows |= {f"seed of {name}": value for name, value in sorted(found.seeds.items())}
    return rows | {f"${name}": value for name, value in sorted(found.variables.items())}


def read_patch(visit: Visit, run: Run) -> tuple[DiffLine, ...]:
    """Return what was changed since the commit, line by line; empty when nothing is known of it."""
    entry = visit.find("run.file", ArtifactEntry, run=run.id, path=PATCH)
    data = read_blob(visit, entry.digest, MAX_PATCH_BYTES) if entry is not None else None
    return tuple(_diff_line(line) for line in (data or b"").decode("utf-8", "replace").splitlines())


def _diff_line(text: str) -> DiffLine:
    if text.startswith(("+++", "---", "diff ", "@@")):
        return DiffLine("head", text)
    return DiffLine({"+": "plus", "-": "minus"}.get(text[:1], "same"), text)
