from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from everloop.serve.proto import load_messages
from everloop.serve.runtime import open_model
from tests.unit.serve.served import MODEL, TOKEN, Served, make_folder

SAYS = load_messages()
REAL = open_model("lightgbm", {"model.txt": MODEL}, 4).predict
EXPECTED = float(REAL(np.array([[8.0, 21.5, 1.0, 2.0]]))[0])


class Caller:
    def __init__(self, served: Served, channel: grpc.Channel) -> None:
        self.served = served
        self._channel = channel

    def __call__(self, method: str, token: str | None = TOKEN, **fields: Any) -> Any:
        call = self._channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            request_serializer=getattr(SAYS, f"{method}Request").SerializeToString,
            response_deserializer=getattr(SAYS, f"{method}Response").FromString,
        )
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        asked = getattr(SAYS, f"{method}Request")(**fields)
        return call(asked, metadata=metadata, timeout=30)

    def health(self, service: str) -> int:
        call = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=SAYS.HealthCheckRequest.SerializeToString,
            response_deserializer=SAYS.HealthCheckResponse.FromString,
        )
        status: int = call(SAYS.HealthCheckRequest(service=service), timeout=30).status
        return status

    def refused(self, method: str, **fields: Any) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as found:
            self(method, **fields)
        return found.value.code().name, found.value.details()


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    served = make_folder(tmp_path_factory.mktemp("grpc") / "bikes")
    served.route(served.seal(1))
    address = served.start("--grpc-port", "0").grpc
    assert address is not None
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(address, options=options) as channel:
        yield Caller(served, channel)
    served.close()


def tensors(**changes: Any) -> list[dict[str, Any]]:
    """One row as typed contents."""
    made: list[dict[str, Any]] = [
        {"name": "hour", "datatype": "INT64", "contents": {"int64_contents": [8]}},
        {"name": "temperature", "datatype": "FP64", "contents": {"fp64_contents": [21.5]}},
        {"name": "working_day", "datatype": "BOOL", "contents": {"bool_contents": [True]}},
        {"name": "weather", "datatype": "BYTES", "contents": {"bytes_contents": [b"rain"]}},
    ]
    return [{**each, "shape": [1, 1], **changes.get(each["name"], {})} for each in made]


def raw() -> tuple[list[dict[str, Any]], list[bytes]]:
    inputs = [{**each, "contents": None} for each in tensors()]
    blobs = [np.int64(8).tobytes(), np.float64(21.5).tobytes(), b"\1", b"\4\0\0\0rain"]
    return inputs, blobs


def test_typed_contents_are_answered_typed_and_logged(call: Caller) -> None:
    parameters = {
        "unit": {"string_param": "ann"},
        "keys": {"string_param": '["k1"]'},
        "priority": {"int64_param": 3},
    }

    told = call(
        "ModelInfer", model_name="bikes", id="mine", inputs=tensors(), parameters=parameters
    )

    assert ("bikes", "1.1.0", "mine") == (told.model_name, told.model_version, told.id)
    (output,) = told.outputs
    assert ("rentals", "FP64", [1, 1]) == (output.name, output.datatype, list(output.shape))
    assert ([EXPECTED], 0) == (
        list(output.contents.fp64_contents),
        len(told.raw_output_contents),
    )
    row = next(
        row for row in call.served.rows() if row.id == told.parameters["prediction_id"].string_param
    )
    assert ("ann", "k1", "mine", EXPECTED) == (row.unit, row.key, row.request, row.output)


def test_raw_contents_are_answered_raw(call: Caller) -> None:
    inputs, blobs = raw()

    told = call("ModelInfer", model_name="bikes", inputs=inputs, raw_input_contents=blobs)

    assert [EXPECTED] == np.frombuffer(told.raw_output_contents[0], "<f8").tolist()
    assert not told.outputs[0].HasField("contents")


def test_metadata_and_readiness_are_told(call: Caller) -> None:
    model = call("ModelMetadata", name="bikes")

    assert ["hour", "temperature", "working_day", "weather"] == [one.name for one in model.inputs]
    assert [[-1, 1]] == [list(one.shape) for one in model.outputs]
    assert "everloop" == call("ServerMetadata", token=None).name
    assert call("ServerLive", token=None).live
    assert call("ServerReady", token=None).ready
    assert [True, False, False] == [
        call("ModelReady", token=None, name=name, version=version).ready
        for name, version in (("bikes", "1.1.0"), ("bikes", "9"), ("nobody", ""))
    ]


def test_health_is_told_as_kubernetes_asks(call: Caller) -> None:
    assert [1, 1, 1] == [
        call.health(name) for name in ("", "bikes", "inference.GRPCInferenceService")
    ]
    with pytest.raises(grpc.RpcError) as found:
        call.health("nobody")
    assert "NOT_FOUND" == found.value.code().name


def test_an_error_has_the_code_that_clients_act_on(call: Caller) -> None:
    inputs, blobs = raw()
    small = {"hour": {"datatype": "INT8", "contents": {"int_contents": [300]}}}
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "NOT_FOUND nobody": ("ModelInfer", {"model_name": "nobody", "inputs": inputs}),
        "NOT_FOUND '9'": (
            "ModelInfer",
            {"model_name": "bikes", "model_version": "9", "inputs": tensors()},
        ),
        "UNAUTHENTICATED token": (
            "ModelInfer",
            {"token": None, "model_name": "bikes", "inputs": tensors()},
        ),
        "UNAUTHENTICATED unknown": ("ModelMetadata", {"token": "evl_wrong", "name": "bikes"}),
        "INVALID_ARGUMENT twice": (
            "ModelInfer",
            {"model_name": "bikes", "inputs": tensors(), "raw_input_contents": blobs},
        ),
        "INVALID_ARGUMENT 3 raw_input_contents": (
            "ModelInfer",
            {"model_name": "bikes", "inputs": inputs, "raw_input_contents": blobs[:3]},
        ),
        "INVALID_ARGUMENT data of 0": ("ModelInfer", {"model_name": "bikes", "inputs": inputs}),
        "INVALID_ARGUMENT belongs in int64_contents": (
            "ModelInfer",
            {
                "model_name": "bikes",
                "inputs": tensors(hour={"contents": {"fp64_contents": [8.0]}}),
            },
        ),
        "INVALID_ARGUMENT raw_input_contents alone": (
            "ModelInfer",
            {"model_name": "bikes", "inputs": tensors(temperature={"datatype": "FP16"})},
        ),
        "INVALID_ARGUMENT INT8": (
            "ModelInfer",
            {"model_name": "bikes", "inputs": tensors(**small)},
        ),
        "INVALID_ARGUMENT no output": (
            "ModelInfer",
            {"model_name": "bikes", "inputs": tensors(), "outputs": [{"name": "price"}]},
        ),
        "INVALID_ARGUMENT GET /v2/models/bikes shows": ("ModelInfer", {"model_name": "bikes"}),
        "PERMISSION_DENIED release": ("RepositoryModelLoad", {"model_name": "bikes"}),
    }

    for told, (method, fields) in cases.items():
        code, _, problem = told.partition(" ")
        found = call.refused(method, **fields)
        assert (code, True) == (found[0], problem in found[1]), (told, found)


def test_a_message_above_the_usual_four_megabytes_is_read_and_one_above_the_limit_is_not(
    call: Caller,
) -> None:
    rows = 60_000
    inputs = [{**each, "shape": [rows, 1], "contents": None} for each in tensors()]
    one = raw()[1]
    blobs = [blob * rows for blob in one]
    assert sum(map(len, blobs)) > 1_400_000

    padded = {"pad": {"string_param": "x" * 5_000_000}}
    told = call(
        "ModelInfer",
        model_name="bikes",
        inputs=inputs,
        raw_input_contents=blobs,
        parameters=padded,
    )
    assert {EXPECTED} == set(np.frombuffer(told.raw_output_contents[0], "<f8").tolist())

    padded = {"pad": {"string_param": "x" * 40_000_000}}
    code, _ = call.refused("ModelInfer", model_name="bikes", inputs=tensors(), parameters=padded)
    assert "RESOURCE_EXHAUSTED" == code


def test_calls_in_flight_are_answered_when_the_process_ends(tmp_path: Path) -> None:
    served = make_folder(tmp_path / "bikes")
    served.route(served.seal(1))
    address = served.start("--grpc-port", "0").grpc
    assert address is not None
    inputs = [{**each, "shape": [40_000, 1], "contents": None} for each in tensors()]
    asked = SAYS.ModelInferRequest(
        model_name="bikes", inputs=inputs, raw_input_contents=[one * 40_000 for one in raw()[1]]
    )
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(30)
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=SAYS.ModelInferRequest.SerializeToString,
            response_deserializer=SAYS.ModelInferResponse.FromString,
        )
        calls = [
            infer.future(asked, metadata=(("authorization", f"Bearer {TOKEN}"),), timeout=60)
            for _ in range(3)
        ]
        calls[0].result()
        code = served.stop()
        found = [one.code().name for one in calls]

    served.close()
    assert 0 == code
    assert "OK" == found[0]
    assert set(found) <= {"OK", "UNAVAILABLE"}


def test_an_answer_is_explained_where_that_is_asked_for(call: Caller) -> None:
    told = call(
        "ModelInfer",
        model_name="bikes",
        inputs=tensors(),
        parameters={"explain": {"string_param": "tree"}},
    )

    why = json.loads(told.parameters["explanation"].string_param)
    (row,) = why["rows"]
    assert why["base"] + sum(row["values"].values()) == pytest.approx(EXPECTED)


def test_a_way_of_explaining_that_is_none_is_refused(call: Caller) -> None:
    parameters = {"explain": {"string_param": "guess"}}

    code, told = call.refused(
        "ModelInfer", model_name="bikes", inputs=tensors(), parameters=parameters
    )

    assert ("INVALID_ARGUMENT", True) == (code, "guess" in told)
