from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from everloop.serve.protocol import InputField
from tests.unit.serve.protocols.desk import (
    REAL,
    Desk,
    answer_of,
    columns,
    make_desk,
    tensor,
    version,
)

EXPECTED = answer_of(8.0, 21.5, 1.0, 2.0)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = make_desk(tmp_path)
    yield made
    made.log.close()


def data_of(answer: Any) -> list[float | None]:
    found: list[float | None] = answer["outputs"][0]["data"]
    return found


def test_the_server_tells_its_name_its_version_and_its_extensions(desk: Desk) -> None:
    for path in ("/v2", "/v2/"):
        status, told = desk.get(path)

        assert (200, "everloop") == (status, told["name"])
        assert isinstance(told["version"], str)
        assert "binary_tensor_data" in told["extensions"]


def test_ready_is_said_by_the_status(desk: Desk) -> None:
    assert (200, {"live": True}) == desk.get("/v2/health/live")
    assert (200, {"live": True, "ready": True}) == desk.get("/v2/health/ready")

    desk.serve("empty")

    assert 503 == desk.get("/v2/health/ready")[0]
    assert 503 == desk.get("/v2/models/empty/ready")[0]
    assert 200 == desk.get("/v2/models/bikes/ready")[0]
    assert 200 == desk.get("/v2/models/bikes/versions/1.1.0/ready")[0]


def test_metadata_names_each_input_with_an_explicit_batch_dimension(desk: Desk) -> None:
    status, told = desk.get("/v2/models/bikes")

    assert (200, "bikes", ["1.1.0"]) == (status, told["name"], told["versions"])
    assert [
        ("hour", "INT64", [-1, 1]),
        ("temperature", "FP64", [-1, 1]),
        ("working_day", "BOOL", [-1, 1]),
        ("weather", "BYTES", [-1, 1]),
    ] == [(each["name"], each["datatype"], each["shape"]) for each in told["inputs"]]
    assert [{"name": "rentals", "datatype": "FP64", "shape": [-1, 1]}] == told["outputs"]
    assert told == desk.get("/v2/models/bikes/versions/1.1.0")[1]


def test_one_tensor_for_each_input_is_answered_and_logged(desk: Desk) -> None:
    status, told = desk.infer(columns(), id="mine", parameters={"unit": "ann", "key": "k7"})

    assert (200, "bikes", "1.1.0", "mine") == (
        status,
        told["model_name"],
        told["model_version"],
        told["id"],
    )
    assert [EXPECTED] == data_of(told)
    assert ["rentals"] == [each["name"] for each in told["outputs"]]
    (row,) = desk.rows()
    assert {"hour": 8, "temperature": 21.5, "working_day": True, "weather": "rain"} == row.inputs
    assert (told["parameters"]["prediction_id"], "mine", "ann", "k7") == (
        row.id,
        row.request,
        row.unit,
        row.key,
    )


def test_an_answer_without_an_asked_id_has_that_of_the_prediction(desk: Desk) -> None:
    reply = desk.ask("POST", "/v2/models/bikes/infer", json.dumps({"inputs": columns()}).encode())

    told = json.loads(reply.body)
    (row,) = desk.rows()
    assert row.id == told["id"]
    assert row.id == dict(reply.headers)[b"x-everloop-prediction-id"].decode()


@pytest.mark.parametrize("data", [[8, 20.5, 1, 0.5, 9, 3, 0, 2], [[8, 20.5, 1, 0.5], [9, 3, 0, 2]]])
def test_all_rows_may_come_as_one_tensor_flat_or_nested(desk: Desk, data: list[Any]) -> None:
    one = {"name": "input-0", "shape": [2, 4], "datatype": "FP64", "data": data}

    status, told = desk.infer([one], "plain")

    assert (200, [2, 1]) == (status, told["outputs"][0]["shape"])
    assert [answer_of(8, 20.5, 1, 0.5), answer_of(9, 3, 0, 2)] == data_of(told)
    assert [8, 9] == [row.inputs["hour"] for row in desk.rows()]
    assert [True, False] == [row.inputs["working_day"] for row in desk.rows()]


def test_columns_may_be_flat_and_carry_the_content_type_of_mlserver(desk: Desk) -> None:
    inputs = columns()
    for each in inputs:
        each["shape"] = [1]
        each["parameters"] = {"content_type": "str" if each["name"] == "weather" else "np"}

    status, told = desk.infer(inputs, parameters={"content_type": "pd", "sequence_id": 7})

    assert (200, [EXPECTED]) == (status, data_of(told))


def test_null_is_nan_where_the_input_may_be_missing(desk: Desk) -> None:
    status, told = desk.infer(columns(temperature=[None]))

    assert (200, [answer_of(8.0, np.nan, 1.0, 2.0)]) == (status, data_of(told))
    assert [None] == [row.inputs["temperature"] for row in desk.rows()]


def test_a_nullable_input_may_be_left_out(desk: Desk) -> None:
    status, told = desk.infer([each for each in columns() if each["name"] != "temperature"])

    assert (200, [answer_of(8.0, np.nan, 1.0, 2.0)]) == (status, data_of(told))


def test_an_answer_that_is_not_a_number_is_null(desk: Desk) -> None:
    desk.serve("odd", version(1, lambda matrix: np.full(len(matrix), np.nan)))

    status, told = desk.infer(columns(), "odd")

    assert (200, [None]) == (status, data_of(told))


@pytest.mark.parametrize("number", [2**53 + 1, 2**63 - 1, -(2**63)])
def test_whole_numbers_beyond_the_exact_floats_reach_the_log(desk: Desk, number: int) -> None:
    status, told = desk.infer(columns(hour=[number]))

    assert (200, [answer_of(float(number), 21.5, 1.0, 2.0)]) == (status, data_of(told))
    assert [number] == [row.inputs["hour"] for row in desk.rows()]


def test_a_decimal_becomes_a_32_bit_float_in_one_step(desk: Desk) -> None:
    seen: list[float] = []

    def look(matrix: Any) -> Any:
        seen.extend(matrix[:, 0].tolist())
        return matrix[:, 0]

    only = (InputField(name="x", dtype="float64"),)
    desk.serve("look", version(1, look, inputs=only, output_minimum=None, output_maximum=None))
    # As a float64 this lies exactly between two 32-bit floats; the decimal lies a little above.
    text = b"1.00000005960464477539062500000000000000001"
    body = b'{"inputs":[{"name":"x","shape":[2,1],"datatype":"FP32","data":[%b,0.1]}]}' % text

    assert 200 == desk.ask("POST", "/v2/models/look/infer", body).status
    above = float(np.nextafter(np.float32(1), np.float32(2)))
    assert [above, float(np.float32("0.1"))] == seen
    assert 1.0 == float(np.float32(float(text)))  # what two steps make of it


def test_outputs_are_selected_and_put_in_order(desk: Desk) -> None:
    three = version(
        1, lambda matrix: matrix[:, [0, 1, 2]], outputs=("low", "mid", "high"), output_maximum=None
    )
    desk.serve("three", three)

    all_of = desk.infer(columns(), "three")[1]["outputs"]
    some = desk.infer(columns(), "three", outputs=[{"name": "high"}, {"name": "low"}])[1]["outputs"]

    assert [("rentals", [1, 3], [8.0, 21.5, 1.0])] == [
        (each["name"], each["shape"], each["data"]) for each in all_of
    ]
    assert [("high", [1.0]), ("low", [8.0])] == [(each["name"], each["data"]) for each in some]
    names = desk.get("/v2/models/three")[1]["outputs"][0]["parameters"]["columns"]
    assert ["low", "mid", "high"] == json.loads(names)


def test_a_version_is_asked_by_its_address_with_its_own_inputs(desk: Desk) -> None:
    other = version(2, lambda matrix: matrix[:, 0], inputs=(InputField(name="x", dtype="float64"),))
    desk.serve("bikes", version(1), other)

    for spelled in ("1.2.0", "2", other.loaded.bundle.version_id):
        status, told = desk.infer([tensor("x", "FP64", [7.0])], f"bikes/versions/{spelled}")
        assert (200, "1.2.0", [7.0]) == (status, told["model_version"], data_of(told))
    assert [{"x": 7.0}] * 3 == [row.inputs for row in desk.rows()]


def test_a_name_may_come_percent_encoded(desk: Desk) -> None:
    desk.serve("größe a", version(1))

    assert 200 == desk.infer(columns(), "gr%C3%B6%C3%9Fe%20a")[0]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/nobody", 404),
        ("/v2/models/bikes/versions/9.9.9", 404),
        ("/v2/models/bikes/versions/9.9.9/ready", 404),
        ("/v2/models/bikes/infer", 405),
        ("/v2/else", 404),
    ],
)
def test_an_error_is_one_text_under_the_name_error(desk: Desk, path: str, status: int) -> None:
    found, told = desk.get(path)

    assert status == found
    assert ["error"] == list(told)
    assert isinstance(told["error"], str)


WRONG: dict[str, tuple[list[dict[str, Any]], str]] = {
    "unknown": ([*columns(), tensor("wind", "FP64", [1.0])], "no input 'wind'"),
    "missing": (columns()[1:], "'hour' is missing"),
    "twice": ([*columns(), columns()[0]], "sent twice"),
    "none": ([], "no inputs"),
    "no-rows": (columns(hour=[], temperature=[], working_day=[], weather=[]), "no rows"),
    "uneven": (columns(hour=[1, 2]), "rows"),
    "shape": ([{**columns()[0], "shape": [3, 1]}, *columns()[1:]], "3 elements"),
    "negative": ([{**columns()[0], "shape": [-1, 1]}, *columns()[1:]], "shape [-1, 1]"),
    "deep": ([{**columns()[0], "shape": [1, 1, 1]}, *columns()[1:]], "shape [1, 1, 1]"),
    "wide": ([{**columns()[0], "shape": [1, 2], "data": [1, 2]}, *columns()[1:]], "[1, 2]"),
    "nesting": ([{**columns()[0], "data": [[1, 2]]}, *columns()[1:]], "not nested"),
    "datatype": ([{**columns()[0], "datatype": "INT65"}, *columns()[1:]], "INT65"),
    "mismatch": ([{**columns()[0], "datatype": "FP64"}, *columns()[1:]], "not FP64"),
    "long-float": (
        [columns()[0], {**columns()[1], "datatype": "INT64", "data": [1]}, *columns()[2:]],
        "not INT64",
    ),
    "element": ([{**columns()[0], "data": ["8"]}, *columns()[1:]], "is not INT64"),
    "overflow": ([{**columns()[0], "datatype": "INT8", "data": [300]}, *columns()[1:]], "INT8"),
    "too-large": (
        [{**columns()[0], "datatype": "UINT64", "data": [2**63]}, *columns()[1:]],
        "2^63",
    ),
    "huge": ([{**columns()[0], "data": [2**70]}, *columns()[1:]], "INT64"),
    "null": (columns(hour=[None]), "no null"),
    "too-large-32": (
        [columns()[0], {**columns()[1], "datatype": "FP32", "data": [1e39]}, *columns()[2:]],
        "too large for FP32",
    ),
    "no-data": ([{"name": "hour", "shape": [1], "datatype": "INT64"}, *columns()[1:]], "no data"),
    "bytes": (
        [{**columns()[0], "parameters": {"binary_data_size": 8}}, *columns()[1:]],
        "data twice",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_the_signature_is_refused_by_name(desk: Desk, case: str) -> None:
    inputs, problem = WRONG[case]

    status, told = desk.infer(inputs)

    assert 400 == status
    assert problem in told["error"]
    assert [] == desk.rows()


@pytest.mark.parametrize(
    ("matrix", "problem"),
    [
        ({"shape": [1, 3], "data": [1, 2, 3]}, "3 columns"),
        ({"shape": [1, 4], "data": [1, 2, 0.5, 3]}, "'working_day' is true or false"),
        ({"shape": [1, 4], "data": [1.5, 2, 1, 3]}, "'hour' takes whole numbers"),
        ({"shape": [1, 4], "data": [1, 2, None, 3]}, "'working_day' takes no null"),
        ({"shape": [1, 4], "data": [1, 2, 1, 3], "datatype": "INT64"}, "not INT64"),
        ({"shape": [0, 4], "data": []}, "no rows"),
    ],
)
def test_a_tensor_of_all_rows_is_held_to_the_signature(
    desk: Desk, matrix: dict[str, Any], problem: str
) -> None:
    status, told = desk.infer([{"name": "x", "datatype": "FP64", **matrix}], "plain")

    assert 400 == status
    assert problem in told["error"]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"outputs": [{"name": "price"}]}, "no output 'price'"),
        ({"parameters": {"unit": 7}}, "'unit'"),
        ({"parameters": {"keys": ["a", "b"]}}, "2 keys for 1 rows"),
        ({"parameters": {"keys": "["}}, "'keys'"),
        ({"parameters": {"at": "yesterday"}}, "not a time"),
        ({"id": "x" * 1_001}, "1001 characters"),
        ({"id": 7}, "Expected `str"),
    ],
)
def test_what_else_a_request_says_is_checked(
    desk: Desk, more: dict[str, Any], problem: str
) -> None:
    status, told = desk.infer(columns(), **more)

    assert 400 == status
    assert problem in told["error"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "not JSON"),
        (b"[1]", "object"),
        (b'{"inputs": [{"name": "x", "data": [NaN]}]}', "NaN"),
        (b'{"parameters": {"a": ' + b"[" * 100_000, "recursion"),
        (b'{"inputs": "\xff"}', ""),
    ],
)
def test_a_body_that_is_no_request_is_refused(desk: Desk, body: bytes, problem: str) -> None:
    reply = desk.ask("POST", "/v2/models/bikes/infer", body)

    assert 400 == reply.status
    assert problem in json.loads(reply.body)["error"]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (b"", 200),
        (b"application/json", 200),
        (b"application/json; charset=utf-8", 200),
        (b"Application/JSON", 200),
        (b"application/octet-stream", 200),
        (b"application/x-python-pickle", 415),
        (b"text/csv", 415),
    ],
)
def test_a_content_type_that_is_not_read_is_refused(
    desk: Desk, content_type: bytes, status: int
) -> None:
    headers = {b"content-type": content_type} if content_type else {}
    body = json.dumps({"inputs": columns()}).encode()

    assert status == desk.ask("POST", "/v2/models/bikes/infer", body, headers).status


def test_a_long_answer_is_packed_for_who_asks(desk: Desk) -> None:
    rows = 2_000
    many = columns(
        hour=[8] * rows,
        temperature=[21.5] * rows,
        working_day=[True] * rows,
        weather=["rain"] * rows,
    )
    body = json.dumps({"inputs": many}).encode()
    unpack: dict[bytes, Any] = {b"gzip": gzip.decompress, b"deflate": zlib.decompress}

    for name, unpacked in unpack.items():
        reply = desk.ask("POST", "/v2/models/bikes/infer", body, {b"accept-encoding": name})

        assert name == dict(reply.headers)[b"content-encoding"]
        assert [EXPECTED] * rows == data_of(json.loads(unpacked(reply.body)))
    assert REAL(np.array([[8.0, 21.5, 1.0, 2.0]])).item() == EXPECTED
