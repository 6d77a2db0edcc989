from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from everloop.core.digest import sha256_digest
from everloop.core.errors import Conflict, EverloopError, InvalidInput, UnsafeArtifact
from everloop.export.folder import MARK, write_folder
from everloop.export.image import Recipe, default_python, image_files
from everloop.export.lock import known_pythons, locked
from everloop.export.model import Subject
from everloop.export.systemd import systemd_files, unit_name
from everloop.export.wheel import serving_wheel
from tests.parts.validators import Validators
from tests.unit.export.exported import install, subject
from tools.serving_lock import FILE, LOCK, render, serving_lock

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return subject(tmp_path_factory.mktemp("sealed"))


def recipe(sealed: Subject | None, **change: Any) -> Recipe:
    known = sealed.public_key if sealed else "ab" * 32
    told = {"formats": ("lightgbm",), "public_key": known, "python": "3.11"}
    return Recipe(subject=sealed, **told | change)


RECIPES: dict[str, dict[str, Any]] = {
    "as usual": {},
    "another base": {"base": "registry.example.com/python@sha256:" + "0" * 64},
    "another Python": {"python": "3.13"},
}


@pytest.mark.parametrize("change", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("has_model", [True, False])
def test_the_linter_has_nothing_to_say_about_the_dockerfile(
    sealed: Subject, validators: Validators, change: dict[str, Any], has_model: bool
) -> None:
    files = image_files(recipe(sealed if has_model else None, **change))

    assert [] == validators.dockerfile(files["Dockerfile"].decode())


def test_the_linter_finds_a_dockerfile_that_is_spoiled(
    sealed: Subject, validators: Validators
) -> None:
    text = image_files(recipe(sealed))["Dockerfile"].decode()

    assert [] != validators.dockerfile(text.replace("USER 10001:0", "USER root"))
    assert [] != validators.dockerfile(text.replace('ENTRYPOINT ["', "ENTRYPOINT everloop ["))


def test_the_build_is_sent_exactly_what_the_dockerfile_copies(sealed: Subject) -> None:
    files = image_files(recipe(sealed))

    copied = {
        name
        for line in files["Dockerfile"].decode().splitlines()
        if line.startswith("COPY [")
        for name in json.loads(line.removeprefix("COPY "))[:-1]
    }
    sent = {line[1:] for line in files[".dockerignore"].decode().splitlines() if line[0] == "!"}
    assert copied == sent
    assert set() == copied - {name.partition("/")[0] for name in files}


@pytest.mark.parametrize("has_model", [True, False])
def test_the_same_input_gives_the_same_bytes(sealed: Subject, has_model: bool) -> None:
    told = recipe(sealed if has_model else None)
    serving_wheel.cache_clear()

    first = image_files(told)
    serving_wheel.cache_clear()

    assert first == image_files(told)


def test_no_path_and_no_time_of_this_machine_gets_into_an_export(sealed: Subject) -> None:
    files = image_files(recipe(sealed)) | systemd_files(sealed, python="3.11")

    texts = [data.decode() for name, data in files.items() if not name.endswith((".whl", ".npy"))]
    assert not any(str(ROOT) in text for text in texts)
    assert not any(re.search(r"20\d\d-\d\d-\d\dT", text) for text in texts)


def test_the_summary_has_the_digest_of_every_file(sealed: Subject) -> None:
    files = image_files(recipe(sealed))

    told = json.loads(files.pop("export.json"))
    assert {name: sha256_digest(data) for name, data in files.items()} == told["files"]
    assert (sealed.seal, sealed.version_id) == (told["seal"], told["version_id"])


@pytest.mark.parametrize("has_model", [True, False])
def test_the_bill_of_materials_meets_its_schema_and_lists_what_is_installed(
    sealed: Subject, validators: Validators, has_model: bool
) -> None:
    told = recipe(sealed if has_model else None)

    bill = json.loads(image_files(told)["sbom.cdx.json"])

    assert [] == validators.cyclonedx(bill)
    named = {(part["name"], part["version"]) for part in bill["components"]}
    assert set() == {(one.name, one.version) for one in told.distributions} - named
    models = [part for part in bill["components"] if part["type"] == "machine-learning-model"]
    assert has_model == bool(models)


def test_the_schema_finds_a_bill_that_is_spoiled(sealed: Subject, validators: Validators) -> None:
    bill = json.loads(image_files(recipe(sealed))["sbom.cdx.json"])
    bill["components"][0]["type"] = "thing"

    assert [] != validators.cyclonedx(bill)


def test_an_image_without_a_model_can_fetch_one(sealed: Subject) -> None:
    with_model, without = (recipe(one).distributions for one in (sealed, None))

    assert "obstore" in {one.name for one in without}
    assert "obstore" not in {one.name for one in with_model}
    assert b"EVERLOOP_MODEL" not in image_files(recipe(None))["Dockerfile"]


def test_the_lock_is_cut_from_that_of_the_project() -> None:
    found = serving_lock(tomllib.loads(LOCK.read_text("utf-8")))

    assert render(found) == FILE.read_text("utf-8"), "run `python -m tools.serving_lock`"


def test_a_tree_model_is_served_without_scipy() -> None:
    names = {one.name for one in locked("3.11", ("lightgbm", "xgboost"))}

    assert {"lightgbm", "xgboost-cpu"} <= names
    assert set() == names & {"scipy", "pandas", "scikit-learn", "pyarrow", "sqlalchemy"}


@pytest.mark.parametrize("python", known_pythons())
@pytest.mark.parametrize("form", ["lightgbm", "xgboost", "onnx", "sklearn", "torch", "pyfunc"])
def test_every_format_has_a_lock_with_hashes_for_every_python(python: str, form: str) -> None:
    assert all(one.hashes for one in locked(python, (form,)))


def test_what_has_no_lock_is_refused() -> None:
    with pytest.raises(InvalidInput):
        locked("2.7", ())
    with pytest.raises(UnsafeArtifact):
        locked("3.11", ("tensorflow",))


def test_the_image_is_for_this_python_where_there_is_a_lock_for_it() -> None:
    assert default_python() in known_pythons()


@pytest.fixture(scope="module")
def installed(sealed: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    write_folder(folder / "image", image_files(recipe(sealed, python=default_python())))
    return install(folder / "image", folder / "site")


def test_what_the_wheel_holds_imports_with_nothing_but_the_lock(installed: Path) -> None:
    names = [
        ".".join(path.relative_to(installed).with_suffix("").parts)
        for folder in ("serve", "core")
        for path in (installed / "everloop" / folder).rglob("*.py")
        if path.name != "__init__.py"
    ]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"

    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", code, *names],
        env={"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    assert len(names) > 10


def test_the_wheel_holds_all_files_of_the_server() -> None:
    package = ROOT / "src"

    names = set(zipfile.ZipFile(io.BytesIO(serving_wheel().data)).namelist())
    there = {
        path.relative_to(package).as_posix()
        for path in (package / "everloop" / "serve").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert set() == there - names


def test_an_image_listens_for_grpc_only_when_it_can_answer(sealed: Subject) -> None:
    usual, also = (image_files(recipe(sealed, also=one)) for one in ((), ("grpc",)))

    assert b"GRPC" not in usual["Dockerfile"]
    assert b"EXPOSE 8080 8081" in also["Dockerfile"]
    assert b"grpcio==" in also["requirements.lock"]


def test_the_wheel_holds_neither_control_plane_nor_storage() -> None:
    wheel = serving_wheel()

    names = zipfile.ZipFile(io.BytesIO(wheel.data)).namelist()
    packages = {name.split("/")[1] for name in names if name.startswith("everloop/")}
    assert {"__init__.py", "core", "kernel", "py.typed", "registry", "serve"} == packages


def test_systemd_accepts_the_unit_and_finds_it_shut_in(
    sealed: Subject, validators: Validators, tmp_path: Path
) -> None:
    write_folder(tmp_path / "unit", systemd_files(sealed, python="3.11"))

    name = unit_name(sealed)
    assert [] == validators.unit(tmp_path / "unit", name)
    assert validators.exposure(tmp_path / "unit", name) < 2


def test_systemd_finds_a_unit_that_is_spoiled(
    sealed: Subject, validators: Validators, tmp_path: Path
) -> None:
    files = systemd_files(sealed, python="3.11")
    name = unit_name(sealed)
    text = files[name].decode().replace("Type=notify", "Type=sleep").replace("DynamicUser=yes", "")
    write_folder(tmp_path / "unit", {name: text.encode()})

    assert [] != validators.unit(tmp_path / "unit", name)
    assert validators.exposure(tmp_path / "unit", name) > 1.5


@pytest.mark.parametrize("memory", ["", "512MB", "lots", "5\n[Install]"])
def test_memory_that_systemd_does_not_read_is_refused(sealed: Subject, memory: str) -> None:
    with pytest.raises(EverloopError) as refused:
        systemd_files(sealed, python="3.11", memory=memory)

    assert "export.setting_invalid" == refused.value.code


def test_what_a_server_does_only_when_asked_is_installed_only_when_asked(sealed: Subject) -> None:
    usual, tracing = (recipe(sealed, also=also).distributions for also in ((), ("otel",)))

    added = {one.name for one in tracing} - {one.name for one in usual}
    assert "opentelemetry-sdk" in added
    with pytest.raises(InvalidInput):
        locked("3.11", (), ("teleport",))


@pytest.mark.parametrize("base", ["evil\nRUN x", "python 3", "", "a" * 501, "$(x)", "UPPER/x"])
def test_a_base_that_is_no_name_of_an_image_gets_into_no_dockerfile(
    sealed: Subject, base: str
) -> None:
    with pytest.raises(InvalidInput):
        image_files(recipe(sealed, base=base or " "))


@pytest.mark.parametrize("place", [".", "..", "/"])
def test_no_export_replaces_the_folder_that_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "within").mkdir()
    monkeypatch.chdir(tmp_path / "within")

    with pytest.raises(InvalidInput, match="folder that you are in"):
        write_folder(Path(place), {"a": b"x"}, force=True)

    assert [tmp_path / "within"] == list(tmp_path.iterdir())


def test_force_removes_only_what_an_export_wrote(tmp_path: Path) -> None:
    mine, other = tmp_path / "credit", tmp_path / "photos"
    write_folder(mine, {"a": b"x"})
    other.mkdir()
    (other / "holiday.jpg").write_bytes(b"y")

    write_folder(mine, {"b": b"x"}, force=True)
    for taken in (other, other / "holiday.jpg"):
        with pytest.raises(Conflict) as refused:
            write_folder(taken, {"a": b"x"}, force=True)
        assert "folder.not_ours" == refused.value.code

    assert {MARK, "b"} == {path.name for path in mine.iterdir()}
    assert b"y" == (other / "holiday.jpg").read_bytes()
    assert {"credit", "photos"} == {path.name for path in tmp_path.iterdir()}
