"""The Python SDK of tracking: runs, what is logged to the active one, and automatic logging."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, SupportsFloat, SupportsIndex

from everloop.app.sdk import current_client, log_model
from everloop.core.errors import InvalidInput

if TYPE_CHECKING:
    from everloop.app.client import Client
    from everloop.core.clock import Instant
    from everloop.pipeline.context import RunLog
    from everloop.track import RunHandle
    from everloop.track.values import ParamValue

SAMPLING_VARIABLE = "EVERLOOP_SYSTEM_METRICS"
PATIENCE_VARIABLE = "EVERLOOP_PATIENCE"


def start_run(
    experiment: str | None = None,
    *,
    name: str = "",
    params: Mapping[str, ParamValue] | None = None,
    tags: Mapping[str, str] | None = None,
    nested: bool = False,
    resume: str | None = None,
    system_metrics: bool | None = None,
    client: Client | None = None,
) -> RunHandle:
    """Begin a run and return its handle, best used as a context manager.

    It is the active run, to which ``everloop.log_metric`` and its like log, until it ends. The
    environment (code with uncommitted changes, packages, seeds, machine, command line) is captured
    beside it, with secrets masked.

    Args:
        experiment: Group of the run; ``Default``, or with `nested` that of the run above.
        name: Shown name.
        params: Parameters to begin with.
        tags: Tags to begin with.
        nested: Put it below the active run, if there is one.
        resume: Id of a run to take up again instead of beginning a new one.
        system_metrics: Whether to log what the machine does, every ten seconds after the first
            five; ``EVERLOOP_SYSTEM_METRICS`` says it when None, and it is on without either.
        client: The connection; that of `current_client` when left out.

    Raises:
        InvalidInput: a name, parameter or tag is not usable.
        NotFound: ``run.not_found`` for the run to take up.
    """
    from everloop.track import RunDraft, RunHandle, RunPorts, Watching, resume_run
    from everloop.track import start_run as begin
    from everloop.track.active import activate, active_run
    from everloop.track.limits import DEFAULT_EXPERIMENT

    at = client or current_client()
    watching = Watching(root=at.folder, every_s=_sample_every_s(system_metrics))
    ports = RunPorts(spool=at.spool, watching=watching, patience_s=_patience_s())
    above = active_run() if nested else None
    if resume is not None:
        run = resume_run(at, resume, ports=ports)
        if params:
            run.log_params(params)
        if tags:
            run.set_tags(tags)
    else:
        group = above.experiment if isinstance(above, RunHandle) else DEFAULT_EXPERIMENT
        draft = RunDraft(
            experiment=experiment or group,
            name=name,
            parent=above.id if above is not None else None,
            params=params or {},
            tags=tags or {},
        )
        run = begin(at, draft, ports=ports)
    run.registrar = partial(log_model, run=run.id, client=at)
    activate(run)
    return run


def log_metric(
    key: str, value: SupportsFloat, step: SupportsIndex | None = None, *, at: Instant | None = None
) -> None:
    """Log one value to the active run; see `RunHandle.log_metric`.

    Raises:
        InvalidInput: ``run.none_active``, or what the run refuses.
    """
    run = _active()
    if at is None:
        run.log_metric(key, value, step)
    else:
        run.log_metric(key, value, step, at=at)


def log_metrics(values: Mapping[str, SupportsFloat], step: SupportsIndex | None = None) -> None:
    """Log several metrics at one step to the active run.

    Raises:
        InvalidInput: ``run.none_active``, or what the run refuses.
    """
    _active().log_metrics(values, step)


def log_params(params: Mapping[str, ParamValue]) -> None:
    """Set parameters of the active run; each is set once.

    Raises:
        InvalidInput: ``run.none_active``, or what the run refuses.
        Conflict: ``run.param_changed``.
    """
    _active().log_params(params)


def set_tags(tags: Mapping[str, str]) -> None:
    """Set or change tags of the active run.

    Raises:
        InvalidInput: ``run.none_active``, or what the run refuses.
    """
    _active().set_tags(tags)


def log_artifact(source: Path | str | bytes, path: str | None = None) -> None:
    """Keep a file, a folder's files, or bytes with the active run.

    Raises:
        InvalidInput: ``run.none_active``, or what the run refuses.
    """
    _active().log_artifact(source, path)


def autolog(
    frameworks: str | Sequence[str] | None = None,
    *,
    log_models: bool = True,
    disable: bool = False,
    client: Client | None = None,
) -> None:
    """Let scikit-learn, XGBoost, LightGBM and PyTorch log their trainings by themselves.

    Parameters, metrics of every iteration, final scores, feature importance, the shape of the data
    and the model go to the active run; without one, each fit is a run of its own. What goes wrong
    with that is logged once and never breaks a training.

    Args:
        frameworks: One or some of ``sklearn``, ``xgboost``, ``lightgbm``, ``torch``; all when
            None.
        log_models: Whether the trained model is kept as an artifact.
        disable: Put everything back as it was.
        client: The connection of runs that are begun; that of `current_client` when left out.

    Raises:
        InvalidInput: ``autolog.framework_unknown``.
    """
    from everloop.track.adapters.autolog import AUTOLOGGER

    if disable:
        AUTOLOGGER.disable()
        return

    def begin(name: str) -> RunHandle:
        return start_run(name=name, client=client)

    AUTOLOGGER.enable(begin, frameworks=frameworks, log_models=log_models)


def _active() -> RunLog:
    """Return the run of the pipeline or step at hand, else the active run."""
    from everloop.pipeline.context import find_run

    run = find_run()
    if run is None:
        raise InvalidInput(
            "run.none_active",
            "There is no active run to log to.",
            hint="Begin one: with everloop.start_run(...) as run: ...",
        )
    return run


def _sample_every_s(wanted: bool | None) -> float | None:
    """Return the seconds between two looks at the machine, or None for none."""
    from everloop.track.watch import EVERY_S

    told = os.environ.get(SAMPLING_VARIABLE, "").strip().lower()
    if wanted is False or (wanted is None and told in {"0", "off", "false", "no"}):
        return None
    if told in {"", "0", "off", "false", "no", "on", "true", "yes"}:
        return EVERY_S
    try:
        return max(float(told), 0.1)
    except ValueError as error:
        raise InvalidInput(
            "setting.invalid",
            f"{SAMPLING_VARIABLE} is {told[:40]!r}.",
            hint="Set it to off, or to the seconds between two samples.",
        ) from error


def _patience_s() -> float:
    """Return the seconds for which a run waits for a server that does not answer."""
    from everloop.track.courier import PATIENCE_S

    told = os.environ.get(PATIENCE_VARIABLE, "").strip()
    try:
        seconds = float(told or PATIENCE_S)
    except ValueError:
        seconds = math.nan
    if seconds >= 0:
        return seconds
    raise InvalidInput(
        "setting.invalid",
        f"{PATIENCE_VARIABLE} is {told[:40]!r}.",
        hint="Set it to the seconds to wait for a server that does not answer, such as 20.",
    )
