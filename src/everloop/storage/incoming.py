"""Blobs that come in pieces, for stores that take only whole ones."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from everloop.core.digest import Digest, require_digest
from everloop.core.ports import Chunk
from everloop.storage.files import explain

PutFile = Callable[[Path], Digest]


class FileIncoming:
    """Gathers the pieces in a private file and hands that over."""

    def __init__(self, path: Path, file: BinaryIO, put_file: PutFile) -> None:
        self._path = path
        self._file = file
        self._put_file = put_file
        self._hasher = blake3()

    def write(self, data: Chunk) -> None:
        """Take the next bytes.

        Raises:
            Unavailable: ``store.full`` or ``blob.unavailable``.
        """
        self._hasher.update(data)
        try:
            self._file.write(data)
        except OSError as error:
            raise explain(error) from error

    def keep(self, expected: Digest | None = None) -> Digest:
        """Store what was written and return its digest.

        Raises:
            InvalidInput: ``blob.wrong_digest``.
            Unavailable: ``store.full`` or ``blob.unavailable``.
        """
        require_digest(Digest(f"blake3:{self._hasher.hexdigest()}"), expected)
        try:
            self._file.flush()
        except OSError as error:
            raise explain(error) from error
        return self._put_file(self._path)


@contextmanager
def through_a_file(put_file: PutFile) -> Iterator[FileIncoming]:
    """Open a blob that is put as a file once it is whole."""
    with tempfile.TemporaryDirectory(prefix="everloop-") as folder:
        path = Path(folder) / "incoming"
        with path.open("wb") as file:
            yield FileIncoming(path, file, put_file)
