"""Trees on a device are those of the library, to the last bit of every sum."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from everloop.edge import device
from everloop.edge.device.refusal import EdgeError
from everloop.edge.device.trees import Forest
from everloop.edge.trees import Told, from_lightgbm, from_xgboost, thresholds_of
from everloop.registry.adapters.lightgbm_native import NativeBooster
from everloop.registry.adapters.xgboost_native import XgboostPredictor
from tests.unit.edge import sealed

CODE = Path(device.__file__).parent
ODD = [0.0, -0.0, 1e-36, -1e-36, 1e-35, 1e300, -1e300, np.inf, -np.inf, -0.5, 2.0**31, np.nan]


def odd_rows(told: Told, count: int = 400) -> Any:
    """Rows at the splits, one step beside them, and where numbers are odd."""
    random = np.random.default_rng(5)
    splits = thresholds_of(told)
    rows = random.normal(scale=2_000, size=(count, told["inputs"]))
    rows[:, 0] = random.integers(-2, 20, count)
    for place in range(told["inputs"]):
        at = random.random(count) < 0.5
        values = random.choice(splits.get(place, [0.0]), count)
        beside = np.nextafter(values, random.choice([-np.inf, np.inf], count))
        rows[at, place] = np.where(random.random(count) < 0.5, values, beside)[at]
        odd = random.random(count) < 0.1
        rows[odd, place] = random.choice(ODD, int(odd.sum()))
    return rows


def assert_same(told: Told, expected: Any, *, steps: int = 0) -> None:
    forest = Forest(json.loads(json.dumps(told)))
    rows = odd_rows(told)

    at_once = np.asarray(forest.predict(rows.tolist()))
    alone = np.asarray([forest.predict([row])[0] for row in rows[:100].tolist()])

    theirs = expected(rows)
    np.testing.assert_array_equal(at_once[:100], alone)
    if steps:
        np.testing.assert_array_max_ulp(
            at_once.astype(np.float32), theirs.astype(np.float32), maxulp=steps
        )
    else:
        np.testing.assert_array_equal(at_once, theirs)


@pytest.mark.parametrize(
    ("objective", "settings"),
    [
        ("regression", {}),
        ("regression", {"zero_as_missing": True}),
        ("regression", {"use_missing": False}),
        ("regression", {"boosting": "rf", "bagging_fraction": 0.7, "bagging_freq": 1}),
        ("regression", {"boosting": "dart"}),
        ("regression", {"reg_sqrt": True}),
        ("binary", {"sigmoid": 1.7}),
        ("huber", {}),
    ],
)
def test_lightgbm_answers_are_the_same_to_the_last_bit(
    objective: str, settings: dict[str, object]
) -> None:
    text = sealed.lightgbm_model(objective, **settings).model_to_string().encode()

    assert_same(from_lightgbm(text), NativeBooster(text).predict)


@pytest.mark.parametrize(
    ("objective", "steps"),
    [("reg:squarederror", 0), ("binary:logistic", 2), ("reg:absoluteerror", 0)],
)
def test_xgboost_sums_are_the_same_and_its_exponentials_within_two_steps(
    objective: str, steps: int
) -> None:
    model = bytes(sealed.xgboost_model(objective).save_raw("ubj"))

    assert_same(from_xgboost(model), XgboostPredictor(model).predict, steps=steps)


def test_a_moved_threshold_is_noticed() -> None:
    text = sealed.lightgbm_model(rounds=3).model_to_string().encode()
    told = from_lightgbm(text)
    told["trees"][0]["left"][0], told["trees"][0]["right"][0] = (
        told["trees"][0]["right"][0],
        told["trees"][0]["left"][0],
    )

    with pytest.raises(AssertionError):
        assert_same(told, NativeBooster(text).predict)


def test_a_link_that_is_not_known_is_refused() -> None:
    told = from_lightgbm(sealed.lightgbm_model(rounds=1).model_to_string().encode())

    with pytest.raises(EdgeError) as refused:
        Forest({**told, "link": "of tomorrow"})
    assert "edge.model_unreadable" == refused.value.code


@pytest.mark.parametrize(
    "path", sorted(Path(device.__file__).parent.glob("*.py")), ids=lambda path: path.stem
)
def test_a_python_of_2020_can_read_the_code_of_devices(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))

    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    assert imported <= {
        *sys.stdlib_module_names,
        "everloop",
        "numpy",
        "cryptography",
        "onnxruntime",
    }
