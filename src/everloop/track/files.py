"""Questions about the files that a run kept: one folder of them, and one of them by its path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from everloop.core.digest import Digest
from everloop.core.errors import NotFound
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition, where
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.track.limits import MAX_PATH_CHARS
from everloop.track.model import ArtifactEntry, Run

MAX_ENTRIES: Final = 10_000
Path = Annotated[str, msgspec.Meta(max_length=MAX_PATH_CHARS)]
RunText = Annotated[str, msgspec.Meta(max_length=300)]


class ListFolder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``run.folder`` takes; an empty path is the top.

    Attributes:
        after: The ``next`` of the page before.
    """

    run: RunText
    path: Path = ""
    after: Path | None = None


class FolderEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A file or a folder with all that it holds.

    Attributes:
        digest: Of a file; None for a folder.
        files: How many files; 1 for a file.
    """

    name: str
    path: str
    digest: Digest | None
    size_bytes: int
    files: int


class Folder(msgspec.Struct, frozen=True, kw_only=True):
    """One page of the answer of ``run.folder``: folders first, then files, by name.

    A page looks at 10,000 files; a folder with files on several pages is on each of them, with
    what that page saw of it (``merged`` puts pages together).

    Attributes:
        is_cut: Whether there are more files than were looked at.
        next: Where the page after it begins.
    """

    run: Id
    path: str
    items: tuple[FolderEntry, ...]
    is_cut: bool
    next: str | None = None


class FindFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``run.file`` takes."""

    run: RunText
    path: Path


@query("run.folder", permission="run:read")
def list_folder(ask: ListFolder, view: View) -> Folder:
    """List the files and folders directly within a folder of a run's artifacts.

    Raises:
        NotFound: ``run.not_found``.
    """
    run = view.get(Run, Id(ask.run.removeprefix("run:")))
    inside = f"{ask.path.strip('/')}/" if ask.path.strip("/") else ""
    of_page = [Condition("path", Compare.PREFIX, inside)] if inside else []
    if ask.after is not None:
        of_page.append(Condition("path", Compare.GT, ask.after))
    found = view.select(
        ArtifactEntry, *where(run=run.id), *of_page, order="path", limit=MAX_ENTRIES + 1
    )
    folders: dict[str, FolderEntry] = {}
    files: list[FolderEntry] = []
    for entry in found[:MAX_ENTRIES]:
        name, _, rest = entry.path[len(inside) :].partition("/")
        if not rest:
            files.append(
                FolderEntry(
                    name=name,
                    path=entry.path,
                    digest=entry.digest,
                    size_bytes=entry.size_bytes,
                    files=1,
                )
            )
            continue
        known = folders.get(name)
        folders[name] = FolderEntry(
            name=name,
            path=inside + name,
            digest=None,
            size_bytes=entry.size_bytes + (known.size_bytes if known else 0),
            files=1 + (known.files if known else 0),
        )
    return Folder(
        run=run.id,
        path=inside.rstrip("/"),
        items=(*folders.values(), *files),
        is_cut=len(found) > MAX_ENTRIES,
        next=found[MAX_ENTRIES - 1].path if len(found) > MAX_ENTRIES else None,
    )


def merged(pages: Iterable[Folder]) -> list[FolderEntry]:
    """Return the entries of all pages of a folder: folders first, then files, by name."""
    found: dict[tuple[bool, str], FolderEntry] = {}
    for page in pages:
        for item in page.items:
            place = (item.digest is not None, item.name)
            before = found.get(place)
            found[place] = msgspec.structs.replace(
                item,
                size_bytes=item.size_bytes + (before.size_bytes if before else 0),
                files=item.files + (before.files if before else 0),
            )
    return [found[place] for place in sorted(found)]


@query("run.file", permission="run:read")
def find_file(ask: FindFile, view: View) -> ArtifactEntry:
    """Return one file of a run by its path.

    Raises:
        NotFound: ``run.not_found`` or ``artifact.not_found``.
    """
    run = view.get(Run, Id(ask.run.removeprefix("run:")))
    found = view.first(ArtifactEntry, *where(run=run.id, path=ask.path))
    if found is None:
        raise NotFound(
            "artifact.not_found",
            f"Run {run.id} kept no file {ask.path[:80]!r}.",
            hint="List its files; paths are exact.",
        )
    return found
