"""What an importer reads from: runs, files and models of another system, read when needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from everloop.core.clock import Instant
from everloop.registry.logged import LoggedStatus
from everloop.track.columns import Columns
from everloop.track.model import RunStatus

PIECE_BYTES = 1 << 20


class Skip(Exception):
    """A part that can't be brought in; the text says why, for the report."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a run or model: on this machine, or to be fetched.

    Attributes:
        size_bytes: Its length; None when that is known only after fetching it.
    """

    path: str
    size_bytes: int | None
    local: Path | None = None
    fetch: Callable[[], Iterator[bytes]] | None = None


@dataclass(frozen=True, slots=True)
class SourceExperiment:
    """A group of runs."""

    id: str
    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class Contents:
    """What a run holds, read in one go.

    Attributes:
        metrics: Points by key, in the order in which they were logged.
        inputs: Datasets that it read, as the other system describes them.
    """

    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Columns] = field(default_factory=dict)
    inputs: tuple[SourceInput, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceInput:
    """A dataset that a run says it read."""

    name: str
    digest: str
    source_type: str = ""
    source: str = ""
    schema: str = ""
    profile: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


def no_files() -> Iterable[SourceFile]:
    """Return no files."""
    return ()


@dataclass(frozen=True, slots=True)
class SourceRun:
    """A run's head; the rest is read when it is wanted.

    Attributes:
        experiment: Name of its experiment.
        parent: Id there of the run that it belongs to.
        read: Reads what it holds.
        files: Lists its files; raises Skip where they can't be reached.
    """

    id: str
    experiment: str
    name: str
    status: RunStatus
    started_at: Instant
    ended_at: Instant | None
    read: Callable[[], Contents]
    files: Callable[[], Iterable[SourceFile]] = no_files
    parent: str | None = None
    code_commit: str | None = None
    error: str | None = None
    is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class SourceVersion:
    """A version of a registered model."""

    number: int
    run: str | None
    created_at: Instant
    files: Callable[[], Iterable[SourceFile]]
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    stage: str = ""


@dataclass(frozen=True, slots=True)
class SourceMeasured:
    """One value that a run measured on a logged model, and maybe on a dataset.

    Attributes:
        run: Id there of the run that measured it.
        text: The value exactly.
    """

    run: str | None
    key: str
    text: str
    step: int
    time_us: int
    dataset_name: str = ""
    dataset_digest: str = ""


@dataclass(frozen=True, slots=True)
class SourceLoggedModel:
    """A model's folder that a run wrote, registered or not.

    Attributes:
        experiment: Name of its experiment.
        run: Id there of the run that wrote it.
        kind: What its author calls its type.
        files: Lists its files; raises Skip where they can't be reached.
    """

    id: str
    experiment: str
    run: str | None
    name: str
    status: LoggedStatus
    created_at: Instant
    files: Callable[[], Iterable[SourceFile]]
    kind: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[SourceMeasured, ...] = ()
    is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A registered model."""

    name: str
    versions: tuple[SourceVersion, ...]
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)


class Source(Protocol):
    """Another system's records.

    Attributes:
        system: Its name in a word, as tags name it.
        place: Where it lies, without secrets.
    """

    system: str
    place: str

    def experiments(self) -> list[SourceExperiment]:
        """Return all experiments."""
        ...

    def runs(self) -> list[SourceRun]:
        """Return the heads of all runs, the oldest first."""
        ...

    def models(self) -> list[SourceModel]:
        """Return all registered models."""
        ...

    def logged_models(self) -> list[SourceLoggedModel]:
        """Return all models that runs wrote, where the system keeps these apart."""
        ...

    def close(self) -> None:
        """Release files and connections; idempotent."""
        ...


def either(key: str, make: Callable[[], SourceRun]) -> SourceRun:
    """Return a run's head or, where that can't be read, one that says so when it is imported."""
    try:
        return make()
    except Skip as reason:
        why = str(reason)

        def refuse() -> Contents:
            raise Skip(why)

        unknown = datetime(1970, 1, 1, tzinfo=UTC)
        return SourceRun(key, "unreadable", key, RunStatus.KILLED, unknown, None, refuse)


def files_below(folder: Path) -> Iterator[SourceFile]:
    """Yield the files below a folder, by path; links that lead elsewhere are left out."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root) / name
            if path.is_symlink() or not path.is_file():
                continue
            yield SourceFile(
                path=path.relative_to(folder).as_posix(),
                size_bytes=path.stat().st_size,
                local=path,
            )
