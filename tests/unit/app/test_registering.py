"""What is found out about a trained model before it is registered."""

from __future__ import annotations

import pyarrow as pa
import pytest

from everloop.app.registering import Registration, find_inputs, find_task
from everloop.core.errors import InvalidInput
from tests.kit import World, world

TABLE = pa.table({"hour": [1], "warmth": [2.0], "at": [3], "cups": [4]})
NAMED = {"model.txt": b"tree\nmax_feature_idx=1\nobjective=regression\nfeature_names=warmth hour\n"}
UNNAMED = {
    "model.txt": b"tree\nmax_feature_idx=1\nobjective=binary sigmoid:1\n"
    b"feature_names=Column_0 Column_1\n"
}


class Fitted:
    """What scikit-learn leaves on an estimator that was fitted to a plain matrix."""

    n_features_in_ = 2


class Classifier(Fitted):
    classes_ = (0, 1)


def told(*inputs: str) -> Registration:
    return Registration(name="bar", training="bar@1", target="cups", inputs=inputs)


def test_a_model_that_names_its_inputs_is_believed() -> None:
    assert ["warmth", "hour"] == find_inputs(object(), "lightgbm", NAMED, TABLE, told())


def test_inputs_given_in_another_order_than_the_model_names_them_are_refused() -> None:
    with pytest.raises(InvalidInput, match="another order: warmth, hour"):
        find_inputs(object(), "lightgbm", NAMED, TABLE, told("hour", "warmth"))


@pytest.mark.parametrize(
    ("model", "kind", "files"),
    [(Fitted(), "sklearn", {}), (object(), "lightgbm", UNNAMED)],
)
def test_a_model_of_unnamed_inputs_needs_their_names_unless_all_columns_are_taken(
    model: object, kind: str, files: dict[str, bytes]
) -> None:
    with pytest.raises(InvalidInput, match="takes 2 inputs without naming them, and there are 3"):
        find_inputs(model, kind, files, TABLE, told())

    assert ["hour", "warmth"] == find_inputs(model, kind, files, TABLE, told("hour", "warmth"))
    assert ["hour", "warmth"] == find_inputs(model, kind, files, TABLE.drop(["at"]), told())


@pytest.fixture
def here() -> World:
    return world()


@pytest.mark.parametrize(
    ("model", "kind", "files"),
    [(Classifier(), "sklearn", {}), (object(), "lightgbm", UNNAMED)],
)
def test_a_classifier_is_registered_as_one_without_being_told(
    model: object, kind: str, files: dict[str, bytes], here: World
) -> None:
    assert "classification" == find_task(here.owner, "bar", model, kind, files)


def test_a_model_that_does_not_say_what_it_is_for_is_what_the_settings_say(here: World) -> None:
    assert "regression" == find_task(here.owner, "bar", object(), "lightgbm", NAMED)

    here.configure({"models": {"bar": {"task": "classification"}}})

    assert "classification" == find_task(here.owner, "bar", object(), "lightgbm", NAMED)
