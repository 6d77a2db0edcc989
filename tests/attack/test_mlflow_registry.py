"""Attempts to make a registered version mean other bytes, by MLflow's interface or beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import structs

from everloop.core.errors import IntegrityError
from everloop.core.ports import where
from everloop.interop.mlflow.artifacts import PIECES_BEFORE_ANSWER, hold_last
from everloop.kernel.authz import Role
from everloop.registry.model import ModelVersion
from everloop.storage.localfs import CHUNK_BYTES, LocalBlobStore
from tests.unit.interop.mlflow_wire import MLMODEL, Wire, token, wire

FILES = {"MLmodel": MLMODEL.encode(), "model.lgb": b"tree\n", "sub/a.bin": b"a" * 100}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Wire]:
    with wire(LocalBlobStore(tmp_path / "blobs")) as made:
        yield made


def address(version: Any) -> str:
    return f"registry/{version['name']}/{version['version']}"


def is_sealed(response: httpx.Response) -> bool:
    told = response.json()
    return (403, "artifact.sealed") == (response.status_code, told.get("everloop_code"))


def test_no_write_reaches_a_registered_version(here: Wire) -> None:
    version = here.registered("seal", FILES)
    place = address(version)
    delete = f"/api/2.0/mlflow-artifacts/artifacts/{place}"
    parts = f"/api/2.0/mlflow-artifacts/mpu/create/{place}"

    attempts = [
        here.put_file(f"{place}/model.lgb", b"evil"),
        here.put_file(f"{place}/new", b"evil"),
        here.put_file(f"{place}/sub/a.bin/x", b"evil"),
        here.ask("DELETE", f"{delete}/model.lgb"),
        here.ask("DELETE", f"{delete}/sub"),
        here.ask("POST", parts, {"path": "model.lgb", "num_parts": 2}),
    ]

    assert all(is_sealed(attempt) for attempt in attempts), [a.text for a in attempts]
    assert b"tree\n" == here.get_file(f"{place}/model.lgb").content


def test_no_write_reaches_a_logged_model_that_is_ready(here: Wire) -> None:
    info = here.logged(FILES)
    place = info["artifact_uri"].removeprefix("mlflow-artifacts:/")
    delete = f"/api/2.0/mlflow-artifacts/artifacts/{place}/MLmodel"

    attempts = [here.put_file(f"{place}/MLmodel", b"evil"), here.ask("DELETE", delete)]
    reopened = here.ask(
        "PATCH", f"logged-models/{info['model_id']}", {"status": "LOGGED_MODEL_UPLOAD_FAILED"}
    )

    assert all(is_sealed(attempt) for attempt in attempts)
    assert 409 == reopened.status_code
    assert FILES["MLmodel"] == here.get_file(f"{place}/MLmodel").content


def test_changing_or_deleting_the_source_leaves_the_version_as_it_was(here: Wire) -> None:
    run = here.run()
    experiment = here.get("runs/get", run_id=run)["run"]["info"]["experiment_id"]
    folder = f"{experiment}/{run}/artifacts/model"
    here.put_file(f"{folder}/MLmodel", FILES["MLmodel"])
    here.post("registered-models/create", name="source")
    source = f"runs:/{run}/model"
    version = here.post("model-versions/create", name="source", source=source)["model_version"]

    here.put_file(f"{folder}/MLmodel", b"evil")
    here.ask("DELETE", f"/api/2.0/mlflow-artifacts/artifacts/{folder}/MLmodel")
    here.post("runs/delete", run_id=run)

    assert FILES["MLmodel"] == here.get_file(f"{address(version)}/MLmodel").content


def test_a_number_never_comes_back_with_other_bytes(here: Wire) -> None:
    here.registered("again", FILES)
    here.ask("DELETE", "model-versions/delete", {"name": "again", "version": "1"})
    second = here.registered("again", FILES | {"x": b"2"})
    here.ask("DELETE", "registered-models/delete", {"name": "again"})
    third = here.registered("again", FILES | {"x": b"3"})
    here.post("registered-models/rename", name="again", new_name="renamed")
    fourth = here.registered("again", FILES | {"x": b"4"})

    assert ["2", "3", "4"] == [made["version"] for made in (second, third, fourth)]
    gone = here.get_file("registry/again/1/MLmodel")
    assert (404, "RESOURCE_DOES_NOT_EXIST") == (gone.status_code, gone.json()["error_code"])


def swap(folder: Path, before: bytes, after: bytes) -> None:
    """Put other bytes of the same length in the place of a stored file."""
    assert len(before) == len(after)
    place = next(
        path for path in folder.rglob("*") if path.is_file() and path.read_bytes() == before
    )
    place.chmod(0o600)
    place.write_bytes(after)


def test_bytes_swapped_on_disk_are_not_given_out(here: Wire, tmp_path: Path) -> None:
    version = here.registered("swap", FILES)
    swap(tmp_path, FILES["sub/a.bin"], b"b" * 100)

    told = here.get_file(f"{address(version)}/sub/a.bin")

    # 422 and not 500: clients repeat a 500 for minutes, and the bytes get no better.
    assert (422, "DATA_LOSS") == (told.status_code, told.json()["error_code"])


def test_of_a_large_file_swapped_on_disk_the_end_never_comes(tmp_path: Path) -> None:
    blobs = LocalBlobStore(tmp_path)
    data = bytes(CHUNK_BYTES) * (PIECES_BEFORE_ANSWER + 1) + b"end"
    digest = blobs.put(data)
    swap(tmp_path, data, data[:-3] + b"END")
    given = []

    def read() -> None:
        for piece in hold_last([], blobs.stream(digest)):
            given.append(piece)

    with pytest.raises(IntegrityError):
        read()
    assert len(data) - 3 == sum(map(len, given))


def test_a_version_whose_row_names_other_files_is_not_given_out(here: Wire) -> None:
    version = here.registered("row", FILES)
    with here.here.kernel.store.write() as tx:
        row = tx.select(ModelVersion, *where(name="row"))[0]
        first, *rest = row.files
        forged = structs.replace(first, digest=rest[0].digest, size_bytes=rest[0].size_bytes)
        tx.replace(structs.replace(row, files=(forged, *rest)))

    told = here.get_file(f"{address(version)}/{first.path}")

    assert (422, "DATA_LOSS") == (told.status_code, told.json()["error_code"])


@pytest.mark.parametrize(
    "place",
    [
        "registry/../../etc/passwd",
        "registry/%2e%2e/1/MLmodel",
        "registry/seal/1/../../2/MLmodel",
        "registry/seal/1%2f..%2f..",
        "registry/seal",
        "registry",
        "0/models/m-zzz/artifacts/MLmodel",
        "0/models/m-00000000000000000000000000000000/artifacts/MLmodel",
        "0/models",
    ],
)
def test_an_address_that_points_elsewhere_finds_nothing(here: Wire, place: str) -> None:
    here.registered("seal", FILES)

    assert here.get_file(place).status_code in {400, 404}
    assert here.put_file(place, b"evil").status_code in {400, 403, 404}


@pytest.mark.parametrize("path", ["../x", "a/../../x", "%2e%2e/x", "a\\b", "a//b", "CON", "x%00"])
def test_a_path_that_leaves_its_folder_is_refused(here: Wire, path: str) -> None:
    made = here.post("logged-models", experiment_id="0", name="model")["model"]["info"]
    place = made["artifact_uri"].removeprefix("mlflow-artifacts:/")

    told = here.send("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{place}/{path}", content=b"x")

    assert told.status_code in {400, 404, 405}, told.text


def test_models_of_another_project_are_not_there(here: Wire) -> None:
    info = here.logged(FILES)
    here.registered("mine", FILES | {"x": b"mine"})
    here.here.project("other")
    here.here.person("a-admin", Role.ADMIN, project="other")
    far = "/p/other/api/2.0/mlflow"
    here.ask("POST", f"{far}/registered-models/create", {"name": "far"})

    answers = [
        here.ask("GET", f"{far}/logged-models/{info['model_id']}"),
        here.ask("GET", f"{far}/registered-models/get", name="mine"),
        here.ask("GET", "/p/other/api/2.0/mlflow-artifacts/artifacts/registry/mine/1/MLmodel"),
        *(
            here.ask("POST", f"{far}/model-versions/create", {"name": "far", "source": source})
            for source in (f"models:/{info['model_id']}", "models:/mine/1")
        ),
    ]

    assert [404] * 5 == [answer.status_code for answer in answers], [a.text for a in answers]


def test_a_protected_alias_does_not_move_without_the_role_or_a_reason(here: Wire) -> None:
    here.here.configure({"registry": {"protected_aliases": ["champion"]}})
    here.registered("guarded", FILES)
    move = {"name": "guarded", "alias": "champion", "version": "1"}
    here.token = token(here.here, Role.CONTRIBUTOR)

    for alias in ("champion", "Champion", "production", "PRODUCTION"):
        told = here.ask("POST", "registered-models/alias", move | {"alias": alias})
        assert (403, "PERMISSION_DENIED") == (told.status_code, told.json()["error_code"])
    assert [] == here.get("registered-models/get", name="guarded")["registered_model"]["aliases"]


def test_a_version_in_use_is_not_deleted_by_a_client(here: Wire) -> None:
    here.here.configure({"registry": {"protected_aliases": ["champion"]}})
    here.registered("used", FILES)
    move = {"name": "used", "alias": "champion", "version": "1"}
    assert here.ask("POST", "registered-models/alias", move).status_code == 200

    version = here.ask("DELETE", "model-versions/delete", {"name": "used", "version": "1"})
    model = here.ask("DELETE", "registered-models/delete", {"name": "used"})

    assert [409, 409] == [version.status_code, model.status_code]
    assert "champion" in version.json()["message"]


def test_a_hostile_mlmodel_is_kept_as_bytes_and_runs_nothing(here: Wire, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    text = f"!!python/object/apply:pathlib.Path.touch [!!python/object:pathlib.Path ['{ran}']]\n"
    bomb = "a: &a [x]\n" + "".join(f"{n}: &{n} [*a, *a, *a]\n" for n in "bcdefghij")

    for number, told in enumerate((text, bomb, "[" * 100_000, "\t"), 1):
        made = here.registered("hostile", {"MLmodel": told.encode(), "n": str(number).encode()})
        assert str(number) == made["version"]

    assert not ran.exists()
