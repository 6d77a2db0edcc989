"""Finds the files that MLflow names by address, and reads an ``mlruns`` folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from everloop.interop.importers.source import PIECE_BYTES, Skip, SourceFile, files_below

SERVED = "mlflow-artifacts:"


class Locator:
    """Turns an artifact address into files that can be read."""

    def __init__(self, base: Path, artifacts: Path | None = None) -> None:
        """Remember where relative paths and served artifacts lie.

        Args:
            base: Folder that relative paths start from.
            artifacts: Folder in which a server keeps what it names ``mlflow-artifacts:/...``.
        """
        self._base = base
        self._artifacts = artifacts

    def files(self, uri: str) -> Iterable[SourceFile]:
        """Return the files below an address.

        Raises:
            Skip: they can't be reached from here.
        """
        if uri.startswith(SERVED):
            return self._served(uri)
        try:
            scheme = urlsplit(uri).scheme
        except ValueError as error:
            message = f"{uri[:200]} is no address"
            raise Skip(message) from error
        if scheme in {"s3", "gs", "az", "abfs", "abfss"}:
            return _bucket_files(uri)
        if scheme not in {"", "file"}:
            message = f"files at {scheme}: addresses can't be read"
            raise Skip(message)
        path = Path(unquote(urlsplit(uri).path) if scheme == "file" else uri)
        return self._below(path if path.is_absolute() else self._base / path)

    def _served(self, uri: str) -> Iterable[SourceFile]:
        if self._artifacts is None:
            message = (
                f"its files are at {uri}, with the server that keeps them; give --artifacts and"
                " the folder, or import from the server's address"
            )
            raise Skip(message)
        return self._below(self._artifacts / unquote(urlsplit(uri).path).lstrip("/"))

    def _below(self, folder: Path) -> Iterable[SourceFile]:
        if folder.is_file():
            return [SourceFile(folder.name, folder.stat().st_size, local=folder)]
        return files_below(folder)  # a run without files has no folder


def _bucket_files(uri: str) -> Iterator[SourceFile]:
    try:
        import obstore
    except ImportError as missing:
        message = 'files in a bucket need: pip install "everloop[s3]"'
        raise Skip(message) from missing
    try:
        store = obstore.store.from_url(uri)
        found = [item for page in obstore.list(store) for item in page]
    except (obstore.exceptions.BaseError, OSError) as error:
        message = f"{uri} can't be read: {str(error).partition(chr(10))[0][:200]}"
        raise Skip(message) from error
    for item in sorted(found, key=lambda each: str(each["path"])):
        path = str(item["path"])

        def fetch(path: str = path) -> Iterator[bytes]:
            for piece in obstore.get(store, path).stream(min_chunk_size=PIECE_BYTES):
                yield bytes(piece)

        yield SourceFile(path, int(item["size"]), fetch=fetch)
