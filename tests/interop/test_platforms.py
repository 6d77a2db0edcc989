"""Each platform's contract, asked as the platform asks it, of a real process started its way."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from everloop.serve.runtime import open_model
from tests.unit.serve.served import MODEL, ROW
from tests.unit.serve.standalone import seal, standing

EXPECTED = float(
    open_model("lightgbm", {"model.txt": MODEL}, 4).predict(np.array([[8.0, 21.5, 1, 2]]))[0]
)
LISTED = [8, 21.5, True, "rain"]
IS_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
AIP = {
    "AIP_HTTP_PORT": "0",
    "AIP_HEALTH_ROUTE": "/v1/endpoints/17/deployedModels/4",
    "AIP_PREDICT_ROUTE": "/v1/endpoints/17/deployedModels/4:predict",
    "AIP_MODE": "PREDICTION",
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seal(tmp_path_factory.mktemp("platforms") / "bundle")


@pytest.fixture(scope="module")
def client(bundle: Path) -> Iterator[httpx.Client]:
    """A container as Vertex AI starts it; the other platforms ask the same process."""
    with (
        standing(variables=AIP | {"EVERLOOP_MODEL": str(bundle)}) as url,
        httpx.Client(base_url=url) as made,
    ):
        yield made


def test_vertex_asks_health_and_predictions_where_its_variables_say(client: httpx.Client) -> None:
    healthy = client.get(AIP["AIP_HEALTH_ROUTE"])
    answer = client.post(
        AIP["AIP_PREDICT_ROUTE"],
        json={
            "instances": [ROW, ROW | {"hour": 3, "weather": "snow", "temperature": -9.5}, ROW],
            "parameters": {"unknown": 1},
        },
    )

    assert 200 == healthy.status_code
    assert 200 == answer.status_code
    assert {"predictions"} == set(answer.json())
    first, second, third = answer.json()["predictions"]
    assert (EXPECTED, EXPECTED) == (first, third)
    assert first != second


def test_vertex_takes_instances_as_lists_too(client: httpx.Client) -> None:
    answer = client.post(AIP["AIP_PREDICT_ROUTE"], json={"instances": [LISTED, LISTED]})

    assert [EXPECTED, EXPECTED] == answer.json()["predictions"]


def test_sagemaker_pings_and_invokes_with_headers_of_its_own(bundle: Path) -> None:
    theirs = {
        "Content-Type": "text/csv",
        "Accept": "text/csv",
        "X-Amzn-SageMaker-Target-Model": "a.tar.gz",
        "X-Amzn-SageMaker-Custom-Attributes": "trace=1",
    }
    variables = {"EVERLOOP_MODEL": str(bundle), "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    with standing("serve", "--port", "0", variables=variables) as url:
        healthy = httpx.get(f"{url}/ping", timeout=2)
        answer = httpx.post(
            f"{url}/invocations", content="8,21.5,1,rain\n8,,1,rain\n", headers=theirs
        )

    assert (200, "") == (healthy.status_code, healthy.text.strip())
    assert 200 == answer.status_code
    assert "text/csv" == answer.headers["content-type"]
    lines = answer.text.split()
    assert 2 == len(lines)
    assert EXPECTED == float(lines[0])
    told = answer.headers["x-amzn-sagemaker-custom-attributes"]
    assert IS_ID.fullmatch(told.removeprefix("prediction="))


@pytest.mark.parametrize(
    "body",
    [
        b'{"hour": 8, "temperature": 21.5, "working_day": true, "weather": "rain"}\n',
        b'[8, 21.5, true, "rain"]\n',
        b'{"features": [8, 21.5, true, "rain"]}\n',
    ],
)
def test_sagemaker_sends_and_wants_lines_of_json(client: httpx.Client, body: bytes) -> None:
    kind = "application/jsonlines"
    answer = client.post(
        "/invocations", content=body * 2, headers={"content-type": kind, "accept": kind}
    )

    assert kind == answer.headers["content-type"]
    assert [EXPECTED, EXPECTED] == [float(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": list(ROW), "index": [0], "data": [list(ROW.values())]}},
        {"dataframe_split": {"columns": ["extra", *ROW], "data": [["x", *ROW.values()]]}},
        {"dataframe_records": [ROW | {"extra": 3}]},
        {"instances": [ROW]},
        {"instances": [LISTED], "params": {"temperature": 1}},
        {"inputs": {name: [value] for name, value in ROW.items()}},
        {"inputs": {name: [[value]] for name, value in ROW.items()}},
        {"inputs": ROW},
        {"inputs": [[8.0, 21.5, 1.0, "rain"]]},
    ],
    ids=lambda body: str(body)[:40],
)
def test_mlflow_sends_rows_in_each_of_its_formats(
    client: httpx.Client, body: dict[str, object]
) -> None:
    answer = client.post("/invocations", json=body)

    assert 200 == answer.status_code, answer.text
    assert {"predictions": [EXPECTED]} == answer.json()
    assert IS_ID.fullmatch(answer.headers["x-prediction-id"])
    assert "1.3.0" == answer.headers["x-model-version"]


def test_csv_with_a_header_stands_in_any_order(client: httpx.Client) -> None:
    text = "weather,hour,temperature,working_day,extra\nrain,8.0,21.5,True,7\n"
    answer = client.post("/invocations", content=text, headers={"content-type": "text/csv"})

    assert {"predictions": [EXPECTED]} == answer.json()


def test_the_nan_that_python_writes_is_a_missing_value(client: httpx.Client) -> None:
    nan = b'{"dataframe_split": {"data": [[8, NaN, true, "rain"]]}}'
    missing = client.post("/invocations", content=nan, headers={"content-type": "application/json"})
    null = client.post("/invocations", json={"inputs": [[8, None, True, "rain"]]})

    assert 200 == missing.status_code, missing.text
    assert null.json() == missing.json()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"[1, 2]", "no JSON object"),
        (b"{}", "none of the formats"),
        (b'{"instances": [[1]], "inputs": [[1]]}', "instances, inputs"),
        (b'{"instances": []}', "no rows"),
        (b'{"instances": [[8, 21.5, true, "rain"], [8, "x", true, "rain"]]}', "[1].temperature"),
        (b'{"instances": [{"hour": 8}]}', "working_day"),
        (b'{"dataframe_split": {"columns": ["hour"], "data": [[8]]}}', "no column `weather`"),
        (b'{"dataframe_split": {"columns": ["hour"], "data": [[8, 9]]}}', "2 values for 1"),
        (b'{"inputs": {"hour": [8, 9], "weather": ["rain"]}}', "`"),
        (b'{"inputs": [[Infinity, 1, true, "rain"]]}', "not JSON"),
        (b'{"inputs": [[1e999, 1, true, "rain"]]}', "`"),
        (b'{"inputs": [[' + b"9" * 400 + b', 1, true, "rain"]]}', "`"),
        (b'{"inputs": ' + b"[" * 100_000, "not JSON"),
        (b'{"messages": [{"role": "user"}]}', "none of the formats"),
        (b"\xff\xfe", "not JSON"),
    ],
    ids=range(15),
)
def test_mlflow_is_told_what_was_wrong_in_its_own_words(
    client: httpx.Client, body: bytes, told: str
) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/invocations", content=body, headers=headers)

    assert 400 == answer.status_code, answer.text
    assert {"error_code", "message"} == set(answer.json())
    assert "BAD_REQUEST" == answer.json()["error_code"]
    assert told in answer.json()["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/invocations", {"dataframe_records": [ROW]}),
        ("/score", {"input_data": [ROW]}),
        ("/v1/models/bikes:predict", {"instances": [ROW]}),
        ("/models/bikes/predict", {"inputs": [ROW]}),
        ("/models/bikes/whatif", {"inputs": [ROW]}),
    ],
)
def test_json_goes_by_the_same_names_everywhere(
    client: httpx.Client, path: str, body: dict[str, object]
) -> None:
    def status(kind: str) -> int:
        return client.post(
            path, content=json.dumps(body), headers={"content-type": kind} if kind else {}
        ).status_code

    kinds = ["", "application/json", "application/ld+json", "application/x-www-form-urlencoded"]
    assert [200] * 4 == [status(kind) for kind in kinds]
    assert [415] * 2 == [status("application/x-python-pickle"), status("text/plain")]


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-pickle",
        "application/octet-stream",
        "application/json; charset=latin-1",
        "application/json; frame=split",
    ],
)
def test_other_types_are_refused_in_plain_text(client: httpx.Client, kind: str) -> None:
    answer = client.post("/invocations", content=b"\x80\x04]", headers={"content-type": kind})

    assert 415 == answer.status_code
    assert answer.headers["content-type"].startswith("text/plain")


def test_kserve_lists_models_and_asks_one(client: httpx.Client) -> None:
    listed = client.get("/v1/models")
    ready = client.get("/v1/models/bikes")
    answer = client.post("/v1/models/bikes:predict", json={"instances": [ROW, LISTED]})
    mixed = client.post("/v1/models/bikes:predict", json={"instances": [ROW, ROW]})
    absent = client.post("/v1/models/cars:predict", json={"instances": [ROW]})

    assert "alive" == client.get("/").json()["status"]  # as its client asks whether a server lives
    assert {"models": ["bikes"]} == listed.json()
    assert {"name": "bikes", "ready": True} == ready.json()
    assert 400 == answer.status_code
    assert {"predictions": [EXPECTED, EXPECTED]} == mixed.json()
    assert 404 == absent.status_code
    assert isinstance(absent.json()["error"], str)


def test_kserve_explains_what_it_predicts(client: httpx.Client) -> None:
    answer = client.post("/v1/models/bikes:explain", json={"instances": [ROW]}).json()

    (explanation,) = answer["explanations"]
    assert [EXPECTED] == answer["predictions"]
    assert list(ROW) == list(explanation["values"])
    total = explanation["base"] + sum(explanation["values"].values())
    # The trees' own contributions: this bundle has no background, and regression no link.
    assert "tree" == explanation["method"]
    assert pytest.approx(EXPECTED) == total


def test_the_open_inference_protocol_explains_on_request(client: httpx.Client) -> None:
    inputs = [
        {"name": name, "shape": [1], "datatype": kind, "data": [ROW[name]]}
        for name, kind in zip(ROW, ("INT64", "FP64", "BOOL", "BYTES"), strict=True)
    ]

    def ask(explain: object) -> httpx.Response:
        body = {"inputs": inputs, "parameters": {"explain": explain}}
        return client.post("/v2/models/bikes/infer", json=body)

    explained, plain, wrong = ask("tree"), ask(False), ask("magic")

    told = json.loads(explained.json()["parameters"]["explanation"])
    (row,) = told["rows"]
    assert pytest.approx(EXPECTED) == told["base"] + sum(row["values"].values())
    assert [EXPECTED] == explained.json()["outputs"][0]["data"]
    assert "explanation" not in plain.json()["parameters"]
    assert 400 == wrong.status_code


def test_plain_json_explains_on_request_and_within_limits(client: httpx.Client) -> None:
    plain = client.post("/v1/predict", json={"inputs": [ROW]}).json()
    explained = client.post("/v1/predict", json={"inputs": [ROW], "explain": True}).json()
    many = client.post("/v1/predict", json={"inputs": [ROW] * 101, "explain": True})
    other = client.post("/v1/predict", json={"inputs": [ROW], "explain": "sampling"})

    assert "explanation" not in plain
    assert plain["predictions"][0]["output"] == explained["predictions"][0]["output"]
    (row,) = explained["explanation"]["rows"]
    assert set(ROW) == set(row["values"])
    assert (413, "explain.too_many_rows") == (many.status_code, many.json()["error"]["code"])
    assert (400, "explain.unavailable") == (other.status_code, other.json()["error"]["code"])


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"input_data": {"columns": list(ROW), "data": [list(ROW.values())]}}, [EXPECTED]),
        ({"input_data": [LISTED]}, [EXPECTED]),
        ({"input_data": {name: [value] for name, value in ROW.items()}}, [EXPECTED]),
        ({"dataframe_records": [ROW]}, {"predictions": [EXPECTED]}),
    ],
    ids=range(4),
)
def test_azure_scores(client: httpx.Client, body: dict[str, object], answer: object) -> None:
    assert answer == client.post("/score", json=body).json()


@pytest.mark.parametrize(
    "path", ["/ping", "/health", "/healthz", "/readyz", "/v1/models", "/version"]
)
def test_what_a_platform_may_watch_answers_200(client: httpx.Client, path: str) -> None:
    assert 200 == client.get(path).status_code
