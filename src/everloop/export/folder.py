"""Puts an export on the disk: all of it or nothing, and never over something else.

A folder that was written here carries a mark, and only one with the mark is ever replaced.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from everloop.core.errors import Conflict, InvalidInput

MARK: Final = ".everloop-export"
_MARKED: Final = b"Written by `everloop export`, whose --force replaces this folder whole.\n"


def write_folder(folder: Path, files: Mapping[str, bytes], *, force: bool = False) -> None:
    """Write files into a folder that appears at once; force replaces one that an export wrote.

    Raises:
        Conflict: ``folder.exists``; ``folder.not_ours`` with ``force`` for one that no export
            wrote.
        InvalidInput: ``file.unwritable``, also for the folder that this process is in, or one
            around it: it would be replaced with all that is there.
    """
    if Path.cwd().is_relative_to(folder.resolve()):
        raise InvalidInput(
            "file.unwritable",
            f"{str(folder)[:200]!r} is the folder that you are in, or one around it.",
            hint="Name a folder of its own.",
        )
    _require_ours(folder, force=force)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        draft.mkdir(parents=True)
        for name, data in {MARK: _MARKED, **files}.items():
            place = draft / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        _swap(draft, folder)
    except OSError as error:
        raise InvalidInput(
            "file.unwritable",
            f"{str(folder)[:200]} could not be written: {error.strerror or error}.",
            hint="Choose another place, or make room.",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_file(file: Path, data: bytes, *, force: bool = False) -> None:
    """Write one file at once; one that is there is replaced by force only.

    Raises:
        Conflict: ``file.exists``.
        InvalidInput: ``file.unwritable``.
    """
    if file.exists() and not force:
        raise Conflict(
            "file.exists", f"{file.name} is there already.", hint="Use --force, or another name."
        )
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        draft.replace(file)
    except OSError as error:
        raise InvalidInput(
            "file.unwritable",
            f"{str(file)[:200]} could not be written: {error.strerror or error}.",
            hint="Choose another place, or make room.",
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def _require_ours(folder: Path, *, force: bool) -> None:
    if not _is_taken(folder):
        return
    if not force:
        raise Conflict(
            "folder.exists",
            f"{folder.name} is there already.",
            hint="Use another name, or --force to replace what an export wrote.",
        )
    if not (folder / MARK).is_file():
        raise Conflict(
            "folder.not_ours",
            f"{str(folder)[:200]!r} was not written by an export, so --force does not remove it.",
            hint="Use another name, or remove it yourself.",
        )


def _is_taken(folder: Path) -> bool:
    if folder.is_dir():
        return any(folder.iterdir())
    return folder.exists() or folder.is_symlink()


def _swap(draft: Path, folder: Path) -> None:
    """Put the draft in the folder's place; what was there is removed last."""
    if not _is_taken(folder):
        if folder.is_dir():
            folder.rmdir()
        draft.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.old.{os.getpid()}")
    folder.rename(old)
    draft.rename(folder)
    if old.is_symlink():
        old.unlink()
    else:
        shutil.rmtree(old)
