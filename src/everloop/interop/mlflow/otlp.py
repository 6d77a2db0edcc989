"""Reads OpenTelemetry's trace export, protobuf or JSON, into spans as protobuf's JSON writes them.

The few messages of it are a table here, which spares a dependency; unknown fields are skipped
(https://protobuf.dev/programming-guides/encoding/, opentelemetry-proto v1).
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

from everloop.core.errors import InvalidInput, LimitExceeded

Json = dict[str, Any]
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_DEPTH: Final = 40
MALFORMED: Final = (
    ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError,
)  # fmt: skip
_HEX_FIELDS: Final = ("traceId", "spanId", "parentSpanId")
# Message -> field number -> (name, how it is read); "*" marks a repeated field.
_MESSAGES: Final[dict[str, dict[int, tuple[str, str]]]] = {
    "Request": {1: ("resourceSpans", "*ResourceSpans")},
    "ResourceSpans": {1: ("resource", "Resource"), 2: ("scopeSpans", "*ScopeSpans")},
    "Resource": {1: ("attributes", "*KeyValue")},
    "ScopeSpans": {2: ("spans", "*Span")},
    "Span": {
        1: ("traceId", "bytes"),
        2: ("spanId", "bytes"),
        3: ("traceState", "text"),
        4: ("parentSpanId", "bytes"),
        5: ("name", "text"),
        6: ("kind", "int"),
        7: ("startTimeUnixNano", "fixed64"),
        8: ("endTimeUnixNano", "fixed64"),
        9: ("attributes", "*KeyValue"),
        10: ("droppedAttributesCount", "int"),
        11: ("events", "*Event"),
        12: ("droppedEventsCount", "int"),
        13: ("links", "*Link"),
        14: ("droppedLinksCount", "int"),
        15: ("status", "Status"),
        16: ("flags", "fixed32"),
    },
    "Event": {
        1: ("timeUnixNano", "fixed64"),
        2: ("name", "text"),
        3: ("attributes", "*KeyValue"),
        4: ("droppedAttributesCount", "int"),
    },
    "Link": {
        1: ("traceId", "bytes"),
        2: ("spanId", "bytes"),
        3: ("traceState", "text"),
        4: ("attributes", "*KeyValue"),
        5: ("droppedAttributesCount", "int"),
        6: ("flags", "fixed32"),
    },
    "Status": {2: ("message", "text"), 3: ("code", "int")},
    "KeyValue": {1: ("key", "text"), 2: ("value", "AnyValue")},
    "AnyValue": {
        1: ("stringValue", "text"),
        2: ("boolValue", "bool"),
        3: ("intValue", "int64"),
        4: ("doubleValue", "double"),
        5: ("arrayValue", "ArrayValue"),
        6: ("kvlistValue", "KeyValueList"),
        7: ("bytesValue", "bytes"),
    },
    "ArrayValue": {1: ("values", "*AnyValue")},
    "KeyValueList": {1: ("values", "*KeyValue")},
}


def read_spans(body: bytes, content_type: str, encoding: str) -> list[Json]:
    """Return the spans of an export request.

    Raises:
        InvalidInput: ``trace.export_invalid``.
        LimitExceeded: ``trace.export_too_large`` once unpacked.
    """
    body = _unpack(body, encoding.strip().lower())
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == "application/json":
            request = json.loads(body)
            spans = list(_spans_of(request))
            for span in spans:
                _to_base64(span)
        elif kind == "application/x-protobuf":
            spans = list(_spans_of(_message("Request", body, 0)))
        else:
            raise _invalid(f"its content type is {content_type[:60]!r}")
    except InvalidInput:
        raise
    except (*MALFORMED, struct.error, RecursionError) as error:
        raise _invalid("it is cut off or of another format") from error
    if not spans:
        raise _invalid("it holds no spans")
    return spans


def attribute(span: Json, key: str) -> str | None:
    """Return a text attribute of a span, or None."""
    for item in span.get("attributes", ()):
        if item.get("key") == key:
            text = item.get("value", {}).get("stringValue")
            return text if isinstance(text, str) else None
    return None


def _spans_of(request: Json) -> Iterator[Json]:
    for resource in request.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            yield from scope.get("spans", ())


def _to_base64(span: Json) -> None:
    for holder in (span, *span.get("links", ())):
        for name in _HEX_FIELDS:
            if holder.get(name):
                holder[name] = base64.b64encode(bytes.fromhex(holder[name])).decode()


def _unpack(body: bytes, encoding: str) -> bytes:
    if encoding in {"", "identity"}:
        return body
    windows = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
    if encoding not in windows:
        raise _invalid(f"its encoding is {encoding[:40]!r}")
    unpacker = zlib.decompressobj(windows[encoding])
    try:
        unpacked = unpacker.decompress(body, MAX_BYTES)
    except zlib.error as error:
        raise _invalid("it cannot be decompressed") from error
    if unpacker.unconsumed_tail:
        raise LimitExceeded(
            "trace.export_too_large",
            f"More than {MAX_BYTES:,} bytes once unpacked.",
            hint="Send fewer spans at once.",
        )
    return unpacked


def _message(kind: str, data: bytes, depth: int) -> Json:
    if depth > MAX_DEPTH:
        raise _invalid("it is nested too deeply")
    fields = _MESSAGES[kind]
    found: Json = {}
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        raw, place = _raw(data, place, tag & 7)
        if tag >> 3 not in fields:
            continue
        name, how = fields[tag >> 3]
        value = _value(how.lstrip("*"), raw, depth)
        if how.startswith("*"):
            found.setdefault(name, []).append(value)
        else:
            found[name] = value
    return found


def _raw(data: bytes, place: int, wire: int) -> tuple[int | bytes, int]:
    if wire == 0:
        return _varint(data, place)
    if wire == 2:
        size, place = _varint(data, place)
    elif wire in {1, 5}:
        size = 8 if wire == 1 else 4
    else:
        raise _invalid(f"it has the wire type {wire}")
    if place + size > len(data):
        raise _invalid("it is cut off")
    return data[place : place + size], place + size


def _value(how: str, raw: int | bytes, depth: int) -> object:
    if how in {"int", "int64", "bool"}:
        if not isinstance(raw, int):
            raise _invalid("a number has another form")
        number = raw - (1 << 64) if raw >> 63 else raw
        return {"int": number, "int64": str(number), "bool": bool(raw)}[how]
    if not isinstance(raw, bytes):
        raise _invalid("a text has another form")
    if how == "text":
        return raw.decode()
    if how == "bytes":
        return base64.b64encode(raw).decode()
    if how == "double":
        return _number(struct.unpack("<d", raw)[0])
    if how == "fixed64":
        return str(struct.unpack("<Q", raw)[0])
    if how == "fixed32":
        return struct.unpack("<I", raw)[0]
    return _message(how, raw, depth + 1)


def _number(value: float) -> float | str:
    from everloop.interop.mlflow.reading import number

    return number(value)


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, place
        shift += 7
        if shift > 63:
            raise _invalid("a number is too long")


def _invalid(reason: str) -> InvalidInput:
    return InvalidInput(
        "trace.export_invalid",
        f"The trace export cannot be read: {reason}.",
        hint="Send OTLP over HTTP as application/x-protobuf or application/json.",
    )
