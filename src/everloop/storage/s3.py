"""Blobs in a bucket of S3 or a server that speaks its protocol.

An object is named by its digest and written create-only, in one request that S3 carries out whole
or not at all; large ones go up in parts that become an object together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

from blake3 import blake3

from everloop.core.digest import Digest, content_digest
from everloop.core.errors import EverloopError, InvalidInput, MissingExtra, NotFound, Unavailable
from everloop.core.ports import StoredBlob
from everloop.storage.incoming import FileIncoming, through_a_file
from everloop.storage.localfs import CHUNK_BYTES, corrupt, not_found, open_source

try:
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
    from obstore.store import S3Store
except ImportError as missing:
    raise MissingExtra(
        "extra.missing",
        "S3 needs the library obstore, which is not installed.",
        hint='Install it with: pip install "everloop[s3]"',
    ) from missing

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

SINGLE_PUT_BYTES = 16 << 20
PART_BYTES = 8 << 20
PUTS_AT_ONCE = 16
REQUEST_TIMEOUT = "120s"
RENEWED_AFTER = timedelta(hours=1)
PROBE = "everloop-create-only-probe"
RETRY: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}
# The library reports some answers by its own errors and some by the system's.
_ABSENT = (NotFoundError, FileNotFoundError)
_FAILED = (BaseError, OSError)
_NAME = re.compile(r"blake3:[0-9a-f]{64}")


class S3BlobStore:
    """A blob store in a bucket, or under a prefix of one."""

    def __init__(self, url: str, options: Mapping[str, str] | None = None) -> None:
        """Open the store and probe that the server honours create-only puts.

        Args:
            url: ``s3://bucket`` or ``s3://bucket/prefix``.
            options: Settings such as ``endpoint``, ``region`` or ``access_key_id``; what is left
                out comes from the environment (``AWS_...``).

        Raises:
            InvalidInput: ``blobs.unknown`` for another address; ``blobs.no_create_only`` when the
                server overwrites what it was told to keep.
            Unavailable: ``blob.unavailable``.
        """
        if not url.startswith("s3://") or url == "s3://":
            raise InvalidInput(
                "blobs.unknown",
                "This is not the address of a bucket.",
                hint="Write s3://bucket or s3://bucket/prefix.",
            )
        try:
            self._store = S3Store.from_url(
                url,
                config=cast("S3Config", dict(options or {})),
                client_options=_client_options(options or {}),
                retry_config=RETRY,
            )
            self._probe()
        except _FAILED as error:
            raise _explain(error) from error

    def put(self, data: bytes) -> Digest:
        """Store bytes; return their digest.

        Raises:
            Unavailable: ``blob.unavailable``.
        """
        digest = content_digest(data)
        if len(data) > SINGLE_PUT_BYTES:
            view = memoryview(data)
            pieces = (bytes(view[at : at + PART_BYTES]) for at in range(0, len(data), PART_BYTES))
            self._put_parts(digest, pieces, len(data))
        else:
            self._put_whole(digest, data)
        return digest

    def put_file(self, path: Path, *, move: bool = False, least_rate: float = 0.0) -> Digest:
        """Store a file's bytes without holding them in memory.

        Raises:
            NotFound: ``file.not_found``.
            InvalidInput: ``file.changed`` when it changes while it is read.
            Unavailable: ``blob.unavailable``; ``blob.too_slow`` for any least rate, since
                nobody knows how far away the store is.
        """
        if least_rate:
            raise Unavailable(
                "blob.too_slow",
                "An object store may be far away.",
                hint="Nothing is to be done: the file is shipped in the background.",
            )
        with open_source(path) as file:
            hasher = blake3()
            while chunk := file.read(CHUNK_BYTES):
                hasher.update(chunk)
            digest, size = Digest("blake3:" + hasher.hexdigest()), file.tell()
            file.seek(0)
            if size > SINGLE_PUT_BYTES:
                self._put_parts(digest, iter(lambda: file.read(PART_BYTES), b""), size)
                return digest
            data = file.read()
        if content_digest(data) != digest:
            raise _changed()
        self._put_whole(digest, data)
        return digest

    def put_many(self, items: Sequence[bytes]) -> list[Digest]:
        """Store several bytes side by side; return their digests in order.

        Raises:
            Unavailable: ``blob.unavailable``.
        """
        with ThreadPoolExecutor(PUTS_AT_ONCE) as pool:
            return list(pool.map(self.put, items))

    def incoming(self) -> AbstractContextManager[FileIncoming]:
        """Open a blob whose bytes come in pieces."""
        return through_a_file(self.put_file)

    def get(self, digest: Digest) -> bytes:
        """Return the bytes.

        Raises:
            NotFound: ``blob.not_found``.
            IntegrityError: ``blob.corrupt``.
        """
        key = _key(digest)
        try:
            data = bytes(obstore.get(self._store, key).bytes())
        except _ABSENT as error:
            raise not_found(digest) from error
        except _FAILED as error:
            raise _explain(error) from error
        if content_digest(data) != digest:
            raise corrupt(digest)
        return data

    def stream(self, digest: Digest) -> Iterator[bytes]:
        """Yield the bytes in pieces; raises as ``get``, a mismatch after the last piece."""
        key = _key(digest)
        hasher = blake3()
        try:
            for piece in obstore.get(self._store, key).stream(min_chunk_size=CHUNK_BYTES):
                data = bytes(piece)
                hasher.update(data)
                yield data
        except _ABSENT as error:
            raise not_found(digest) from error
        except _FAILED as error:
            raise _explain(error) from error
        if f"blake3:{hasher.hexdigest()}" != digest:
            raise corrupt(digest)

    def size(self, digest: Digest) -> int | None:
        """Return the size in bytes, or None when absent."""
        found = self.find(digest)
        return None if found is None else found.size_bytes

    def find(self, digest: Digest) -> StoredBlob | None:
        """Return size and age of the bytes, or None when absent."""
        try:
            state = obstore.head(self._store, _key(digest))
        except (*_ABSENT, NotFound):
            return None
        except _FAILED as error:
            raise _explain(error) from error
        return StoredBlob(digest, int(state["size"]), state["last_modified"].astimezone(UTC))

    def stored(self) -> Iterator[StoredBlob]:
        """Yield everything that is stored."""
        try:
            for page in obstore.list(self._store, prefix="blake3"):
                for item in page:
                    digest = "blake3:" + item["path"].removeprefix("blake3/").replace("/", "")
                    if _NAME.fullmatch(digest):
                        at = item["last_modified"].astimezone(UTC)
                        yield StoredBlob(Digest(digest), int(item["size"]), at)
        except _FAILED as error:
            raise _explain(error) from error

    def digests(self) -> Iterator[Digest]:
        """Yield every stored digest."""
        return (found.digest for found in self.stored())

    def delete(self, digest: Digest) -> bool:
        """Remove the bytes; return whether they were there."""
        if self.size(digest) is None:
            return False
        try:
            obstore.delete(self._store, _key(digest))
        except _FAILED as error:
            raise _explain(error) from error
        return True

    def _put_whole(self, digest: Digest, data: bytes) -> None:
        try:
            obstore.put(self._store, _key(digest), data, mode="create")
        except AlreadyExistsError:
            if self._is_old(digest):
                self._renew(digest, data)
        except _FAILED as error:
            raise _explain(error) from error

    def _is_old(self, digest: Digest) -> bool:
        found = self.find(digest)
        return found is None or datetime.now(UTC) - found.at > RENEWED_AFTER

    def _renew(self, digest: Digest, data: bytes) -> None:
        # What was put long ago and is named by nothing may be collected at any time. The object
        # gets the same bytes again, and with them a new time; S3 has no other way to touch one.
        try:
            obstore.put(self._store, _key(digest), data, mode="overwrite")
        except _FAILED as error:
            raise _explain(error) from error

    def _put_parts(self, digest: Digest, pieces: Iterator[bytes], size: int) -> None:
        # S3 has no condition for this on all servers. Nothing is lost: under a digest's name only
        # bytes with that digest are ever completed, for the pieces are checked on their way.
        if self.size(digest) == size and not self._is_old(digest):
            return
        try:
            obstore.put(
                self._store,
                _key(digest),
                _checked(pieces, digest),
                use_multipart=True,
                chunk_size=PART_BYTES,
            )
        except EverloopError:
            raise
        except _FAILED as error:
            raise _explain(error) from error

    def _probe(self) -> None:
        # The object stays: the next start needs one request only.
        for _ in range(2):
            try:
                obstore.put(self._store, PROBE, b"", mode="create")
            except AlreadyExistsError:
                return
        raise InvalidInput(
            "blobs.no_create_only",
            "This server overwrites objects that it was asked to keep.",
            hint="Use S3 itself or a server that honours If-None-Match, such as MinIO.",
        )


def _checked(pieces: Iterator[bytes], digest: Digest) -> Iterator[bytes]:
    hasher = blake3()
    for piece in pieces:
        hasher.update(piece)
        yield piece
    if f"blake3:{hasher.hexdigest()}" != digest:
        raise _changed()  # before the upload is completed, which aborts it


def _key(digest: Digest) -> str:
    if _NAME.fullmatch(digest) is None:
        raise not_found(digest)
    digits = digest.partition(":")[2]
    return f"blake3/{digits[:2]}/{digits[2:]}"


def _client_options(options: Mapping[str, str]) -> ClientConfig:
    chosen: ClientConfig = {"timeout": REQUEST_TIMEOUT}
    if options.get("endpoint", "").startswith("http://"):
        chosen["allow_http"] = True  # said in full; from the environment it is AWS_ALLOW_HTTP
    return chosen


def _changed() -> InvalidInput:
    return InvalidInput(
        "file.changed",
        "The file changed while it was stored.",
        hint="Store it when nobody writes to it, or copy it first.",
    )


def _explain(error: Exception) -> Unavailable:
    return Unavailable(
        "blob.unavailable",
        f"The bucket can't be used: {str(error).partition(chr(10))[0][:200]}.",
        hint="Check its address, the credentials and their rights, then try again.",
    )
