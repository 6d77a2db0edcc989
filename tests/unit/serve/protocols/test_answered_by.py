"""Which version answers and is explained: the one that is named, and of the line-up that read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from everloop.serve.bundle import LoadedBundle
from everloop.serve.decode import FloatArray
from everloop.serve.exchange import Reply, Request
from everloop.serve.protocol import InputField
from everloop.serve.scoring import Scorer
from tests.unit.serve.protocols.desk import Desk, columns, make_desk
from tests.unit.serve.served import INPUTS, MATRIX_ROW, MODEL, ROW, make_bundle
from tests.unit.serve.standalone import saved

Told = Callable[[Any], tuple[float, Any]]
OLD, NEW = [1.0, 10.0, 100.0, 1_000.0], [7.0, 0.5, 30.0, 2.0]
FIRST, SECOND = float(np.dot(OLD, MATRIX_ROW)), float(np.dot(NEW, MATRIX_ROW[::-1]))


def linear(number: int, weights: list[float], inputs: tuple[InputField, ...]) -> Scorer:
    def model(rows: FloatArray) -> FloatArray:
        answers: FloatArray = rows @ np.array(weights)
        return answers

    bundle = make_bundle(
        number,
        MODEL,
        inputs=inputs,
        golden=(),
        output_minimum=None,
        output_maximum=None,
        background="background.npy",
    )
    attached = {"background.npy": saved(np.zeros((1, 4)))}
    return Scorer(LoadedBundle(bundle, model, None, attached))


def of_records(body: Any) -> tuple[float, Any]:
    return body["predictions"][0]["output"], body["explanation"]["rows"][0]["values"]


def of_tensors(body: Any) -> tuple[float, Any]:
    why = json.loads(body["parameters"]["explanation"])
    return body["outputs"][0]["data"][0], why["rows"][0]["values"]


def of_kserve(body: Any) -> tuple[float, Any]:
    return body["predictions"][0], body["explanations"][0]["values"]


RECORDS = {"inputs": [ROW], "explain": True}
TENSORS = {"inputs": columns(), "parameters": {"explain": True}}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Two versions that take the same inputs in another order, the first of them champion."""
    made = make_desk(tmp_path)
    made.serve("bikes", linear(1, OLD, INPUTS), linear(2, NEW, INPUTS[::-1]))
    yield made
    made.log.close()


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/models/bikes/predict", RECORDS, of_records),
        ("/v2/models/bikes/infer", TENSORS, of_tensors),
        ("/v1/models/bikes:explain", {"instances": [ROW]}, of_kserve),
    ],
)
def test_what_one_line_up_read_it_answers_though_another_serves_by_then(
    desk: Desk, path: str, body: object, told: Told
) -> None:
    board: Any = desk.service.endpoints["bikes"].switchboard
    data = json.dumps(body).encode()
    asked = Request(method="POST", path=path, query="", headers={}, body=data)

    async def finish() -> Reply:
        answer = desk.dispatcher.handle(asked)
        assert not isinstance(answer, Reply)
        board.lineup = replace(board.lineup, champion=board.lineup.resident[1], common={})
        return await answer

    answered, values = told(json.loads(asyncio.run(finish()).body))

    assert FIRST == answered
    assert dict(zip(ROW, np.multiply(OLD, MATRIX_ROW).tolist(), strict=True)) == values


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/models/bikes/versions/1.2.0/predict", RECORDS, of_records),
        ("/v2/models/bikes/versions/1.2.0/infer", TENSORS, of_tensors),
    ],
)
def test_of_a_version_that_is_named_its_own_answer_is_explained(
    desk: Desk, path: str, body: object, told: Told
) -> None:
    reply = desk.ask("POST", path, json.dumps(body).encode())

    answered, values = told(json.loads(reply.body))

    assert SECOND == answered
    expected = np.multiply(NEW, MATRIX_ROW[::-1]).tolist()
    assert dict(zip(reversed(ROW), expected, strict=True)) == values
