"""The model repository extension: which models there are, and bringing them in and out.

A server that stands alone does as it is told. Where a control plane keeps the deployments, releases
decide what is loaded, and nobody else.
"""

from __future__ import annotations

import msgspec

from everloop.core.errors import Denied, EverloopError, InvalidInput
from everloop.serve.dispatch import Route
from everloop.serve.exchange import Reply, Request, to_json
from everloop.serve.protocols import oip
from everloop.serve.service import Endpoint, Service, Shelf

READY = "READY"
UNAVAILABLE = "UNAVAILABLE"


class ModelIndex(msgspec.Struct, frozen=True):
    """One version of a model, as the repository's index has it."""

    name: str
    version: str
    state: str
    reason: str = ""


class IndexBody(msgspec.Struct):
    """What the index is asked for; fields that are not known are passed over."""

    ready: bool = False


def routes(service: Service) -> list[Route]:
    """Return the addresses of this extension."""
    spoken = Repository(service)
    one = "/v2/repository/models/{name}"
    return [
        Route("POST", "/v2/repository/index", spoken.index, oip.refuse),
        Route("POST", f"{one}/load", spoken.load, oip.refuse),
        Route("POST", f"{one}/unload", spoken.unload, oip.refuse),
    ]


class Repository:
    """The handlers of this extension, over HTTP; gRPC's call what they call."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def index(self, request: Request) -> Reply:
        """List the models."""
        try:
            asked = msgspec.json.decode(request.body or b"{}", type=IndexBody)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(
                "request.invalid",
                f"The body is not as it should be: {str(error)[:200]}.",
                hint='Send {"ready": true}, {} or nothing.',
            ) from error
        return to_json(self.list(request, is_ready=asked.ready))

    async def load(self, request: Request) -> Reply:
        """Load a model, or load it again, in all workers."""
        await self.bring_in(request, request.params["name"])
        return to_json({})

    async def unload(self, request: Request) -> Reply:
        """Let go of a model in all workers."""
        await self.take_out(request, request.params["name"])
        return to_json({})

    def list(self, request: Request, *, is_ready: bool) -> list[ModelIndex]:
        """Return the models that the caller may ask.

        Raises:
            NotAuthenticated: ``token.invalid`` for one who may ask none of them.
        """
        found: list[ModelIndex] = []
        refused: EverloopError | None = None
        for endpoint in list(self._service.endpoints.values()):
            try:
                self._service.authorise(request, endpoint)
            except Denied as error:
                refused = error
            else:
                found += _versions_of(endpoint)
        if refused is not None and not found:
            raise refused
        shelf = self._service.shelf
        if shelf is not None:
            found += [
                ModelIndex(name, "", UNAVAILABLE, reason) for name, reason in shelf.absent().items()
            ]
        return [each for each in found if each.state == READY or not is_ready]

    async def bring_in(self, request: Request, name: str) -> None:
        """Load a model in all workers.

        Raises:
            Denied: ``repository.closed``.
            NotAuthenticated: ``token.invalid``.
            NotFound: ``model.not_available``.
            Conflict: ``model.not_loaded`` when it does not verify.
            Unavailable: ``model.load_slow``.
        """
        await self._require_open(request).bring_in(name)

    async def take_out(self, request: Request, name: str) -> None:
        """Unload a model in all workers.

        Raises:
            Denied: ``repository.closed``.
            NotAuthenticated: ``token.invalid``.
            NotFound: ``model.not_available``.
            Unavailable: ``model.load_slow``.
        """
        await self._require_open(request).take_out(name)

    def _require_open(self, request: Request) -> Shelf:
        shelf = self._service.shelf
        if shelf is None:
            raise Denied(
                "repository.closed",
                "Models are not loaded and unloaded by request here.",
                hint="Where a control plane keeps the deployments, start a release or roll back; "
                "a server that stands alone allows it on the loopback, to holders of tokens, or "
                "with EVERLOOP_REPOSITORY=open.",
            )
        self._service.authorise_any(request)
        return shelf


def _versions_of(endpoint: Endpoint) -> list[ModelIndex]:
    lineup = endpoint.lineup
    if not lineup.resident:
        reason = "No version is loaded here."
        return [ModelIndex(endpoint.name, "", UNAVAILABLE, reason)]
    return [ModelIndex(endpoint.name, each.loaded.bundle.semver, READY) for each in lineup.resident]
