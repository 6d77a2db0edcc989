"""The control plane's web application: API routes, further routes given, and the guard around."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from everloop.core.errors import EverloopError, InvalidInput, NotFound, Unavailable
from everloop.http.blobs import blob_routes
from everloop.http.errors import error_response, json_response
from everloop.http.guard import App, Front, Guard
from everloop.http.openapi import openapi_document
from everloop.http.routes import verb_routes
from everloop.kernel.perform import Kernel

_LOG = logging.getLogger("everloop.http")


def create_app(
    kernel: Kernel,
    *,
    version: str,
    hosts: frozenset[str],
    pages: Sequence[BaseRoute] = (),
    front: Sequence[Front] = (),
) -> App:
    """Return the ASGI application.

    Args:
        kernel: Performs the verbs.
        version: The product's version.
        hosts: Values of the Host header to answer to.
        pages: Further routes (the web pages), which bring their own authentication.
        front: Applications with addresses of their own, which are asked before the routes.
    """

    @cache
    def described() -> bytes:
        return msgspec.json.encode(openapi_document(version))

    async def health(request: Request) -> Response:
        del request
        return json_response({"status": "ok", "version": version})

    async def openapi(request: Request) -> Response:
        del request
        return Response(described(), media_type="application/json")

    app = Starlette(
        routes=[
            Route("/healthz", health, methods=["GET"], name="health"),
            Route("/api/v1/openapi.json", openapi, methods=["GET"], name="openapi"),
            *verb_routes(kernel),
            *blob_routes(kernel),
            *pages,
        ],
        exception_handlers={
            EverloopError: _expected,
            HTTPException: _routing,
            Exception: _unexpected,
        },
    )
    return Guard(app, hosts=hosts, unlimited="/api/v1/", front=front)


async def _expected(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, EverloopError)
    return error_response(error)


async def _routing(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        wrong = InvalidInput(
            "route.wrong_method",
            "This address does not take that method.",
            hint="Changes are POST, questions GET; see /api/v1/openapi.json.",
        )
        answer = error_response(wrong)
        answer.status_code = 405
        answer.headers.update(error.headers or {})
        return answer
    return error_response(
        NotFound(
            "route.not_found",
            "There is nothing at this address.",
            hint="/api/v1/openapi.json lists every route.",
        )
    )


async def _unexpected(request: Request, error: Exception) -> Response:
    _LOG.error("unexpected error on %s %s", request.method, request.url.path, exc_info=error)
    broken = error_response(
        Unavailable(
            "server.error",
            "Something went wrong inside the server.",
            hint="The server's log has the details; please report it.",
        )
    )
    broken.status_code = 500
    return broken
