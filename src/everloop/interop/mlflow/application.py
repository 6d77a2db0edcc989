"""The ASGI application of MLflow's REST interface, made to stand in front of the other routes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import unquote

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from everloop.core.errors import EverloopError
from everloop.core.ids import Id
from everloop.interop.mlflow import (
    artifacts,
    experiments,
    logged_models,
    metrics,
    model_history,
    model_versions,
    multipart,
    registered_models,
    runs,
    traces,
)
from everloop.interop.mlflow.errors import error_response, refusal
from everloop.interop.mlflow.information import OPEN
from everloop.interop.mlflow.reading import read_body, read_query
from everloop.interop.mlflow.routing import Context, Handler, Nothing, Route, Router
from everloop.kernel.performer import Performer
from everloop.kernel.transit import WHOLE_BYTES

_LOG = logging.getLogger("everloop.mlflow")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
PerformerFor = Callable[[Request], Performer]
PROJECT_PREFIX = "/p/"
PREFIXES = ("/api/2.0/", "/api/3.0/", "/ajax-api/", "/api/2.0mlflow/")
_ROOTS = {"/health": "health", "/version": "version", "/v1/traces": "v1/traces"}
MODULES = (
    experiments,
    runs,
    metrics,
    model_history,
    artifacts,
    multipart,
    logged_models,
    registered_models,
    model_versions,
    traces,
)


def make_mlflow_app(performer_for: PerformerFor, new_id: Callable[[], Id]) -> MlflowApp:
    """Return the application.

    Args:
        new_id: Makes the ids that a client does not make itself.
        performer_for: Authenticates a request and returns the performer of its caller, in the
            project that ``request.scope["everloop.project"]`` names, if any.
    """
    routes = (route for module in MODULES for route in module.ROUTES)
    return MlflowApp(performer_for, new_id, Router(routes))


class MlflowApp:
    """Answers MLflow's addresses, at the root and below ``/p/<project>/``; knows which are its."""

    def __init__(
        self, performer_for: PerformerFor, new_id: Callable[[], Id], router: Router
    ) -> None:
        self._performer_for = performer_for
        self._new_id = new_id
        self._router = router

    def claims(self, path: str) -> bool:
        """Tell whether an address belongs to MLflow's interface."""
        if path.startswith(PROJECT_PREFIX):
            path = _split_project(path)[1]
        return path.startswith(PREFIXES) or path in _ROOTS

    def takes_upload(self, method: str, path: str) -> bool:
        """Tell whether a request brings a file, whose size its handler bounds itself."""
        return method == "PUT" and "/mlflow-artifacts/" in path and self.claims(path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._answer(scope, receive)
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        path = scope["path"]
        if path.startswith(PROJECT_PREFIX):
            scope["everloop.project"], path = _split_project(path)
        below = _below_api(path)
        if below in OPEN and scope["method"] == "GET":
            return OPEN[below]()
        found = self._router.find(scope["method"], below)
        if found is None:
            return refusal(
                404, "ENDPOINT_NOT_FOUND", f"Everloop has no {scope['method']} {path[:200]}."
            )
        route, parts = found
        request = Request(scope, receive)
        try:
            if route.whole is not None and _is_small(request):
                body = await request.body()
                answer = await run_in_threadpool(self._take, route.whole, parts, request, body)
            elif route.is_async:
                performer = await run_in_threadpool(self._performer_for, request)
                body = b"" if route.ask is Nothing else await request.body()
                answer = await route.handler(
                    Context(performer, parts, request, self._new_id), _read(route, request, body)
                )
            else:
                body = await request.body()
                answer = await run_in_threadpool(self._perform, route, parts, request, body)
        except EverloopError as error:
            return error_response(error)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:  # noqa: BLE001 -- the edge: an answer instead of a trace
            _LOG.error("unexpected error on %s", path, exc_info=error)
            return refusal(500, "INTERNAL_ERROR", "Something went wrong inside the server.")
        if isinstance(answer, Response):
            return answer
        return Response(msgspec.json.encode(answer), media_type="application/json")

    def _take(
        self, handler: Handler, parts: Mapping[str, str], request: Request, body: bytes
    ) -> object:
        return handler(Context(self._performer_for(request), parts, request, self._new_id), body)

    def _perform(
        self, route: Route, parts: Mapping[str, str], request: Request, body: bytes
    ) -> object:
        # Who calls comes first: an anonymous caller learns nothing from how input is judged.
        performer = self._performer_for(request)
        return route.handler(
            Context(performer, parts, request, self._new_id), _read(route, request, body)
        )


def _is_small(request: Request) -> bool:
    length = request.headers.get("content-length", "")
    return length.isdigit() and int(length) <= WHOLE_BYTES


def _read(route: Route, request: Request, body: bytes) -> msgspec.Struct:
    if request.method == "GET" or not body:
        return read_query(request.query_params.multi_items(), route.ask)
    return read_body(body, route.ask)


def _split_project(path: str) -> tuple[str, str]:
    project, _, rest = path[len(PROJECT_PREFIX) :].partition("/")
    return unquote(project), "/" + rest


def _below_api(path: str) -> str:
    if path in _ROOTS:
        return _ROOTS[path]
    return path.removeprefix("/ajax-api/").removeprefix("/api/").rstrip("/")
