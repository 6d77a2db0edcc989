from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest

from everloop.core.errors import InvalidInput, LimitExceeded
from everloop.serve.decode import RowDecoder, event_time
from everloop.serve.identity import MOST_ROWS
from everloop.serve.protocol import InputField
from tests.unit.serve.served import INPUTS, MATRIX_ROW, ROW

DECODER = RowDecoder(INPUTS)
NOW = datetime(2026, 5, 1, tzinfo=UTC)


def ask(*rows: object, **fields: object) -> bytes:
    return msgspec.json.encode({"inputs": rows, **fields})


def changed(**values: object) -> dict[str, object]:
    return {**ROW, **values}


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in ROW.items() if key != name}


def test_rows_become_numbers_in_the_order_of_the_signature() -> None:
    request = DECODER.decode(ask(dict(reversed(ROW.items()))))

    assert [MATRIX_ROW] == DECODER.to_matrix(request.inputs).tolist()


def test_null_and_a_missing_nullable_field_are_nan() -> None:
    request = DECODER.decode(ask(changed(temperature=None), without("temperature")))

    assert np.isnan(DECODER.to_matrix(request.inputs)[:, 1]).all()


def test_a_whole_number_may_be_written_with_a_point() -> None:
    request = DECODER.decode(ask(changed(hour=8.0)))

    (row,) = request.inputs
    (hour, *_) = msgspec.structs.astuple(row)
    assert (8, int) == (hour, type(hour))


def test_a_refusal_names_the_address_that_tells_what_the_model_takes() -> None:
    with pytest.raises(InvalidInput) as refused:
        RowDecoder(INPUTS, "rents/a b").decode(ask(changed(hour="8")))

    assert refused.value.hint.startswith("GET /models/rents%2Fa%20b tells")


def test_a_string_that_training_never_saw_is_nan() -> None:
    request = DECODER.decode(ask(changed(weather="frogs")))

    assert math.isnan(DECODER.to_matrix(request.inputs)[0, 3])


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (changed(hour="8"), "`$.inputs[0].hour`"),
        (changed(hour=8.5), "`$.inputs[0].hour`"),
        (changed(hour=2.0**53 + 2), "`$.inputs[0].hour`"),
        (changed(hour=None), "`$.inputs[0].hour`"),
        (changed(working_day=1), "`$.inputs[0].working_day`"),
        (changed(weather=3), "`$.inputs[0].weather`"),
        (changed(temperature=True), "`$.inputs[0].temperature`"),
        (changed(wind=3.0), "`wind`"),
        (without("hour"), "`hour`"),
        ([8, 21.5, True, "rain"], "`$.inputs[0]`"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_by_the_name_of_its_field(
    row: object, named: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        DECODER.decode(ask(row))

    assert "request.invalid" == refused.value.code
    assert named in refused.value.message


@pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"-Infinity"])
def test_nan_and_infinity_are_refused_by_the_name_of_their_field(word: bytes) -> None:
    body = ask(ROW).replace(b"21.5", word)

    with pytest.raises(InvalidInput) as refused:
        DECODER.decode(body)

    assert "`$.inputs[0].temperature`" in refused.value.message


def test_a_number_too_large_for_a_float_is_refused_by_the_name_of_its_field() -> None:
    with pytest.raises(InvalidInput) as refused:
        DECODER.decode(ask(ROW).replace(b"21.5", b"1e999"))

    assert "`$.inputs[0].temperature`" in refused.value.message


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"inputs": [NaN', b'"\\ud800"']
)
def test_what_is_not_json_is_refused_as_malformed(body: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        DECODER.decode(body)

    assert refused.value.code in {"request.malformed", "request.invalid"}


@pytest.mark.parametrize("fields", [{"mode": "fast"}, {"unit": ""}, {"unit": "u" * 201}, {"at": 3}])
def test_unknown_and_unfit_fields_of_the_request_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        DECODER.decode(ask(ROW, **fields))


def test_no_rows_are_refused() -> None:
    with pytest.raises(InvalidInput):
        DECODER.decode(ask())


def test_more_rows_than_the_limit_are_refused() -> None:
    with pytest.raises(LimitExceeded) as refused:
        DECODER.decode(ask(*[ROW] * (MOST_ROWS + 1)))

    assert "request.too_many_rows" == refused.value.code


def test_field_names_may_be_any_text() -> None:
    names = ("temp (C)", "class", "1st", "", "größe", "__init__")
    decoder = RowDecoder(tuple(InputField(name=name, dtype="float64") for name in names))

    request = decoder.decode(ask({name: float(place) for place, name in enumerate(names)}))

    assert [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]] == decoder.to_matrix(request.inputs).tolist()


def test_event_time_is_now_or_what_the_caller_says() -> None:
    assert NOW == event_time(None, NOW)
    assert datetime(2011, 1, 1, tzinfo=UTC) == event_time("2011-01-01T00:00:00Z", NOW)
    assert NOW + timedelta(hours=23) == event_time("2026-05-01T23:00:00+00:00", NOW)


@pytest.mark.parametrize(
    "text", ["yesterday", "", "2026-05-03T00:00:00Z", "9999-12-31T23:59:59-23:59", "x" * 10_000]
)
def test_an_unreadable_or_far_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        event_time(text, NOW)

    assert "request.time" == refused.value.code
    assert "`$.at`" in refused.value.message


@pytest.mark.parametrize("keys", [["a"], ["a", "b", "c"]])
def test_keys_that_are_not_one_for_each_row_are_refused(keys: list[str]) -> None:
    with pytest.raises(InvalidInput, match="keys for 2 rows"):
        DECODER.decode(ask(ROW, ROW, keys=keys))
