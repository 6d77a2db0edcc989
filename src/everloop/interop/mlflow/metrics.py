"""Metrics over MLflow's REST interface: points in, one by one or in batches, and histories out."""

from __future__ import annotations

import msgspec
import numpy as np

from everloop.core.errors import InvalidInput, LimitExceeded
from everloop.interop.mlflow.logged_models import from_model_id
from everloop.interop.mlflow.reading import number, to_float
from everloop.interop.mlflow.routing import Context, Json, Route
from everloop.interop.mlflow.runs import ById
from everloop.interop.mlflow.words import RUN_NAME, Pair
from everloop.registry.folders import Measured, MeasuredCount, MeasureLoggedModels
from everloop.registry.logged_queries import LoggedModelView, ShowLoggedModel
from everloop.track import columns
from everloop.track.lifecycle import RunShown, UpdateRun
from everloop.track.limits import MAX_STEP, MIN_STEP, check_run_name
from everloop.track.mixed import PLACE, Mixed, MixedPoints, encode_mixed
from everloop.track.points import ReadPoints, RunPoints
from everloop.track.verbs import LogRun, RunLogged

MAX_METRICS = 1_000
MAX_TEXTS = 100
MAX_ENTITIES = 1_000
MAX_HISTORY = 25_000
MAX_SAMPLED = 2_500
MAX_RUNS_IN_BULK = 100
MAX_TIME_MS = (2**63 - 1) // 1_000


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One point, maybe measured on a logged model and a dataset."""

    key: str = ""
    value: float | str | None = None
    timestamp: int = 0
    step: int = 0
    model_id: str = ""
    dataset_name: str = ""
    dataset_digest: str = ""


class LogMetric(ById, frozen=True, kw_only=True):
    """Body of ``runs/log-metric``."""

    key: str = ""
    value: float | str | None = None
    timestamp: int = 0
    step: int = 0
    model_id: str = ""
    dataset_name: str = ""
    dataset_digest: str = ""

    @property
    def metric(self) -> Metric:
        """The point."""
        return msgspec.convert(self, Metric, from_attributes=True)


class LogBatch(ById, frozen=True, kw_only=True):
    """Body of ``runs/log-batch``."""

    metrics: tuple[Metric, ...] = ()
    params: tuple[Pair, ...] = ()
    tags: tuple[Pair, ...] = ()


class History(ById, frozen=True, kw_only=True):
    """Query of ``metrics/get-history``."""

    metric_key: str = ""
    page_token: str = ""
    max_results: int = MAX_HISTORY


def log_metric(context: Context, ask: LogMetric) -> Json:
    """Log one point."""
    metrics = (ask.metric,)
    log = LogRun(run=ask.run, mixed=to_points(metrics), amend=True)
    measured = find_measured(context, metrics)
    context.perform("run.log", log, RunLogged)
    measure(context, ask.run, measured)
    return {}


def log_batch(context: Context, ask: LogBatch) -> Json:
    """Log metrics, parameters and tags at once: all of them or none."""
    _check_batch(ask)
    params: dict[str, str] = {}
    for pair in ask.params:
        if params.setdefault(pair.key, pair.value) != pair.value:
            raise InvalidInput(
                "run.param_changed",
                f"Parameter {pair.key[:60]!r} stands in the batch with two values.",
                hint="A parameter is set once.",
            )
    tags = {pair.key: pair.value for pair in ask.tags}
    name = tags.get(RUN_NAME)
    log = LogRun(run=ask.run, mixed=to_points(ask.metrics), params=params, tags=tags, amend=True)
    # These are verbs of their own: what they would refuse is refused before the first of them.
    measured = find_measured(context, ask.metrics)
    if name:
        check_run_name(name)
    context.perform("run.log", log, RunLogged)
    measure(context, ask.run, measured)
    if name:
        context.perform("run.update", UpdateRun(run=ask.run, name=name), RunShown)
    return {}


def find_measured(context: Context, metrics: tuple[Metric, ...]) -> tuple[Measured, ...]:
    """Return what was measured on logged models.

    Raises:
        NotFound: ``logged_model.not_found``.
    """
    measured = tuple(
        Measured(
            model=from_model_id(metric.model_id),
            key=metric.key,
            text=repr(_value_of(metric)),
            step=metric.step,
            time_us=metric.timestamp * 1_000,
            dataset_name=metric.dataset_name,
            dataset_digest=metric.dataset_digest,
        )
        for metric in metrics
        if metric.model_id
    )
    for model in {each.model for each in measured}:
        context.perform("logged_model.show", ShowLoggedModel(model=model), LoggedModelView)
    return measured


def measure(context: Context, run: str, measured: tuple[Measured, ...]) -> None:
    """Keep what was measured on logged models beside them, too."""
    if measured:
        ask = MeasureLoggedModels(run=run, metrics=measured)
        context.perform("logged_model.measure", ask, MeasuredCount)


def _value_of(metric: Metric) -> float:
    if metric.value is None:
        raise InvalidInput(
            "metric.value_missing",
            f"Metric {metric.key[:60]!r} has no value.",
            hint='Send a number, or "NaN" for none.',
        )
    return to_float(metric.value)


def _check_batch(ask: LogBatch) -> None:
    sizes = (len(ask.metrics), len(ask.params), len(ask.tags))
    limits = (MAX_METRICS, MAX_TEXTS, MAX_TEXTS)
    for size, most, what in zip(sizes, limits, ("metrics", "params", "tags"), strict=True):
        if size > most:
            raise LimitExceeded(
                "run.too_many",
                f"{size} {what} in a batch are more than {most}.",
                hint="Send several batches.",
            )
    if sum(sizes) > MAX_ENTITIES:
        raise LimitExceeded(
            "run.too_many",
            f"{sum(sizes)} entries in a batch are more than {MAX_ENTITIES}.",
            hint="Send several batches.",
        )


def to_points(metrics: tuple[Metric, ...]) -> MixedPoints | None:
    """Return points in one piece; None without any.

    Raises:
        InvalidInput: a time or a value is not usable.
    """
    keys: dict[str, int] = {}
    places, steps, times, values = [], [], [], []
    for metric in metrics:
        if not 0 <= metric.timestamp <= MAX_TIME_MS:
            raise InvalidInput(
                "time.invalid",
                f"Metric {metric.key[:60]!r} has the timestamp {metric.timestamp}.",
                hint="Send milliseconds since 1970, not negative.",
            )
        if not MIN_STEP <= metric.step <= MAX_STEP:
            raise InvalidInput(
                "metric.step_invalid",
                f"Metric {metric.key[:60]!r} has the step {str(metric.step)[:40]}.",
                hint="Send a whole number of at most 64 bits.",
            )
        places.append(keys.setdefault(metric.key, len(keys)))
        steps.append(metric.step)
        times.append(metric.timestamp * 1_000)
        values.append(_value_of(metric))
    if not keys:
        return None
    points = columns.to_columns(steps, times, values)
    return encode_mixed(Mixed(tuple(keys), np.array(places, dtype=PLACE), points), columns.RAW)


def get_history(context: Context, ask: History) -> Json:
    """Return points of a metric, by time, then step, then value."""
    read = ReadPoints(
        run=ask.run,
        key=ask.metric_key,
        offset=_offset(ask.page_token),
        limit=min(max(ask.max_results, 1), MAX_HISTORY),
        distinct=True,
    )
    found = context.perform("run.points", read, RunPoints)
    points = columns.decode(found.data, most=MAX_HISTORY)
    answer: Json = {"metrics": _to_points(ask.metric_key, points)}
    if found.next is not None:
        answer["next_page_token"] = str(found.next)
    return answer


class BulkHistory(msgspec.Struct, frozen=True, kw_only=True):
    """Query of ``metrics/get-history-bulk-interval``."""

    run_ids: tuple[str, ...] = ()
    metric_key: str = ""
    start_step: int | None = None
    end_step: int | None = None
    max_results: int = MAX_SAMPLED


def get_bulk_history(context: Context, ask: BulkHistory) -> Json:
    """Return points of a metric in several runs, thinned out so that extremes stay."""
    if len(ask.run_ids) > MAX_RUNS_IN_BULK:
        raise LimitExceeded(
            "run.too_many",
            f"{len(ask.run_ids)} runs at once are more than {MAX_RUNS_IN_BULK}.",
            hint="Ask for some of them at a time.",
        )
    most = min(max(ask.max_results, 1), MAX_SAMPLED)
    shown: list[Json] = []
    for run in ask.run_ids:
        read = ReadPoints(run=run, key=ask.metric_key)
        points = columns.decode(context.perform("run.points", read, RunPoints).data)
        if ask.start_step is not None and ask.end_step is not None:
            within = (points.steps >= ask.start_step) & (points.steps <= ask.end_step)
            points = columns.Columns(
                points.steps[within], points.times_us[within], points.values[within]
            )
        if len(points.steps):
            thinned = columns.downsample(points, most)
            shown += [{**point, "run_id": run} for point in _to_points(ask.metric_key, thinned)]
    return {"metrics": shown}


def _to_points(key: str, points: columns.Columns) -> list[Json]:
    steps, times, values = (column.tolist() for column in points)
    return [
        {"key": key, "value": number(value), "timestamp": at // 1_000, "step": step}
        for step, at, value in zip(steps, times, values, strict=True)
    ]


def _offset(token: str) -> int:
    if token and not (token.isascii() and token.isdigit() and len(token) < 12):
        raise InvalidInput(
            "page.invalid",
            f"{token[:60]!r} is no page token.",
            hint="Send the next_page_token of the answer before, unchanged.",
        )
    return int(token or 0)


ROUTES = (
    Route("POST", "2.0/mlflow/runs/log-metric", log_metric),
    Route("POST", "2.0/mlflow/runs/log-batch", log_batch),
    Route("GET", "2.0/mlflow/metrics/get-history", get_history),
    Route("GET", "2.0/mlflow/metrics/get-history-bulk-interval", get_bulk_history),
)
