"""The traps of MLflow's REST interface, each as its clients would fall into it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from everloop.http.application import create_app
from everloop.interop.mlflow import make_mlflow_app
from everloop.interop.mlflow.access import Access
from everloop.kernel.tokens import CreateToken, NewToken
from tests.kit import PROJECT, World, world
from tests.parts.mlflow import QUIET
from tests.unit.http.calling import HOST, LoopbackClient

API = "/api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
AT = 1_700_000_000_000


class Mlflow:
    """Calls the interface as a client does, with a token."""

    def __init__(self, client: LoopbackClient, made: World) -> None:
        self.client = client
        self.world = made

    def post(self, path: str, body: object, *, method: str = "POST") -> httpx.Response:
        headers = {"authorization": f"Bearer {self.client.token}"}
        return self.client.request(method, path, json=body, headers=headers)

    def ok(self, path: str, body: object, *, method: str = "POST") -> dict[str, Any]:
        answer = self.post(f"{API}/{path}", body, method=method)
        assert 200 == answer.status_code, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def get(self, address: str, /, **params: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.client.token}"}
        return self.client.get(address, headers=headers, params=params)

    def put(self, path: str, content: bytes) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.client.token}"}
        return self.client.request("PUT", f"{FILES}/{path}", content=content, headers=headers)

    def experiment(self, name: str) -> str:
        made: str = self.ok("experiments/create", {"name": name})["experiment_id"]
        return made

    def run(self, experiment: str = "0", **more: object) -> str:
        body = {"experiment_id": experiment, "start_time": AT, **more}
        made: str = self.ok("runs/create", body)["run"]["info"]["run_id"]
        return made

    def shown(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"{API}/runs/get", run_id=run).json()["run"]
        return found

    def search(self, experiment: str, **more: object) -> dict[str, Any]:
        return self.ok("runs/search", {"experiment_ids": [experiment], **more})


@pytest.fixture(scope="module")
def mlflow() -> Iterator[Mlflow]:
    made = world()
    token = made.instance(CreateToken(name="t", days=30), "token.create")
    assert isinstance(token, NewToken)
    front = make_mlflow_app(Access(made.kernel, PROJECT), made.kernel.services.ids.new)
    app = create_app(made.kernel, version="0", hosts=frozenset({HOST}), front=(front,))
    with LoopbackClient(app) as client:
        client.token = token.secret
        yield Mlflow(client, made)


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error_code"]


# --- 1 and 2: protobuf's JSON ---------------------------------------------------------------------


def test_ids_go_out_as_texts_and_int64_as_numbers(mlflow: Mlflow) -> None:
    info = mlflow.shown(mlflow.run())["info"]

    assert isinstance(info["experiment_id"], str)
    assert AT == info["start_time"]
    assert "RUNNING" == info["status"]


@pytest.mark.parametrize("step", ["7", 7, 7.0])
def test_an_integer_may_come_as_text_or_whole_float(mlflow: Mlflow, step: object) -> None:
    run = mlflow.run()

    mlflow.ok(
        "runs/log-metric",
        {"run_id": run, "key": "m", "value": 1, "timestamp": str(AT), "step": step},
    )

    assert [7] == [point["step"] for point in mlflow.shown(run)["data"]["metrics"]]


def test_a_fraction_in_an_integer_field_is_refused(mlflow: Mlflow) -> None:
    body = {"run_id": mlflow.run(), "key": "m", "value": 1, "timestamp": AT, "step": 1.5}

    answer = mlflow.post(f"{API}/runs/log-metric", body)

    assert (400, "INVALID_PARAMETER_VALUE") == refused(answer)


def test_null_camel_case_and_unknown_fields_are_read_as_protobuf_reads_them(
    mlflow: Mlflow,
) -> None:
    body: dict[str, object] = {
        "experimentId": "0",
        "startTime": str(AT),
        "runName": "camel",
        "tags": None,
        "new": {},
    }

    info = mlflow.ok("runs/create", body)["run"]["info"]

    assert ("camel", AT) == (info["run_name"], info["start_time"])


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'{"run_id": {}}', b"[" * 100_000])
def test_a_body_that_is_no_request_is_refused_politely(mlflow: Mlflow, body: bytes) -> None:
    headers = {"authorization": f"Bearer {mlflow.client.token}"}

    answer = mlflow.client.request("POST", f"{API}/runs/update", content=body, headers=headers)

    assert (400, "INVALID_PARAMETER_VALUE") == refused(answer)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_value_that_is_not_finite_comes_back_as_it_was(mlflow: Mlflow, value: str) -> None:
    run = mlflow.run()

    mlflow.ok("runs/log-metric", {"run_id": run, "key": "m", "value": value, "timestamp": AT})

    assert [value] == [point["value"] for point in mlflow.shown(run)["data"]["metrics"]]


# --- 3: both names of a run -----------------------------------------------------------------------


def test_a_run_is_named_by_its_new_or_its_old_field(mlflow: Mlflow) -> None:
    run = mlflow.run()

    mlflow.ok("runs/set-tag", {"run_uuid": run, "key": "a", "value": "b"})
    info = mlflow.get(f"{API}/runs/get", run_uuid=run).json()["run"]["info"]

    assert (run, run) == (info["run_id"], info["run_uuid"])


# --- 4: codes that clients act on -----------------------------------------------------------------


def test_an_unknown_experiment_is_missing_with_404(mlflow: Mlflow) -> None:
    answer = mlflow.get(f"{API}/experiments/get-by-name", experiment_name="none")

    assert (404, "RESOURCE_DOES_NOT_EXIST") == refused(answer)


def test_a_name_that_is_taken_is_400_and_not_409(mlflow: Mlflow) -> None:
    mlflow.experiment("taken")
    mlflow.ok("registered-models/create", {"name": "taken"})

    for path in ("experiments/create", "registered-models/create"):
        answer = mlflow.post(f"{API}/{path}", {"name": "taken"})
        assert (400, "RESOURCE_ALREADY_EXISTS") == refused(answer)


# --- 5: prompts -----------------------------------------------------------------------------------


def test_a_tag_that_is_missing_is_not_equal_to_anything(mlflow: Mlflow) -> None:
    mlflow.ok("registered-models/create", {"name": "no-prompt"})
    text = "name = 'no-prompt' and tag.`mlflow.prompt.is_prompt` != 'true'"

    answer = mlflow.get(f"{API}/registered-models/search", filter=text)

    assert ["no-prompt"] == [found["name"] for found in answer.json()["registered_models"]]


# --- 6 and 7: files and sealed models -------------------------------------------------------------


def test_a_logged_model_takes_files_until_it_is_ready_and_none_after(mlflow: Mlflow) -> None:
    run = mlflow.run()
    asked = {"experiment_id": "0", "name": "m", "source_run_id": run}
    info = mlflow.ok("logged-models", asked)["model"]["info"]
    place = info["artifact_uri"].removeprefix("mlflow-artifacts:/")

    before = mlflow.put(f"{place}/model.txt", b"first")
    ready = {"model_id": info["model_id"], "status": "LOGGED_MODEL_READY"}
    mlflow.ok(f"logged-models/{info['model_id']}", ready, method="PATCH")
    after = mlflow.put(f"{place}/model.txt", b"second")
    found = mlflow.get(f"{FILES}/{place}/model.txt")

    assert info["model_id"].startswith("m-")
    assert 200 == before.status_code
    assert (403, "PERMISSION_DENIED") == refused(after)
    assert b"first" == found.content


def test_files_of_a_run_are_listed_relative_to_the_folder_asked_and_may_change(
    mlflow: Mlflow,
) -> None:
    run = mlflow.run()
    uri = mlflow.shown(run)["info"]["artifact_uri"]
    place = uri.removeprefix("mlflow-artifacts:/")
    for content in (b"1", b"22"):
        assert 200 == mlflow.put(f"{place}/plots/a.txt", content).status_code

    top = mlflow.get(FILES, path=place).json()["files"]
    inside = mlflow.get(FILES, path=f"{place}/plots").json()["files"]

    assert uri == f"mlflow-artifacts:/{place}"
    assert [{"path": "plots", "is_dir": True}] == top
    assert [{"path": "a.txt", "is_dir": False, "file_size": 2}] == inside


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "%2e%2e/x", "a//b", "C:/x", "a\\b", "/etc/passwd", "x%00y", "."],
)
def test_a_file_never_leaves_its_run(mlflow: Mlflow, path: str) -> None:
    run = mlflow.run()
    place = mlflow.shown(run)["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")

    answer = mlflow.put(f"{place}/{path}", b"x")

    assert 400 <= answer.status_code < 500
    assert [] == mlflow.get(FILES, path=place).json()["files"]


# --- 8: batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "batch",
    [
        {"metrics": [{"key": "m", "value": 1, "timestamp": AT, "step": i} for i in range(1_001)]},
        {"params": [{"key": f"p{i}", "value": "1"} for i in range(101)]},
        {"tags": [{"key": f"t{i}", "value": "1"} for i in range(101)]},
        {"params": [{"key": "p", "value": "x" * 6_001}]},
        {"params": [{"key": "k" * 251, "value": "1"}]},
        {"tags": [{"key": "t", "value": "x" * 8_001}]},
        {"metrics": [{"key": "m", "value": 1, "timestamp": -1, "step": 0}]},
        {"params": [{"key": "p", "value": "1"}, {"key": "p", "value": "2"}]},
    ],
)
def test_a_batch_over_a_limit_is_refused_and_leaves_nothing(
    mlflow: Mlflow, batch: dict[str, object]
) -> None:
    run = mlflow.run(run_name="full")
    rest = {"metrics": [{"key": "ok", "value": 1, "timestamp": AT, "step": 0}]}

    answer = mlflow.post(f"{API}/runs/log-batch", {"run_id": run, **rest, **batch})

    assert (400, "INVALID_PARAMETER_VALUE") == refused(answer)
    data = mlflow.shown(run)["data"]
    assert ([], [], [{"key": "mlflow.runName", "value": "full"}]) == (
        data["metrics"], data["params"], data["tags"],
    )  # fmt: skip


def test_a_parameter_is_set_once_and_the_same_again_is_no_error(mlflow: Mlflow) -> None:
    run = mlflow.run()
    first = {"run_id": run, "key": "p", "value": "1"}
    mlflow.ok("runs/log-parameter", first)
    mlflow.ok("runs/log-parameter", first)

    answer = mlflow.post(f"{API}/runs/log-parameter", first | {"value": "2"})

    assert (400, "INVALID_PARAMETER_VALUE") == refused(answer)


def test_a_repeated_batch_leaves_each_point_once(mlflow: Mlflow) -> None:
    run = mlflow.run()
    points = [{"key": "m", "value": "NaN", "timestamp": AT, "step": step} for step in (0, 1)]
    for _ in range(2):
        mlflow.ok("runs/log-batch", {"run_id": run, "metrics": points})

    found = mlflow.get(f"{API}/metrics/get-history", run_id=run, metric_key="m").json()["metrics"]

    assert [0, 1] == [point["step"] for point in found]


def test_a_history_comes_by_pages_in_the_order_of_time(mlflow: Mlflow) -> None:
    run = mlflow.run()
    points = [{"key": "m", "value": i, "timestamp": AT - i, "step": i} for i in range(25)]
    mlflow.ok("runs/log-batch", {"run_id": run, "metrics": points})
    values: list[float] = []
    token = ""

    while True:
        page = mlflow.get(
            f"{API}/metrics/get-history",
            run_id=run, metric_key="m", max_results="10", page_token=token,
        ).json()  # fmt: skip
        values += [point["value"] for point in page["metrics"]]
        token = page.get("next_page_token", "")
        if not token:
            break

    assert [float(i) for i in reversed(range(25))] == values


# --- 9, 10 and 11: search -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "metric.m > 0 and parameter.`p q` = 'x'", 'params."p q" ILIKE "X%"', "run_name = 'found'",
        "attributes.status = 'RUNNING'", "tags.t IS NULL", "start_time > 5",
        "attr.run_id IN ('{run}')",
        "metrics.m = 1 or metrics.none > 3", "not (metrics.m < 1)", "params.`p q` in ('x', 'y')",
    ],
)  # fmt: skip
def test_filters_are_read_in_every_spelling(mlflow: Mlflow, text: str) -> None:
    place = mlflow.experiment(f"filters {text}")
    run = mlflow.run(place, run_name="found")
    mlflow.ok("runs/log-metric", {"run_id": run, "key": "m", "value": 1, "timestamp": AT})
    mlflow.ok("runs/log-parameter", {"run_id": run, "key": "p q", "value": "x"})

    found = mlflow.search(place, filter=text.replace("{run}", run))

    assert [run] == [shown["info"]["run_id"] for shown in found["runs"]]


def test_a_page_after_the_first_is_not_shifted_by_new_runs(mlflow: Mlflow) -> None:
    place = mlflow.experiment("pages")
    old = [mlflow.run(place, run_name=f"r{i}", start_time=AT + i) for i in range(4)]
    first = mlflow.search(place, max_results=2)
    mlflow.run(place, start_time=AT + 100)

    second = mlflow.search(place, max_results=2, page_token=first["next_page_token"])

    seen = [shown["info"]["run_id"] for shown in first["runs"] + second["runs"]]
    assert old[::-1] == seen
    assert "next_page_token" not in second


@pytest.mark.parametrize("token", ["x", "eyJvZmZzZXQiOiAxfQ==", "%00", "A" * 500])
def test_a_token_of_nobody_is_refused(mlflow: Mlflow, token: str) -> None:
    place = mlflow.experiment(f"token {token[:9]}")

    body = {"experiment_ids": [place], "page_token": token}
    answer = mlflow.post(f"{API}/runs/search", body)

    assert (400, "INVALID_PARAMETER_VALUE") == refused(answer)


def test_a_deleted_run_takes_nothing_and_is_found_only_by_who_asks(mlflow: Mlflow) -> None:
    place = mlflow.experiment("views")
    run = mlflow.run(place)
    mlflow.ok("runs/delete", {"run_id": run})

    tag = mlflow.post(f"{API}/runs/set-tag", {"run_id": run, "key": "a", "value": "b"})
    sizes = [
        len(mlflow.search(place, run_view_type=view)["runs"])
        for view in ("ACTIVE_ONLY", "DELETED_ONLY", "ALL")
    ]

    assert (400, "INVALID_PARAMETER_VALUE") == refused(tag)
    assert [0, 1, 1] == sizes


# --- 12: answers instead of hanging ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/3.0/mlflow/scorers/register"), ("GET", "/api/3.0/mlflow/datasets/x"),
        ("POST", "/api/2.0/mlflow/webhooks"), ("GET", "/api/2.0mlflow/experiments/search-datasets"),
        ("POST", "/ajax-api/2.0/mlflow/gateway-proxy"), ("POST", "/api/2.0/mlflow/runs/none"),
    ],
)  # fmt: skip
def test_what_is_left_out_says_so_as_json(mlflow: Mlflow, method: str, path: str) -> None:
    answer = mlflow.post(path, {}, method=method)

    assert (404, "ENDPOINT_NOT_FOUND") == refused(answer)


def test_a_body_over_the_limit_is_refused(mlflow: Mlflow) -> None:
    body = {"run_id": "x", "key": "k", "value": "x" * (9 << 20)}

    assert 413 == mlflow.post(f"{API}/runs/set-tag", body).status_code


@pytest.mark.parametrize(
    "span",
    [
        {"traceId": "zz"}, {"traceId": ""}, {"name": "no id"},
        {"traceId": "00" * 16, "startTimeUnixNano": "soon"},
        {"traceId": "00" * 16, "startTimeUnixNano": 10**40},
        {"traceId": "00" * 16, "status": 5}, {"traceId": "00" * 16, "attributes": [1]},
    ],
)  # fmt: skip
def test_spans_that_make_no_sense_are_refused_politely(
    mlflow: Mlflow, span: dict[str, object]
) -> None:
    headers = {
        "authorization": f"Bearer {mlflow.client.token}",
        "x-mlflow-experiment-id": "0",
    }
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}

    answer = mlflow.client.request("POST", "/v1/traces", json=body, headers=headers)

    assert (400, "INVALID_PARAMETER_VALUE") == refused(answer)


# --- 13: who calls --------------------------------------------------------------------------------


def test_the_token_comes_as_bearer_or_as_the_password_of_basic(mlflow: Mlflow) -> None:
    pair = base64.b64encode(f"anybody:{mlflow.client.token}".encode()).decode()

    for value in (f"Bearer {mlflow.client.token}", f"Basic {pair}"):
        answer = mlflow.client.get(
            f"{API}/experiments/get?experiment_id=0", headers={"authorization": value}
        )
        assert 200 == answer.status_code


@pytest.mark.parametrize("value", ["", "Bearer evl_00", "Basic !", "Basic YTpi", "Digest x"])
def test_without_a_good_token_nothing_is_told(mlflow: Mlflow, value: str) -> None:
    headers = {"authorization": value} if value else {}

    for path in (f"{API}/experiments/get?experiment_id=0", f"{FILES}?path=a/b/artifacts"):
        answer = mlflow.client.get(path, headers=headers)
        assert (401, "UNAUTHENTICATED") == refused(answer)


def test_a_token_for_reading_changes_nothing(mlflow: Mlflow) -> None:
    run = mlflow.run()
    place = mlflow.shown(run)["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
    token = mlflow.world.instance(
        CreateToken(name="reader", days=30, scope=("*:read",)), "token.create"
    )
    assert isinstance(token, NewToken)
    headers = {"authorization": f"Bearer {token.secret}"}
    tag = {"run_id": run, "key": "a", "value": "b"}

    answers = [
        mlflow.client.request("POST", f"{API}/runs/set-tag", json=tag, headers=headers),
        mlflow.client.request("PUT", f"{FILES}/{place}/x", content=b"x", headers=headers),
        mlflow.client.request("DELETE", f"{FILES}/{place}/x", headers=headers),
    ]

    assert [(403, "PERMISSION_DENIED")] * 3 == [refused(answer) for answer in answers]
    assert 200 == mlflow.client.get(f"{API}/runs/get?run_id={run}", headers=headers).status_code


def test_another_project_is_another_address_and_needs_its_own_right(mlflow: Mlflow) -> None:
    there = mlflow.get(f"/p/{PROJECT}{API}/experiments/get", experiment_id="0")
    nowhere = mlflow.get(f"/p/none{API}/experiments/get", experiment_id="0")

    assert 200 == there.status_code
    assert (404, "RESOURCE_DOES_NOT_EXIST") == refused(nowhere)


def test_a_page_in_a_foreign_tab_gets_nothing(mlflow: Mlflow) -> None:
    headers = {"authorization": f"Bearer {mlflow.client.token}", "origin": "http://evil.example"}

    answer = mlflow.client.get(f"{API}/experiments/get?experiment_id=0", headers=headers)

    assert 403 == answer.status_code


@pytest.mark.parametrize(
    ("path", "text"), [("/health", "OK"), ("/version", "3."), ("/api/3.0/mlflow/server-info", "{")]
)
def test_what_clients_ask_before_they_log_in_is_open(mlflow: Mlflow, path: str, text: str) -> None:
    answer = mlflow.client.get(path)

    assert (200, True) == (answer.status_code, answer.text.startswith(text))


# --- 14: telemetry --------------------------------------------------------------------------------


def test_no_client_of_the_tests_calls_home() -> None:
    assert ("true", "1") == (QUIET["MLFLOW_DISABLE_TELEMETRY"], QUIET["DO_NOT_TRACK"])


def model_json(number: int, **more: object) -> str:
    told = {
        "run_id": "r",
        "artifact_path": f"model-{number}",
        "utc_time_created": "2026-01-01 00:00:00",
        "flavors": {"python_function": {"loader_module": "x" * 300, "config": {"secret": 1}}},
        "signature": {"inputs": "[]"},
    }
    return json.dumps(told | more)


def test_models_of_clients_before_3_are_listed_in_the_tag_of_their_run(mlflow: Mlflow) -> None:
    run = mlflow.run()
    for number in range(2):
        mlflow.ok("runs/log-model", {"run_id": run, "model_json": model_json(number)})

    tags = {tag["key"]: tag["value"] for tag in mlflow.shown(run)["data"]["tags"]}
    told = json.loads(tags["mlflow.log-model.history"])

    assert ["model-0", "model-1"] == [model["artifact_path"] for model in told]
    assert {"loader_module": "x" * 300} == told[0]["flavors"]["python_function"]
    assert "signature" not in told[0]


def test_the_list_of_models_keeps_the_newest_that_fit_into_a_tag(mlflow: Mlflow) -> None:
    run = mlflow.run()
    for number in range(25):
        mlflow.ok("runs/log-model", {"run_id": run, "model_json": model_json(number)})

    tags = {tag["key"]: tag["value"] for tag in mlflow.shown(run)["data"]["tags"]}
    told = json.loads(tags["mlflow.log-model.history"])

    assert "model-24" == told[-1]["artifact_path"]
    assert 10 < len(told) < 25


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", "[" * 100_000])
def test_a_model_that_is_none_is_refused(mlflow: Mlflow, text: str) -> None:
    answer = mlflow.post(f"{API}/runs/log-model", {"run_id": mlflow.run(), "model_json": text})

    assert (400, "INVALID_PARAMETER_VALUE") == refused(answer)
