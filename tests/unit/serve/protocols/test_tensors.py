from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everloop.serve.protocols.rounding import NeedsTexts, narrow
from tests.unit.serve.protocols.desk import NUMBERS, Desk, answer_of, columns, make_desk, version

quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = make_desk(tmp_path_factory.mktemp("desk"))
    made.serve("echo", version(1, lambda matrix: matrix[:, 1], inputs=NUMBERS))
    yield made
    made.log.close()


def send(desk: Desk, inputs: list[dict[str, Any]], blobs: bytes, model: str = "bikes") -> Any:
    """Ask with tensors as bytes; return the status, the JSON and the bytes behind it."""
    asked = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    head = json.dumps(asked).encode()
    headers = {b"inference-header-content-length": str(len(head)).encode()}
    reply = desk.ask("POST", f"/v2/models/{model}/infer", head + blobs, headers)
    told = dict(reply.headers).get(b"inference-header-content-length")
    size = len(reply.body) if told is None else int(told)
    return reply.status, json.loads(reply.body[:size]), reply.body[size:]


def described(name: str, datatype: str, shape: list[int], size: int) -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}


@quick
@given(
    rows=st.integers(1, 30),
    seed=st.integers(0, 2**32 - 1),
    datatype=st.sampled_from(["FP64", "FP32", "FP16"]),
)
def test_bytes_give_the_answers_of_the_model_in_process(
    desk: Desk, rows: int, seed: int, datatype: str
) -> None:
    kind = {"FP64": "<f8", "FP32": "<f4", "FP16": "<f2"}[datatype]
    generator = np.random.default_rng(seed)
    matrix = generator.normal(size=(rows, 4)) * 10
    matrix[:, 0] = generator.integers(0, 24, rows)
    matrix[:, 2] = generator.integers(0, 2, rows)
    matrix[generator.random(rows) < 0.2, 1] = np.nan
    data = matrix.astype(kind)

    status, told, blob = send(
        desk, [described("x", datatype, [rows, 4], data.nbytes)], data.tobytes(), "plain"
    )

    assert 200 == status
    assert {"binary_data_size": 8 * rows} == told["outputs"][0]["parameters"]
    expected = [answer_of(*row) for row in data.astype(np.float64).tolist()]
    assert expected == np.frombuffer(blob, "<f8").tolist()


@quick
@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_infinity=False),
            st.booleans(),
            st.one_of(st.sampled_from(["clear", "snow"]), st.text(max_size=5)),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_columns_as_bytes_reach_the_log_as_they_were_sent(desk: Desk, rows: list[Any]) -> None:
    hours, temperatures, flags, names = zip(*rows, strict=True)
    texts = [name.encode() for name in names]
    blobs = [
        np.array(hours, "<i8").tobytes(),
        np.array(temperatures, "<f8").tobytes(),
        bytes(flags),
        b"".join(struct.pack("<I", len(text)) + text for text in texts),
    ]
    kinds = ["INT64", "FP64", "BOOL", "BYTES"]
    asked = [
        described(each["name"], kind, [len(rows), 1], len(blob))
        for each, kind, blob in zip(columns(), kinds, blobs, strict=True)
    ]

    status, told, blob = send(desk, asked, b"".join(blobs))

    assert 200 == status
    first = told["parameters"]["prediction_id"]
    found = [row for row in desk.rows() if row.id[:-4] == first[:-4]]
    gaps = [None if np.isnan(value) else value for value in temperatures]
    assert [
        dict(zip(("hour", "temperature", "working_day", "weather"), row, strict=True))
        for row in zip(hours, gaps, flags, names, strict=True)
    ] == [row.inputs for row in found]
    assert np.frombuffer(blob, "<f8").tolist() == [row.output for row in found]


@quick
@given(st.lists(floats32, min_size=1, max_size=20))
def test_json_and_bytes_give_one_answer(desk: Desk, values: list[float]) -> None:
    rows = len(values)
    matrix = np.zeros((rows, 4), "<f4")
    matrix[:, 1] = values
    in_json = {"name": "x", "datatype": "FP32", "shape": [rows, 4]}

    status, _, blob = send(
        desk, [described("x", "FP32", [rows, 4], matrix.nbytes)], matrix.tobytes(), "echo"
    )
    again = desk.infer([{**in_json, "data": matrix.astype(np.float64).tolist()}], "echo")

    assert (200, 200) == (status, again[0])
    assert again[1]["outputs"][0]["data"] == np.frombuffer(blob, "<f8").tolist()
    assert matrix[:, 1].astype(np.float64).tolist() == again[1]["outputs"][0]["data"]


@settings(max_examples=300, deadline=None)
@given(floats32, st.integers(-3, 3), st.sampled_from(["FP32", "FP16"]))
def test_a_decimal_is_rounded_to_the_nearest_float_once(
    value: float, nudge: int, datatype: str
) -> None:
    kind: Any = {"FP32": np.float32, "FP16": np.float16}[datatype]
    near = np.float64(value)
    if not abs(near) < float(np.finfo(kind).max) / 2:
        return
    low = kind(near)
    high = np.nextafter(low, kind(np.inf))
    middle = (Fraction(float(low)) + Fraction(float(high))) / 2
    exact = middle + Fraction(nudge, 10**60)
    text = f"{exact.numerator}/{exact.denominator}"
    numbers = np.array([float(exact)])

    try:
        found = narrow(numbers, datatype)
    except NeedsTexts:
        found = narrow(numbers, datatype, [text])

    by_distance = sorted((low, high), key=lambda one: abs(Fraction(float(one)) - exact))
    if nudge:
        assert float(by_distance[0]) == float(found[0])
    else:
        assert float(found[0]) in {float(low), float(high)}


@pytest.mark.parametrize(
    ("length", "problem"),
    [
        (b"x", "is 'x'"),
        (b"-1", "is '-1'"),
        (b"999999", "the body has"),
        (b"9" * 5_000, "Content-Length is"),
        (b"3", "not JSON"),
    ],
)
def test_a_length_of_the_json_that_is_not_is_refused(
    desk: Desk, length: bytes, problem: str
) -> None:
    headers = {b"inference-header-content-length": length}

    reply = desk.ask("POST", "/v2/models/bikes/infer", b'{"inputs": []}', headers)

    assert 400 == reply.status
    assert problem in json.loads(reply.body)["error"]


@pytest.mark.parametrize(
    ("size", "blob", "problem"),
    [
        (32, b"\0" * 31, "says 32 bytes"),
        (32, b"\0" * 33, "belong to no tensor"),
        (31, b"\0" * 31, "takes 32 bytes; 31 came"),
        (-1, b"\0" * 32, "says -1"),
        ("32", b"\0" * 32, "says 32"),
        (2**70, b"\0" * 32, "bytes of data"),
        (True, b"\0" * 32, "says True"),
    ],
)
def test_bytes_that_are_not_what_the_json_says_are_refused(
    desk: Desk, size: Any, blob: bytes, problem: str
) -> None:
    status, told, _ = send(desk, [described("x", "FP64", [1, 4], size)], blob, "plain")

    assert 400 == status
    assert problem in told["error"]


@pytest.mark.parametrize(
    ("blob", "problem"),
    [
        (b"\x09\0\0\0rain", "end in the middle"),
        (b"\x04\0\0\0r", "end in the middle"),
        (b"\x04\0\0\0\xff\xff\xff\xff", "not UTF-8"),
        (b"\x04\0\0\0rain" * 2, "2"),
        (b"", "data of 0"),
        (b"\x01\0", "end in the middle"),
    ],
)
def test_texts_that_cannot_be_read_are_refused(desk: Desk, blob: bytes, problem: str) -> None:
    asked = [*columns()[:3], described("weather", "BYTES", [1, 1], len(blob))]

    status, told, _ = send(desk, asked, blob)

    assert 400 == status
    assert problem in told["error"]


def test_infinity_is_refused_and_nan_only_where_it_may_be_missing(desk: Desk) -> None:
    for place, value, problem in ((1, np.inf, "no infinity"), (3, np.nan, "no null and no NaN")):
        row = np.array([[8.0, 20.0, 1.0, 2.0]])
        row[0, place] = value

        status, told, _ = send(desk, [described("x", "FP64", [1, 4], 32)], row.tobytes(), "plain")

        assert 400 == status
        assert problem in told["error"]
