"""Every format: read as its library reads it, versioned by its answers, verified when opened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from everloop.core.errors import IntegrityError, InvalidInput
from everloop.kernel.safe_load import LoadPolicy
from everloop.registry.client import register
from everloop.registry.formats import open_version, save_model
from everloop.registry.loaders import Predictor, load_predictor
from everloop.registry.model import ModelVersion
from everloop.registry.signature import Signature, infer_signature
from everloop.storage.localfs import LocalBlobStore
from tests.kit import World, world
from tests.unit.registry import zoo
from tests.unit.registry.zoo import ONE_NUMBER, SEVERAL_NUMBERS, Sample

POLICY = LoadPolicy()
by_kind = pytest.mark.parametrize("sample", ONE_NUMBER, ids=lambda sample: sample.kind)
of_several = pytest.mark.parametrize("sample", SEVERAL_NUMBERS, ids=lambda sample: sample.kind)
by_kind_and_answer = pytest.mark.parametrize(
    "sample", [*ONE_NUMBER, *SEVERAL_NUMBERS], ids=lambda sample: sample.kind
)


def opened(sample: Sample, model: object) -> Predictor:
    kind, files = save_model(model)
    assert (sample.kind, [sample.file]) == (kind, list(files))
    return load_predictor(kind, files, POLICY)


def add(here: World, model: object, **options: Any) -> ModelVersion:
    kind, files = save_model(model)
    outputs = load_predictor(kind, files, POLICY).outputs
    signature = zoo.signature_of(outputs, "classification" if outputs else "regression")
    given = {"signature": signature, "examples": zoo.TABLE, **options}
    return register(here.owner, "bike", model, **given)


@by_kind_and_answer
def test_the_answers_are_those_of_the_library(sample: Sample) -> None:
    model = sample.make(0)

    predictor = opened(sample, model)

    np.testing.assert_allclose(predictor.predict(zoo.X), sample.expected(model), rtol=1e-6)
    assert 3 == predictor.inputs


@by_kind_and_answer
def test_no_rows_get_no_answers_of_the_same_shape(sample: Sample) -> None:
    predictor = opened(sample, sample.make(0))

    empty, full = predictor.predict(zoo.X[:0]), predictor.predict(zoo.X[:2])

    assert (0, *full.shape[1:]) == empty.shape


@by_kind_and_answer
def test_rows_of_another_width_are_refused(sample: Sample) -> None:
    predictor = opened(sample, sample.make(0))

    with pytest.raises(InvalidInput) as refused:
        predictor.predict(zoo.X[:, :2])

    assert "model.wrong_shape" == refused.value.code


@by_kind_and_answer
def test_one_model_saved_twice_is_one_artifact(sample: Sample) -> None:
    model = sample.make(0)

    assert save_model(model) == save_model(model)


@by_kind_and_answer
def test_the_three_levels_of_a_version_are_told_apart(sample: Sample) -> None:
    here = world()
    first = add(here, sample.make(0))

    same = add(here, sample.make(0), signature=narrowed(first))
    other = add(here, sample.make(1))
    less = add(here, sample.make(1), signature=renamed(first), examples=None)

    assert ["1.0.0", "1.0.1", "1.1.0", "2.0.0"] == [
        version.version for version in (first, same, other, less)
    ]
    assert "All 240 probe rows get the same answer." == same.bump_reason
    assert "probe rows get another answer, by" in other.bump_reason
    assert "'y' (float64) became 'z' (float64)" in less.bump_reason


def narrowed(version: ModelVersion) -> Signature:
    """The same contract with other ranges seen in training: other bytes, the same answers."""
    first = msgspec.structs.replace(version.signature.inputs[0], minimum=-99.0)
    return msgspec.structs.replace(version.signature, inputs=(first, *version.signature.inputs[1:]))


def renamed(version: ModelVersion) -> Signature:
    """Another name of the answer: its callers break."""
    output = msgspec.structs.replace(version.signature.output, name="z")
    return msgspec.structs.replace(version.signature, output=output)


@by_kind
def test_bytes_swapped_on_the_disk_are_found_when_the_version_is_opened(
    sample: Sample, tmp_path: Path
) -> None:
    blobs = LocalBlobStore(tmp_path)
    here = world(blobs=blobs)
    version = add(here, sample.make(0))
    digits = version.files[0].digest.partition(":")[2]
    place = tmp_path / "blake3" / digits[:2] / digits[2:]
    place.write_bytes(next(iter(save_model(sample.make(1))[1].values())))

    with pytest.raises(IntegrityError) as found:
        open_version(blobs, version, POLICY)

    assert "blob.corrupt" == found.value.code


@by_kind
def test_a_row_that_points_at_the_files_of_another_model_is_found(sample: Sample) -> None:
    here = world()
    version, other = add(here, sample.make(0)), add(here, sample.make(1))
    forged = msgspec.structs.replace(version, files=other.files)

    with pytest.raises(IntegrityError) as found:
        open_version(here.blobs, forged, POLICY)

    assert "model.artifact_mismatch" == found.value.code


@pytest.mark.parametrize("sample", ONE_NUMBER[:1] + ONE_NUMBER[2:3], ids=["lightgbm", "xgboost"])
def test_a_signature_in_another_order_than_the_models_own_is_refused(sample: Sample) -> None:
    here = world()
    turned = infer_signature(zoo.TABLE, ["b", "a", "c"], "y", "regression")

    with pytest.raises(InvalidInput) as refused:
        add(here, sample.make(0), signature=turned)

    assert "model.inputs_reordered" == refused.value.code


@of_several
def test_a_signature_must_name_all_numbers_that_a_model_answers(sample: Sample) -> None:
    here = world()

    with pytest.raises(InvalidInput, match="answers 3 numbers a row, its signature names 1"):
        add(here, sample.make(0), signature=zoo.signature_of())


@by_kind
def test_the_serving_process_answers_with_it(sample: Sample) -> None:
    """Without the training library's package where there is a C library or a runtime instead."""
    program = """
import sys
import numpy as np
from everloop.serve.runtime import open_model
kind, name, rows = sys.argv[1], sys.argv[2], np.arange(6.0).reshape(2, 3)
model = open_model(kind, {name: sys.stdin.buffer.read()}, 3)
print(model.predict(rows).tolist())
heavy = {"lightgbm", "xgboost", "sqlalchemy", "starlette", "everloop.kernel.perform"}
sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)
"""
    kind, files = save_model(sample.make(0))
    name, data = next(iter(files.items()))

    done = subprocess.run(
        [sys.executable, "-c", program, kind, name], input=data, capture_output=True, check=False
    )

    assert 0 == done.returncode, done.stderr.decode()
    rows = np.arange(6.0).reshape(2, 3)
    assert load_predictor(kind, files, POLICY).predict(rows).tolist() == json.loads(done.stdout)
