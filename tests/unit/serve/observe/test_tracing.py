from __future__ import annotations

import json
import sys

import pytest

from everloop.serve.observe.tracing import Tracer, open_tracer

ASKED = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
GRPC = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}


@pytest.mark.parametrize("variables", [{}, ASKED | {"OTEL_TRACES_EXPORTER": "none"}])
def test_nobody_is_told_of_traces_that_nobody_asks_for(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert open_tracer(variables) is None

    assert "" == capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "http/json"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "Grpc"} | GRPC, "Grpc"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "zipkin"),
    ],
)
def test_traces_that_cannot_be_sent_as_asked_are_off_with_a_warning(
    variables: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert open_tracer(ASKED | variables) is None

    line = json.loads(capsys.readouterr().err)
    assert ("warn", "tracing-off") == (line["log.level"], line["event.action"])
    assert said in line["message"]


def test_a_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)

    assert open_tracer(ASKED | GRPC) is None
    assert "opentelemetry-exporter-otlp-proto-grpc" in capsys.readouterr().err

    tracer = open_tracer(ASKED)
    assert isinstance(tracer, Tracer)
    tracer.close()
