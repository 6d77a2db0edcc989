"""Bytes in and out: streamed to disk, checked against the digest in the address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from everloop.core.digest import Digest, content_digest, parse_digest
from everloop.core.errors import EverloopError, InvalidInput, LimitExceeded, NotFound
from everloop.http.auth import caller_of
from everloop.http.errors import error_response, json_response
from everloop.kernel.blobs import BlobState, GetBlob, KeepBlobs, PutBlob
from everloop.kernel.holdings import ProjectBlobs
from everloop.kernel.perform import Call, Kernel
from everloop.kernel.transit import loan_of, send_lent, take_in

PATH = "/api/v1/projects/{project}/blobs/{digest}"
STREAM_PATH = "/api/v1/projects/{project}/blobs:stream"
BATCH_PATH = "/api/v1/projects/{project}/blobs:batch"
MAX_BATCH_BYTES = 64 * 1024**2
MAX_BATCH_ITEMS = 20_000
_Batch = Annotated[list[bytes], msgspec.Meta(max_length=MAX_BATCH_ITEMS)]
ANY_BLOB = PutBlob(digest=content_digest(b""))


def blob_routes(kernel: Kernel) -> list[Route]:
    """Return the routes for putting and getting bytes."""

    async def put(request: Request) -> Response:
        try:
            digest = parse_digest(request.path_params["digest"])
            await run_in_threadpool(_admit, kernel, request, "blob.put", PutBlob(digest=digest))
            await _receive(kernel, request, digest)
        except EverloopError as error:
            return error_response(error)
        return json_response({"digest": digest}, status=201)

    async def get(request: Request) -> Response:
        try:
            digest = parse_digest(request.path_params["digest"])
            state = await run_in_threadpool(
                _admit, kernel, request, "blob.get", GetBlob(digest=digest)
            )
            if state.size_bytes is None:
                raise NotFound(
                    "blob.not_found",
                    f"No bytes are stored under {digest}.",
                    hint="Put them first.",
                )
        except EverloopError as error:
            return error_response(error)
        # Never shown by a browser: bytes of users have no origin here.
        headers = {
            "content-length": str(state.size_bytes),
            "content-disposition": "attachment",
            "content-security-policy": "sandbox; default-src 'none'",
        }
        return _Lent(kernel.services.blobs.stream(digest), headers)

    async def put_stream(request: Request) -> Response:
        try:
            await run_in_threadpool(_admit, kernel, request, "blob.put", ANY_BLOB)
            digest = await _receive(kernel, request, None)
        except EverloopError as error:
            return error_response(error)
        return json_response({"digest": digest}, status=201)

    async def put_many(request: Request) -> Response:
        try:
            await run_in_threadpool(_admit, kernel, request, "blob.put", ANY_BLOB)
            body = await _read_small(request)
            digests = await run_in_threadpool(_store_all, kernel, request, body)
        except EverloopError as error:
            return error_response(error)
        return json_response({"digests": digests}, status=201)

    return [
        Route(STREAM_PATH, put_stream, methods=["POST"], name="blob.put_stream"),
        Route(BATCH_PATH, put_many, methods=["POST"], name="blob.put_many"),
        Route(PATH, put, methods=["PUT"], name="blob.put"),
        Route(PATH, get, methods=["GET"], name="blob.get"),
    ]


class _Lent(StreamingResponse):
    """Bytes that go out past the event loop where the connection lends its socket."""

    def __init__(self, pieces: Iterator[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(pieces, media_type="application/octet-stream", headers=headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await send_lent(scope, send, self.raw_headers, self._pieces):
            await super().__call__(scope, receive, send)


def _admit(kernel: Kernel, request: Request, verb: str, ask: PutBlob | GetBlob) -> BlobState:
    state = _perform(kernel, request, verb, ask)
    assert isinstance(state, BlobState)
    return state


def _perform(kernel: Kernel, request: Request, verb: str, ask: msgspec.Struct) -> msgspec.Struct:
    return kernel.perform(
        Call(
            verb=verb,
            caller=caller_of(request, kernel),
            ask=ask,
            project=request.path_params["project"],
        )
    )


def _own(kernel: Kernel, request: Request) -> ProjectBlobs:
    return kernel.blobs_of(request.path_params["project"])


def _keep(kernel: Kernel, request: Request, blobs: ProjectBlobs, digests: list[Digest]) -> None:
    """Write down whose they are before the answer: the next request may reach another process."""
    fresh = tuple(dict.fromkeys(digest for digest in digests if blobs.is_unwritten(digest)))
    if fresh:
        _perform(kernel, request, "blob.keep", KeepBlobs(digests=fresh))


async def _receive(kernel: Kernel, request: Request, expected: Digest | None) -> Digest:
    blobs, loan = await run_in_threadpool(_own, kernel, request), loan_of(request.scope)
    try:
        digest, _ = await take_in(blobs, request.stream(), loan=loan, expected=expected)
    except ClientDisconnect as gone:
        raise InvalidInput(
            "blob.cut_short",
            "The connection ended before the bytes did; nothing was stored.",
            hint="Send them again.",
        ) from gone
    await run_in_threadpool(_keep, kernel, request, blobs, [digest])
    return digest


async def _read_small(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BATCH_BYTES:
            raise LimitExceeded(
                "blob.too_large",
                f"More than {MAX_BATCH_BYTES:,} bytes in one batch.",
                hint="Send fewer blobs at a time, and large ones by themselves.",
            )
    return bytes(body)


def _store_all(kernel: Kernel, request: Request, body: bytes) -> list[Digest]:
    try:
        items = msgspec.msgpack.decode(body, type=_Batch)
    except msgspec.DecodeError as error:
        raise InvalidInput(
            "blob.batch_invalid",
            f"The batch can't be read: {error}.",
            hint=f"Send a MessagePack array of at most {MAX_BATCH_ITEMS:,} binaries.",
        ) from error
    blobs = _own(kernel, request)
    digests = blobs.put_many(items)
    _keep(kernel, request, blobs, digests)
    return digests
