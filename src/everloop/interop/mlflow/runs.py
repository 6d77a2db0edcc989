"""Runs over MLflow's REST interface: their life, parameters and tags."""

from __future__ import annotations

import msgspec

from everloop.core.errors import InvalidInput
from everloop.core.ids import is_id
from everloop.interop.mlflow.routing import Context, Json, Route
from everloop.interop.mlflow.words import (
    PARENT,
    RUN_NAME,
    USER,
    Pair,
    experiment_id,
    from_ms,
    from_status,
    to_info,
    to_run,
    to_texts,
)
from everloop.track.lifecycle import RunNamed, RunShown, UntagRun, UpdateRun
from everloop.track.queries import RunDetails, ShowRun
from everloop.track.verbs import LogRun, RunLogged, RunStarted, StartRun


class _Ask(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Create(_Ask, frozen=True, kw_only=True):
    """Body of ``runs/create``."""

    experiment_id: str = "0"
    user_id: str = ""
    run_name: str = ""
    start_time: int = 0
    tags: tuple[Pair, ...] = ()


class ById(_Ask, frozen=True, kw_only=True):
    """Body or query that names a run, by its new or its old field."""

    run_id: str = ""
    run_uuid: str = ""

    @property
    def run(self) -> str:
        """The run's id."""
        return self.run_id or self.run_uuid


class Update(ById, frozen=True, kw_only=True):
    """Body of ``runs/update``."""

    status: str = ""
    end_time: int | None = None
    run_name: str = ""


class SetText(ById, frozen=True, kw_only=True):
    """Body of ``runs/set-tag`` and ``runs/log-parameter``."""

    key: str = ""
    value: str = ""


class DeleteTag(ById, frozen=True, kw_only=True):
    """Body of ``runs/delete-tag``."""

    key: str = ""


def create(context: Context, ask: Create) -> Json:
    """Start a run."""
    tags = to_texts(ask.tags)
    named = tags.pop(RUN_NAME, "")
    if ask.run_name and named and ask.run_name != named:
        raise InvalidInput(
            "run.name_invalid",
            f"run_name is {ask.run_name[:60]!r} and the tag {RUN_NAME} {named[:60]!r}.",
            hint="Give the name once.",
        )
    if ask.user_id:
        tags.setdefault(USER, ask.user_id)
    parent = tags.get(PARENT)
    started = StartRun(
        run=context.new_id(),
        experiment_id=experiment_id(context, ask.experiment_id),
        name=ask.run_name or named,
        started_at=from_ms(ask.start_time) if ask.start_time else None,
        parent=parent if parent and is_id(parent) else None,
        tags=tags,
    )
    made = context.perform("run.start", started, RunStarted)
    return {"run": show(context, made.run)}


def show(context: Context, run: str) -> Json:
    """Return a run as MLflow shows it."""
    details = context.perform("run.show", ShowRun(run=run), RunDetails)
    return to_run(details.run, details.metrics)


def get(context: Context, ask: ById) -> Json:
    """Find a run."""
    return {"run": show(context, ask.run)}


def update(context: Context, ask: Update) -> Json:
    """Change a run's status, end and name."""
    changed = UpdateRun(
        run=ask.run,
        name=ask.run_name or None,
        status=from_status(ask.status) if ask.status else None,
        ended_at=None if ask.end_time is None else from_ms(ask.end_time),
    )
    answer = context.perform("run.update", changed, RunShown)
    return {"run_info": to_info(answer.run)}


def log_parameter(context: Context, ask: SetText) -> Json:
    """Set a parameter, once."""
    log = LogRun(run=ask.run, params={ask.key: ask.value}, amend=True)
    context.perform("run.log", log, RunLogged)
    return {}


def set_tag(context: Context, ask: SetText) -> Json:
    """Set a tag; the tag with the run's name is its name."""
    set_tags(context, ask.run, {ask.key: ask.value})
    return {}


def set_tags(context: Context, run: str, tags: dict[str, str]) -> None:
    """Set tags of a run."""
    name = tags.get(RUN_NAME)
    rest = {key: value for key, value in tags.items() if key != RUN_NAME}
    changed = UpdateRun(run=run, name=name, tags=rest)
    context.perform("run.update", changed, RunShown)


def delete_tag(context: Context, ask: DeleteTag) -> Json:
    """Take a tag from a run."""
    context.perform("run.untag", UntagRun(run=ask.run, key=ask.key), RunShown)
    return {}


def delete(context: Context, ask: ById) -> Json:
    """Put a run into the trash."""
    context.perform("run.delete", RunNamed(run=ask.run), RunShown)
    return {}


def restore(context: Context, ask: ById) -> Json:
    """Take a run out of the trash."""
    context.perform("run.restore", RunNamed(run=ask.run), RunShown)
    return {}


ROUTES = (
    Route("POST", "2.0/mlflow/runs/create", create),
    Route("GET", "2.0/mlflow/runs/get", get),
    Route("POST", "2.0/mlflow/runs/update", update),
    Route("POST", "2.0/mlflow/runs/log-parameter", log_parameter),
    Route("POST", "2.0/mlflow/runs/set-tag", set_tag),
    Route("POST", "2.0/mlflow/runs/delete-tag", delete_tag),
    Route("POST", "2.0/mlflow/runs/delete", delete),
    Route("POST", "2.0/mlflow/runs/restore", restore),
)
