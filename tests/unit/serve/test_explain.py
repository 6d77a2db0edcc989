"""Explanations: they add up exactly, agree with exact enumeration, and name their method."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from itertools import permutations

import lightgbm
import numpy as np
import pytest
import xgboost

from everloop.core.errors import InvalidInput
from everloop.registry.adapters.lightgbm_native import NativeBooster
from everloop.registry.adapters.xgboost_native import XgboostPredictor
from everloop.serve.bundle import LoadedBundle
from everloop.serve.decode import FloatArray
from everloop.serve.explain import explain, sample
from everloop.serve.runtime import open_model
from tests.unit.serve.served import MODEL, make_bundle

ROWS = np.array([[8.0, 21.5, 1.0, 2.0], [3.0, np.nan, 0.0, 3.0], [17.0, 30.0, 1.0, 0.0]])
BACKGROUND = np.array([[h, 2.0 * h, h % 2, h % 4] for h in range(24)], dtype=np.float64)


def loaded(*, background: FloatArray | None = BACKGROUND, **changes: object) -> LoadedBundle:
    predictor = open_model("lightgbm", {"model.txt": MODEL}, 4)
    held = io.BytesIO()
    if background is not None:
        np.save(held, background)
        changes |= {"background": "background.npy"}
    attached = {} if background is None else {"background.npy": held.getvalue()}
    bundle = make_bundle(1, MODEL, **changes)
    return LoadedBundle(bundle, predictor.predict, predictor, attached)


def enumerated(
    model: Callable[[FloatArray], FloatArray], row: FloatArray, background: FloatArray
) -> FloatArray:
    """Shapley's own formula: the mean over all orders of all inputs, and over the background."""
    inputs = len(row)
    total = np.zeros(inputs)
    for order in permutations(range(inputs)):
        mixed = background.copy()
        before = model(mixed)
        for place in order:
            mixed[:, place] = row[place]
            after = model(mixed)
            total[place] += (after - before).mean()
            before = after
    return total / math.factorial(inputs)


def crossed(rows: FloatArray) -> FloatArray:
    """A function with interactions, so that the order in which inputs become known matters."""
    filled = np.nan_to_num(rows)
    return filled[:, 0] * filled[:, 1] + np.sin(filled[:, 2] * filled[:, 3]) - 3.0 * filled[:, 3]


def test_values_and_base_add_up_to_the_answer() -> None:
    version = loaded()

    found = explain(version, ROWS)

    answers = version.model(ROWS)
    for row, answer in zip(found.rows, answers, strict=True):
        numbers = [value for value in row.values.values() if isinstance(value, float)]
        assert isinstance(found.base, float)
        assert answer == pytest.approx(found.base + sum(numbers), rel=1e-12)
    assert ("sampling", "answer", 24) == (found.method, found.scale, found.background)
    assert found.base == pytest.approx(float(version.model(BACKGROUND).mean()), rel=1e-12)


@pytest.mark.parametrize("model", [crossed, loaded().model])
def test_sampled_values_are_the_enumerated_ones_within_their_errors(
    model: Callable[[FloatArray], FloatArray],
) -> None:
    found = sample(model, ROWS, BACKGROUND)

    assert found.errors is not None
    for place, row in enumerate(ROWS):
        exact = enumerated(model, row, BACKGROUND)
        distance = np.abs(found.values[place, :, 0] - exact)
        assert (distance <= 4 * found.errors[place, :, 0] + 1e-9).all()


def test_an_input_that_the_model_does_not_use_adds_nothing() -> None:
    found = sample(lambda rows: rows[:, 0] * rows[:, 2], ROWS, BACKGROUND)

    assert [0.0] * len(ROWS) == found.values[:, 3, 0].tolist()


def test_a_sum_is_explained_without_any_error() -> None:
    weights = np.array([2.0, 0.5, -1.0, 7.0])
    rows = np.nan_to_num(ROWS)

    found = sample(lambda matrix: matrix @ weights, rows, BACKGROUND)

    expected = weights * (rows - BACKGROUND.mean(axis=0))
    np.testing.assert_allclose(expected, found.values[:, :, 0], atol=1e-9)


def test_one_input_gets_all_of_it() -> None:
    found = sample(lambda rows: rows[:, 0] ** 2, np.array([[3.0]]), np.array([[1.0], [2.0]]))

    assert 2.5 == found.base[0]
    assert 6.5 == found.values[0, 0, 0]


def test_answers_of_several_numbers_are_explained_by_each() -> None:
    def model(rows: FloatArray) -> FloatArray:
        return np.stack([rows[:, 0], rows[:, 0] * rows[:, 2], rows[:, 3]], axis=1)

    version = LoadedBundle(
        make_bundle(1, MODEL, outputs=("a", "b", "c"), background="background.npy", golden=()),
        model,
        None,
        {"background.npy": _saved(BACKGROUND)},
    )

    found = explain(version, ROWS)

    assert isinstance(found.base, list)
    for row, answer in zip(found.rows, model(ROWS), strict=True):
        sums = np.array(found.base) + np.sum(list(row.values.values()), axis=0)
        np.testing.assert_allclose(answer, sums, rtol=1e-12)


def test_without_a_background_the_trees_themselves_explain() -> None:
    version = loaded(background=None)
    booster = lightgbm.Booster(model_str=MODEL.decode())

    found = explain(version, ROWS)

    expected = np.asarray(booster.predict(ROWS, pred_contrib=True))
    numbers = [list(row.values.values()) for row in found.rows]
    np.testing.assert_allclose(expected[:, :-1], numbers, rtol=1e-12)
    assert ("tree", "raw", 0, None) == (
        found.method, found.scale, found.background, found.rows[0].errors,
    )  # fmt: skip
    assert found.base == expected[0, -1]


@pytest.mark.parametrize("classes", [2, 3])
def test_contributions_are_those_of_the_training_frameworks(classes: int) -> None:
    generator = np.random.default_rng(3)
    rows = generator.normal(size=(200, 5))
    labels = (rows[:, 0] + rows[:, 1] ** 2 > 1).astype(int) + (classes > 2) * (rows[:, 2] > 1)
    objective = {2: ("binary", "binary:logistic"), 3: ("multiclass", "multi:softprob")}[classes]
    several = {"num_class": 3} if classes == 3 else {}
    light = lightgbm.train(
        {"objective": objective[0], "verbose": -1, "num_threads": 1, **several},
        lightgbm.Dataset(rows, labels),
        num_boost_round=5,
    )
    extreme = xgboost.train(
        {"objective": objective[1], "nthread": 1, **several},
        xgboost.DMatrix(rows, labels),
        num_boost_round=5,
    )

    of_light = NativeBooster(light.model_to_string().encode()).contributions(rows[:9])
    of_extreme = XgboostPredictor(bytes(extreme.save_raw("ubj"))).contributions(rows[:9])

    wanted = np.asarray(light.predict(rows[:9], pred_contrib=True)).reshape(of_light.shape)
    np.testing.assert_array_equal(wanted, of_light)
    theirs = extreme.predict(xgboost.DMatrix(rows[:9]), pred_contribs=True, strict_shape=True)
    np.testing.assert_array_equal(theirs, of_extreme)


@pytest.mark.parametrize("method", ["sampling", "tree"])
def test_what_a_version_cannot_is_said(method: str) -> None:
    version = LoadedBundle(make_bundle(1, MODEL), crossed)

    with pytest.raises(InvalidInput) as refused:
        explain(version, ROWS, method)  # type: ignore[arg-type]

    assert "explain.unavailable" == refused.value.code


def _saved(array: FloatArray) -> bytes:
    held = io.BytesIO()
    np.save(held, array)
    return held.getvalue()
