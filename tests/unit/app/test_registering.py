"""What is found out about a trained model before it is registered."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb
from msgspec import structs
from sklearn.linear_model import LinearRegression, LogisticRegression

from everloop.app.registering import (
    Registration,
    Seen,
    find_inputs,
    find_task,
    look_at,
    register_trained,
)
from everloop.core.errors import InvalidInput
from everloop.data.snapshot import commit_table
from everloop.kernel.safe_load import SAFE_FORMATS, LoadPolicy
from everloop.registry.formats import save_model
from tests.kit import World, world

TABLE = pa.table({"hour": [1], "warmth": [2.0], "at": [3], "cups": [4]})
NAMED = Seen(names=("warmth", "hour"), inputs=2)
UNNAMED = Seen(inputs=2)


def told(*inputs: str) -> Registration:
    return Registration(name="bar", training="bar@1", target="cups", inputs=inputs)


def test_a_model_that_names_its_inputs_is_believed() -> None:
    assert ["warmth", "hour"] == find_inputs(NAMED, TABLE, told())


def test_inputs_given_in_another_order_than_the_model_names_them_are_refused() -> None:
    with pytest.raises(InvalidInput, match="another order: warmth, hour"):
        find_inputs(NAMED, TABLE, told("hour", "warmth"))


def test_a_model_of_unnamed_inputs_needs_their_names_unless_all_columns_are_taken() -> None:
    with pytest.raises(InvalidInput, match="takes 2 inputs without naming them, and there are 3"):
        find_inputs(UNNAMED, TABLE, told())

    assert ["hour", "warmth"] == find_inputs(UNNAMED, TABLE, told("hour", "warmth"))
    assert ["hour", "warmth"] == find_inputs(UNNAMED, TABLE.drop(["at"]), told())


X = np.random.default_rng(1).normal(size=(60, 2))
KIND = (X[:, 0] > 0).astype(int)
NAMES = np.array(["warmth", "hour"], dtype=object)


def with_names(estimator: LogisticRegression) -> LogisticRegression:
    """As scikit-learn leaves it after a fit to a frame."""
    estimator.feature_names_in_ = NAMES
    return estimator


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (with_names(LogisticRegression().fit(X, KIND)), Seen(("warmth", "hour"), 2, (), True)),
        (LinearRegression().fit(X, KIND), Seen((), 2, (), False)),
        (lgb.LGBMClassifier(n_estimators=2, verbose=-1).fit(X, KIND), Seen((), 2, (), True)),
        (
            xgb.train({}, xgb.DMatrix(X, KIND, feature_names=["warmth", "hour"]), 2),
            Seen(("warmth", "hour"), 2, (), False),
        ),
        (
            xgb.XGBClassifier(n_estimators=2).fit(X, KIND + (X[:, 1] > 0)),
            Seen((), 2, ("0", "1", "2"), True),
        ),
    ],
)
def test_a_model_is_asked_for_its_inputs_its_answers_and_its_task(
    model: object, expected: Seen
) -> None:
    kind, files = save_model(model)

    assert expected == look_at(model, kind, files)


@pytest.fixture
def here() -> World:
    return world()


def ours(rows: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.where(rows[:, 1] > 3, 1.0, 0.0)


def test_a_function_is_registered_by_waiver_with_its_training_data() -> None:
    here = world(policy=LoadPolicy(formats=SAFE_FORMATS | {"pyfunc"}))
    table = pa.table({"hour": range(8), "warmth": [float(k) for k in range(8)], "cups": range(8)})
    commit_table(here.owner, "bar", table)

    with pytest.raises(InvalidInput) as refused:
        register_trained(here.owner, told(), ours)
    version = register_trained(here.owner, structs.replace(told(), waiver="It is law."), ours)

    assert "model.waiver_missing" == refused.value.code
    assert ("pyfunc", "It is law.") == (version.format, version.waiver)
    assert ["hour", "warmth"] == [field.name for field in version.signature.inputs]


def test_a_classifier_is_registered_as_one_without_being_told(here: World) -> None:
    assert "classification" == find_task(here.owner, "bar", Seen(is_classifier=True))


def test_a_model_that_does_not_say_what_it_is_for_is_what_the_settings_say(here: World) -> None:
    assert "regression" == find_task(here.owner, "bar", Seen())

    here.configure({"models": {"bar": {"task": "classification"}}})

    assert "classification" == find_task(here.owner, "bar", Seen())
