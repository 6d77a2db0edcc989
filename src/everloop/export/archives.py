"""Archives that come out the same, byte for byte, whenever and wherever they are made.

Entries are sorted, times and owners are fixed, and nothing is compressed by a library whose next
release could compress differently.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping
from typing import Final

from everloop.core.errors import InvalidInput

_ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)
_FILE_MODE: Final = 0o644
_REGULAR: Final = 0o100000


def to_tar(files: Mapping[str, bytes]) -> bytes:
    """Return files as a tar archive in the portable (ustar) form."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(files[name]), _FILE_MODE
            archive.addfile(entry, io.BytesIO(files[name]))
    return buffer.getvalue()


def from_tar(data: bytes) -> dict[str, bytes]:
    """Return the files of an archive that `to_tar` made.

    Raises:
        InvalidInput: ``export.archive_damaged``.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            found = {}
            for entry in archive:
                file = archive.extractfile(entry)
                if file is None or entry.name.startswith("/") or ".." in entry.name.split("/"):
                    raise InvalidInput(
                        "export.archive_damaged",
                        f"The archive holds {entry.name[:80]!r}, which is no plain file.",
                        hint="Export again.",
                    )
                found[entry.name] = file.read()
            return found
    except tarfile.TarError as error:
        raise InvalidInput(
            "export.archive_damaged", f"The archive is damaged: {error}.", hint="Export again."
        ) from error


def to_gzip(data: bytes) -> bytes:
    """Return bytes as a gzip file (RFC 1952) without a time and, so that it stays the same, stored.

    Models hardly shrink further, and another zlib would compress them to other bytes.
    """
    return gzip.compress(data, compresslevel=0, mtime=0)


def to_zip(files: Mapping[str, bytes]) -> bytes:
    """Return files as a zip archive without compression, in the order given."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            entry.external_attr = (_REGULAR | _FILE_MODE) << 16
            entry.create_system = 3  # Unix, whatever system this is
            archive.writestr(entry, data)
    return buffer.getvalue()
