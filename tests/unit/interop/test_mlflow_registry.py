"""The wire of models: forms, codes and statuses that MLflow's clients go by."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from everloop.kernel.authz import Role
from tests.unit.interop.mlflow_wire import FILES, MLMODEL, Wire, token, wire

FILE = {"MLmodel": b"flavors: {}\n", "data/weights.bin": b"\x00\x01"}


@pytest.fixture(scope="module")
def here() -> Iterator[Wire]:
    with wire() as made:
        yield made


@pytest.fixture(scope="module")
def searched() -> Iterator[Wire]:
    """A world with one logged model."""
    with wire() as made:
        model = made.post(
            "logged-models",
            experiment_id="0",
            name="searched",
            params=[{"key": "depth", "value": "3"}],
            tags=[{"key": "kind", "value": "a"}],
        )["model"]["info"]
        made.patch(f"logged-models/{model['model_id']}", status="LOGGED_MODEL_READY")
        yield made


def refused(told: object) -> tuple[int, str]:
    return told.status_code, told.json()["error_code"]  # type: ignore[attr-defined]


def test_a_logged_model_has_the_form_of_mlflow_s_ids_and_addresses(here: Wire) -> None:
    run = here.run()
    info = here.logged(FILE, run=run)

    assert info["model_id"].startswith("m-")
    assert len(info["model_id"]) == 34
    assert info["artifact_uri"].startswith("mlflow-artifacts:/")
    assert ("LOGGED_MODEL_READY", run) == (info["status"], info["source_run_id"])
    assert isinstance(info["creation_timestamp_ms"], int)
    assert isinstance(info["experiment_id"], str)


def test_files_of_a_logged_model_are_listed_relative_to_what_was_asked(here: Wire) -> None:
    info = here.logged(FILE)
    address = info["artifact_uri"].removeprefix("mlflow-artifacts:/")
    directories = f"logged-models/{info['model_id']}/artifacts/directories"

    top = here.get(FILES, path=address)["files"]
    inner = here.get(FILES, path=f"{address}/data")["files"]
    whole = here.get(directories, artifact_directory_path="data")

    assert [("MLmodel", False, 12), ("data", True, None)] == [
        (file["path"], file["is_dir"], file.get("file_size")) for file in top
    ]
    assert ["weights.bin"] == [file["path"] for file in inner]
    assert ["data/weights.bin"] == [file["path"] for file in whole["files"]]
    assert info["artifact_uri"] == whole["root_uri"]


def test_a_status_may_be_a_number_and_no_other_text_ends_a_model(here: Wire) -> None:
    made = here.post("logged-models", experiment_id="0", name="model")["model"]["info"]

    wrong = here.ask("PATCH", f"logged-models/{made['model_id']}", {"status": "NO"})
    done = here.patch(f"logged-models/{made['model_id']}", status=3)

    assert (400, "INVALID_PARAMETER_VALUE") == refused(wrong)
    assert "LOGGED_MODEL_UPLOAD_FAILED" == done["model"]["info"]["status"]


def test_a_version_is_text_and_times_are_numbers(here: Wire) -> None:
    version = here.registered("forms", FILE, description="why", tags=[{"key": "a", "value": "b"}])

    assert ("1", "READY", "None", "why") == (
        version["version"],
        version["status"],
        version["current_stage"],
        version["description"],
    )
    assert isinstance(version["creation_timestamp"], int)
    assert [{"key": "a", "value": "b"}] == version["tags"]
    assert version["source"] == f"models:/{version['model_id']}"


def test_a_name_that_is_there_is_refused_with_400_and_not_409(here: Wire) -> None:
    here.post("registered-models/create", name="twice")

    again = here.ask("POST", "registered-models/create", {"name": "twice"})

    assert (400, "RESOURCE_ALREADY_EXISTS") == refused(again)


@pytest.mark.parametrize(
    ("method", "path", "told"),
    [
        ("GET", "registered-models/get", {"name": "absent"}),
        ("GET", "model-versions/get", {"name": "absent", "version": "1"}),
        ("GET", "logged-models/m-" + "0" * 32, {}),
        ("GET", "logged-models/nonsense", {}),
        ("GET", "model-versions/get-download-uri", {"name": "absent", "version": "1"}),
    ],
)
def test_what_is_not_there_is_404(here: Wire, method: str, path: str, told: dict[str, str]) -> None:
    assert (404, "RESOURCE_DOES_NOT_EXIST") == refused(here.ask(method, path, **told))


@pytest.mark.parametrize(
    "source",
    [
        "",
        "/etc/passwd",
        "file:///etc",
        "s3://bucket/model",
        "runs:/",
        "models:/",
        "models://other@profile/name/1",
        "mlflow-artifacts:/",
        "mlflow-artifacts:/1/../2/artifacts",
        "mlflow-artifacts:/0/%2e%2e/artifacts/x",
        "http://other.example/x",
        "dbfs:/model",
    ],
)
def test_a_source_that_is_not_stored_here_is_refused_at_once(here: Wire, source: str) -> None:
    here.ask("POST", "registered-models/create", {"name": "sources"})

    told = here.ask("POST", "model-versions/create", {"name": "sources", "source": source})

    assert told.status_code in {400, 404}, told.text
    assert "error_code" in told.json()


@pytest.mark.parametrize(
    "form", ["models:/sourced/1", "models:/sourced@best", "models:/sourced/latest"]
)
def test_a_version_of_a_version_has_the_same_bytes(here: Wire, form: str) -> None:
    if here.ask("GET", "registered-models/get", name="sourced").status_code == 404:
        here.registered("sourced", {**FILE, "x": b"sourced"})
        here.post("registered-models/alias", name="sourced", alias="best", version="1")
        here.post("registered-models/create", name="copy")

    copy = here.post("model-versions/create", name="copy", source=form)["model_version"]

    assert "1" == copy["version"]  # the same bytes are the same version, however often
    assert here.get(f"{FILES}", path="registry/copy/1")["files"]


def test_a_run_s_folder_and_a_logged_model_of_a_run_are_sources(here: Wire) -> None:
    run = here.run()
    experiment = here.get("runs/get", run_id=run)["run"]["info"]["experiment_id"]
    here.put_file(f"{experiment}/{run}/artifacts/old/MLmodel", b"flavors: {}\n# 1")
    here.logged({"MLmodel": b"flavors: {}\n# 2"}, run=run, name="new")
    here.post("registered-models/create", name="two-ways")

    versions = [
        here.post("model-versions/create", name="two-ways", source=source, run_id=run)
        for source in (
            f"runs:/{run}/old",
            f"runs:/{run}/new",
            f"mlflow-artifacts:/{experiment}/{run}/artifacts/old",
        )
    ]

    assert ["1", "2", "1"] == [made["model_version"]["version"] for made in versions]
    assert {run} == {made["model_version"]["run_id"] for made in versions}


def test_an_alias_that_is_not_there_is_a_wrong_value_as_with_mlflow(here: Wire) -> None:
    here.ask("POST", "registered-models/create", {"name": "aliasless"})

    told = here.ask("GET", "registered-models/alias", name="aliasless", alias="nobody")

    assert (400, "INVALID_PARAMETER_VALUE") == refused(told)


def test_a_filter_that_a_model_is_no_prompt_holds_for_every_model(here: Wire) -> None:
    here.ask("POST", "registered-models/create", {"name": "no-prompt"})

    def names(text: str) -> list[str]:
        found = here.get("registered-models/search", filter=text)["registered_models"]
        return [model["name"] for model in found]

    no_prompt = "tag.`mlflow.prompt.is_prompt` != 'true'"
    assert "no-prompt" in names(no_prompt)
    assert ["no-prompt"] == names(f"name = 'no-prompt' AND {no_prompt}")
    assert [] == names("tags.`mlflow.prompt.is_prompt` = 'true'")


def test_a_prompt_is_refused_in_words(here: Wire) -> None:
    told = here.ask(
        "POST",
        "registered-models/create",
        {"name": "p", "tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]},
    )

    assert 400 == told.status_code
    assert "prompt.unsupported" == told.json()["everloop_code"]


def test_pages_of_models_are_whole_and_do_not_repeat(here: Wire) -> None:
    for number in range(5):
        here.post("registered-models/create", name=f"page-{number}")

    seen, token_ = [], ""
    while True:
        page = here.get(
            "registered-models/search",
            filter="name LIKE 'page-%'",
            max_results=2,
            page_token=token_,
        )
        seen += [model["name"] for model in page["registered_models"]]
        token_ = page.get("next_page_token", "")
        if not token_:
            break

    assert [f"page-{number}" for number in range(5)] == seen


def test_metrics_of_a_batch_that_name_a_model_stand_beside_it(here: Wire) -> None:
    run = here.run()
    info = here.logged(FILE, run=run)
    metric = {"key": "auc", "value": "NaN", "timestamp": 1, "step": 2}

    here.post(
        "runs/log-batch",
        run_id=run,
        metrics=[
            metric | {"model_id": info["model_id"]},
            {"key": "loss", "value": 1, "timestamp": 1},
        ],
    )

    shown = here.get(f"logged-models/{info['model_id']}")["model"]["data"]["metrics"]
    assert [("auc", "NaN", 2, run)] == [
        (row["key"], row["value"], row["step"], row["run_id"]) for row in shown
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name = 'searched'", 1),
        ("name LIKE 'sear%' AND params.depth = '3'", 1),
        ("attributes.status = 'READY' OR name = 'none'", 1),
        ("tags.kind != 'x'", 1),
        ("tags.none != 'x'", 0),
        ("NOT params.depth = '4'", 1),
        ("metrics.auc > 0.1", 0),
        ("creation_timestamp > 0", 1),
        ("source_run_id = 'nobody'", 0),
    ],
)
def test_logged_models_are_found_by_filters(searched: Wire, text: str, found: int) -> None:
    answer = searched.post("logged-models/search", experiment_ids=["0"], filter=text)

    assert found == len(answer["models"])


def test_a_wrong_filter_order_or_page_of_logged_models_is_refused(here: Wire) -> None:
    for wrong in (
        {"filter": "nonsense = 1"},
        {"filter": "name >"},
        {"order_by": [{"field_name": "params.x"}]},
        {"page_token": "nowhere"},
        {"max_results": 5_000},
        {"datasets": [{"dataset_digest": "x"}]},
    ):
        told = here.ask("POST", "logged-models/search", {"experiment_ids": ["0"], **wrong})
        assert (400, "INVALID_PARAMETER_VALUE") == refused(told), wrong


def test_a_contributor_registers_and_sets_aliases_and_a_viewer_reads_only() -> None:
    with wire(role=Role.CONTRIBUTOR) as here:
        here.registered("rights", {**FILE, "MLmodel": MLMODEL.encode()})
        here.post("registered-models/alias", name="rights", alias="mine", version="1")

        deleted = here.ask("DELETE", "registered-models/delete", {"name": "rights"})
        here.token = token(here.here, Role.VIEWER)
        shown = here.get("registered-models/get", name="rights")["registered_model"]
        tag = {"name": "rights", "key": "a", "value": "b"}
        tagged = here.ask("POST", "registered-models/set-tag", tag)

    assert (403, "PERMISSION_DENIED") == refused(deleted) == refused(tagged)
    assert [{"alias": "mine", "version": "1"}] == shown["aliases"]
