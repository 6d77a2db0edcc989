"""LightGBM logs its trainings: parameters, evaluations of every round, importance, the model."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from everloop.track.adapters.autolog import Autologger, Fit
from everloop.track.adapters.patches import Patches

PLACES = ("lightgbm", "lightgbm.engine", "lightgbm.sklearn")
# Before the library's own callback for early stopping (30), which ends the round by raising.
ORDER = 20


def patch(module: ModuleType, patches: Patches, autologger: Autologger) -> None:
    """Replace ``lightgbm.train`` wherever the package itself calls it."""
    original = module.train
    replacement = _logged(original, autologger)
    for name in PLACES:
        place = sys.modules.get(name)
        if place is not None and getattr(place, "train", None) is original:
            patches.put(place, "train", replacement)


def _logged(original: Callable[..., Any], autologger: Autologger) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def train(*args: Any, **kwargs: Any) -> Any:
        if not autologger.is_on:
            return original(*args, **kwargs)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:  # the library itself says what is wrong with the call
            return original(*args, **kwargs)
        given = bound.arguments

        def before(fit: Fit) -> None:
            given["callbacks"] = [*(given.get("callbacks") or ()), _callback(fit, autologger)]
            rounds = given.get("num_boost_round", 100)
            fit.log_params({"num_boost_round": rounds, **dict(given["params"])})

        def after(fit: Fit, booster: Any) -> None:
            data = given["train_set"]
            fit.set_tags({"rows": data.num_data(), "features": data.num_feature()})
            _log_booster(fit, booster)

        def call() -> Any:
            return original(*bound.args, **bound.kwargs)

        return autologger.call("lightgbm", call, before=before, after=after)

    return train


def _callback(fit: Fit, autologger: Autologger) -> object:
    def log_evaluations(state: Any) -> None:
        autologger.quiet.attempt(_log_round, fit, state)

    log_evaluations.order = ORDER  # type: ignore[attr-defined]
    return log_evaluations


def _log_round(fit: Fit, state: Any) -> None:
    found = state.evaluation_result_list or ()
    values = {f"{result[0]}-{result[1]}": result[2] for result in found}
    fit.log_metrics(values, state.iteration)


def _log_booster(fit: Fit, booster: Any) -> None:
    if booster.best_iteration > 0:
        fit.log_metrics({"best_iteration": booster.best_iteration})
    fit.log_importance(
        booster.feature_name(),
        gain=booster.feature_importance("gain"),
        splits=booster.feature_importance("split"),
    )
    fit.log_model(lambda: booster.model_to_string().encode(), "model/model.txt")
