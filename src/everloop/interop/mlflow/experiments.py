"""Experiments over MLflow's REST interface."""

from __future__ import annotations

import msgspec

from everloop.core.errors import Conflict, InvalidInput, NotFound
from everloop.interop.mlflow.routing import Context, Json, Route
from everloop.interop.mlflow.words import (
    Pair,
    default_experiment,
    experiment_id,
    from_view,
    get_experiment,
    to_experiment,
    to_texts,
)
from everloop.track.experiments import (
    CreateExperiment,
    ExperimentNamed,
    ExperimentShown,
    ShowExperiment,
    TagExperiment,
    UntagExperiment,
    UpdateExperiment,
)
from everloop.track.limits import DEFAULT_EXPERIMENT
from everloop.track.wholes import MAX_PAGE, FetchExperiments, WholeExperiments


class _Ask(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Create(_Ask, frozen=True, kw_only=True):
    """Body of ``experiments/create``; a place for artifacts is not the client's to choose."""

    name: str = ""
    tags: tuple[Pair, ...] = ()
    artifact_location: str = ""


class ByName(_Ask, frozen=True, kw_only=True):
    """Query of ``experiments/get-by-name``."""

    experiment_name: str = ""


class ById(_Ask, frozen=True, kw_only=True):
    """Query or body that names an experiment."""

    experiment_id: str = ""


class Update(_Ask, frozen=True, kw_only=True):
    """Body of ``experiments/update``."""

    experiment_id: str = ""
    new_name: str = ""


class SetTag(_Ask, frozen=True, kw_only=True):
    """Body of ``experiments/set-experiment-tag``."""

    experiment_id: str = ""
    key: str = ""
    value: str = ""


class DeleteTag(_Ask, frozen=True, kw_only=True):
    """Body of ``experiments/delete-experiment-tag``."""

    experiment_id: str = ""
    key: str = ""


class Search(_Ask, frozen=True, kw_only=True):
    """Body or query of ``experiments/search``."""

    view_type: str = ""
    filter: str = ""
    max_results: int = 1_000
    order_by: tuple[str, ...] = ()
    page_token: str = ""


def search(context: Context, ask: Search) -> Json:
    """Search experiments."""
    if not 0 < ask.max_results <= MAX_PAGE:
        raise InvalidInput(
            "page.invalid",
            f"max_results is {ask.max_results}.",
            hint=f"Ask for 1 to {MAX_PAGE} experiments.",
        )
    fetch = FetchExperiments(
        filter=ask.filter,
        order=ask.order_by,
        deleted=from_view(ask.view_type),
        limit=ask.max_results,
        after=ask.page_token or None,
    )
    found = context.perform("experiment.fetch", fetch, WholeExperiments)
    answer: Json = {"experiments": [to_experiment(row) for row in found.items]}
    if found.next is not None:
        answer["next_page_token"] = found.next
    return answer


def create(context: Context, ask: Create) -> Json:
    """Make an experiment."""
    made = CreateExperiment(name=ask.name, tags=to_texts(ask.tags))
    answer = context.perform("experiment.create", made, ExperimentShown)
    return {"experiment_id": answer.experiment.id}


def get_by_name(context: Context, ask: ByName) -> Json:
    """Find an experiment by name."""
    if ask.experiment_name == DEFAULT_EXPERIMENT:
        return {"experiment": to_experiment(default_experiment(context))}
    named = ShowExperiment(name=ask.experiment_name)
    answer = context.perform("experiment.show", named, ExperimentShown)
    return {"experiment": to_experiment(answer.experiment)}


def get(context: Context, ask: ById) -> Json:
    """Find an experiment by id."""
    return {"experiment": to_experiment(get_experiment(context, ask.experiment_id))}


def update(context: Context, ask: Update) -> Json:
    """Rename an experiment."""
    place = experiment_id(context, ask.experiment_id)
    renamed = UpdateExperiment(experiment=place, name=ask.new_name)
    context.perform("experiment.update", renamed, ExperimentShown)
    return {}


def delete(context: Context, ask: ById) -> Json:
    """Put an experiment into the trash."""
    named = ExperimentNamed(experiment=experiment_id(context, ask.experiment_id))
    _perform_or_miss(context, "experiment.delete", named)
    return {}


def restore(context: Context, ask: ById) -> Json:
    """Take an experiment out of the trash."""
    named = ExperimentNamed(experiment=experiment_id(context, ask.experiment_id))
    _perform_or_miss(context, "experiment.restore", named)
    return {}


def _perform_or_miss(context: Context, verb: str, ask: ExperimentNamed) -> None:
    """Perform a verb; MLflow misses an experiment that is not where the verb looks for it."""
    try:
        context.perform(verb, ask, ExperimentShown)
    except Conflict as error:
        raise NotFound(error.code, error.message, hint=error.hint) from error


def set_tag(context: Context, ask: SetTag) -> Json:
    """Set a tag of an experiment."""
    place = experiment_id(context, ask.experiment_id)
    tagged = TagExperiment(experiment=place, tags={ask.key: ask.value})
    context.perform("experiment.tag", tagged, ExperimentShown)
    return {}


def delete_tag(context: Context, ask: DeleteTag) -> Json:
    """Take a tag from an experiment."""
    place = experiment_id(context, ask.experiment_id)
    untagged = UntagExperiment(experiment=place, key=ask.key)
    context.perform("experiment.untag", untagged, ExperimentShown)
    return {}


ROUTES = (
    Route("POST", "2.0/mlflow/experiments/search", search),
    Route("GET", "2.0/mlflow/experiments/search", search),
    Route("POST", "2.0/mlflow/experiments/create", create),
    Route("GET", "2.0/mlflow/experiments/get-by-name", get_by_name),
    Route("GET", "2.0/mlflow/experiments/get", get),
    Route("POST", "2.0/mlflow/experiments/update", update),
    Route("POST", "2.0/mlflow/experiments/delete", delete),
    Route("POST", "2.0/mlflow/experiments/restore", restore),
    Route("POST", "2.0/mlflow/experiments/set-experiment-tag", set_tag),
    Route("POST", "2.0/mlflow/experiments/delete-experiment-tag", delete_tag),
)
