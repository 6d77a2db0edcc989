"""Hostile models: pickles in disguise, types that the server does not trust, broken trees."""

from __future__ import annotations

import io
import json
import pickle
import re
import subprocess
import sys
import zipfile

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from everloop.core.digest import content_digest
from everloop.core.errors import (
    EverloopError,
    IntegrityError,
    InvalidInput,
    NotFound,
    UnsafeArtifact,
)
from everloop.core.manifest import FileEntry
from everloop.kernel.authz import Role
from everloop.kernel.safe_load import LoadPolicy
from everloop.registry.adapters.lightgbm_text import rewrite_model_text
from everloop.registry.client import register, upload_files
from everloop.registry.formats import load_predictor, open_version, save_model
from everloop.registry.model import ModelVersion
from everloop.registry.queries import ShowModel
from everloop.registry.signature import infer_signature
from everloop.registry.verbs import RegisterModel
from tests.kit import World, world

RNG = np.random.default_rng(3)
X = RNG.normal(size=(400, 2))
X[:, 1] = RNG.integers(0, 20, 400)
Y = X[:, 0] + 9 * (X[:, 1] % 3 == 0)
TABLE = pa.table({"a": X[:, 0], "b": X[:, 1], "y": Y})
SIGNATURE = infer_signature(TABLE, ["a", "b"], "y", "regression")
POLICY = LoadPolicy()


def model_text() -> str:
    data = lgb.Dataset(X, Y, categorical_feature=[1])
    settings = {
        "verbose": -1,
        "num_threads": 1,
        "num_leaves": 6,
        "min_data_per_group": 1,
        "cat_smooth": 0,
        "max_cat_to_onehot": 1,
    }
    return str(lgb.train(settings, data, 3).model_to_string())


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('the pickle ran')",))


@pytest.mark.parametrize("format_name", ["lightgbm", "sklearn"])
def test_a_pickle_under_a_safe_format_never_runs(format_name: str) -> None:
    name = "model.txt" if format_name == "lightgbm" else "model.skops"

    with pytest.raises(InvalidInput):
        load_predictor(format_name, {name: pickle.dumps(Bomb())}, POLICY)


@pytest.mark.parametrize("format_name", ["pickle", "joblib", "pyfunc", "", "../lightgbm"])
def test_a_format_outside_the_policy_is_refused_whatever_the_file_is(format_name: str) -> None:
    with pytest.raises(UnsafeArtifact):
        load_predictor(format_name, {"model.txt": model_text().encode()}, POLICY)


SOUND = save_model(LinearRegression().fit(X, Y))[1]["model.skops"]


def repacked(archive: bytes, member: str, data: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(sink, "w") as new:
        for name in old.namelist():
            new.writestr(name, data if name == member else old.read(name))
    return sink.getvalue()


def schema_of(archive: bytes) -> str:
    return zipfile.ZipFile(io.BytesIO(archive)).read("schema.json").decode()


def test_a_skops_archive_that_names_a_foreign_function_is_refused() -> None:
    estimator = make_pipeline(FunctionTransformer(np.exp), LinearRegression()).fit(X, Y)
    sound = save_model(estimator)[1]["model.skops"]
    assert load_predictor("sklearn", {"model.skops": sound}, POLICY).inputs == 2
    schema = json.loads(schema_of(sound))
    text = json.dumps(schema)
    for name in ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath", "numpy"):
        if f'"__module__": "{name}", "__loader__": "FunctionNode"' in text:
            text = text.replace(
                f'"__module__": "{name}", "__loader__": "FunctionNode"',
                '"__module__": "os", "__loader__": "FunctionNode"',
            )
    evil = text.replace('"exp"', '"system"')
    assert evil != text

    with pytest.raises(UnsafeArtifact) as refused:
        load_predictor(
            "sklearn", {"model.skops": repacked(sound, "schema.json", evil.encode())}, POLICY
        )

    assert refused.value.code == "artifact.types_refused"


def test_an_archive_cannot_declare_its_own_types_trusted() -> None:
    schema = json.loads(schema_of(SOUND))
    schema.update(
        {"__class__": "Popen", "__module__": "subprocess", "trusted": ["subprocess.Popen"]}
    )
    evil = repacked(SOUND, "schema.json", json.dumps(schema).encode())

    with pytest.raises(UnsafeArtifact) as refused:
        load_predictor("sklearn", {"model.skops": evil}, POLICY)

    assert refused.value.code == "artifact.types_refused"


def test_an_array_of_pickled_objects_inside_an_archive_is_refused() -> None:
    sink = io.BytesIO()
    np.save(sink, np.array([Bomb()], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(io.BytesIO(SOUND)) as opened:
        arrays = [name for name in opened.namelist() if name.endswith(".npy")]

    assert arrays
    for name in arrays:
        with pytest.raises(EverloopError):
            load_predictor(
                "sklearn", {"model.skops": repacked(SOUND, name, sink.getvalue())}, POLICY
            )


def test_a_zip_bomb_is_refused_before_it_is_unpacked() -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b"{}")
        for number in range(12_000):
            archive.writestr(str(number), b"")

    with pytest.raises(EverloopError) as refused:
        load_predictor("sklearn", {"model.skops": sink.getvalue()}, POLICY)

    assert refused.value.code == "model.too_large"


def test_a_sound_estimator_loads_and_answers_like_itself() -> None:
    estimator = LogisticRegression().fit(X, Y > 0.5)
    predictor = load_predictor(*save_model(estimator), POLICY)

    np.testing.assert_array_equal(predictor.predict(X), estimator.predict_proba(X)[:, 1])


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (r"left_child=\S+", "left_child=900000000"),
        (r"left_child=\d+ ", "left_child=0 "),
        (r"right_child=\S+", "right_child=-999"),
        (r"split_feature=\S+", "split_feature=2"),
        (r"split_feature=\S+", "split_feature=-1"),
        (r"num_leaves=\d+", "num_leaves=1000000"),
        (r"num_leaves=\d+", "num_leaves=-3"),
        (r"num_cat=\d+", "num_cat=0"),
        (r"cat_boundaries=0 \d+", "cat_boundaries=0 99999999"),
        (r"cat_boundaries=0", "cat_boundaries=-5"),
        (r"max_feature_idx=1", "max_feature_idx=400000"),
        (r"max_feature_idx=1", "max_feature_idx=0"),
        (r"max_feature_idx=1", "max_feature_idx=-7"),
        (r"objective=", "objective=!"),
        (r"version=", "version=-"),
        (r"is_linear=0", "is_linear=1"),
        (r"num_class=1", "num_class=3"),
        (r"objective=regression", "objective=multiclass num_class:9"),
        (r"objective=regression", "objective=multiclass num_class:1"),
        (r"objective=regression", "objective=binary num_class:9.5"),
        (r"Tree=1\n", "Tree=9\n"),
        (r"\nthreshold=\S+", "\nthreshold=99"),
        (r"\nthreshold=\S+", "\nthreshold=nan"),
        (r"leaf_value=\S+", "leaf_value=x"),
        (r"leaf_value=\S+", "leaf_value="),
        (r"shrinkage=\S+", "shrinkage=."),
        (r"internal_count=", "internal_kount="),
    ],
)
def test_a_model_text_that_leads_outside_of_itself_is_refused(
    pattern: str, replacement: str
) -> None:
    text = model_text()
    broken = re.sub(pattern, replacement, text, count=1)
    assert broken != text

    with pytest.raises(InvalidInput):
        rewrite_model_text(broken.encode())


@pytest.mark.parametrize("data", [b"", b"tree\n", b"\x00" * 64, b"tree\nTree=0\n", b"\xff\xfe"])
def test_bytes_that_are_no_model_text_are_an_input_error(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        load_predictor("lightgbm", {"model.txt": data}, POLICY)


def test_text_mutated_at_random_never_ends_the_process() -> None:
    """The library runs in a process of its own here: a crash must be seen, not shared."""
    program = """
import random, sys
import numpy as np
from everloop.core.errors import EverloopError
from everloop.registry.adapters.lightgbm_native import NativeBooster
text = sys.stdin.buffer.read()
head = text[: text.index(b"end of trees")]
dice = random.Random(5)
loaded = 0
for _ in range(1500):
    data = bytearray(text)
    for _ in range(dice.randint(1, 4)):
        spot = dice.randrange(len(head))
        data[spot] = dice.choice(b"0123456789- .\\n=")
    try:
        booster = NativeBooster(bytes(data))
        booster.predict(np.zeros((3, booster.inputs)))
        booster.close()
        loaded += 1
    except EverloopError:
        pass
print(loaded)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=model_text().encode(),
        capture_output=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert int(done.stdout) > 100


def entry(path: str, data: bytes) -> FileEntry:
    return FileEntry(path=path, digest=content_digest(data), size_bytes=len(data))


@pytest.mark.parametrize("path", ["../model.txt", "/model.txt", "model.txt\x00", "a/model.txt"])
def test_a_model_file_can_only_be_the_one_of_its_format(path: str) -> None:
    here = world()
    data = model_text().encode()
    here.blobs.put(data)
    ask = RegisterModel(
        name="m", files=(entry(path, data),), format="lightgbm", signature=SIGNATURE
    )

    with pytest.raises(InvalidInput):
        here.owner.perform("model.register", ask, ModelVersion)


def test_bytes_that_were_never_uploaded_cannot_be_registered() -> None:
    here = world()
    ask = RegisterModel(
        name="m", files=(entry("model.txt", b"x"),), format="lightgbm", signature=SIGNATURE
    )

    with pytest.raises(NotFound):
        here.owner.perform("model.register", ask, ModelVersion)


def registered(here: World) -> ModelVersion:
    ask = RegisterModel(
        name="m",
        files=upload_files(here.blobs, {"model.txt": model_text().encode()}),
        format="lightgbm",
        signature=SIGNATURE,
    )
    return here.owner.perform("model.register", ask, ModelVersion)


def test_a_version_whose_row_names_other_bytes_does_not_load() -> None:
    import msgspec

    here = world()
    version = registered(here)
    other = model_text().replace("leaf_value=", "leaf_value=9", 1).encode()
    files = upload_files(here.blobs, {"model.txt": other})

    with pytest.raises(IntegrityError) as refused:
        open_version(here.blobs, msgspec.structs.replace(version, files=files), POLICY)

    assert refused.value.code == "model.artifact_mismatch"


def test_a_version_of_another_project_is_not_found() -> None:
    here = world()
    version = registered(here)
    here.project("other")
    stranger = here.person("eve", Role.ADMIN, project="other")

    with pytest.raises(NotFound):
        stranger.perform("model.show", ShowModel(ref=version.id), ModelVersion)


def test_a_registration_repeated_by_a_retry_is_one_version() -> None:
    here = world()
    booster = lgb.Booster(model_str=model_text())

    one = register(here.owner, "m", booster, signature=SIGNATURE, request="r1")
    two = register(here.owner, "m", booster, signature=SIGNATURE, request="r1")

    assert one == two
