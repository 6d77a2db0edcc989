"""XGBoost logs its trainings: parameters, evaluations of every round, importance, the model."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from everloop.track.adapters.autolog import Autologger, Fit
from everloop.track.adapters.patches import Patches

PLACES = ("xgboost", "xgboost.training", "xgboost.sklearn")


def patch(module: ModuleType, patches: Patches, autologger: Autologger) -> None:
    """Replace ``xgboost.train`` wherever the package itself calls it."""
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
            data = given["dtrain"]
            rounds = given.get("num_boost_round", 10)
            fit.set_tags({"rows": data.num_row(), "features": data.num_col()})
            fit.log_params({**dict(given["params"]), "num_boost_round": rounds})

        def call() -> Any:
            return original(*bound.args, **bound.kwargs)

        return autologger.call("xgboost", call, before=before, after=_log_booster)

    return train


def _callback(fit: Fit, autologger: Autologger) -> object:
    from xgboost.callback import TrainingCallback

    class LogEvaluations(TrainingCallback):
        def after_iteration(
            self, model: Any, epoch: int, evals_log: Mapping[str, Mapping[str, list[Any]]]
        ) -> bool:
            del model
            autologger.quiet.attempt(_log_round, fit, epoch, evals_log)
            return False

    return LogEvaluations()


def _log_round(fit: Fit, epoch: int, evals_log: Mapping[str, Mapping[str, list[Any]]]) -> None:
    values = {}
    for data, metrics in evals_log.items():
        for name, series in metrics.items():
            last = series[-1]
            # A cross-validation tells mean and deviation.
            values[f"{data}-{name}"] = last[0] if isinstance(last, tuple) else last
    fit.log_metrics(values, epoch)


def _log_booster(fit: Fit, booster: Any) -> None:
    best = booster.attributes()
    if "best_iteration" in best:
        fit.log_metrics({"best_iteration": int(best["best_iteration"])})
        fit.log_metrics({"best_score": float(best["best_score"])})
    gain, weight = (booster.get_score(importance_type=kind) for kind in ("total_gain", "weight"))
    if gain:
        names = list(gain)
        fit.log_importance(
            names,
            gain=[gain[name] for name in names],
            splits=[weight.get(name, 0.0) for name in names],
        )
    fit.log_model(lambda: bytes(booster.save_raw("ubj")), "model/model.ubj")
