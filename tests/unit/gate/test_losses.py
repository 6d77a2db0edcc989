from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from everloop.core.errors import InvalidInput
from everloop.gate.case import losses
from everloop.registry.classes import UNKNOWN, to_places
from everloop.registry.evidence import LossName
from everloop.registry.signature import Field, Signature

SHARES = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
TRUTH = np.array([0.0, 1.0])


def of_classes(*names: str) -> Signature:
    return Signature(
        inputs=(Field(name="a", dtype="float64"),),
        output=Field(name="kind", dtype="float64"),
        task="classification",
        outputs=tuple(Field(name=name, dtype="float64") for name in names),
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("log_loss", [-np.log(0.7), -np.log(0.3)]),
        ("zero_one", [0.0, 1.0]),
        ("squared_error", [0.09 + 0.04 + 0.01, 0.01 + 0.49 + 0.36]),
        ("absolute_error", [0.6, 1.4]),
    ],
)
def test_probabilities_of_classes_lose_by_the_true_one(
    name: LossName, expected: list[float]
) -> None:
    np.testing.assert_allclose(losses(name, SHARES, TRUTH), expected)


@pytest.mark.parametrize("name", ["log_loss", "zero_one", "squared_error", "absolute_error"])
def test_being_sure_of_every_class_gains_nothing(name: LossName) -> None:
    sure, even = np.ones((2, 3)), np.full((2, 3), 1 / 3)

    np.testing.assert_allclose(losses(name, sure, TRUTH), losses(name, even, TRUTH))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.1])
def test_an_answer_that_is_no_probability_loses_infinitely(wrong: float) -> None:
    answers = SHARES.copy()
    answers[1, 2] = wrong

    assert [False, True] == np.isinf(losses("log_loss", answers, TRUTH)).tolist()


def test_an_answer_of_zeros_loses_infinitely() -> None:
    assert np.isinf(losses("zero_one", np.zeros((1, 3)), np.zeros(1))).all()


def test_a_class_that_the_model_does_not_know_is_always_wrong() -> None:
    truth = np.array([UNKNOWN, UNKNOWN])

    assert [1.0, 1.0] == losses("zero_one", SHARES, truth).tolist()
    assert (losses("log_loss", SHARES, truth) > 30).all()


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (("0", "1", "2"), [2, 0, None, 7]),
        (("0", "1", "2"), [2.0, 0.0, float("nan"), 7.5]),
        (("0.0", "1.0", "2.0"), [2, 0, None, 7]),
        (("low", "mid", "top"), ["top", "low", None, "none"]),
    ],
)
def test_true_classes_are_found_in_every_spelling(
    names: tuple[str, ...], values: list[object]
) -> None:
    places = to_places(of_classes(*names), pa.table({"kind": pa.array(values)}))

    np.testing.assert_array_equal(places, [2.0, 0.0, np.nan, UNKNOWN])


def test_names_and_truths_are_classes_of_two_kinds() -> None:
    rows = pa.table({"kind": pa.array(["b", "a"]).dictionary_encode()})

    assert [1.0, 0.0] == to_places(of_classes("a", "b"), rows).tolist()
    assert [1.0, 0.0] == to_places(
        of_classes("False", "True"), pa.table({"kind": [True, False]})
    ).tolist()


def test_rows_without_the_column_of_true_classes_are_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        to_places(of_classes("a", "b"), pa.table({"other": [1]}))

    assert "signature.rows_refused" == refused.value.code
