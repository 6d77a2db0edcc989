"""Registering any model in one call: what is found out, and what must be told."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from everloop.app.models import load_model
from everloop.app.recording import Record, record_model
from everloop.core.errors import InvalidInput
from everloop.registry.signature import Field
from tests.kit import world
from tests.unit.registry import zoo
from tests.unit.registry.zoo import ONE_NUMBER, SEVERAL_NUMBERS, Sample

EXAMPLES = zoo.TABLE.select(["a", "b", "c", "y"])


@pytest.mark.parametrize("sample", ONE_NUMBER, ids=lambda sample: sample.kind)
def test_a_model_of_any_library_needs_a_name_and_examples(sample: Sample) -> None:
    here = world()
    model = sample.make(0)

    version = record_model(here.owner, Record(name="any", target="y"), model, EXAMPLES)

    assert (sample.kind, "y") == (version.format, version.target)
    assert ["a", "b", "c"] == [field.name for field in version.signature.inputs]
    assert version.signature.output.minimum == float(zoo.Y.min())
    with load_model(here.owner, "any@1") as loaded:
        np.testing.assert_allclose(loaded.predict(EXAMPLES), sample.expected(model), rtol=1e-6)


@pytest.mark.parametrize("sample", SEVERAL_NUMBERS, ids=lambda sample: sample.kind)
def test_a_model_of_several_answers_names_them_by_itself(sample: Sample) -> None:
    here = world()
    examples = zoo.TABLE.select(["a", "b", "c"])

    version = record_model(here.owner, Record(name="any", target="kind"), sample.make(0), examples)

    assert ["0", "1", "2"] == [field.name for field in version.signature.outputs]
    with load_model(here.owner, "any@1") as loaded:
        answers = loaded.predict_table(examples)
    assert ["0", "1", "2"] == answers.column_names


def test_examples_without_the_target_leave_the_range_of_answers_open() -> None:
    here = world()
    rows = zoo.TABLE.select(["a", "b", "c"])

    version = record_model(here.owner, Record(name="any"), ONE_NUMBER[0].make(0), rows)

    assert Field(name="prediction", dtype="float64") == version.signature.output


def test_the_signature_tells_types_ranges_categories_and_nulls() -> None:
    here = world()
    rows = pa.table(
        {
            "age": [3, 4, 9],
            "city": ["Rom", "Bern", "Rom"],
            "is_new": [True, False, True],
            "y": [1.0, 2.0, 3.0],
        }
    )
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(np.eye(3), [1.0, 2.0, 3.0])

    version = record_model(here.owner, Record(name="any", target="y"), model, rows)

    assert (
        Field(name="age", dtype="int64", minimum=3.0, maximum=9.0),
        Field(name="city", dtype="string", categories=("Bern", "Rom")),
        Field(name="is_new", dtype="bool"),
    ) == version.signature.inputs


def test_without_examples_and_signature_nothing_is_registered() -> None:
    with pytest.raises(InvalidInput) as refused:
        record_model(world().owner, Record(name="any"), ONE_NUMBER[0].make(0))

    assert "model.signature_missing" == refused.value.code


def test_a_waiver_for_a_safe_format_is_refused() -> None:
    told = Record(name="any", target="y", waiver="To be sure.")

    with pytest.raises(InvalidInput) as refused:
        record_model(world().owner, told, ONE_NUMBER[0].make(0), EXAMPLES)

    assert "model.waiver_needless" == refused.value.code


def test_a_version_by_hand_keeps_both_reasons() -> None:
    here = world()
    record_model(here.owner, Record(name="any", target="y"), ONE_NUMBER[0].make(0), EXAMPLES)
    by_hand = Record(name="any", target="y", bump="major", bump_reason="Another market.")

    version = record_model(here.owner, by_hand, ONE_NUMBER[0].make(1), EXAMPLES)

    assert ("2.0.0", "major") == (version.version, version.bump)
    assert "By hand: Another market. (The rule said minor:" in version.bump_reason
