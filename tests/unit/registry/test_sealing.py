"""Folders of another system: registered as they are, read as text, served by a safe file alone."""

from __future__ import annotations

import json
from collections.abc import Mapping

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pytest
import xgboost as xgb
from sklearn.linear_model import LinearRegression

from everloop.core.errors import Conflict, EverloopError, InvalidInput, NotFound, UnsafeArtifact
from everloop.core.ids import Id
from everloop.registry.client import upload_files
from everloop.registry.folders import (
    CreateLoggedModel,
    DropLoggedFiles,
    FinishLoggedModel,
    Measured,
    MeasuredCount,
    MeasureLoggedModels,
    NameLoggedModel,
    PutLoggedFile,
    UpdateLoggedModel,
)
from everloop.registry.formats import open_version, save_model
from everloop.registry.lifecycle import NameVersion
from everloop.registry.loaded import load_version
from everloop.registry.logged import LoggedModel, LoggedStatus
from everloop.registry.logged_queries import LoggedModelView, ShowLoggedModel
from everloop.registry.model import ModelVersion, VersionNotes
from everloop.registry.queries import ModelView, ShowModel
from everloop.registry.sealing import SealModel
from everloop.registry.verifying import verify_version
from everloop.track.verbs import RunStarted, StartRun
from tests.kit import World, world

RNG = np.random.default_rng(5)
X = np.column_stack([RNG.normal(size=80), np.arange(80) % 5])
TRUTH = X[:, 0] * 2 + X[:, 1]


def mlmodel(flavors: str, inputs: list[dict[str, object]] | None, outputs: str = "float64") -> str:
    """Return an MLmodel file as MLflow writes it."""
    signature = ""
    if inputs is not None:
        out = json.dumps([{"type": "tensor", "tensor-spec": {"dtype": outputs, "shape": [-1]}}])
        signature = f"signature:\n  inputs: '{json.dumps(inputs)}'\n  outputs: '{out}'\n"
    return f"flavors:\n{flavors}{signature}mlflow_version: 3.17.2\n"


COLUMNS: list[dict[str, object]] = [
    {"type": "double", "name": "a", "required": True},
    {"type": "double", "name": "b", "required": True},
]
LIGHTGBM = "  lightgbm:\n    data: model.lgb\n  python_function:\n    loader_module: x\n"
SKLEARN = "  sklearn:\n    pickled_model: {}\n    serialization_format: skops\n"


def booster_text(
    rows: npt.NDArray[np.float64] = X, names: str = "ab", objective: str = "regression"
) -> bytes:
    truth = (TRUTH > 1).astype(int) if objective == "binary" else TRUTH
    settings = {"verbose": -1, "num_threads": 1, "num_leaves": 4, "objective": objective}
    data = lgb.Dataset(rows, truth, feature_name=list(names))
    text: str = lgb.train(settings, data, 4).model_to_string()
    return text.encode()


def folder(model: bytes | None = None, **more: object) -> dict[str, bytes]:
    """Return the files of a LightGBM model as a stock client logs it."""
    inputs = more.get("inputs", COLUMNS)
    told = mlmodel(LIGHTGBM, inputs, str(more.get("outputs", "float64")))  # type: ignore[arg-type]
    return {
        "MLmodel": told.encode(),
        "model.lgb": model or booster_text(),
        "conda.yaml": b"name: x\n",
    }


def logged(here: World, files: Mapping[str, bytes], *, finish: bool = True) -> LoggedModel:
    """Log a model as MLflow's clients do: create, put, finish."""
    run = here.owner.perform("run.start", StartRun(run=here.kernel.services.ids.new()), RunStarted)
    ask = CreateLoggedModel(
        model=here.kernel.services.ids.new(),
        experiment=run.experiment,
        run=run.run,
        name="model",
    )
    model = here.owner.perform("logged_model.create", ask, LoggedModel)
    for entry in upload_files(here.blobs, files):
        put(here, model, entry.path, entry.digest, entry.size_bytes)
    return finished(here, model) if finish else model


def put(here: World, model: LoggedModel, path: str, digest: str, size: int) -> None:
    ask = PutLoggedFile(model=model.id, path=path, digest=digest, size_bytes=size)
    here.owner.perform("logged_model.put", ask, LoggedModel)


def finished(here: World, model: LoggedModel) -> LoggedModel:
    ask = FinishLoggedModel(model=model.id, status=LoggedStatus.READY)
    return here.owner.perform("logged_model.finish", ask, LoggedModel)


def seal(here: World, files: Mapping[str, bytes], **told: object) -> ModelVersion:
    ask = SealModel(name="bike", logged_model=logged(here, files).id, **told)  # type: ignore[arg-type]
    return here.owner.perform("model.seal", ask, ModelVersion)


def test_a_lightgbm_folder_is_servable_and_answers_as_the_library_does() -> None:
    here = world()
    text = booster_text()

    version = seal(here, folder(text), target="cnt")

    assert ("mlflow", "lightgbm", "model.lgb", "cnt", 3) == (
        version.format,
        version.servable_as,
        version.servable_file,
        version.target,
        len(version.files),
    )
    opened = open_version(here.blobs, version, here.kernel.services.policy)
    expected = lgb.Booster(model_str=text.decode()).predict(X)
    np.testing.assert_array_equal(expected, opened.predict(X))


def test_a_lightgbm_folder_without_a_signature_takes_the_names_of_its_own_text() -> None:
    version = seal(world(), folder(inputs=None))

    assert ["a", "b"] == [field.name for field in version.signature.inputs]
    assert version.signature.inputs[1].maximum == 4.0


def test_a_binary_objective_makes_a_classifier() -> None:
    version = seal(world(), folder(booster_text(objective="binary")))

    assert ("classification", 1.0) == (
        version.signature.task,
        version.signature.output.maximum,
    )


def test_pandas_categories_become_the_categories_of_the_signature() -> None:
    text = booster_text(np.column_stack([X, np.arange(80) % 3]), "abc")
    pandas_had = text + b'\npandas_categorical:[["z", "x", "y"]]\n'
    inputs = [*COLUMNS, {"type": "string", "name": "c", "required": True}]

    version = seal(world(), folder(pandas_had, inputs=inputs))

    assert ("lightgbm", ("z", "x", "y")) == (
        version.servable_as,
        version.signature.inputs[2].categories,
    )


def test_a_skops_folder_is_servable_and_a_pickle_is_not() -> None:
    here = world()
    estimator = LinearRegression().fit(X, TRUTH)
    skops = save_model(estimator)[1]["model.skops"]
    told = mlmodel(SKLEARN.format("model.skops"), COLUMNS).encode()
    hidden = mlmodel(SKLEARN.format("model.pkl"), COLUMNS).encode()

    safe = seal(here, {"MLmodel": told, "model.skops": skops})
    pickled = seal(here, {"MLmodel": hidden, "model.pkl": b"\x80\x04."})

    assert ("sklearn", None) == (safe.servable_as, pickled.servable_as)
    assert ["a", "b"] == [field.name for field in pickled.signature.inputs]
    with pytest.raises(UnsafeArtifact) as refused:
        open_version(here.blobs, pickled, here.kernel.services.policy)
    assert "model.not_servable" == refused.value.code


@pytest.mark.parametrize("name", ["model.ubj", "model.xgb"])
def test_an_xgboost_folder_is_servable_under_the_names_that_clients_gave_its_file(
    name: str,
) -> None:
    here = world()
    settings = {"objective": "binary:logistic", "nthread": 1}
    booster = xgb.train(settings, xgb.DMatrix(X, (TRUTH > 1).astype(int)), 3)
    told = mlmodel(f"  xgboost:\n    data: {name}\n", COLUMNS, "float32").encode()

    version = seal(here, {"MLmodel": told, name: bytes(booster.save_raw("ubj"))})

    assert ("xgboost", "classification") == (version.servable_as, version.signature.task)
    opened = open_version(here.blobs, version, here.kernel.services.policy)
    np.testing.assert_allclose(booster.predict(xgb.DMatrix(X)), opened.predict(X), rtol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe",
        b"a: &x [1]\nb: *x\n",
        b"!!python/object/apply:os.system [id]\n",
        b"[" * 5_000,
        b"flavors: 3\nsignature: {inputs: '[{}]'}\n",
        b'signature: {inputs: \'[{"type": "datetime", "name": "a"}]\'}\n',
        b"signature: {inputs: '[{\"type\": \"tensor\"}]', outputs: '[[[['}\n",
    ],
)
def test_an_mlmodel_that_is_not_understood_makes_a_version_without_a_signature(
    text: bytes,
) -> None:
    here = world()

    version = seal(here, {"MLmodel": text, "model.bin": b"x"})

    assert () == version.signature.inputs
    assert version.servable_as is None
    with pytest.raises(InvalidInput) as refused:
        open_version(here.blobs, version, here.kernel.services.policy)
    assert "signature.unknown" == refused.value.code


def test_of_a_folder_that_nothing_here_may_load_the_bytes_are_verified_all_the_same() -> None:
    here = world()
    version = seal(here, {"MLmodel": b"flavors: {}", "model.pkl": b"\x80"})

    found = verify_version(here.blobs, version, here.kernel.services.policy)

    assert found.held
    assert [("MLmodel", True), ("artifact", True), ("model", None), ("model.pkl", True)] == sorted(
        (finding.what, finding.held) for finding in found.findings
    )


def test_a_servable_folder_is_loaded_and_asked_by_names() -> None:
    here = world()
    version = seal(here, folder())

    with load_version(here.blobs, version, here.kernel.services.policy) as model:
        answers = model.predict({"b": X[:5, 1], "a": X[:5, 0]})

    np.testing.assert_array_equal(
        lgb.Booster(model_str=booster_text().decode()).predict(X[:5]), answers
    )


def test_a_broken_native_file_is_kept_and_not_served() -> None:
    version = seal(world(), folder(booster_text().replace(b"left_child=", b"left_child=9 ")))

    assert version.servable_as is None


def test_a_ready_model_takes_loses_and_changes_no_file() -> None:
    here = world()
    model = logged(here, folder())
    entry = upload_files(here.blobs, {"model.lgb": b"other"})[0]

    for verb, ask in (
        (
            "logged_model.put",
            PutLoggedFile(
                model=model.id, path=entry.path, digest=entry.digest, size_bytes=entry.size_bytes
            ),
        ),
        ("logged_model.drop", DropLoggedFiles(model=model.id, path="model.lgb")),
        ("logged_model.finish", FinishLoggedModel(model=model.id, status=LoggedStatus.FAILED)),
    ):
        with pytest.raises(Conflict) as refused:
            here.owner.perform(verb, ask, LoggedModel)
        assert "logged_model.sealed" == refused.value.code
    assert model == finished(here, model)


def test_a_pending_model_is_not_registered() -> None:
    here = world()
    model = logged(here, folder(), finish=False)

    with pytest.raises(InvalidInput) as refused:
        here.owner.perform(
            "model.seal", SealModel(name="bike", logged_model=model.id), ModelVersion
        )

    assert "seal.source_invalid" == refused.value.code


def test_nothing_is_registered_without_files() -> None:
    here = world()

    with pytest.raises(NotFound) as refused:
        seal(here, {})

    assert "seal.nothing_there" == refused.value.code


def test_the_same_folder_again_is_the_same_version_with_the_new_notes() -> None:
    here = world()
    first = seal(here, folder(), description="one")
    here.owner.perform("version.delete", NameVersion(version="bike@1"), VersionNotes)

    again = seal(here, folder(), description="two", tags={"a": "b"})

    notes = here.owner.perform("model.show", ShowModel(ref="bike@1"), ModelView).notes
    assert first == again
    assert notes is not None
    assert ("two", {"a": "b"}, None) == (notes.description, notes.tags, notes.deleted_at)


def test_a_version_under_another_name_is_the_same_artifact() -> None:
    here = world()
    first = seal(here, folder())

    copy = here.owner.perform("model.seal", SealModel(name="cycle", version="bike@1"), ModelVersion)

    assert (first.artifact, first.run, 1) == (copy.artifact, copy.run, copy.number)


def test_metrics_on_a_logged_model_keep_the_newest_step() -> None:
    here = world()
    model = logged(here, folder())
    assert model.run is not None

    def measure(*values: tuple[str, int]) -> None:
        metrics = tuple(
            Measured(model=model.id, key="auc", text=text, step=step, time_us=step)
            for text, step in values
        )
        ask = MeasureLoggedModels(run=model.run or "", metrics=metrics)
        here.owner.perform("logged_model.measure", ask, MeasuredCount)

    measure(("0.1", 1), ("nan", 3), ("0.2", 2))
    measure(("0.3", 2))

    shown = here.owner.perform(
        "logged_model.show", ShowLoggedModel(model=model.id), LoggedModelView
    )
    assert [("nan", 3, None)] == [(row.text, row.step, row.value) for row in shown.metrics]


def test_parameters_of_a_logged_model_are_set_once_and_tags_change() -> None:
    here = world()
    model = logged(here, folder())

    def update(**told: object) -> LoggedModel:
        ask = UpdateLoggedModel(model=model.id, **told)  # type: ignore[arg-type]
        return here.owner.perform("logged_model.update", ask, LoggedModel)

    update(params={"depth": "3"}, tags={"a": "1", "b": "2"})
    changed = update(params={"depth": "3"}, untag=("a",))

    assert ({"depth": "3"}, {"b": "2"}) == (changed.params, changed.tags)
    with pytest.raises(EverloopError) as refused:
        update(params={"depth": "4"})
    assert "logged_model.param_changed" == refused.value.code


def test_a_deleted_logged_model_leaves_its_versions_whole() -> None:
    here = world()
    model = logged(here, folder())
    ask = SealModel(name="bike", logged_model=model.id)
    version = here.owner.perform("model.seal", ask, ModelVersion)

    here.owner.perform("logged_model.delete", NameLoggedModel(model=model.id), LoggedModel)

    with pytest.raises(NotFound):
        here.owner.perform("logged_model.show", ShowLoggedModel(model=model.id), LoggedModelView)
    assert open_version(here.blobs, version, here.kernel.services.policy).inputs == 2
    assert version.logged_model == Id(model.id)
