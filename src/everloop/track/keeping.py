"""Keeps the files of a run: small ones in the spool, larger ones beside it or with the server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from everloop.core.digest import content_digest
from everloop.core.errors import EverloopError, InvalidInput, Unavailable
from everloop.track import limits
from everloop.track.courier import Courier
from everloop.track.frames import Kept
from everloop.track.shipper import Shipment
from everloop.track.spool import Spool
from everloop.track.writer import SpoolWriter


class FileKeeper:
    """Takes the bytes of files before the call returns, so that the files may change after it."""

    def __init__(
        self, spool: Spool, writer: SpoolWriter, shipment: Shipment, courier: Courier
    ) -> None:
        self._spool = spool
        self._writer = writer
        self._shipment = shipment
        self._courier = courier
        self._owner = os.getpid()

    def keep_file(self, file: Path, path: str) -> None:
        """Keep a file under a path of the run.

        Raises:
            InvalidInput: the path is not usable.
            Unavailable: ``spool.unwritable``.
        """
        name = limits.check_artifact_path(path)
        with file.open("rb") as source:
            data = source.read(limits.SMALL_FILE_BYTES + 1)
        if len(data) <= limits.SMALL_FILE_BYTES:
            self.keep_bytes(data, name)
            return
        if file.stat().st_size >= limits.STRAIGHT_FILE_BYTES and self._bring(file, name):
            return
        digest, size = self._keep(lambda: self._spool.keep_file(file))
        self._writer.push(Kept(path=name, digest=digest, size_bytes=size))

    def _bring(self, file: Path, name: str) -> bool:
        """Bring a large file to a server that is near, past the spool; return whether it is there.

        Its name follows at once: bytes that nothing names are collected some day.
        """
        found = self._shipment.bring(file) if self._owner == os.getpid() else None
        if found is None:
            return False
        self._writer.push(Kept(path=name, digest=found[0], size_bytes=found[1]))
        if not self._writer.flush():
            return False
        try:
            self._courier.ship_now()
        except (EverloopError, ConnectionError):
            return False  # it waits in the spool, with the file itself
        return True

    def keep_bytes(self, data: bytes, path: str) -> None:
        """Keep bytes under a path of the run.

        Raises:
            InvalidInput: the path is not usable.
            Unavailable: ``spool.unwritable``.
        """
        name = limits.check_artifact_path(path)
        if len(data) <= limits.SMALL_FILE_BYTES:  # goes with the frame, for the price of a metric
            named = content_digest(data)
            self._writer.push(Kept(path=name, digest=named, size_bytes=len(data), data=data))
            return
        digest, size = self._keep(lambda: self._spool.keep_bytes(data))
        self._writer.push(Kept(path=name, digest=digest, size_bytes=size))

    def _keep(self, copy: Callable[[], tuple[str, int]]) -> tuple[str, int]:
        try:
            return copy()
        except OSError as error:
            raise Unavailable(
                "spool.unwritable",
                f"The artifact could not be copied into the spool: {error}.",
                hint="Make room on its disk; metrics go on meanwhile.",
            ) from error


def list_files(root: Path) -> list[tuple[Path, str]]:
    """Return a file, or all files of a folder but links, each with its path within the folder.

    Raises:
        InvalidInput: ``run.artifact_missing``.
    """
    if root.is_file():
        return [(root, "")]
    if not root.is_dir():
        raise InvalidInput(
            "run.artifact_missing",
            f"There is no file or folder {str(root)[:200]!r}.",
            hint="Give the path of something that exists, or the bytes themselves.",
        )
    return [
        (file, file.relative_to(root).as_posix())
        for file in sorted(root.rglob("*"))
        if file.is_file() and not file.is_symlink()
    ]
