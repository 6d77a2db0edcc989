"""Our words as MLflow's: times in milliseconds, statuses in capitals, runs and experiments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from everloop.core.clock import Instant
from everloop.core.errors import Conflict, InvalidInput, NotFound
from everloop.interop.mlflow.reading import Number, number
from everloop.interop.mlflow.routing import Context, Json
from everloop.track.experiments import CreateExperiment, ExperimentShown, ShowExperiment
from everloop.track.inputs import MADE, READ, RunInput
from everloop.track.limits import DEFAULT_EXPERIMENT
from everloop.track.model import Experiment, Run, RunStatus
from everloop.track.search import Deleted
from everloop.track.wholes import LastPoint, WholeRun

RUN_NAME = "mlflow.runName"
USER = "mlflow.user"
PARENT = "mlflow.parentRunId"
DEFAULT_ID = "0"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATUS = {
    RunStatus.RUNNING: "RUNNING",
    RunStatus.FINISHED: "FINISHED",
    RunStatus.FAILED: "FAILED",
    RunStatus.KILLED: "KILLED",
}
_FROM_STATUS = {text: status for status, text in _STATUS.items()} | {
    "SCHEDULED": RunStatus.RUNNING,
    "1": RunStatus.RUNNING,
    "2": RunStatus.RUNNING,
    "3": RunStatus.FINISHED,
    "4": RunStatus.FAILED,
    "5": RunStatus.KILLED,
}


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter or a tag."""

    key: str = ""
    value: str = ""


class ShownPair(msgspec.Struct, frozen=True, gc=False):
    """A parameter or a tag in an answer; an answer may hold 100,000 of them."""

    key: str
    value: str


class ShownMetric(msgspec.Struct, frozen=True, gc=False):
    """The last point of a metric in an answer."""

    key: str
    value: Number
    timestamp: int
    step: int


def pairs_of(values: dict[str, str]) -> list[ShownPair]:
    """Return parameters or tags as MLflow lists them."""
    return [ShownPair(key, value) for key, value in values.items()]


def to_texts(pairs: tuple[Pair, ...]) -> dict[str, str]:
    """Return listed parameters or tags as a mapping; of one key the last counts."""
    return {pair.key: pair.value for pair in pairs}


def to_ms(instant: Instant) -> int:
    """Return an instant in milliseconds since 1970."""
    return (instant - _EPOCH) // timedelta(milliseconds=1)


def from_ms(milliseconds: int) -> Instant:
    """Return the instant of milliseconds since 1970.

    Raises:
        InvalidInput: ``time.invalid`` beyond the year 9999.
    """
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError as error:
        raise InvalidInput(
            "time.invalid",
            f"{milliseconds} milliseconds since 1970 are no time.",
            hint="Send milliseconds, not micro- or nanoseconds.",
        ) from error


def from_view(text: str) -> Deleted:
    """Read which runs or experiments a client wants to see; those in use by default."""
    return {
        "DELETED_ONLY": Deleted.DELETED,
        "2": Deleted.DELETED,
        "ALL": Deleted.ALL,
        "3": Deleted.ALL,
    }.get(text, Deleted.ACTIVE)


def from_status(text: str) -> RunStatus:
    """Read a run's status, a name or protobuf's number.

    Raises:
        InvalidInput: ``run.status_invalid``.
    """
    found = _FROM_STATUS.get(text)
    if found is None:
        raise InvalidInput(
            "run.status_invalid",
            f"{text[:40]!r} is no status of a run.",
            hint=f"Use one of {', '.join(_STATUS.values())}.",
        )
    return found


def artifact_uri(experiment: str, run: str) -> str:
    """Return where a client finds a run's files: through this server, whatever its address."""
    return f"mlflow-artifacts:/{experiment}/{run}/artifacts"


def to_experiment(found: Experiment) -> Json:
    """Return an experiment as MLflow shows it."""
    return {
        "experiment_id": found.id,
        "name": found.name,
        "artifact_location": f"mlflow-artifacts:/{found.id}",
        "lifecycle_stage": "deleted" if found.deleted_at else "active",
        "creation_time": to_ms(found.created_at),
        "last_update_time": to_ms(found.updated_at or found.created_at),
        "tags": pairs_of(found.tags),
    }


def to_info(run: Run) -> Json:
    """Return a run's head as MLflow shows it."""
    info: Json = {
        "run_id": run.id,
        "run_uuid": run.id,
        "run_name": run.name,
        "experiment_id": run.experiment,
        "user_id": run.tags.get(USER, ""),
        "status": _STATUS[run.status],
        "start_time": to_ms(run.started_at),
        "artifact_uri": artifact_uri(run.experiment, run.id),
        "lifecycle_stage": "deleted" if run.deleted_at else "active",
    }
    if run.ended_at is not None:
        info["end_time"] = to_ms(run.ended_at)
    return info


def to_metric(last: LastPoint) -> ShownMetric:
    """Return a metric's last point."""
    value = number(float(last.last_text))
    return ShownMetric(last.key, value, last.last_time_us // 1000, last.last_step)


def to_run(whole: WholeRun) -> Json:
    """Return a run as MLflow shows it, with the last point of each metric."""
    run = whole.run
    return {
        "info": to_info(run),
        "data": {
            "metrics": [to_metric(summary) for summary in whole.metrics],
            "params": pairs_of(run.params),
            "tags": pairs_of({**run.tags, RUN_NAME: run.name}),
        },
        "inputs": {
            "dataset_inputs": [_to_dataset(data) for data in whole.inputs],
            "model_inputs": [
                {"model_id": model.model} for model in whole.models if model.role == READ
            ],
        },
        "outputs": {
            "model_outputs": [
                {"model_id": model.model, "step": model.step}
                for model in whole.models
                if model.role == MADE
            ]
        },
    }


def _to_dataset(data: RunInput) -> Json:
    shown: Json = {
        "name": data.name,
        "digest": data.digest,
        "source_type": data.source_type,
        "source": data.source,
    }
    if data.schema is not None:
        shown["schema"] = data.schema
    if data.profile is not None:
        shown["profile"] = data.profile
    return {"tags": pairs_of(data.tags), "dataset": shown}


def get_experiment(context: Context, text: str) -> Experiment:
    """Return an experiment by its id; ``0`` is the project's Default, made on first use.

    Raises:
        NotFound: ``experiment.not_found``.
    """
    if text == DEFAULT_ID:
        return default_experiment(context)
    ask = ShowExperiment(experiment=text)
    return context.perform("experiment.show", ask, ExperimentShown).experiment


def default_experiment(context: Context) -> Experiment:
    """Return the project's experiment Default, making it on first use."""
    by_name = ShowExperiment(name=DEFAULT_EXPERIMENT)
    try:
        return context.perform("experiment.show", by_name, ExperimentShown).experiment
    except NotFound:
        try:
            make = CreateExperiment(name=DEFAULT_EXPERIMENT)
            return context.perform("experiment.create", make, ExperimentShown).experiment
        except Conflict:  # somebody else was first
            return context.perform("experiment.show", by_name, ExperimentShown).experiment


def experiment_id(context: Context, text: str) -> str:
    """Return our id of an experiment that a client names."""
    return default_experiment(context).id if text == DEFAULT_ID else text
