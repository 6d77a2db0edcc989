"""The OpenAPI document of a real server: valid, true of its answers, and safe to fuzz by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import validate
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from everloop.serve.protocol import InputField
from tests.unit.serve.served import INPUTS, ROW
from tests.unit.serve.standalone import seal, standing

ODD = "rents/a b ü"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home = tmp_path_factory.mktemp("models")
    ranged = InputField(name="hour", dtype="int64", minimum=0, maximum=23)
    seal(home / "one", 3, inputs=(ranged, *INPUTS[1:]))
    seal(home / "two", 4, deployment=ODD)
    with standing(str(home), "--port", "0") as url, httpx.Client(base_url=url) as made:
        yield made


def document(client: httpx.Client, path: str = "/openapi.json") -> dict[str, Any]:
    found: dict[str, Any] = client.get(path).raise_for_status().json()
    return found


@pytest.mark.parametrize("path", ["/openapi.json", "/models/bikes/openapi.json"])
def test_the_document_is_valid_openapi(client: httpx.Client, path: str) -> None:
    validate(document(client, path))


def test_the_document_has_no_words_for_readers_of_the_code(client: httpx.Client) -> None:
    schemas = document(client)["components"]["schemas"]

    told = [schema.get("description", "") for schema in schemas.values()]
    assert [] == [text for text in told if "Attributes:" in text or "``" in text]


def test_the_index_leads_to_every_model(client: httpx.Client) -> None:
    models = client.get("/").json()["models"]

    assert ["bikes", ODD] == [model["name"] for model in models]
    for model in models:
        assert 200 == client.get(model["about"]).status_code
        assert 200 == client.get(model["openapi"]).status_code
        assert 200 == client.get(model["whatif"]).status_code
        assert 200 == client.post(model["predict"], json={"inputs": [ROW]}).status_code


def test_the_signature_is_what_the_document_says(client: httpx.Client) -> None:
    schema = document(client)["components"]["schemas"]["PredictRequest"]
    row = schema["properties"]["inputs"]["items"]

    assert [field.name for field in INPUTS] == list(row["properties"])
    assert ["hour", "working_day", "weather"] == row["required"]
    assert ["number", "null"] == row["properties"]["temperature"]["type"]
    assert "In training from 0 to 23." == row["properties"]["hour"]["description"]
    jsonschema.Draft202012Validator(schema).validate({"inputs": [ROW], "explain": True})


@pytest.mark.slow
def test_nothing_made_by_the_document_breaks_the_server(client: httpx.Client) -> None:
    schema = schemathesis.openapi.from_dict(document(client))
    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
    ]
    for path, operations in schema.items():
        for operation in operations.values():
            cases = operation.as_strategy() | operation.as_strategy(
                generation_mode=schemathesis.GenerationMode.NEGATIVE
            )

            @given(case=cases)
            @settings(
                max_examples=25,
                deadline=None,
                phases=[Phase.generate],
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            )
            def ask(case: schemathesis.Case[Any]) -> None:
                response = case.call(base_url=str(client.base_url))
                case.validate_response(response, checks=checks)

            ask()
        assert path
    assert 200 == client.get("/readyz").status_code
