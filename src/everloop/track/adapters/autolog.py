"""Autologging: frameworks log by themselves what they are trained with and how well it went.

One fit is logged at a time: what a pipeline or a search fits within itself belongs to it. A second
fit in the same run gets names of its own (``fit2.``), for a parameter is set once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from everloop.core.errors import InvalidInput
from everloop.track import limits
from everloop.track.active import active_run, has_own_run
from everloop.track.adapters.patches import ImportWatch, Patches, Quiet
from everloop.track.handle import RunHandle
from everloop.track.model import RunStatus

# The module whose import makes a framework known, by the name of its adapter here.
FRAMEWORKS: Final = {
    "sklearn": "sklearn.base",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "torch": "torch",
}
MOST_PARAM_CHARS: Final = 500
MOST_PARAMS: Final = 500
MOST_SCORED_ROWS: Final = 100_000

_log = logging.getLogger(__name__)


class Fit:
    """One training as it is logged; nothing it does raises.

    Attributes:
        run: Where it goes.
    """

    def __init__(self, run: RunHandle, number: int, *, log_models: bool, is_ours: bool) -> None:
        self.run = run
        self._log_models = log_models
        self._is_ours = is_ours
        self._dot = "" if number == 1 else f"fit{number}."
        self._slash = "" if number == 1 else f"fit{number}/"

    def log_params(self, params: Mapping[str, object]) -> None:
        """Set parameters; long values are cut."""
        texts = {
            f"{self._dot}{key}"[: limits.MAX_KEY_CHARS]: _to_text(value)
            for key, value in list(params.items())[:MOST_PARAMS]
        }
        self.run.log_params(texts)

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics."""
        self.run.log_metrics({f"{self._slash}{key}": value for key, value in values.items()}, step)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags."""
        self.run.set_tags(
            {f"{self._dot}{key}": str(value)[:MOST_PARAM_CHARS] for key, value in tags.items()}
        )

    def log_table(self, data: object, path: str) -> None:
        """Keep a table."""
        self.run.log_table(data, f"{self._slash}{path}")

    def log_model(self, data: Callable[[], bytes], path: str) -> None:
        """Keep a model's bytes, unless models are not wanted."""
        if self._log_models:
            self.run.log_artifact(data(), f"{self._slash}{path}")

    def log_importance(self, names: Sequence[str], **columns: Sequence[float]) -> None:
        """Keep how much each input counts, the greatest first."""
        first = next(iter(columns.values()))
        order = sorted(range(len(names)), key=lambda place: -abs(first[place]))
        table = {key: [float(values[place]) for place in order] for key, values in columns.items()}
        ordered = [str(names[place]) for place in order]
        self.log_table({"feature": ordered, **table}, "feature_importance")

    def end(self, error: BaseException | None) -> None:
        """End the run if it was begun for this training."""
        if not self._is_ours:
            return
        if error is None:
            self.run.finish()
        else:
            self.run.finish(RunStatus.FAILED, error=f"{type(error).__name__}: {error}")


class Autologger:
    """Whether and how frameworks log by themselves; one for the process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._patches = Patches()
        self._imports = ImportWatch()
        self._begin: Callable[[str], RunHandle] | None = None
        self._log_models = True
        self._fitting: list[int] = []
        self._counts: dict[str, int] = {}
        self.quiet = Quiet()

    @property
    def is_on(self) -> bool:
        """Whether anything is logged."""
        return self._begin is not None

    def enable(
        self,
        begin: Callable[[str], RunHandle],
        *,
        frameworks: str | Sequence[str] | None = None,
        log_models: bool = True,
    ) -> None:
        """Let frameworks log; those that are not imported yet do so once they are.

        Args:
            begin: Begins a run of a name, for a fit without an active run.
            frameworks: Which of ``FRAMEWORKS``, one or several; all when None.
            log_models: Whether the trained model is kept as an artifact.

        Raises:
            InvalidInput: ``autolog.framework_unknown``.
        """
        if isinstance(frameworks, str):
            frameworks = (frameworks,)
        names = tuple(FRAMEWORKS) if frameworks is None else tuple(frameworks)
        for name in names:
            if name not in FRAMEWORKS:
                raise InvalidInput(
                    "autolog.framework_unknown",
                    f"{name[:40]!r} cannot be logged automatically.",
                    hint=f"Choose from {', '.join(FRAMEWORKS)}, or log by hand.",
                )
        with self._lock:
            self.disable()
            self._begin, self._log_models = begin, log_models
            for name in names:
                self._imports.when(FRAMEWORKS[name], self._patcher_of(name))

    def disable(self) -> None:
        """Put back every function that was replaced."""
        with self._lock:
            self._begin = None
            self._imports.stop()
            self._patches.restore()

    def begin_fit(self, name: str) -> Fit | None:
        """Return a fit to log to, or None when another one is under way or nothing can be begun.

        Whoever got one calls ``end_fit``, whatever happens.
        """
        me = threading.get_ident()
        with self._lock:
            # Workers that a fit started are part of it; a thread with a run of its own is none.
            is_inner = me in self._fitting or (self._fitting and not has_own_run())
            if self._begin is None or is_inner:
                return None
            self._fitting.append(me)
        try:
            found = active_run()
            run = found if isinstance(found, RunHandle) else None
            is_ours = run is None
            if run is None:
                run = self._begin(name)
        except Exception as error:  # noqa: BLE001 -- a training never breaks by us
            _log.warning("everloop: autologging has no run to log to: %s", error)
            self._leave()
            return None
        number = self._counts[run.id] = self._counts.get(run.id, 0) + 1
        return Fit(run, number, log_models=self._log_models, is_ours=is_ours)

    def end_fit(self, fit: Fit, error: BaseException | None) -> None:
        """Let go of a fit."""
        self._leave()
        self.quiet.attempt(fit.end, error)

    def call(
        self,
        name: str,
        original: Callable[[], Any],
        *,
        before: Callable[[Fit], object],
        after: Callable[[Fit, Any], object],
    ) -> Any:
        """Train by calling ``original``, with what is to be logged before and after it."""
        fit = self.begin_fit(name)
        if fit is None:
            return original()
        failure: BaseException | None = None
        try:
            self.quiet.attempt(before, fit)
            result = original()
            self.quiet.attempt(after, fit, result)
        except BaseException as error:
            failure = error
            raise
        else:
            return result
        finally:
            self.end_fit(fit, failure)

    def _leave(self) -> None:
        with self._lock:
            me = threading.get_ident()
            if me in self._fitting:
                self._fitting.remove(me)

    def _patcher_of(self, name: str) -> Callable[[ModuleType], None]:
        def patch(module: ModuleType) -> None:
            try:
                adapter = import_module(f"everloop.track.adapters.{name}_fits")
                with self._lock:
                    if self.is_on:
                        adapter.patch(module, self._patches, self)
            except Exception as error:  # noqa: BLE001 -- an import never breaks by us
                _log.warning("everloop: %s cannot be logged automatically: %s", name, error)

        return patch


AUTOLOGGER: Final = Autologger()


def _to_text(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= MOST_PARAM_CHARS else f"{text[: MOST_PARAM_CHARS - 3]}..."
