"""Runs over MLflow's REST interface: their life, parameters and tags."""

from __future__ import annotations

import msgspec

from everloop.core.errors import InvalidInput
from everloop.core.ids import is_id
from everloop.interop.mlflow.routing import Context, Json, Route
from everloop.interop.mlflow.words import (
    PARENT,
    RUN_NAME,
    Pair,
    experiment_id,
    from_ms,
    from_status,
    from_view,
    to_info,
    to_run,
    to_texts,
)
from everloop.track.inputs import AddInputs, AddOutputs, NamedData, NamedModel, RunExtended
from everloop.track.lifecycle import RunNamed, RunShown, UntagRun, UpdateRun
from everloop.track.verbs import LogRun, RunLogged, RunStarted, StartRun
from everloop.track.wholes import MAX_PAGE, FetchRuns, ReadRun, WholeRun, WholeRuns


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
    parent = tags.get(PARENT)
    run = context.new_id()
    name = ask.run_name or named or f"run-{run[-8:]}"
    started = StartRun(
        run=run,
        experiment_id=experiment_id(context, ask.experiment_id),
        name=name,
        started_at=from_ms(ask.start_time) if ask.start_time else None,
        parent=parent if parent and is_id(parent) else None,
        tags=tags | {RUN_NAME: name},
    )
    made = context.perform("run.start", started, RunStarted)
    return {"run": show(context, made.run)}


def show(context: Context, run: str) -> Json:
    """Return a run as MLflow shows it."""
    return to_run(context.perform("run.whole", ReadRun(run=run), WholeRun))


def get(context: Context, ask: ById) -> Json:
    """Find a run."""
    return {"run": show(context, ask.run)}


def update(context: Context, ask: Update) -> Json:
    """Change a run's status, end and name."""
    changed = UpdateRun(
        run=ask.run,
        name=ask.run_name or None,
        tags={RUN_NAME: ask.run_name} if ask.run_name else {},
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
    changed = UpdateRun(run=run, name=tags.get(RUN_NAME) or None, tags=tags)
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


class Search(_Ask, frozen=True, kw_only=True):
    """Body of ``runs/search``."""

    experiment_ids: tuple[str, ...] = ()
    filter: str = ""
    run_view_type: str = ""
    max_results: int = 1_000
    order_by: tuple[str, ...] = ()
    page_token: str = ""


def search(context: Context, ask: Search) -> Json:
    """Search runs; the page token is a keyset cursor, which later runs do not shift."""
    if not 0 < ask.max_results <= MAX_PAGE:
        raise InvalidInput(
            "page.invalid",
            f"max_results is {ask.max_results}.",
            hint=f"Ask for 1 to {MAX_PAGE} runs.",
        )
    fetch = FetchRuns(
        experiments=tuple(experiment_id(context, text) for text in ask.experiment_ids),
        filter=ask.filter,
        order=ask.order_by,
        deleted=from_view(ask.run_view_type),
        limit=ask.max_results,
        after=ask.page_token or None,
    )
    found = context.perform("run.fetch", fetch, WholeRuns)
    answer: Json = {"runs": [to_run(whole) for whole in found.items]}
    if found.next is not None:
        answer["next_page_token"] = found.next
    return answer


class Dataset(_Ask, frozen=True, kw_only=True):
    """Data as MLflow names it."""

    name: str = ""
    digest: str = ""
    source_type: str = ""
    source: str = ""
    schema: str | None = None
    profile: str | None = None


class DatasetInput(_Ask, frozen=True, kw_only=True):
    """Data that a run read, with tags such as its role."""

    dataset: Dataset
    tags: tuple[Pair, ...] = ()


class Model(_Ask, frozen=True, kw_only=True):
    """A logged model that a run read or made."""

    model_id: str = ""
    step: int = 0


class LogInputs(ById, frozen=True, kw_only=True):
    """Body of ``runs/log-inputs``."""

    datasets: tuple[DatasetInput, ...] = ()
    models: tuple[Model, ...] = ()


class LogOutputs(ById, frozen=True, kw_only=True):
    """Body of ``runs/outputs``."""

    models: tuple[Model, ...] = ()


def log_inputs(context: Context, ask: LogInputs) -> Json:
    """Write down which data and models a run read."""
    data = tuple(
        NamedData(
            name=item.dataset.name,
            digest=item.dataset.digest,
            source_type=item.dataset.source_type,
            source=item.dataset.source,
            schema=item.dataset.schema,
            profile=item.dataset.profile,
            tags=to_texts(item.tags),
        )
        for item in ask.datasets
    )
    models = tuple(NamedModel(model=model.model_id) for model in ask.models)
    context.perform("run.add_inputs", AddInputs(run=ask.run, data=data, models=models), RunExtended)
    return {}


def log_outputs(context: Context, ask: LogOutputs) -> Json:
    """Write down which models a run made."""
    models = tuple(NamedModel(model=model.model_id, step=model.step) for model in ask.models)
    context.perform("run.add_outputs", AddOutputs(run=ask.run, models=models), RunExtended)
    return {}


ROUTES = (
    Route("POST", "2.0/mlflow/runs/create", create),
    Route("GET", "2.0/mlflow/runs/get", get),
    Route("POST", "2.0/mlflow/runs/update", update),
    Route("POST", "2.0/mlflow/runs/search", search),
    Route("POST", "2.0/mlflow/runs/log-inputs", log_inputs),
    Route("POST", "2.0/mlflow/runs/outputs", log_outputs),
    Route("POST", "2.0/mlflow/runs/log-parameter", log_parameter),
    Route("POST", "2.0/mlflow/runs/set-tag", set_tag),
    Route("POST", "2.0/mlflow/runs/delete-tag", delete_tag),
    Route("POST", "2.0/mlflow/runs/delete", delete),
    Route("POST", "2.0/mlflow/runs/restore", restore),
)
