"""The C API predictor: the same answers as the library, from several threads, freed once."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import lightgbm as lgb
import numpy as np
import pytest

from everloop.core.errors import Conflict, InvalidInput
from everloop.registry.adapters.lightgbm_native import NativeBooster

RNG = np.random.default_rng(11)
X = RNG.normal(size=(500, 3))
X[:, 2] = RNG.integers(0, 30, 500)
X[::7, 0] = np.nan
SETTINGS = {"verbose": -1, "num_threads": 1, "num_leaves": 8, "min_data_per_group": 1}


def train(y: np.ndarray, **settings: object) -> lgb.Booster:
    data = lgb.Dataset(X, y, categorical_feature=[2])
    return lgb.train(SETTINGS | settings, data, 10)


REGRESSION = train(np.nan_to_num(X[:, 0]) + X[:, 1] + (X[:, 2] % 4 == 0))
BINARY = train((X[:, 1] > 0).astype(int), objective="binary")
CONSTANT = train(np.zeros(500))
COUNTS = RNG.poisson(np.exp(X[:, 1]))
OTHERS = [
    train(COUNTS, objective=name) for name in ("tweedie", "poisson", "quantile", "regression_l1")
]
FOREST = train(COUNTS, boosting="rf", bagging_freq=1, bagging_fraction=0.5)
DART = train(COUNTS, boosting="dart")


@pytest.mark.parametrize("booster", [REGRESSION, BINARY, CONSTANT, FOREST, DART, *OTHERS])
def test_answers_are_those_of_the_library_to_the_last_bit(booster: lgb.Booster) -> None:
    native = NativeBooster(booster.model_to_string().encode())

    np.testing.assert_array_equal(native.predict(X), booster.predict(X))
    np.testing.assert_array_equal(native.predict(X[:1]), booster.predict(X[:1]))
    np.testing.assert_array_equal(native.predict(np.asfortranarray(X)), booster.predict(X))
    assert native.predict(X[:0]).shape == (0,)


def test_threads_share_one_model() -> None:
    native, expected = NativeBooster(REGRESSION.model_to_string().encode()), REGRESSION.predict(X)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: native.predict(X), range(40)))

    for answer in answers:
        np.testing.assert_array_equal(answer, expected)


def test_a_closed_model_answers_no_more() -> None:
    native = NativeBooster(REGRESSION.model_to_string().encode())
    native.close()
    native.close()

    with pytest.raises(Conflict):
        native.predict(X)


@pytest.mark.parametrize("shape", [(3,), (2, 2), (2, 4), (1, 1, 3)])
def test_rows_of_another_width_never_reach_the_library(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput):
        NativeBooster(REGRESSION.model_to_string().encode()).predict(np.zeros(shape))


@pytest.mark.parametrize("objective", ["multiclass", "multiclassova"])
def test_several_classes_get_a_probability_each(objective: str) -> None:
    several = train(RNG.integers(0, 3, 500), objective=objective, num_class=3)

    native = NativeBooster(several.model_to_string().encode())

    assert ("0", "1", "2") == native.outputs
    np.testing.assert_array_equal(native.predict(X), several.predict(X))


def test_loading_it_brings_no_heavy_library_along() -> None:
    program = (
        "import sys, everloop.registry.adapters.lightgbm_native\n"
        "heavy = {'pyarrow', 'sqlalchemy', 'lightgbm', 'scipy', 'sklearn', 'everloop.kernel'}\n"
        "sys.exit(sorted(heavy & set(sys.modules)).__repr__() if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)

    assert done.returncode == 0, done.stderr
