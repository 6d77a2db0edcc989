"""Where a client's files lie: the folder of a run, of a logged model, or of a sealed version.

An address below ``mlflow-artifacts:/`` names one of them and a path within it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from everloop.core.digest import Digest
from everloop.core.errors import InvalidInput
from everloop.interop.mlflow.routing import Context, Json
from everloop.track.files import FindFile, Folder, ListFolder, merged
from everloop.track.lifecycle import DropFiles, FilesDropped, RunNamed, RunShown
from everloop.track.limits import check_artifact_path
from everloop.track.model import ArtifactEntry
from everloop.track.verbs import ArtifactFile, LogRun, RunLogged

ARTIFACTS = "artifacts"


class Place(Protocol):
    """Files of one owner, by paths relative to its folder; an empty path is the folder."""

    def files(self, path: str) -> list[Json]:
        """Return what lies directly within a folder: ``path`` (a name), ``is_dir``, ``file_size``.

        Raises:
            NotFound: the owner does not exist; an unknown folder is empty.
        """
        ...

    def find(self, path: str) -> tuple[Digest, int]:
        """Return digest and size of a file.

        Raises:
            NotFound: it does not exist.
        """
        ...

    def admit(self, path: str) -> None:
        """Let a file come in or refuse it, before its bytes are read.

        Raises:
            Denied: the owner is sealed.
        """
        ...

    def add(self, path: str, digest: Digest, size: int) -> None:
        """Keep a file whose bytes are stored.

        Raises:
            Denied: the owner is sealed.
        """
        ...

    def drop(self, path: str) -> None:
        """Remove a file or a folder.

        Raises:
            Denied: the owner is sealed.
        """
        ...


@dataclass(frozen=True, slots=True)
class RunPlace:
    """The files of a run."""

    context: Context
    run: str

    def files(self, path: str) -> list[Json]:
        """Return what lies within a folder; a file lies in itself, as MLflow has it."""
        return [
            {"path": item.name, "is_dir": True}
            if item.digest is None
            else {"path": item.name, "is_dir": False, "file_size": item.size_bytes}
            for item in sorted(merged(self._pages(path)), key=lambda item: item.name)
        ]

    def _pages(self, path: str) -> Iterator[Folder]:
        after: str | None = None
        while True:
            ask = ListFolder(run=self.run, path=path, after=after)
            page = self.context.perform("run.folder", ask, Folder)
            yield page
            after = page.next
            if after is None:
                return

    def find(self, path: str) -> tuple[Digest, int]:
        """Return digest and size of a file."""
        ask = FindFile(run=self.run, path=path)
        found = self.context.perform("run.file", ask, ArtifactEntry)
        return found.digest, found.size_bytes

    def admit(self, path: str) -> None:
        """Check the path, and that the caller may log to the run."""
        check_artifact_path(path)
        self.context.perform("run.may_log", RunNamed(run=self.run), RunShown)

    def add(self, path: str, digest: Digest, size: int) -> None:
        """Keep a file; another one of the same path gives way."""
        file = ArtifactFile(path=path, digest=digest, size_bytes=size)
        log = LogRun(run=self.run, artifacts=(file,), amend=True)
        self.context.perform("run.log", log, RunLogged)

    def drop(self, path: str) -> None:
        """Remove a file or a folder from the run."""
        self.context.perform("run.drop_files", DropFiles(run=self.run, path=path), FilesDropped)


def run_place(context: Context, parts: list[str]) -> tuple[Place, str]:
    """Return a run's folder and the path in it, for ``<experiment>/<run>/artifacts/...``.

    Raises:
        InvalidInput: ``artifact.address_invalid``.
    """
    if len(parts) < 3 or parts[2] != ARTIFACTS:
        raise address_invalid("/".join(parts))
    return RunPlace(context, parts[1]), "/".join(parts[3:])


def address_invalid(address: str) -> InvalidInput:
    """Return the refusal of an address that belongs to nothing."""
    return InvalidInput(
        "artifact.address_invalid",
        f"{address[:120]!r} is no place for files.",
        hint="Use the artifact URI that the server gave for the run or the model.",
    )
