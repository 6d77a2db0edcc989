"""A loaded version: rows of any shape against the signature, and what `verify` finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression

from everloop.app.models import load_model, verify_model
from everloop.core.errors import InvalidInput, NotFound, UnsafeArtifact
from everloop.kernel.safe_load import LoadPolicy
from everloop.registry.client import register
from everloop.registry.loaded import LoadedModel, load_version
from everloop.registry.model import AliasMove, ModelVersion
from everloop.registry.signature import infer_signature
from everloop.registry.verbs import MoveAlias
from everloop.storage.localfs import LocalBlobStore
from tests.kit import World, world

A = np.array([0.5, 1.5, 2.5, 3.5])
CITY = ["Bern", "Rom", "Bern", "Oslo"]
TABLE = pa.table({"a": A, "city": CITY, "y": A * 2})
SIGNATURE = infer_signature(TABLE, ["a", "city"], "y", "regression")
CODES = np.array([0.0, 2.0, 0.0, 1.0])
MODEL = LinearRegression().fit(np.column_stack([A, CODES]), A * 2)


def add(here: World) -> ModelVersion:
    return register(here.owner, "bike", MODEL, signature=SIGNATURE, examples=TABLE)


@pytest.fixture
def model() -> LoadedModel:
    here = world()
    return load_version(here.blobs, add(here), LoadPolicy())


@pytest.mark.parametrize(
    "rows",
    [
        TABLE,
        TABLE.to_batches()[0],
        {"city": CITY, "a": A.tolist()},
        [{"a": float(value), "city": city} for value, city in zip(A, CITY, strict=True)],
        [list(pair) for pair in zip(A.tolist(), CITY, strict=True)],
    ],
    ids=["table", "batch", "columns", "dicts", "lists"],
)
def test_rows_of_every_kind_get_the_same_answers(model: LoadedModel, rows: object) -> None:
    np.testing.assert_allclose(model.predict(rows), A * 2)


def test_answers_come_as_a_table_named_after_the_target(model: LoadedModel) -> None:
    answers = model.predict_table(TABLE)

    assert ["y"] == answers.column_names
    np.testing.assert_allclose(answers["y"].to_numpy(), A * 2)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"a": [1.0]}, "there is no column 'city'"),
        ({"a": ["x"], "city": ["Rom"]}, "'a' is string, not float64"),
        ({"a": [None], "city": ["Rom"]}, "'a' is null, not float64"),
        ({"a": [1.0, None], "city": ["Rom", "Rom"]}, "'a' has 1 nulls and takes none"),
        ({"a": [1.0], "city": ["Wien"]}, "'city' has 1 values that the model does not know"),
        ({"b": [1.0]}, "there is no column 'a'; there is no column 'city'"),
    ],
)
def test_rows_that_do_not_fit_the_signature_are_refused_by_name(
    model: LoadedModel, rows: object, told: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        model.predict(rows)

    assert "model.rows_refused" == refused.value.code
    assert told in refused.value.message


@pytest.mark.parametrize(
    "rows",
    [
        42,
        "a,b",
        [1, 2],
        [[1.0, "Rom"], [2.0]],
        [{}, []],
        {"a": [1.0], "city": ["Rom", "Rom"]},
        np.zeros((2, 3)),
        np.zeros(2),
    ],
)
def test_what_holds_no_rows_is_an_input_error(model: LoadedModel, rows: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        model.predict(rows)

    assert "model.rows_unreadable" == refused.value.code


def point(here: World, version: str) -> None:
    ask = MoveAlias(model="bike", alias="candidate", version=version, why="It is better.")
    here.owner.perform("model.alias", ask, AliasMove)


def test_a_model_is_loaded_by_its_alias_and_by_what_it_named_at_a_time() -> None:
    here = world()
    first = add(here)
    point(here, "1")
    then = here.clock.now().isoformat()
    here.clock.push(hours=1)
    later = TABLE.set_column(0, "a", pa.array(A + 1))
    signature = infer_signature(later, ["a", "city"], "y", "regression")
    second = register(here.owner, "bike", MODEL, signature=signature, examples=TABLE)
    point(here, "2")

    assert second == load_model(here.owner, "model:bike@candidate").version
    assert first == load_model(here.owner, "model:bike@candidate", as_of=then).version
    with pytest.raises(NotFound):
        load_model(here.owner, "bike@production")


def test_a_policy_that_is_narrower_than_the_format_refuses_it() -> None:
    here = world()
    narrow = LoadPolicy(formats=frozenset({"lightgbm"}))

    with pytest.raises(UnsafeArtifact):
        load_version(here.blobs, add(here), narrow)


def test_a_sound_version_holds_in_every_part() -> None:
    here = world()
    add(here)

    found = verify_model(here.owner, "bike@1")

    assert found.held
    assert ["artifact", "model.skops", "examples", "model"] == [f.what for f in found.findings]
    assert "It loads and answers its 4 example rows." == found.findings[-1].told


@pytest.mark.parametrize("what", ["model.skops", "examples"])
@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_what_was_changed_on_the_disk_is_named(what: str, how: str, tmp_path: Path) -> None:
    here = world(blobs=LocalBlobStore(tmp_path))
    version = add(here)
    digest = version.examples if what == "examples" else version.files[0].digest
    assert digest is not None
    digits = digest.partition(":")[2]
    place = tmp_path / "blake3" / digits[:2] / digits[2:]
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    if how == "gone":
        place.unlink()
    else:
        place.write_bytes(bytes(data) if how == "flip" else bytes(data[:-5]))

    found = verify_model(here.owner, "bike@1")

    assert not found.held
    assert [what] == [item.what for item in found.findings if item.held is False]
