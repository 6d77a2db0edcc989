"""The what-if page: a form made from the signature, the answer and its explanation while one types.

Its questions are no predictions: they go to the champion one row at a time, and neither the log nor
the monitoring ever sees them, since nothing in the world was decided by them.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec
import numpy as np

from everloop.core.errors import EverloopError, InvalidInput
from everloop.serve.bundle import LoadedBundle
from everloop.serve.decode import FloatArray
from everloop.serve.dispatch import Route
from everloop.serve.exchange import HTML, Answer, Reply, Request, require_json
from everloop.serve.explain import Explainer, constant_answers
from everloop.serve.protocol import Explanation
from everloop.serve.service import Service

_FOLDER: Final = Path(__file__).parents[1] / "static"
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
)


class _Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to one question."""

    version: str
    output: float | None = None
    outputs: dict[str, float] | None = None
    explanation: Explanation | None = None
    unexplained: str | None = None


def routes(service: Service, explainer: Explainer) -> list[Route]:
    """Return the page, what it is made of, and the address that it asks."""
    spoken = WhatIf(service, explainer)
    return [
        Route("GET", "/models/{model}/whatif", spoken.page),
        Route("POST", "/models/{model}/whatif", spoken.ask),
        Route("GET", "/whatif.js", spoken.script),
        Route("GET", "/whatif.css", spoken.style),
    ]


class WhatIf:
    """The handlers. The page itself holds nothing of a model, so it needs no token."""

    def __init__(self, service: Service, explainer: Explainer) -> None:
        self._service = service
        self._explainer = explainer

    def page(self, request: Request) -> Reply:
        """Return the page."""
        self._service.find(request.params["model"])
        return _file("whatif.html", HTML)

    def script(self, request: Request) -> Reply:
        """Return the page's script."""
        del request
        return _file("whatif.js", b"text/javascript; charset=utf-8")

    def style(self, request: Request) -> Reply:
        """Return the page's style."""
        del request
        return _file("whatif.css", b"text/css; charset=utf-8")

    def ask(self, request: Request) -> Answer:
        """Answer one row, explained where that is possible, without logging it."""
        endpoint = self._service.chosen(request)
        lineup = endpoint.lineup
        if lineup.constant is not None:
            raise constant_answers()
        require_json(request)
        loaded = lineup.choose(None).loaded
        asked = loaded.rows.decode(request.body)
        if len(asked.inputs) != 1:
            raise InvalidInput(
                "request.invalid",
                f"There are {len(asked.inputs)} rows; a question here is one.",
                hint=f"POST /models/{quote(endpoint.name, safe='')}/predict answers many, and logs "
                "them.",
            )
        return self._answer(loaded, loaded.rows.to_matrix(asked.inputs))

    async def _answer(self, loaded: LoadedBundle, matrix: FloatArray) -> Reply:
        answered = np.asarray(await asyncio.to_thread(loaded.model, matrix), dtype=np.float64)
        numbers = answered.reshape(-1).tolist()
        names = loaded.bundle.outputs
        why, problem = None, None
        try:
            why = await self._explainer.explain(loaded, matrix, True)
        except EverloopError as error:
            problem = error.message
        told = _Told(
            version=loaded.bundle.semver,
            output=None if names else numbers[0],
            outputs=dict(zip(names, numbers, strict=True)) if names else None,
            explanation=why,
            unexplained=problem,
        )
        return Reply(200, msgspec.json.encode(told), headers=((b"cache-control", b"no-store"),))


def _file(name: str, content_type: bytes) -> Reply:
    data = (_FOLDER / name).read_bytes()
    tag = b'"%b"' % hashlib.sha256(data).hexdigest()[:16].encode()
    return Reply(200, data, content_type, (*_HEADERS, (b"etag", tag)))
