"""The OpenAPI 3.1 document, generated from the verbs so that it can't disagree with them."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from everloop.core.digest import Digest
from everloop.http.errors import ErrorAnswer
from everloop.http.routes import LOCAL_ONLY, verb_path
from everloop.kernel.verbs import Scope, Verb, declared_verbs

Json = dict[str, Any]
_REF = "#/components/schemas/{name}"
_REFUSALS = {
    "400": "The input is wrong; the message names the field.",
    "401": "No valid token.",
    "403": "The caller's roles or the token's scope do not hold the permission.",
    "404": "No such thing, or it is not visible to the caller.",
    "409": "The state does not allow it.",
    "413": "Too large.",
    "422": "A gate refused, or the artifact is not trusted.",
    "503": "Something needed is away; try again.",
}


def openapi_document(version: str) -> Json:
    """Return the document for all verbs that have a route."""
    verbs = [verb for verb in declared_verbs().values() if verb.name not in LOCAL_ONLY]
    types: set[type[msgspec.Struct]] = {ErrorAnswer}
    for verb in verbs:
        types |= {verb.ask, verb.answer}
    ordered = sorted(types, key=lambda kind: (kind.__name__, kind.__module__))
    schemas, components = msgspec.json.schema_components(
        ordered, ref_template=_REF, schema_hook=_any_json
    )
    by_type = dict(zip(ordered, schemas, strict=True))
    paths: Json = {}
    for verb in verbs:
        method = "get" if verb.is_query else "post"
        paths[verb_path(verb)] = {method: _operation(verb, by_type, components)}
    paths["/api/v1/projects/{project}/blobs/{digest}"] = _blob_paths()
    paths["/api/v1/projects/{project}/blobs:batch"] = _batch_path()
    return {
        "openapi": "3.1.0",
        "info": {"title": "Everloop", "version": version, "license": {"name": "Apache-2.0"}},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _any_json(kind: type) -> Json:
    """Describe a field that holds any JSON."""
    if kind is not object:
        message = f"{kind} has no JSON Schema"
        raise TypeError(message)
    return {"description": "Any JSON value."}


def _operation(verb: Verb, by_type: dict[type[msgspec.Struct], Json], components: Json) -> Json:
    ask = by_type[verb.ask]
    operation: Json = {
        "operationId": verb.name,
        "tags": [verb.name.partition(".")[0]],
        "summary": verb.summary,
        "description": inspect.getdoc(verb.handler),
        "x-permission": verb.permission,
        "parameters": _path_parameters(verb),
        "responses": {
            "200": {"description": "Done.", "content": _content(by_type[verb.answer])},
            **{code: _refusal(code, by_type) for code in _REFUSALS},
        },
    }
    if verb.open_to_all:
        operation["security"] = []
    if verb.is_query:
        schema = components[ask["$ref"].rpartition("/")[2]]
        operation["parameters"] += _query_parameters(schema)
        return operation
    operation["parameters"] += _change_headers()
    operation["requestBody"] = {"required": True, "content": _content(ask)}
    return operation


def _refusal(code: str, by_type: dict[type[msgspec.Struct], Json]) -> Json:
    return {"description": _REFUSALS[code], "content": _content(by_type[ErrorAnswer])}


def _content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _path_parameters(verb: Verb) -> list[Json]:
    if verb.scope is Scope.INSTANCE:
        return []
    return [_parameter("path", "project", {"type": "string", "minLength": 1, "maxLength": 100})]


def _query_parameters(schema: Json) -> list[Json]:
    required = set(schema.get("required", ()))
    return [
        _query_parameter(name, _not_null(field), required=name in required)
        for name, field in schema.get("properties", {}).items()
    ]


def _query_parameter(name: str, schema: Json, *, required: bool) -> Json:
    """Describe what `http.parameters` reads: lists by repetition, structures as JSON."""
    if _is_nested(schema):
        made = _parameter("query", name, {}, required=required)
        del made["schema"]
        return {**made, "content": _content(schema)}
    if _is_nested(schema.get("items", {})):
        text = {"type": "string", "contentMediaType": "application/json"}
        schema = {**schema, "items": text}
    return _parameter("query", name, schema, required=required)


def _is_nested(schema: Json) -> bool:
    return "$ref" in schema or schema.get("type") == "object"


def _not_null(schema: Json) -> Json:
    """A URL parameter can be left out but not null."""
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    if not options:
        return {
            key: value for key, value in schema.items() if key != "default" or value is not None
        }
    rest = {key: value for key, value in schema.items() if key not in {"anyOf", "default"}}
    return {**rest, **options[0]} if len(options) == 1 else {**rest, "anyOf": options}


def _change_headers() -> list[Json]:
    text = {"type": "string", "maxLength": 100}
    return [
        _parameter("header", "Idempotency-Key", text, required=False),
        {
            **_parameter(
                "header", "X-Everloop-Reason", {**text, "maxLength": 2000}, required=False
            ),
            "description": "Why, in the caller's words; percent-encoded UTF-8.",
        },
    ]


def _parameter(place: str, name: str, schema: Json, *, required: bool = True) -> Json:
    return {"in": place, "name": name, "required": required, "schema": schema}


def _batch_path() -> Json:
    body = {"application/msgpack": {"schema": {"type": "array", "items": {"type": "string"}}}}
    digests = {"type": "array", "items": {"type": "string"}}
    answer = {"type": "object", "properties": {"digests": digests}}
    return {
        "post": {
            "operationId": "blobs.batch",
            "summary": "Put several bytes, as a MessagePack array of binaries.",
            "x-permission": "blob:write",
            "parameters": [_parameter("path", "project", {"type": "string"})],
            "requestBody": {"required": True, "content": body},
            "responses": {
                "201": {"description": "Stored.", "content": _content(answer)},
                **{code: {"description": text} for code, text in _REFUSALS.items()},
            },
        }
    }


def _blob_paths() -> Json:
    pattern = "^(blake3|sha256):[0-9a-f]{64}$"
    parameters = [
        _parameter("path", "project", {"type": "string"}),
        _parameter("path", "digest", {"type": "string", "pattern": pattern}),
    ]
    body = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    refused = {code: {"description": text} for code, text in _REFUSALS.items()}
    return {
        "put": {
            "operationId": "blobs.put",
            "summary": f"Put bytes under their digest ({Digest.__name__}).",
            "x-permission": "blob:write",
            "parameters": parameters,
            "requestBody": {"required": True, "content": body},
            "responses": {"201": {"description": "Stored."}, **refused},
        },
        "get": {
            "operationId": "blobs.get",
            "summary": "Get the bytes of a digest.",
            "x-permission": "blob:read",
            "parameters": parameters,
            "responses": {"200": {"description": "The bytes.", "content": body}, **refused},
        },
    }
