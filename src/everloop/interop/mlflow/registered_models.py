"""Registered models over MLflow's REST interface, their tags and their aliases."""

from __future__ import annotations

from typing import Final

import msgspec

from everloop.core.errors import InvalidInput
from everloop.interop.mlflow.registry_words import (
    IS_PROMPT,
    collect,
    get_whole_model,
    get_whole_version,
    read_filter,
    read_limit,
    read_number,
    read_stage,
    require_name,
    to_model,
    to_version,
)
from everloop.interop.mlflow.routing import Context, Json, Route
from everloop.interop.mlflow.words import Pair, to_texts
from everloop.registry.lifecycle import CreateModel, NameModel, RenameModel, UpdateModel
from everloop.registry.model import AliasMove, Model
from everloop.registry.overview import ShowModels, WholeModels
from everloop.registry.queries import ModelList
from everloop.registry.search import SearchModels
from everloop.registry.verbs import MoveAlias

MOST_RESULTS: Final = 1_000
DEFAULT_RESULTS: Final = 100
WHY: Final = "Set by an MLflow client."
WHY_NOT: Final = "Taken away by an MLflow client."


class _Ask(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Create(_Ask, frozen=True, kw_only=True):
    """Body of ``registered-models/create``."""

    name: str = ""
    tags: tuple[Pair, ...] = ()
    description: str = ""


class ByName(_Ask, frozen=True, kw_only=True):
    """Query or body that names a model."""

    name: str = ""


class Update(_Ask, frozen=True, kw_only=True):
    """Body of ``registered-models/update``."""

    name: str = ""
    description: str | None = None


class Rename(_Ask, frozen=True, kw_only=True):
    """Body of ``registered-models/rename``."""

    name: str = ""
    new_name: str = ""


class SearchModelsAsk(_Ask, frozen=True, kw_only=True):
    """Query of ``registered-models/search``."""

    filter: str = ""
    max_results: int = 0
    order_by: tuple[str, ...] = ()
    page_token: str = ""


class Latest(_Ask, frozen=True, kw_only=True):
    """Query or body of ``registered-models/get-latest-versions``."""

    name: str = ""
    stages: tuple[str, ...] = ()


class SetTag(_Ask, frozen=True, kw_only=True):
    """Body of ``registered-models/set-tag``."""

    name: str = ""
    key: str = ""
    value: str = ""


class DeleteTag(_Ask, frozen=True, kw_only=True):
    """Body of ``registered-models/delete-tag``."""

    name: str = ""
    key: str = ""


class SetAlias(_Ask, frozen=True, kw_only=True):
    """Body of a ``POST`` to ``registered-models/alias``."""

    name: str = ""
    alias: str = ""
    version: str = ""


class ByAlias(_Ask, frozen=True, kw_only=True):
    """Query or body that names an alias."""

    name: str = ""
    alias: str = ""


def create(context: Context, ask: Create) -> Json:
    """Make a model without versions."""
    tags = to_texts(ask.tags)
    refuse_prompts(tags)
    made = CreateModel(name=require_name(ask.name), description=ask.description, tags=tags)
    context.perform("model.create", made, Model)
    return _answer(context, ask.name)


def refuse_prompts(tags: dict[str, str]) -> None:
    """Refuse what is a prompt and no model.

    Raises:
        InvalidInput: ``prompt.unsupported``.
    """
    if tags.get(IS_PROMPT, "").lower() == "true":
        raise InvalidInput(
            "prompt.unsupported",
            "Everloop keeps no prompts.",
            hint="Keep a prompt as a file of a run, or beside the code that uses it.",
        )


def _answer(context: Context, name: str) -> Json:
    return {"registered_model": to_model(get_whole_model(context, name))}


def get(context: Context, ask: ByName) -> Json:
    """Find a model."""
    return _answer(context, ask.name)


def update(context: Context, ask: Update) -> Json:
    """Change a model's description."""
    told = UpdateModel(name=require_name(ask.name), description=ask.description)
    context.perform("model.update", told, Model)
    return _answer(context, ask.name)


def rename(context: Context, ask: Rename) -> Json:
    """Give a model another name."""
    told = RenameModel(name=require_name(ask.name), to=require_name(ask.new_name))
    context.perform("model.rename", told, Model)
    return _answer(context, ask.new_name)


def delete(context: Context, ask: ByName) -> Json:
    """Put a model into the trash; its numbers are never given again."""
    get_whole_model(context, ask.name)  # one that is there already is not found
    context.perform("model.delete", NameModel(name=ask.name), Model)
    return {}


def search(context: Context, ask: SearchModelsAsk) -> Json:
    """Find models."""
    limit = read_limit(ask.max_results, MOST_RESULTS, DEFAULT_RESULTS)
    told = read_filter(ask.filter)
    if told is None:
        return {"registered_models": []}
    order = ", ".join((*ask.order_by, "name"))

    def fetch(size: int, after: str | None) -> tuple[tuple[str, ...], str | None]:
        wanted = SearchModels(filter=told or "", order=order, limit=size, after=after)
        page = context.perform("model.search", wanted, ModelList)
        return tuple(item.name for item in page.items), page.next

    names, following = collect(limit, ask.page_token, fetch)
    if not names:
        return {"registered_models": []}
    whole = context.perform("model.whole", ShowModels(names=tuple(names)), WholeModels)
    answer: Json = {"registered_models": [to_model(model) for model in whole.items]}
    if following is not None:
        answer["next_page_token"] = following
    return answer


def latest_versions(context: Context, ask: Latest) -> Json:
    """Return the newest version of each stage."""
    stages = {read_stage(stage) for stage in ask.stages}
    whole = get_whole_model(context, ask.name)
    return {
        "model_versions": [
            to_version(version)
            for version in whole.latest
            if not stages or version.notes.stage in stages
        ]
    }


def set_tag(context: Context, ask: SetTag) -> Json:
    """Set a tag of a model."""
    _require_key(ask.key)
    told = UpdateModel(name=require_name(ask.name), tags={ask.key: ask.value})
    context.perform("model.update", told, Model)
    return {}


def delete_tag(context: Context, ask: DeleteTag) -> Json:
    """Take a tag from a model."""
    _require_key(ask.key)
    context.perform(
        "model.update", UpdateModel(name=require_name(ask.name), untag=(ask.key,)), Model
    )
    return {}


def _require_key(key: str) -> None:
    if not key:
        raise InvalidInput("input.invalid", "The tag's key is missing.", hint="Send it as 'key'.")


def set_alias(context: Context, ask: SetAlias) -> Json:
    """Point an alias at a version; a protected one needs a reason, which MLflow can't give."""
    number = read_number(ask.version)
    get_whole_version(context, ask.name, ask.version)
    _move(context, MoveAlias(model=ask.name, alias=ask.alias, version=str(number), why=WHY))
    return {}


def delete_alias(context: Context, ask: ByAlias) -> Json:
    """Take an alias away; one that points nowhere stays so."""
    whole = get_whole_model(context, ask.name)
    if ask.alias in whole.aliases:
        _move(context, MoveAlias(model=ask.name, alias=ask.alias, version=None, why=WHY_NOT))
    return {}


def _move(context: Context, ask: MoveAlias) -> None:
    context.perform("model.alias", ask, AliasMove)


def get_by_alias(context: Context, ask: ByAlias) -> Json:
    """Find the version at which an alias points."""
    whole = get_whole_model(context, ask.name)
    number = whole.aliases.get(ask.alias)
    if number is None:
        raise InvalidInput(
            "alias.not_found",
            f"Registered model alias {ask.alias[:60]} not found.",
            hint=f"{ask.name} has the aliases: {', '.join(sorted(whole.aliases)) or 'none'}.",
        )
    return {"model_version": to_version(get_whole_version(context, ask.name, str(number)))}


_AT: Final = "2.0/mlflow/registered-models"
ROUTES: tuple[Route, ...] = (
    Route("POST", f"{_AT}/create", create),
    Route("GET", f"{_AT}/get", get),
    Route("PATCH", f"{_AT}/update", update),
    Route("POST", f"{_AT}/rename", rename),
    Route("DELETE", f"{_AT}/delete", delete),
    Route("GET", f"{_AT}/search", search),
    Route("GET", f"{_AT}/get-latest-versions", latest_versions),
    Route("POST", f"{_AT}/get-latest-versions", latest_versions),
    Route("POST", f"{_AT}/set-tag", set_tag),
    Route("DELETE", f"{_AT}/delete-tag", delete_tag),
    Route("GET", f"{_AT}/alias", get_by_alias),
    Route("POST", f"{_AT}/alias", set_alias),
    Route("DELETE", f"{_AT}/alias", delete_alias),
)
