"""Calls the web application in process, as a client on loopback would."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import httpx

from everloop.http.guard import App

HOST = "127.0.0.1"


class LoopbackClient:
    """A client of an ASGI application; one event loop for all its requests.

    Attributes:
        token: A secret for the tests that need one.
    """

    token = ""

    def __init__(self, app: App) -> None:
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app, raise_app_exceptions=False),
            base_url=f"http://{HOST}",
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: httpx.QueryParams | Mapping[str, str] | None = None,
        json: object = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        """Send one request."""
        return self._runner.run(
            self._client.request(
                method, path, headers=headers, params=params, json=json, content=content
            )
        )

    def get(self, path: str, **options: Mapping[str, str]) -> httpx.Response:
        """Send a GET."""
        return self.request(
            "GET", path, headers=options.get("headers"), params=options.get("params")
        )

    def post(
        self, path: str, *, json: object = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send a POST."""
        return self.request("POST", path, json=json, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()
