"""What the training frameworks' own packages answer; used only where parity is proven.

Serving never imports this module: the packages are what it does without. Each function takes a
model's text as it was written anew for the C libraries, so that no file of a stranger reaches them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from everloop.registry.adapters.lightgbm_text import rewrite_model_text
from everloop.registry.adapters.refusals import FloatArray, missing, predict_failed
from everloop.registry.adapters.xgboost_model import rewrite_xgboost

Answer: TypeAlias = Callable[[FloatArray], FloatArray]


def ask_lightgbm(files: Mapping[str, bytes]) -> Answer:
    """Return ``lightgbm.Booster.predict`` of a model.

    Raises:
        InvalidInput: ``model.unreadable``.
        MissingExtra: LightGBM is not installed.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise missing("LightGBM", "lightgbm") from error
    booster = lightgbm.Booster(model_str=rewrite_model_text(files["model.txt"]).decode("ascii"))

    def answer(rows: FloatArray) -> FloatArray:
        try:
            return np.asarray(booster.predict(rows, num_threads=1), dtype=np.float64)
        except (lightgbm.basic.LightGBMError, ValueError) as error:
            raise predict_failed("LightGBM", str(error)) from error

    return answer


def ask_xgboost(files: Mapping[str, bytes]) -> Answer:
    """Return ``xgboost.Booster.predict`` of a model, over a ``DMatrix`` of float64 rows.

    Raises:
        InvalidInput: ``model.unreadable``.
        MissingExtra: XGBoost is not installed.
    """
    try:
        import xgboost
    except ImportError as error:
        raise missing("XGBoost", "xgboost") from error
    booster: Any = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(rewrite_xgboost(next(iter(files.values()))).text))

    def answer(rows: FloatArray) -> FloatArray:
        try:
            found = booster.predict(xgboost.DMatrix(rows, missing=np.nan, nthread=1))
        except (xgboost.core.XGBoostError, ValueError) as error:
            raise predict_failed("XGBoost", str(error).partition("\n")[0]) from error
        return np.asarray(found, dtype=np.float64)

    return answer
