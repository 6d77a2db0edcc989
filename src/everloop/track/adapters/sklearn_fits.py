"""scikit-learn logs its fits: parameters, scores on the training data, importance, the model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

from everloop.track.adapters.autolog import MOST_SCORED_ROWS, Autologger, Fit
from everloop.track.adapters.patches import Patches

# Their estimators train through functions that have adapters of their own.
OTHERS: Final = ("xgboost", "lightgbm")
BEST_CHILDREN: Final = 5


def patch(module: ModuleType, patches: Patches, autologger: Autologger) -> None:
    """Replace ``fit`` of every estimator that predicts, now and of those defined later."""
    base: Any = module.BaseEstimator
    seen: set[type] = set()

    def wrap(kind: Any) -> None:
        own = vars(kind).get("fit")
        if kind not in seen and inspect.isfunction(own) and _is_ours(kind):
            seen.add(kind)
            patches.put(kind, "fit", _logged(own, autologger))

    for kind in _below(base):
        wrap(kind)
    before = base.__init_subclass__

    def init_subclass(cls: Any, /, **options: Any) -> None:
        before.__func__(cls, **options)
        if autologger.is_on:
            autologger.quiet.attempt(wrap, cls)

    patches.put(base, "__init_subclass__", classmethod(init_subclass))


def _below(kind: Any) -> Iterator[Any]:
    for below in kind.__subclasses__():
        yield below
        yield from _below(below)


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] not in OTHERS


def _logged(original: Callable[..., Any], autologger: Autologger) -> Callable[..., Any]:
    @functools.wraps(original)
    def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not autologger.is_on or not hasattr(self, "predict"):
            return original(self, *args, **kwargs)
        inputs = args[0] if args else kwargs.get("X")
        target = args[1] if len(args) > 1 else kwargs.get("y")

        def before(log: Fit) -> None:
            log.set_tags({"estimator": type(self).__qualname__, **_shape(inputs)})
            log.log_params(self.get_params(deep=True))

        def after(log: Fit, fitted: Any) -> None:
            del fitted
            attempt = autologger.quiet.attempt
            attempt(_log_scores, log, self, inputs, target)
            attempt(_log_search, log, self)
            attempt(_log_importance, log, self)
            attempt(_log_model, log, self)

        def call() -> Any:
            return original(self, *args, **kwargs)

        return autologger.call(type(self).__name__, call, before=before, after=after)

    return fit


def _shape(inputs: Any) -> dict[str, object]:
    shape = getattr(inputs, "shape", None) or (len(inputs),)
    return dict(zip(("rows", "features"), shape, strict=False))


def _log_scores(log: Fit, model: Any, inputs: Any, target: Any) -> None:
    """Log how well the model does on what it was trained on; not for very many rows."""
    if target is None or _shape(inputs)["rows"] > MOST_SCORED_ROWS:  # type: ignore[operator]
        return
    from sklearn import metrics
    from sklearn.base import is_classifier, is_regressor

    values = {"training_score": float(model.score(inputs, target))}
    if is_classifier(model) or is_regressor(model):
        told = model.predict(inputs)
        if is_regressor(model):
            error = float(metrics.mean_squared_error(target, told))
            values |= {
                "training_mean_squared_error": error,
                "training_root_mean_squared_error": error**0.5,
                "training_mean_absolute_error": float(metrics.mean_absolute_error(target, told)),
                "training_r2_score": float(metrics.r2_score(target, told)),
            }
        else:
            kind = {"average": "weighted", "zero_division": 0}
            values |= {
                "training_accuracy_score": float(metrics.accuracy_score(target, told)),
                "training_precision_score": float(metrics.precision_score(target, told, **kind)),
                "training_recall_score": float(metrics.recall_score(target, told, **kind)),
                "training_f1_score": float(metrics.f1_score(target, told, **kind)),
            }
            values |= _log_loss(model, inputs, target)
    log.log_metrics(values)


def _log_loss(model: Any, inputs: Any, target: Any) -> dict[str, float]:
    from sklearn import metrics

    if not hasattr(model, "predict_proba"):
        return {}
    shares = model.predict_proba(inputs)
    found = {"training_log_loss": float(metrics.log_loss(target, shares, labels=model.classes_))}
    if len(model.classes_) == 2:
        found["training_roc_auc"] = float(metrics.roc_auc_score(target, shares[:, 1]))
    return found


def _log_search(log: Fit, model: Any) -> None:
    """Log what a search found: the best, all candidates as a table, the best few as child runs."""
    results = getattr(model, "cv_results_", None)
    if results is None:
        return
    columns = {name: values for name, values in results.items() if name != "params"}
    log.log_table({name: _plain(values) for name, values in columns.items()}, "cv_results")
    if hasattr(model, "best_params_"):
        log.log_params({f"best_{name}": value for name, value in model.best_params_.items()})
        log.log_metrics({"best_cv_score": float(model.best_score_)})
    ranks = results.get("rank_test_score")
    if ranks is None:
        return
    for place in sorted(range(len(ranks)), key=lambda place: int(ranks[place]))[:BEST_CHILDREN]:
        params = {name: str(value)[:500] for name, value in results["params"][place].items()}
        with log.run.child(f"candidate {place}", params=params) as child:
            scores = ("mean_test_score", "std_test_score", "mean_fit_time")
            child.log_metrics({name: results[name][place] for name in scores if name in results})


def _plain(values: Any) -> list[object]:
    known = (int, float, str, bool)
    found = [value.item() if hasattr(value, "item") else value for value in values]
    is_plain = len({type(value) for value in found}) == 1 and isinstance(found[0], known)
    return found if is_plain else [str(value) for value in found]


def _log_importance(log: Fit, model: Any) -> None:
    import numpy as np

    inner = getattr(model, "best_estimator_", model)
    last = inner.steps[-1][1] if hasattr(inner, "steps") else inner
    found = getattr(last, "feature_importances_", None)
    if found is None:
        weights = getattr(last, "coef_", None)
        if weights is None or not isinstance(weights, np.ndarray):
            return
        found = weights if weights.ndim == 1 else np.abs(weights).mean(axis=0)
    names = getattr(last, "feature_names_in_", None)
    if names is None:
        names = [f"x{place}" for place in range(len(found))]
    log.log_importance(list(names), importance=found.tolist())


def _log_model(log: Fit, model: Any) -> None:
    """Keep the model in the safe format of skops; without skops it is not kept."""
    if find_spec("skops") is None:
        return
    from skops import io

    log.log_model(
        lambda: bytes(io.dumps(getattr(model, "best_estimator_", model))), "model/model.skops"
    )
