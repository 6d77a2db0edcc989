"""Client side of a commit: puts files or a table into the blob store and performs `data.commit`.

Runs where the data is, with the rights of the one who calls; it follows no symbolic link and
leaves the folder it was given for nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from everloop.core.errors import Conflict, InvalidInput, NotFound
from everloop.core.manifest import FileEntry, check_path
from everloop.data.contract import Contract
from everloop.data.model import DatasetVersion, SourceInfo
from everloop.data.tables import to_parquet
from everloop.data.verbs import CommitDataset, Committed
from everloop.kernel.performer import Performer

if TYPE_CHECKING:
    import pyarrow as pa


def commit_table(
    performer: Performer,
    name: str,
    table: pa.Table,
    *,
    message: str = "",
    source: SourceInfo | None = None,
    contract: Contract | None = None,
    allow_violations: bool = False,
    request: str | None = None,
) -> DatasetVersion:
    """Commit a table as one Parquet file; the same table again gives the same version.

    Raises:
        GateFailed: ``data.contract_violated``.
        EverloopError: what `data.commit` refuses.
    """
    data = to_parquet(table)
    entry = FileEntry(
        path=f"{name}.parquet", digest=performer.blobs.put(data), size_bytes=len(data)
    )
    ask = CommitDataset(
        name=name,
        files=(entry,),
        message=message,
        source=source or SourceInfo(kind="table"),
        contract=contract,
        allow_violations=allow_violations,
    )
    return performer.perform("data.commit", ask, Committed, request=request).version


def commit_path(
    performer: Performer,
    name: str,
    path: Path,
    *,
    message: str = "",
    source: SourceInfo | None = None,
    contract: Contract | None = None,
    allow_violations: bool = False,
    request: str | None = None,
) -> DatasetVersion:
    """Commit a file, or all files of a folder and of the folders in it.

    Raises:
        NotFound: ``path.not_found``.
        InvalidInput: ``path.link_refused`` for symbolic links, ``path.not_a_file`` for devices
            and the like, ``path.invalid`` for names that are not safe everywhere.
        GateFailed: ``data.contract_violated``.
        EverloopError: what `data.commit` refuses.
    """
    entries = tuple(_put(performer, file, inside) for file, inside in _files(path))
    if source is None:
        digest = entries[0].digest if len(entries) == 1 else None
        source = SourceInfo(kind="files", description=path.name, digest=digest)
    ask = CommitDataset(
        name=name,
        files=entries,
        message=message,
        source=source,
        contract=contract,
        allow_violations=allow_violations,
    )
    return performer.perform("data.commit", ask, Committed, request=request).version


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file and its path inside the snapshot, in order."""
    if not path.exists() and not path.is_symlink():
        raise NotFound(
            "path.not_found",
            f"There is no file or folder {path.name!r}.",
            hint="Give the path of a file or of a folder with files.",
        )
    if not path.is_dir() or path.is_symlink():
        yield path, path.name
        return
    count = 0
    for folder_name, names, files in os.walk(path):  # follows no links
        folder = Path(folder_name)
        names.sort()
        for name in sorted(files + [sub for sub in names if (folder / sub).is_symlink()]):
            count += 1
            yield folder / name, (folder / name).relative_to(path).as_posix()
    if count == 0:
        raise InvalidInput(
            "data.empty_folder",
            f"The folder {path.name!r} holds no file.",
            hint="Give a folder with at least one file.",
        )


def _put(performer: Performer, file: Path, inside: str) -> FileEntry:
    check_path(inside)
    mode = file.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise InvalidInput(
            "path.link_refused",
            f"{inside[:80]!r} is a symbolic link, which may lead out of the folder.",
            hint="Replace the link by the file it points to.",
        )
    if not stat.S_ISREG(mode):
        raise InvalidInput(
            "path.not_a_file",
            f"{inside[:80]!r} is not a regular file.",
            hint="Remove devices, sockets and pipes from the folder.",
        )
    digest = performer.blobs.put_file(file)
    size = performer.blobs.size(digest)
    if size is None:
        raise Conflict(
            "blob.not_stored",
            f"{inside[:80]!r} was not stored.",
            hint="Try again; the file may have changed while it was read.",
        )
    return FileEntry(path=inside, digest=digest, size_bytes=size)
