"""Large files in parts over MLflow's REST interface, with no state between the requests.

Each part is stored under its digest and answers with it as its ETag; who completes the upload
sends the tags back in their order, and they name the parts. Parts of uploads that nobody
completes are bytes that no record needs, which are collected like others.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import msgspec
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.responses import JSONResponse, Response

from everloop.core.digest import Digest
from everloop.core.errors import InvalidInput
from everloop.interop.mlflow.artifacts import find_place
from everloop.interop.mlflow.places import Place
from everloop.interop.mlflow.routing import Context, Json, Nothing, Route
from everloop.kernel.blobs import BlobState, KeepBlobs, KeptBlobs, PutBlob
from everloop.kernel.transit import loan_of, take_in

MAX_PARTS = 10_000
_NO_DIGEST = "blake3:" + "0" * 64
_ETAG = re.compile(r'"?(blake3:[0-9a-f]{64})"?')
_ROOT = "2.0/mlflow-artifacts/mpu"


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """Body of ``mpu/create``: the file's name at the client's, and how many parts."""

    path: str = ""
    num_parts: int = 1


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part that was put."""

    part_number: int
    etag: str = ""
    url: str = ""


class Complete(msgspec.Struct, frozen=True, kw_only=True):
    """Body of ``mpu/complete``."""

    path: str = ""
    upload_id: str = ""
    parts: tuple[Part, ...] = ()


def create(context: Context, ask: Create) -> Json:
    """Begin an upload: say where each part goes."""
    place, path = _target(context, ask.path)
    place.admit(path)
    if not 0 < ask.num_parts <= MAX_PARTS:
        raise InvalidInput(
            "artifact.parts_invalid",
            f"{ask.num_parts} parts are not possible.",
            hint=f"Cut the file into 1 to {MAX_PARTS} parts.",
        )
    upload = str(context.new_id())
    base = str(context.request.url).partition("/mlflow-artifacts/")[0]
    # A client puts the parts with nothing but these headers: it needs its own token there too.
    headers = {"Authorization": context.request.headers.get("authorization", "")}
    return {
        "upload_id": upload,
        "credentials": [
            {
                "url": f"{base}/mlflow-artifacts/mpu/part/{upload}/{number}",
                "part_number": number,
                "headers": headers,
            }
            for number in range(1, ask.num_parts + 1)
        ],
    }


async def put_part(context: Context, ask: Nothing) -> Response:
    """Take a part in; its ETag is its digest."""
    del ask
    may = PutBlob(digest=_NO_DIGEST)
    await run_in_threadpool(context.perform, "blob.put", may, BlobState)
    request = context.request
    digest, _ = await take_in(
        context.performer.blobs, request.stream(), loan=loan_of(request.scope)
    )
    kept = KeepBlobs(digests=(digest,))  # who completes may reach another process
    await run_in_threadpool(context.perform, "blob.keep", kept, KeptBlobs)
    return Response(headers={"ETag": f'"{digest}"'})


async def complete(context: Context, ask: Complete) -> Response:
    """Put the parts together in their order."""
    numbers = {part.part_number for part in ask.parts}
    if len(numbers) != len(ask.parts) or len(numbers) > MAX_PARTS:
        # A part that counts a thousand times is a thousand times as many bytes on the disk.
        raise InvalidInput(
            "artifact.parts_invalid",
            f"{len(ask.parts)} parts with {len(numbers)} numbers are not possible.",
            hint=f"Name each of at most {MAX_PARTS} parts once.",
        )
    parts = [_digest(part) for part in sorted(ask.parts, key=lambda part: part.part_number)]

    def admit() -> tuple[Place, str]:
        place, path = _target(context, ask.path)
        place.admit(path)
        return place, path

    place, path = await run_in_threadpool(admit)
    digest, size = await take_in(context.performer.blobs, _joined(context, parts))
    await run_in_threadpool(place.add, path, digest, size)
    return JSONResponse({})


async def _joined(context: Context, parts: list[Digest]) -> AsyncIterator[bytes]:
    for digest in parts:
        async for piece in iterate_in_threadpool(context.performer.blobs.stream(digest)):
            yield piece


def abort(context: Context, ask: Complete) -> Json:
    """End an upload without a file; nothing has to be undone."""
    del context, ask
    return {}


def _target(context: Context, local: str) -> tuple[Place, str]:
    name = local.replace("\\", "/").rpartition("/")[2]
    return find_place(context, f"{context.path['address']}/{name}")


def _digest(part: Part) -> Digest:
    match = _ETAG.fullmatch(part.etag)
    if match is None:
        raise InvalidInput(
            "artifact.parts_invalid",
            f"Part {part.part_number} has the ETag {part.etag[:80]!r}.",
            hint="Send the ETag that the server answered when the part was put.",
        )
    return Digest(match.group(1))


ROUTES = (
    Route("POST", f"{_ROOT}/create/{{address:path}}", create),
    Route("PUT", f"{_ROOT}/part/{{upload}}/{{number}}", put_part),
    Route("POST", f"{_ROOT}/complete/{{address:path}}", complete),
    Route("POST", f"{_ROOT}/abort/{{address:path}}", abort),
)
