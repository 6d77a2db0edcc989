"""OpenAPI 3.1 of what is served, made from each model's signature, and the index of the models.

Only plain JSON is described in full: the other protocols have standards of their own, which clients
know without a description.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias
from urllib.parse import quote

import msgspec

from everloop.core.errors import Denied
from everloop.serve.bundle import Bundle
from everloop.serve.decode import MAX_UNIT_CHARS
from everloop.serve.dispatch import Route
from everloop.serve.exchange import ErrorBody, Reply, Request, to_json
from everloop.serve.identity import MOST_ROWS
from everloop.serve.lineup import no_model
from everloop.serve.protocol import InputField, ModelCard, PredictAnswer
from everloop.serve.service import Endpoint, Service

Json: TypeAlias = dict[str, object]
_REF: Final = "#/components/schemas/{name}"
_INT64: Final[Json] = {"minimum": -(2**63), "maximum": 2**63 - 1}
_REFUSALS: Final = {
    "400": "The request cannot be read or does not fit the signature; the message names the field.",
    "401": "The token is missing, unknown, expired or revoked.",
    "403": "The token may not ask this model; the message names the scope that it lacks.",
    "404": "There is no such model or version here.",
    "408": "The request arrived too slowly.",
    "413": "The body, or the number of rows, is too large.",
    "415": "The body is packed in a way that is not known here.",
    "429": "The server is busy; `Retry-After` says when to come again.",
    "500": "The model has no answer to this; the prediction log has the inputs.",
    "503": "No model is released yet, or the server is ending.",
}


class _Link(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model in the index."""

    name: str
    ready: bool
    version: str | None = None
    predict: str
    about: str
    openapi: str
    whatif: str


class _Index(msgspec.Struct, frozen=True, kw_only=True):
    """What ``GET /`` tells; its status is what KServe's client asks for."""

    models: tuple[_Link, ...]
    status: str = "alive"
    openapi: str = "/openapi.json"
    health: str = "/healthz"
    ready: str = "/readyz"


def routes(service: Service) -> list[Route]:
    """Return the addresses of the descriptions."""
    spoken = OpenApi(service)
    return [
        Route("GET", "/", spoken.index),
        Route("GET", "/openapi.json", spoken.all_models),
        Route("GET", "/models/{model}/openapi.json", spoken.one_model),
    ]


class OpenApi:
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def index(self, request: Request) -> Reply:
        """List the models that the caller may ask, and where."""
        return to_json(_Index(models=tuple(map(_link, self._permitted(request)))))

    def all_models(self, request: Request) -> Reply:
        """Describe every model that the caller may ask."""
        endpoints = [each for each in self._permitted(request) if each.lineup.champion is not None]
        return to_json(describe(endpoints, with_tokens=not self._service.is_open))

    def one_model(self, request: Request) -> Reply:
        """Describe one model."""
        endpoint = self._service.chosen(request)
        if endpoint.lineup.champion is None:
            raise no_model()
        return to_json(describe([endpoint], with_tokens=not self._service.is_open))

    def _permitted(self, request: Request) -> list[Endpoint]:
        found = []
        if self._service.is_open:
            self._service.authorise_any(
                request
            )  # it tells why; below, a model would just be missing
        for _, endpoint in sorted(self._service.endpoints.items()):
            try:
                self._service.authorise(request, endpoint)
            except Denied:
                continue
            found.append(endpoint)
        return found


def describe(endpoints: Sequence[Endpoint], *, with_tokens: bool) -> Json:
    """Return the OpenAPI document of deployments that have a champion."""
    _, schemas = msgspec.json.schema_components(
        [PredictAnswer, ModelCard, ErrorBody], schema_hook=_anything, ref_template=_REF
    )
    for schema in schemas.values():
        if "description" in schema:
            # What stands below the first paragraph is for readers of the code.
            schema["description"] = str(schema["description"]).partition("\n\n")[0]
    paths: Json = {}
    for place, endpoint in enumerate(endpoints):
        champion = endpoint.lineup.champion
        assert champion is not None
        bundle = champion.loaded.bundle
        # A model's name may have characters that the name of a component may not.
        name = f"PredictRequest{place or ''}"
        schemas[name] = _request_schema(bundle)
        at = f"/models/{quote(endpoint.name, safe='')}"
        paths[at] = {"get": _operation(endpoint.name, "card", "What it takes and gives", ModelCard)}
        predict = _operation(endpoint.name, "predict", "Answer rows", PredictAnswer)
        predict["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _REF.format(name=name)}}},
        }
        paths[f"{at}/predict"] = {"post": predict}
    made: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": ", ".join(each.name for each in endpoints) or "no model yet",
            "version": _version(endpoints),
            "description": "Made from the signatures of the models that answer now.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if with_tokens:
        made["security"] = [{"token": []}]
        schemes = {"token": {"type": "http", "scheme": "bearer"}}
        made["components"] = {"schemas": schemas, "securitySchemes": schemes}
    return made


def _anything(kind: type) -> Json:
    """Return the schema of a type that may be anything, as what an error tells besides."""
    del kind
    return {"description": "Any value of JSON."}


def _version(endpoints: Sequence[Endpoint]) -> str:
    versions = [each.lineup.champion for each in endpoints]
    return ", ".join(each.loaded.bundle.semver for each in versions if each) or "none"


def _link(endpoint: Endpoint) -> _Link:
    champion = endpoint.lineup.champion
    at = f"/models/{quote(endpoint.name, safe='')}"
    return _Link(
        name=endpoint.name,
        ready=champion is not None,
        version=None if champion is None else champion.loaded.bundle.semver,
        predict=f"{at}/predict",
        about=at,
        openapi=f"{at}/openapi.json",
        whatif=f"{at}/whatif",
    )


def _operation(model: str, verb: str, summary: str, answer: type[msgspec.Struct]) -> Json:
    answers: Json = {
        status: {"description": text, "content": _json(ErrorBody)}
        for status, text in _REFUSALS.items()
    }
    return {
        "operationId": f"{verb}:{model}",
        "summary": summary,
        "tags": [model],
        "responses": {"200": {"description": "Done.", "content": _json(answer)}, **answers},
    }


def _json(kind: type[msgspec.Struct]) -> Json:
    return {"application/json": {"schema": {"$ref": _REF.format(name=kind.__name__)}}}


def _request_schema(bundle: Bundle) -> Json:
    row: Json = {
        "type": "object",
        "properties": {field.name: _field(field) for field in bundle.inputs},
        "required": [field.name for field in bundle.inputs if not field.nullable],
        "additionalProperties": False,
    }
    short: Json = {"type": "string", "minLength": 1, "maxLength": MAX_UNIT_CHARS}
    return {
        "type": "object",
        "title": f"Rows for {bundle.model}",
        "properties": {
            "inputs": {"type": "array", "minItems": 1, "maxItems": MOST_ROWS, "items": row},
            "at": {
                "anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}],
                "description": "Event time, when it is not now; at most a day ahead.",
            },
            "unit": {
                "anyOf": [short, {"type": "null"}],
                "description": "Whom a canary's or an A/B test's assignment sticks to.",
            },
            "keys": {
                "type": "array",
                "items": short,
                "description": "Your own key of each row, by which the truth may come back.",
            },
            "explain": {
                "enum": [True, False, "sampling", "tree"],
                "description": "Whether to say what each input added to the answer.",
            },
        },
        "required": ["inputs"],
        "additionalProperties": False,
    }


def _field(field: InputField) -> Json:
    types: dict[str, Json] = {
        "float64": {"type": "number", "format": "double"},
        "int64": {"type": "integer", "format": "int64", **_INT64},
        "bool": {"type": "boolean"},
        "string": {"type": "string", "maxLength": 1_000},
    }
    made = dict(types[field.dtype])
    if field.nullable:
        made["type"] = [made["type"], "null"]
    told = []
    if field.minimum is not None and field.maximum is not None:
        # Told and not enforced: whether the world moved on is for the monitoring to judge.
        told.append(f"In training from {field.minimum:g} to {field.maximum:g}.")
    if field.categories:
        made["examples"] = list(field.categories[:20])
        told.append("A value that training never saw counts as missing.")
    if told:
        made["description"] = " ".join(told)
    return made
