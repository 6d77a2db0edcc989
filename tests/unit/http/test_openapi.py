"""The OpenAPI document is valid and says what the routes do."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from everloop.app.verbs import load_verbs
from everloop.http.openapi import openapi_document
from everloop.http.routes import LOCAL_ONLY, verb_path, verb_routes
from everloop.kernel.verbs import declared_verbs
from tests.kit import world

load_verbs()


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi_document("0.1.0")


def test_every_verb_but_the_local_ones_is_in_it_and_has_a_route(document: dict[str, Any]) -> None:
    operations = {
        operation["operationId"]: (path, method)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    routes = {route.name: route.path for route in verb_routes(world().kernel)}

    for name, verb in declared_verbs().items():
        assert (name in operations) == (name not in LOCAL_ONLY) == (name in routes)
        if name in operations:
            assert (verb_path(verb), "get" if verb.is_query else "post") == operations[name]
            assert verb_path(verb) == routes[name]


def test_every_operation_states_its_permission_and_its_refusals(document: dict[str, Any]) -> None:
    for item in document["paths"].values():
        for operation in item.values():
            assert operation["x-permission"]
            assert {"400", "401", "403", "404", "409"} <= set(operation["responses"])


def test_every_schema_is_one_and_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)

    assert set() == set(references(document)) - set(schemas)


def references(value: object) -> list[str]:
    if isinstance(value, dict):
        here = [str(value["$ref"]).rpartition("/")[2]] if "$ref" in value else []
        return here + [name for item in value.values() for name in references(item)]
    if isinstance(value, list):
        return [name for item in value for name in references(item)]
    return []
