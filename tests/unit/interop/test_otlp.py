"""OpenTelemetry's export is read in both encodings, and whatever else comes is refused."""

from __future__ import annotations

import gzip
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import EverloopError, InvalidInput, LimitExceeded
from everloop.interop.mlflow.otlp import attribute, read_spans

PROTOBUF, JSON = "application/x-protobuf", "application/json; charset=utf-8"


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def span(*, extra: bytes = b"") -> bytes:
    value = field(1, b'{"x": 1}')
    inputs = field(9, field(1, b"mlflow.spanInputs") + field(2, value))
    count = field(9, field(1, b"n") + field(2, b"\x18" + b"\xff" * 9 + b"\x01"))
    times = b"\x39" + struct.pack("<Q", 5_000) + b"\x41" + struct.pack("<Q", 9_000)
    status = field(15, b"\x18\x01")
    return (
        field(1, bytes(16)) + field(2, b"\1" * 8) + field(5, b"work") + times + inputs + count
        + status + extra
    )  # fmt: skip


def export(*spans: bytes) -> bytes:
    return field(1, field(2, b"".join(field(2, item) for item in spans)))


def test_a_span_in_protobuf_becomes_protobuf_s_json() -> None:
    (found,) = read_spans(export(span()), PROTOBUF, "")

    assert ("work", "5000", "9000", {"code": 1}) == (
        found["name"], found["startTimeUnixNano"], found["endTimeUnixNano"], found["status"],
    )  # fmt: skip
    assert '{"x": 1}' == attribute(found, "mlflow.spanInputs")
    assert {"intValue": "-1"} == found["attributes"][1]["value"]
    assert "AAAAAAAAAAAAAAAAAAAAAA==" == found["traceId"]


def test_unknown_fields_are_skipped() -> None:
    known = read_spans(export(span()), PROTOBUF, "")

    assert known == read_spans(export(span(extra=b"\xf8\x07\x01")), PROTOBUF, "")


def test_a_span_in_json_says_the_same_with_its_ids_in_hex() -> None:
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "00" * 16, "name": "n"}]}]}]}

    (found,) = read_spans(json.dumps(body).encode(), JSON, "")

    assert ("AAAAAAAAAAAAAAAAAAAAAA==", "n") == (found["traceId"], found["name"])


def test_an_export_may_be_packed_but_not_without_measure() -> None:
    assert 1 == len(read_spans(gzip.compress(export(span())), PROTOBUF, "gzip"))
    with pytest.raises(LimitExceeded):
        read_spans(gzip.compress(bytes(65 << 20)), PROTOBUF, "gzip")


@pytest.mark.parametrize(
    ("body", "kind", "encoding"),
    [
        (b"", PROTOBUF, ""),
        (export(span())[:-3], PROTOBUF, ""),
        (b"\x0a\xff\xff\xff\xff\x7f", PROTOBUF, ""),
        (b"\x80" * 30, PROTOBUF, ""),
        (b"x", "text/plain", ""),
        (b"x", PROTOBUF, "br"),
        (b"x", PROTOBUF, "gzip"),
        (b"[]", JSON, ""),
        (b"\xff", JSON, ""),
        (b"[" * 200_000, JSON, ""),
        (b'{"resourceSpans": 5}', JSON, ""),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [1]}]}]}', JSON, ""),
    ],
)
def test_what_is_no_export_is_refused(body: bytes, kind: str, encoding: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_spans(body, kind, encoding)

    assert "trace.export_invalid" == refused.value.code


@given(st.binary(max_size=300), st.sampled_from([PROTOBUF, JSON]))
def test_no_bytes_break_the_reader(body: bytes, kind: str) -> None:
    told = "read"
    try:
        read_spans(body, kind, "")
    except EverloopError as error:
        told = error.code

    assert told in {"read", "trace.export_invalid"}
