from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.serve.protocols.desk import Desk, columns, make_desk, version
from tests.unit.serve.served import ROW, version_id

CONSTANT = 12.5
PLAIN = json.dumps({"inputs": [ROW]}).encode()
RECORDS = json.dumps({"dataframe_records": [ROW]}).encode()
INSTANCES = json.dumps({"instances": [ROW]}).encode()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = make_desk(tmp_path)
    made.serve("bikes", version(1), version(2))
    yield made
    made.log.close()


def halt(desk: Desk, **changes: Any) -> None:
    board: Any = desk.service.endpoints["bikes"].switchboard
    board.lineup = replace(board.lineup, is_halted=True, common={}, **changes)


@pytest.mark.parametrize("place", ["bikes", "bikes/versions/1.2.0"])
def test_a_constant_names_no_version_that_did_not_answer(desk: Desk, place: str) -> None:
    halt(desk, constant=CONSTANT)

    plain = json.loads(desk.ask("POST", f"/models/{place}/predict", PLAIN).body)
    _, tensors = desk.infer(columns(), place)

    (told,) = plain["predictions"]
    assert (CONSTANT, True, True, None) == (
        told["output"],
        told["fallback"],
        told["constant"],
        told.get("version"),
    )
    assert [CONSTANT] == tensors["outputs"][0]["data"]
    assert {"prediction_id", "fallback", "constant"} == set(tensors["parameters"])
    assert "model_version" not in tensors


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/models/bikes/invocations", RECORDS),
        ("/v1/models/bikes:predict", INSTANCES),
    ],
)
def test_a_constant_is_marked_in_the_headers_of_platforms(
    desk: Desk, path: str, body: bytes
) -> None:
    model = dict(desk.ask("POST", path, body).headers)
    halt(desk, constant=CONSTANT)
    constant = dict(desk.ask("POST", path, body).headers)

    assert (b"1.1.0", None) == (model[b"x-model-version"], model.get(b"x-prediction-constant"))
    assert (None, b"true") == (
        constant.get(b"x-model-version"),
        constant[b"x-prediction-constant"],
    )


def test_answers_by_a_constant_are_counted_as_such(desk: Desk) -> None:
    halt(desk, constant=CONSTANT)

    desk.ask("POST", "/models/bikes/predict", PLAIN)

    endpoint = desk.service.endpoints["bikes"]
    counted = endpoint.answerer.tally.answers
    assert {("bikes", "constant", "constant"): {"ok": 1}} == {
        key: found.rows for key, found in counted.items()
    }
    assert [0] == [found.fallbacks for found in counted.values()]


@pytest.mark.parametrize("path", ["predict", "whatif"])
def test_what_a_constant_says_is_not_explained(desk: Desk, path: str) -> None:
    halt(desk, constant=CONSTANT)
    body = json.dumps({"inputs": [ROW], **({"explain": True} if path == "predict" else {})})

    reply = desk.ask("POST", f"/models/bikes/{path}", body.encode())

    assert (400, "explain.constant") == (
        reply.status,
        json.loads(reply.body)["error"]["code"],
    )


def test_nobody_asks_another_version_of_a_halted_deployment_by_its_name(desk: Desk) -> None:
    halt(desk)

    champion = desk.ask("POST", "/models/bikes/versions/1.1.0/predict", PLAIN)
    other = desk.ask("POST", "/models/bikes/versions/1.2.0/predict", PLAIN)
    tensors, told = desk.infer(columns(), "bikes/versions/2")

    assert (200, 409, 409) == (champion.status, other.status, tensors)
    assert "deployment.halted" == json.loads(other.body)["error"]["code"]
    assert "halted" in told["error"]
    assert [version_id(1)] == [row.version for row in desk.rows()]
