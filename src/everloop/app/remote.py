"""Verbs over HTTP: the same Performer as in process, with the same typed errors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TypeVar, cast
from urllib.parse import quote

import httpx
import msgspec
from blake3 import blake3

from everloop.app.transfer import Refused, fetch, send_file
from everloop.app.verbs import load_verbs
from everloop.core import errors
from everloop.core.digest import Digest, content_digest
from everloop.core.errors import EverloopError, IntegrityError, JsonValue, Unavailable
from everloop.core.ports import StoredBlob
from everloop.http.blobs import BATCH_PATH, STREAM_PATH
from everloop.http.errors import ErrorAnswer
from everloop.http.parameters import to_parameters
from everloop.http.routes import verb_path
from everloop.kernel.verbs import find_verb
from everloop.storage.incoming import FileIncoming, through_a_file

A = TypeVar("A", bound=msgspec.Struct)
TIMEOUT_S = 60.0
CHUNK_BYTES = 1024 * 1024
MAX_BATCHED_BYTES = 64 * 1024
BATCH_BYTES = 16 * 1024 * 1024
BATCH_ITEMS = 10_000
_KINDS: dict[int, type[EverloopError]] = {
    400: errors.InvalidInput,
    401: errors.NotAuthenticated,
    403: errors.Denied,
    404: errors.NotFound,
    405: errors.InvalidInput,
    409: errors.Conflict,
    413: errors.LimitExceeded,
    422: errors.GateFailed,
    429: errors.LimitExceeded,
    503: errors.Unavailable,
}


class _Line:
    """Connections to a server, those of this process alone.

    Two processes that share a socket after a fork would read each other's answers.
    """

    def __init__(self, url: str, token: str) -> None:
        self._open = partial(
            httpx.Client,
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=TIMEOUT_S,
            trust_env=False,
        )
        self._http = self._open()
        self._owner = os.getpid()
        self._abandoned: list[httpx.Client] = []

    @property
    def http(self) -> httpx.Client:
        """The client of this process."""
        if self._owner != os.getpid():
            self._abandoned.append(self._http)  # the parent's; not even to be closed from here
            self._http, self._owner = self._open(), os.getpid()
        return self._http


class HttpPerformer:
    """Performs verbs on a server; thread-safe."""

    def __init__(self, url: str, token: str, project: str) -> None:
        load_verbs()
        self._project = project
        self._line = _Line(url, token)
        self._blobs = HttpBlobStore(self._line, project)

    @property
    def project(self) -> str:
        """Name of the project."""
        return self._project

    @property
    def blobs(self) -> HttpBlobStore:
        """The server's blob store."""
        return self._blobs

    def perform(
        self,
        verb: str,
        ask: msgspec.Struct,
        answer: type[A],
        *,
        request: str | None = None,
        reason: str | None = None,
    ) -> A:
        """Perform a verb and return its answer.

        Raises:
            EverloopError: what the verb raises on the server.
            Unavailable: ``server.unreachable``.
        """
        declared = find_verb(verb)
        if declared is None:
            raise errors.NotFound(
                "verb.not_found", f"There is no verb {verb!r}.", hint="Update this client."
            )
        path = verb_path(declared).replace("{project}", quote(self._project, safe=""))
        if declared.is_query:
            given = to_parameters(msgspec.to_builtins(ask))
            response = _send(self._line.http, "GET", path, params=given)
        else:
            headers = {
                "Idempotency-Key": request,
                "X-Everloop-Reason": None if reason is None else quote(reason, safe=" "),
            }
            sent = {name: value for name, value in headers.items() if value is not None}
            response = _send(
                self._line.http, "POST", path, content=msgspec.json.encode(ask), headers=sent
            )
        return msgspec.json.decode(response.content, type=answer)

    def close(self) -> None:
        """Close the connections."""
        self._line.http.close()


class HttpBlobStore:
    """Bytes on a server; verified on both sides."""

    def __init__(self, line: _Line, project: str) -> None:
        self._line = line
        self._project = project
        self.sent_bytes = 0  # of files, so that who waits sees that one moves

    def put(self, data: bytes) -> Digest:
        """Store bytes; return their digest."""
        digest = content_digest(data)
        _send(self._line.http, "PUT", self._path(digest), content=data)
        return digest

    def put_file(self, path: Path, *, move: bool = False, least_rate: float = 0.0) -> Digest:
        """Store a file's bytes, read once, without holding them in memory.

        Raises:
            IntegrityError: ``blob.corrupt`` when something else arrived.
            Unavailable: ``server.unreachable`` or ``blob.too_slow``.
        """
        url = STREAM_PATH.replace("{project}", quote(self._project, safe=""))
        sent = send_file(
            self._address(url), path, self._token(), least_rate=least_rate, moved=self._moved
        )
        if sent.status >= 400:
            raise _error_of(httpx.Response(sent.status, content=sent.answer))
        found = msgspec.json.decode(sent.answer, type=_Stored).digest
        if found != sent.digest:
            raise IntegrityError(
                "blob.corrupt", f"What arrived of {path.name} is {found}.", hint="Try again."
            )
        return found

    def put_many(self, items: Sequence[bytes]) -> list[Digest]:
        """Store several bytes, the small ones in few requests; return their digests in order."""
        digests = [content_digest(data) for data in items]
        batch: list[bytes] = []
        for data in items:
            if len(data) > MAX_BATCHED_BYTES:
                self.put(data)
                continue
            if sum(map(len, batch)) + len(data) > BATCH_BYTES or len(batch) >= BATCH_ITEMS:
                self._send_batch(batch)
                batch = []
            batch.append(data)
        if batch:
            self._send_batch(batch)
        return digests

    def incoming(self) -> AbstractContextManager[FileIncoming]:
        """Open a blob whose bytes come in pieces."""
        return through_a_file(self.put_file)

    def get(self, digest: Digest) -> bytes:
        """Return the bytes.

        Raises:
            NotFound: ``blob.not_found``.
            IntegrityError: ``blob.corrupt``.
        """
        return b"".join(self.stream(digest))

    def stream(self, digest: Digest) -> Iterator[bytes]:
        """Yield the bytes in pieces and verify them at the end."""
        hasher = blake3()
        try:
            for piece in fetch(self._address(self._path(digest)), self._token()):
                hasher.update(piece)
                yield piece
        except Refused as refusal:
            raise _error_of(httpx.Response(refusal.status, content=refusal.answer)) from None
        if digest.startswith("blake3:") and digest != f"blake3:{hasher.hexdigest()}":
            raise IntegrityError(
                "blob.corrupt",
                f"The bytes received are not those of {digest}.",
                hint="Try again; if it stays, restore the blob store from a backup.",
            )

    def size(self, digest: Digest) -> int | None:
        """Return the size in bytes, or None when absent."""
        path = f"/api/v1/projects/{quote(self._project, safe='')}/blob.get"
        answer = _send(self._line.http, "GET", path, params={"digest": digest})
        found: int | None = msgspec.json.decode(answer.content)["size_bytes"]
        return found

    def find(self, digest: Digest) -> StoredBlob | None:
        """Refuse: a client learns whether bytes are there, not since when.

        Raises:
            InvalidInput: always.
        """
        raise errors.InvalidInput(
            "blob.not_listable",
            "A server does not tell the age of bytes.",
            hint="Ask its size.",
        )

    def stored(self) -> Iterable[StoredBlob]:
        """Refuse: a client may not list a server's bytes.

        Raises:
            InvalidInput: always.
        """
        return (found for found in [self.find(digest) for digest in self.digests()] if found)

    def digests(self) -> Iterable[Digest]:
        """Refuse: a client may not list a server's bytes.

        Raises:
            InvalidInput: always.
        """
        raise errors.InvalidInput(
            "blob.not_listable", "A server does not list its bytes.", hint="Name a digest."
        )

    def delete(self, digest: Digest) -> bool:
        """Refuse: bytes are deleted by verbs, where their dependants are known.

        Raises:
            InvalidInput: always.
        """
        raise errors.InvalidInput(
            "blob.not_deletable", f"{digest} can't be deleted from here.", hint="Use a verb."
        )

    def _send_batch(self, items: list[bytes]) -> None:
        path = BATCH_PATH.replace("{project}", quote(self._project, safe=""))
        _send(self._line.http, "POST", path, content=msgspec.msgpack.encode(items))

    def _moved(self, count: int) -> None:
        self.sent_bytes += count

    def _address(self, path: str) -> str:
        return str(self._line.http.base_url).rstrip("/") + path

    def _token(self) -> dict[str, str]:
        return {"authorization": self._line.http.headers["authorization"]}

    def _path(self, digest: Digest) -> str:
        return f"/api/v1/projects/{quote(self._project, safe='')}/blobs/{digest}"


class _Stored(msgspec.Struct):
    digest: Digest


def _unreachable(http: httpx.Client, error: Exception) -> Unavailable:
    return Unavailable(
        "server.unreachable",
        f"The server at {http.base_url} does not answer: {error}.",
        hint="Start it with `everloop up`, or check the address in EVERLOOP_URL.",
    )


def _send(http: httpx.Client, method: str, path: str, **options: object) -> httpx.Response:
    try:
        response = http.request(method, path, **options)  # type: ignore[arg-type]
    except httpx.TransportError as error:
        raise _unreachable(http, error) from error
    if response.is_error:
        raise _error_of(response)
    return response


def _error_of(response: httpx.Response) -> EverloopError:
    try:
        body = msgspec.json.decode(response.content, type=ErrorAnswer).error
    except msgspec.DecodeError:
        return Unavailable(
            "server.error",
            f"The server answered {response.status_code} without a reason.",
            hint="Check that the address is an Everloop server's.",
        )
    kind = getattr(errors, body.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, EverloopError)):
        kind = _KINDS.get(response.status_code, errors.Unavailable)
    context = cast("dict[str, JsonValue]", body.context)
    return kind(body.code, body.message, hint=body.hint, context=context)
