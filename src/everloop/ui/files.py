"""Files of a run or a model version: as a tree, shown where that is safe, else as a download.

Bytes of users never get an origin: every answer that carries them is sandboxed by its own policy,
so that a script in them can read no cookie and call no page, even when its address is opened alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final, Literal
from urllib.parse import quote

import msgspec
from starlette.responses import Response, StreamingResponse

from everloop.core.digest import Digest
from everloop.core.errors import NotFound
from everloop.kernel.blobs import BlobState
from everloop.track.files import Folder
from everloop.track.model import ArtifactEntry
from everloop.ui import tables
from everloop.ui.environment import read_blob
from everloop.ui.run import run_frame
from everloop.ui.visit import Visit

MAX_TEXT_BYTES: Final = 512 * 1024
SNIFFED: Final = 8_192
Show = Literal["image", "page", "text", "table", "nothing"]

IMAGES: Final[Mapping[str, str]] = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".avif": "image/avif",
}
PAGES: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".htm": "text/html; charset=utf-8",
    ".svg": "image/svg+xml",
}
TABLES: Final = frozenset({".csv", ".tsv", ".parquet"})
_QUIET: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:; "
    "media-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
SANDBOX: Final = f"sandbox; {_QUIET}"
SANDBOX_WITH_SCRIPTS: Final = (
    f"sandbox allow-scripts; {_QUIET}; script-src 'unsafe-inline' 'unsafe-eval' blob: data:; "
    "worker-src blob:"
)


@dataclass(frozen=True, slots=True)
class Shown:
    """A file as the page shows it."""

    path: str
    size_bytes: int
    digest: Digest
    show: Show
    text: str = ""
    is_cut: bool = False
    table: tables.Table | None = None
    problem: str = ""


def show(visit: Visit) -> Response:
    """Show a folder of a run's files, and beside it the file that the address names."""
    run, path = visit.path("run"), visit.param("path") or ""
    inside = path.rpartition("/")[0] if path else visit.param("in") or ""
    folder = visit.get("run.folder", Folder, run=run, path=inside, after=visit.param("after"))
    shown = None
    if path:
        entry = visit.get("run.file", ArtifactEntry, run=run, path=path)
        shown = open_file(visit, entry.path, entry.digest, entry.size_bytes)
    parents = PurePosixPath(folder.path).parts if folder.path else ()
    return visit.show(
        "run_files.html",
        **run_frame(visit, "files"),
        folder=folder,
        crumbs=[(part, "/".join(parents[: index + 1])) for index, part in enumerate(parents)],
        shown=shown,
        with_scripts=visit.param("scripts") == "yes",
        at=tables.to_offset(visit.param("at")),
        page=tables.PAGE,
    )


def send(visit: Visit) -> Response:
    """Send the bytes of a run's file in a sandbox of their own."""
    entry = visit.get("run.file", ArtifactEntry, run=visit.path("run"), path=visit.param("path"))
    return send_bytes(visit, entry.path, entry.digest)


def open_file(visit: Visit, path: str, digest: Digest, size: int) -> Shown:
    """Return a file as its page shows it; what is not known to be safe is a download."""
    shown = Shown(path, size, digest, _kind(path))
    if shown.show == "table":
        blobs, at = visit.blobs, visit.param("at") or ""
        try:
            return replace(shown, table=tables.read(blobs, digest, size, path, at))
        except tables.Unreadable as error:
            return replace(shown, show="nothing", problem=str(error))
    return _as_text(visit, shown, digest) if shown.show == "text" else shown


def send_bytes(visit: Visit, path: str, digest: Digest) -> Response:
    """Send bytes so that a browser can only look at them, never give them an origin.

    Raises:
        NotFound: ``blob.not_found``.
    """
    state = visit.get("blob.get", BlobState, digest=digest)
    if state.size_bytes is None:
        raise NotFound(
            "blob.not_found",
            "The bytes of this file are gone.",
            hint="They may have been purged; the ledger tells by whom.",
        )
    suffix = PurePosixPath(path).suffix.lower()
    kind = IMAGES.get(suffix) or PAGES.get(suffix)
    is_download = kind is None or visit.param("download") == "yes"
    with_scripts = suffix in {".html", ".htm"} and visit.param("scripts") == "yes"
    name = PurePosixPath(path).name
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._- ") else "_" for c in name)
    headers = {
        "content-length": str(state.size_bytes),
        "content-disposition": f"{'attachment' if is_download else 'inline'}; "
        f"filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}",
        "content-security-policy": SANDBOX_WITH_SCRIPTS if with_scripts else SANDBOX,
        "x-frame-options": "SAMEORIGIN",
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
    }
    return StreamingResponse(
        visit.blobs.stream(digest),
        media_type=kind if kind and not is_download else "application/octet-stream",
        headers=headers,
    )


def _kind(path: str) -> Show:
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in IMAGES:
        return "image"
    if suffix in PAGES:
        return "page"
    return "table" if suffix in TABLES else "text"


def _as_text(visit: Visit, shown: Shown, digest: Digest) -> Shown:
    data = read_head(visit, digest, MAX_TEXT_BYTES)
    if data is None:
        return replace(shown, show="nothing", problem="The bytes of this file cannot be read.")
    is_cut = shown.size_bytes > len(data)
    text = _decoded(data, is_cut=is_cut)
    if text is None:
        return replace(shown, show="nothing")
    if shown.path.lower().endswith(".json") and not is_cut:
        found = tables.read_json(data)
        if found is not None:
            return replace(shown, show="table", table=found)
        text = _pretty(data) or text
    return replace(shown, text=text, is_cut=is_cut)


def read_head(visit: Visit, digest: Digest, most: int) -> bytes | None:
    """Return how a file begins; None when the visitor may not read it or it is gone."""
    whole = read_blob(visit, digest, most)
    if whole is not None:
        return whole
    state = visit.query("blob.get", BlobState, digest=digest)
    if state is None or state.size_bytes is None:
        return None
    head = bytearray()
    stream = visit.blobs.stream(digest)
    for piece in stream:
        head += piece
        if len(head) >= most:
            break
    return bytes(head[:most])


def _decoded(data: bytes, *, is_cut: bool) -> str | None:
    """Return text, or None for bytes that are none; a cut may fall within a character."""
    if b"\x00" in data[:SNIFFED]:
        return None
    for end in range(len(data), max(len(data) - 4, -1), -1) if is_cut else (len(data),):
        try:
            return data[:end].decode()
        except UnicodeDecodeError:
            continue
    return None


def _pretty(data: bytes) -> str | None:
    try:
        return msgspec.json.format(data, indent=2).decode()
    except (msgspec.MsgspecError, RecursionError):
        return None
