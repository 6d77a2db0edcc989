"""Bytes in and out: streamed to disk, checked against the digest in the address."""

from __future__ import annotations

import tempfile
from pathlib import Path

from blake3 import blake3
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from everloop.core.digest import Digest, parse_digest
from everloop.core.errors import EverloopError, InvalidInput, LimitExceeded, NotFound
from everloop.http.auth import caller_of
from everloop.http.errors import error_response, json_response
from everloop.kernel.blobs import GetBlob, PutBlob
from everloop.kernel.perform import Call, Kernel

PATH = "/api/v1/projects/{project}/blobs/{digest}"
MAX_BLOB_BYTES = 64 * 1024**3


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
            await run_in_threadpool(_admit, kernel, request, "blob.get", GetBlob(digest=digest))
            size = kernel.services.blobs.size(digest)
            if size is None:
                raise NotFound(
                    "blob.not_found",
                    f"No bytes are stored under {digest}.",
                    hint="Put them first.",
                )
        except EverloopError as error:
            return error_response(error)
        # Never shown by a browser: bytes of users have no origin here.
        headers = {
            "content-length": str(size),
            "content-disposition": "attachment",
            "content-security-policy": "sandbox; default-src 'none'",
        }
        stream = kernel.services.blobs.stream(digest)
        return StreamingResponse(stream, media_type="application/octet-stream", headers=headers)

    return [
        Route(PATH, put, methods=["PUT"], name="blob.put"),
        Route(PATH, get, methods=["GET"], name="blob.get"),
    ]


def _admit(kernel: Kernel, request: Request, verb: str, ask: PutBlob | GetBlob) -> None:
    kernel.perform(
        Call(
            verb=verb,
            caller=caller_of(request, kernel),
            ask=ask,
            project=request.path_params["project"],
        )
    )


async def _receive(kernel: Kernel, request: Request, expected: Digest) -> None:
    hasher = blake3()
    with tempfile.TemporaryDirectory(prefix="everloop-") as folder:
        path = Path(folder) / "body"
        seen = 0
        with path.open("wb") as file:
            async for piece in request.stream():
                seen += len(piece)
                if seen > MAX_BLOB_BYTES:
                    raise LimitExceeded(
                        "blob.too_large",
                        f"More than {MAX_BLOB_BYTES:,} bytes.",
                        hint="Split the file.",
                    )
                hasher.update(piece)
                file.write(piece)
        digest = f"blake3:{hasher.hexdigest()}"
        if digest != expected:
            raise InvalidInput(
                "blob.wrong_digest",
                f"The bytes sent have the digest {digest}.",
                hint="Send the bytes that the address names.",
            )
        await run_in_threadpool(kernel.services.blobs.put_file, path)
