"""What a hostile client sends to MLflow's addresses: it is refused, and nothing is half done."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from everloop.core.digest import content_digest
from everloop.kernel.authz import Role
from tests.unit.interop.mlflow_wire import Wire, token, wire

TRACE = "ab" * 16
DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def here() -> Iterator[Wire]:
    with wire() as made:
        yield made


def is_refused(response: httpx.Response, status: int = 400) -> bool:
    return status == response.status_code and "error_code" in response.json()


def export(here: Wire, **span: object) -> httpx.Response:
    whole = {"traceId": TRACE, "spanId": "cd" * 8, "startTimeUnixNano": "1", **span}
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [whole]}]}]}
    headers = {"content-type": "application/json", "x-mlflow-experiment-id": "0"}
    return here.send("POST", "/v1/traces", content=json.dumps(body), headers=headers)


@pytest.mark.parametrize("body", [DEEP, '{"a":' * 100_000, '{"runId":' + DEEP])
def test_json_of_any_depth_is_refused(here: Wire, body: str) -> None:
    assert is_refused(here.send("POST", "/api/2.0/mlflow/runs/create", content=body))


@pytest.mark.parametrize("pattern", ["%a%a%a%a%b", "%_a%_a%_a%b"])
def test_no_pattern_takes_long(here: Wire, pattern: str) -> None:
    # With a regular expression that backtracks, this would not end within a lifetime.
    run = here.run()
    tags = [{"key": "t", "value": "a" * 8_000}]
    here.post("logged-models", experiment_id="0", name="m", source_run_id=run, tags=tags)

    experiment = here.get("runs/get", run_id=run)["run"]["info"]["experiment_id"]
    found = here.post(
        "logged-models/search", experiment_ids=[experiment], filter=f"tags.t LIKE '{pattern}'"
    )

    assert [] == found["models"]


@pytest.mark.parametrize(
    "source", ["models://[x", "http://[x", "runs://[x", "models:/sourced/" + "9" * 5_000]
)
def test_a_source_that_is_no_address_is_refused(here: Wire, source: str) -> None:
    if here.ask("GET", "registered-models/get", name="sourced").status_code == 404:
        here.post("registered-models/create", name="sourced")

    refused = here.ask("POST", "model-versions/create", {"name": "sourced", "source": source})

    assert refused.status_code in {400, 404}
    assert "error_code" in refused.json()


@pytest.mark.parametrize(
    "span",
    [
        {"spanId": []},
        {"spanId": {}},
        {"startTimeUnixNano": float("inf")},
        {"startTimeUnixNano": float("nan")},
        {"endTimeUnixNano": float("inf")},
    ],
)
def test_a_span_that_could_not_be_shown_again_is_refused(here: Wire, span: object) -> None:
    assert isinstance(span, dict)

    assert is_refused(export(here, **span))
    assert is_refused(here.ask("GET", "/api/3.0/mlflow/traces/tr-" + TRACE), 404)


@pytest.mark.parametrize("step", [2**63, -(2**63) - 1, 10**30])
def test_a_step_beyond_64_bits_is_refused(here: Wire, step: int) -> None:
    point = {"run_id": here.run(), "key": "m", "value": 1, "timestamp": 1, "step": step}

    assert is_refused(here.ask("POST", "runs/log-metric", point))


@pytest.mark.parametrize(
    "wrong",
    [
        {"metrics": [{"key": "m", "value": 1, "timestamp": 1, "model_id": "m-" + "0" * 32}]},
        {"metrics": [{"key": "m", "value": 1, "timestamp": 1, "model_id": "none"}]},
        {"tags": [{"key": "mlflow.runName", "value": "n" * 501}]},
    ],
)
def test_a_batch_that_is_refused_leaves_nothing_behind(
    here: Wire, wrong: dict[str, object]
) -> None:
    run = here.run(run_name="before")
    before = here.get("runs/get", run_id=run)

    batch = {"run_id": run, "params": [{"key": "p", "value": "1"}], **wrong}
    refused = here.ask("POST", "runs/log-batch", batch)

    assert refused.status_code in {400, 404}
    assert before == here.get("runs/get", run_id=run)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("registered-models/create", {"name": "m", "description": "d" * 100_001}),
        ("registered-models/create", {"name": "m", "tags": [{"key": "k" * 251, "value": "v"}]}),
        ("logged-models", {"experiment_id": "0", "name": "n" * 501}),
        ("/api/3.0/mlflow/traces", {"trace": {"trace_info": {"trace_id": "tr a"}}}),
        (
            "/api/3.0/mlflow/traces",
            {"trace": {"trace_info": {"trace_id": "tr", "execution_duration": "9" * 30 + "s"}}},
        ),
        (
            "/api/3.0/mlflow/traces",
            {"trace": {"trace_info": {"trace_id": "t", "request_time": "0001-01-01T00:00+14:00"}}},
        ),
    ],
)
def test_the_limits_that_a_verb_declares_hold_for_mlflow_too(
    here: Wire, path: str, body: dict[str, object]
) -> None:
    assert is_refused(here.ask("POST", path, body))


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/x", "a\\b", "C:/x"])
def test_a_file_of_a_trace_stays_in_its_folder(here: Wire, path: str) -> None:
    made = here.post("/api/2.0/mlflow/traces", experiment_id="0", timestamp_ms=1)["trace_info"]
    address = f"{made['experiment_id']}/traces/{made['request_id']}/artifacts"

    assert is_refused(here.put_file(f"{address}/{path}".replace("..", "%2e%2e"), b"x"))


def test_a_long_text_is_read_in_no_time(here: Wire) -> None:
    # With a pattern that gives back what it took, this would take hours.
    query = {"filter": "a" * 4_000_000}

    assert is_refused(here.ask("POST", "runs/search", query))


def test_the_bytes_of_a_caller_who_may_not_write_are_not_even_read() -> None:
    with wire(role=Role.CONTRIBUTOR) as author:
        model = author.post("logged-models", experiment_id="0", name="m")["model"]["info"]
        author.token = token(author.here, Role.VIEWER)
        address = model["artifact_uri"].removeprefix("mlflow-artifacts:/")
        data = b"what a viewer sends"

        refused = author.put_file(f"{address}/file", data)

        assert is_refused(refused, 403)
        assert author.here.blobs.size(content_digest(data)) is None


def test_a_number_to_the_base_of_sixty_is_not_reckoned_out(here: Wire) -> None:
    # YAML reads 1:30:00 so; as long as this one, it would take a quarter of an hour.
    told = b"flavors: {}\ntime: " + b":".join([b"1"] * 500_000)

    version = here.registered("sixty", {"MLmodel": told})

    assert "1" == version["version"]


def test_a_part_of_an_upload_counts_once(here: Wire) -> None:
    run = here.run()
    upload = "/api/2.0/mlflow-artifacts/mpu"
    etag = here.send("PUT", f"{upload}/part/u/1", content=b"part").headers["etag"]
    experiment = here.get("runs/get", run_id=run)["run"]["info"]["experiment_id"]
    many = {"path": "file", "parts": [{"part_number": 1, "etag": etag}] * 1_000}

    refused = here.ask("POST", f"{upload}/complete/{experiment}/{run}/artifacts", many)

    assert is_refused(refused)


@pytest.mark.parametrize("point", [{}, {"value": None}])
def test_a_point_without_a_value_is_no_zero(here: Wire, point: dict[str, object]) -> None:
    run = here.run()
    whole = {"key": "m", "timestamp": 1, **point}

    alone = here.ask("POST", "runs/log-metric", {"run_id": run, **whole})
    batch = here.ask("POST", "runs/log-batch", {"run_id": run, "metrics": [whole]})

    assert is_refused(alone)
    assert is_refused(batch)
    assert [] == here.get("metrics/get-history", run_id=run, metric_key="m")["metrics"]
