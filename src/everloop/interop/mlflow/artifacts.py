"""Files over MLflow's REST interface: streamed to disk while they are hashed, and out again."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator, Mapping
from itertools import chain

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from everloop.interop.mlflow.logged_models import model_place
from everloop.interop.mlflow.model_versions import version_place
from everloop.interop.mlflow.places import Place, run_place
from everloop.interop.mlflow.routing import Context, Json, Nothing, Route
from everloop.interop.mlflow.traces import trace_place
from everloop.interop.mlflow.words import artifact_uri
from everloop.kernel.transit import loan_of, send_lent, take_in
from everloop.track.queries import RunDetails, ShowRun

PIECES_BEFORE_ANSWER = 4
_ROOT = "2.0/mlflow-artifacts/artifacts"


class ListFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Query of the list of files."""

    path: str = ""


class ListRunFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Query of ``artifacts/list``."""

    run_id: str = ""
    run_uuid: str = ""
    path: str = ""
    page_token: str = ""


def find_place(context: Context, address: str) -> tuple[Place, str]:
    """Return the owner of an address below ``mlflow-artifacts:/`` and the path within it.

    Raises:
        InvalidInput: ``artifact.address_invalid``.
    """
    parts = address.strip("/").split("/")
    if parts[0] == "registry":
        return version_place(context, parts)
    if len(parts) > 1 and parts[1] == "models":
        return model_place(context, parts)
    if len(parts) > 1 and parts[1] == "traces":
        return trace_place(context, parts)
    return run_place(context, parts)


def list_files(context: Context, ask: ListFiles) -> Json:
    """List what lies directly within a folder."""
    place, path = find_place(context, ask.path)
    return {"files": place.files(path)}


def list_run_files(context: Context, ask: ListRunFiles) -> Json:
    """List a folder of a run, with paths from the run's top."""
    run = context.perform("run.show", ShowRun(run=ask.run_id or ask.run_uuid), RunDetails).run
    place, _ = find_place(context, f"{run.experiment}/{run.id}/artifacts")
    inside = f"{ask.path.strip('/')}/" if ask.path.strip("/") else ""
    found = [{**file, "path": inside + file["path"]} for file in place.files(inside.rstrip("/"))]
    return {"root_uri": artifact_uri(run.experiment, run.id), "files": found}


async def get_file(context: Context, ask: Nothing) -> Response:
    """Give a file out, and never the last of bytes that are not what was stored."""
    del ask

    def find() -> tuple[list[bytes], Iterator[bytes], int, str]:
        place, path = find_place(context, context.path["address"])
        digest, size = place.find(path)
        stream = context.performer.blobs.stream(digest)
        return _read_begin(stream), stream, size, path

    begin, stream, size, path = await run_in_threadpool(find)
    # Never shown by a browser: bytes of users have no origin here.
    headers = {
        "content-length": str(size),
        "content-disposition": "attachment",
        "content-security-policy": "sandbox; default-src 'none'",
    }
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    if len(begin) < PIECES_BEFORE_ANSWER:
        return Response(b"".join(begin), media_type=kind, headers=headers)
    return _Outgoing(hold_last(begin, stream), media_type=kind, headers=headers)


class _Outgoing(StreamingResponse):
    """Bytes that go out past the event loop where the connection lends its socket."""

    def __init__(
        self, pieces: Iterator[bytes], *, media_type: str, headers: Mapping[str, str]
    ) -> None:
        super().__init__(pieces, media_type=media_type, headers=headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await send_lent(scope, send, self.raw_headers, self._pieces):
            await super().__call__(scope, receive, send)


def _read_begin(stream: Iterator[bytes]) -> list[bytes]:
    """Return the first pieces; a small file is whole, and verified, before anything is answered.

    Raises:
        IntegrityError: ``blob.corrupt``.
        NotFound: ``blob.not_found``.
    """
    begin: list[bytes] = []
    for piece in stream:
        begin.append(piece)
        if len(begin) == PIECES_BEFORE_ANSWER:
            break
    return begin


def hold_last(begin: list[bytes], rest: Iterator[bytes]) -> Iterator[bytes]:
    """Yield pieces, the last one only when all of them proved to be what was stored.

    Of bytes that are not, the end never comes, and the client finds its file too short.

    Raises:
        IntegrityError: ``blob.corrupt``.
    """
    held: bytes | None = None
    for piece in chain(begin, rest):
        if held is not None:
            yield held
        held = piece
    if held is not None:
        yield held


async def put_file(context: Context, ask: Nothing) -> Response:
    """Take a file in."""
    del ask
    address = context.path["address"]

    def admit() -> tuple[Place, str]:
        place, path = find_place(context, address)
        place.admit(path)
        return place, path

    place, path = await run_in_threadpool(admit)
    request = context.request
    digest, size = await take_in(
        context.performer.blobs, request.stream(), loan=loan_of(request.scope)
    )
    await run_in_threadpool(place.add, path, digest, size)
    return JSONResponse({})


def put_small_file(context: Context, data: bytes) -> Json:
    """Take a file in whose bytes came whole: all of it in one thread."""
    place, path = find_place(context, context.path["address"])
    place.admit(path)
    place.add(path, context.performer.blobs.put(data), len(data))
    return {}


def delete_file(context: Context, ask: Nothing) -> Json:
    """Remove a file or a folder."""
    del ask
    place, path = find_place(context, context.path["address"])
    place.drop(path)
    return {}


ROUTES = (
    Route("GET", _ROOT, list_files),
    Route("GET", f"{_ROOT}/{{address:path}}", get_file),
    Route("PUT", f"{_ROOT}/{{address:path}}", put_file, whole=put_small_file),
    Route("DELETE", f"{_ROOT}/{{address:path}}", delete_file),
    Route("GET", "2.0/mlflow/artifacts/list", list_run_files),
)
