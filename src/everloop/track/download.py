"""Brings the files that a run kept back to a local folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from everloop.core.errors import Conflict, EverloopError, InvalidInput
from everloop.kernel.performer import Performer
from everloop.track.files import FindFile
from everloop.track.model import ArtifactEntry
from everloop.track.queries import ArtifactList, ListArtifacts

PAGE: Final = 1_000
UNFINISHED: Final = ".part"
Progress = Callable[[ArtifactEntry, int], None]


def download_artifacts(
    performer: Performer,
    run: str,
    path: str = "",
    *,
    to: Path,
    replace: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write a run's files below a folder, by their paths within the run.

    Each file is verified against its digest, and has its name only once it is whole.

    Args:
        performer: Where the run is kept.
        run: Id of the run.
        path: A file or a folder within the run; everything when empty.
        to: The folder, which is made when missing.
        replace: Whether files that are there may be replaced.
        progress: Hears of each file, with how many of its bytes have come since it was last called.

    Raises:
        NotFound: ``run.not_found`` or ``artifact.not_found``.
        Conflict: ``artifact.target_exists``, before anything is written.
        InvalidInput: ``artifact.target_invalid``.
        IntegrityError: ``blob.corrupt``.
    """
    entries = find_artifacts(performer, run, path)
    targets = [to / entry.path for entry in entries]
    taken = [target for target in targets if target.exists() or target.is_symlink()]
    if taken and not replace:
        raise Conflict(
            "artifact.target_exists",
            f"{len(taken)} of the files are there already, such as {str(taken[0])[-200:]!r}.",
            hint="Choose another folder, or say that files may be replaced.",
        )
    for entry, target in zip(entries, targets, strict=True):
        _write(performer, entry, target, progress or _say_nothing)
    return targets


def find_artifacts(performer: Performer, run: str, path: str = "") -> list[ArtifactEntry]:
    """Return the entry of a file, or those of all files in a folder of a run.

    Raises:
        NotFound: ``run.not_found`` or ``artifact.not_found``.
    """
    inner = path.strip("/")
    if not inner:
        return list(_all_entries(performer, run))
    found = [entry for entry in _all_entries(performer, run) if entry.path.startswith(inner + "/")]
    if found:
        return found
    return [performer.perform("run.file", FindFile(run=run, path=inner), ArtifactEntry)]


def _all_entries(performer: Performer, run: str) -> Iterator[ArtifactEntry]:
    after = None
    while True:
        ask = ListArtifacts(run=run, limit=PAGE, after=after)
        page = performer.perform("run.artifacts", ask, ArtifactList)
        yield from page.items
        after = page.next
        if after is None:
            return


def _write(performer: Performer, entry: ArtifactEntry, target: Path, progress: Progress) -> None:
    part = target.with_name(target.name[:200] + UNFINISHED)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            _fill(file, performer.blobs.stream(entry.digest), partial(progress, entry))
        part.replace(target)
    except OSError as error:
        if isinstance(error, EverloopError):  # some are OSErrors too, such as Unavailable
            raise
        raise InvalidInput(
            "artifact.target_invalid",
            f"{str(target)[-200:]!r} cannot be written: {error.strerror or error}.",
            hint="Choose a folder that can be written.",
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _fill(file: BinaryIO, pieces: Iterable[bytes], progress: Callable[[int], None]) -> None:
    for piece in pieces:
        file.write(piece)
        progress(len(piece))


def _say_nothing(entry: ArtifactEntry, size: int) -> None:
    del entry, size
