"""Where a client says that a model's files lie: ``runs:/``, ``models:/`` or ``mlflow-artifacts:/``.

Only files that are stored here become versions. A client names their place; another machine's
folder or bucket is refused, since its bytes could change behind the name.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from everloop.core.errors import InvalidInput, NotFound
from everloop.core.ids import Id
from everloop.interop.mlflow.logged_models import from_model_id
from everloop.interop.mlflow.registry_words import (
    STAGES,
    get_whole_model,
    get_whole_version,
    read_number,
)
from everloop.interop.mlflow.routing import Context
from everloop.registry.logged_queries import (
    ListLoggedModels,
    LoggedModelList,
    LoggedModelView,
    ShowLoggedModel,
)
from everloop.track.files import Folder, ListFolder
from everloop.track.queries import RunDetails, ShowRun

_PROXIED: Final = "/mlflow-artifacts/artifacts/"
_MODEL_ID: Final = re.compile(r"m-[0-9a-f]{32}")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One place of files: a logged model, a folder of a run, or another version.

    Attributes:
        tags: What the logged model and the run are tagged with.
    """

    logged_model: Id | None = None
    run: Id | None = None
    folder: str | None = None
    version: str | None = None
    tags: dict[str, str] = {}


def find_source(context: Context, text: str, *, run: str = "", model: str = "") -> Source:
    """Return the place that a source names, with the run and the logged model that were told.

    Raises:
        InvalidInput: ``seal.source_invalid``.
        NotFound: the run, the logged model or the version does not exist.
    """
    try:
        urlsplit(text)
    except ValueError as error:
        raise _invalid(text, "It is no address") from error
    scheme, _, _ = text.partition(":")
    if scheme == "runs":
        found = _from_run(context, *_split_run(text))
    elif scheme == "models":
        found = _from_models(context, text)
    elif scheme in {"mlflow-artifacts", "http", "https"}:
        found = _from_artifacts(context, text)
    else:
        raise _invalid(text, "Only files that are stored on this server become versions")
    if model and found.version is None and found.logged_model != from_model_id(model):
        raise _invalid(text, f"The source is not of the logged model {model[:40]!r}")
    if run and found.run not in {None, Id(run)}:
        raise _invalid(text, f"The source is not of the run {run[:40]!r}")
    return msgspec.structs.replace(found, run=Id(run)) if run and not found.run else found


def _split_run(text: str) -> tuple[str, str]:
    path = unquote(urlsplit(text).path).strip("/")
    run, _, folder = path.partition("/")
    return run, folder.strip("/")


def _from_run(context: Context, run: str, folder: str) -> Source:
    found = context.perform("run.show", ShowRun(run=run), RunDetails).run
    listed = context.perform("run.folder", ListFolder(run=found.id, path=folder), Folder)
    if not listed.items and folder:
        logged = _find_logged(context, found.id, folder)
        if logged is not None:
            return _from_logged(context, logged.model.id)
    return Source(run=found.id, folder=folder, tags=found.tags)


def _find_logged(context: Context, run: Id, name: str) -> LoggedModelView | None:
    """Return the newest logged model of that name that a run wrote, as clients of MLflow 3 do."""
    ask = ListLoggedModels(run=run, limit=1_000)
    page = context.perform("logged_model.list", ask, LoggedModelList)
    return next((view for view in page.items if view.model.name == name), None)


def _from_logged(context: Context, key: Id) -> Source:
    model = context.perform("logged_model.show", ShowLoggedModel(model=key), LoggedModelView).model
    tags = model.tags
    if model.run is not None:
        tags = context.perform("run.show", ShowRun(run=model.run), RunDetails).run.tags | tags
    return Source(logged_model=model.id, run=model.run, tags=tags)


def _from_models(context: Context, text: str) -> Source:
    path = unquote(urlsplit(text).path).strip("/")
    if urlsplit(text).netloc:
        raise _invalid(text, "It names another registry")
    if _MODEL_ID.fullmatch(path):
        return _from_logged(context, from_model_id(path))
    if "@" in path:
        name, _, alias = path.partition("@")
        number = get_whole_model(context, name).aliases.get(alias)
    else:
        name, _, selector = path.partition("/")
        number = _select(context, name, selector)
    if number is None:
        raise NotFound(
            "model_version.not_found", f"{text[:80]!r} names no version.", hint="Check it."
        )
    version = get_whole_version(context, name, str(number)).version
    return Source(version=version.id)


def _select(context: Context, name: str, selector: str) -> int | None:
    if selector.isascii() and selector.isdigit():
        return read_number(selector)
    latest = get_whole_model(context, name).latest
    stage = STAGES.get(selector.lower())
    numbers = [
        whole.version.number
        for whole in latest
        if selector.lower() == "latest" or whole.notes.stage == stage
    ]
    return max(numbers, default=None)


def _from_artifacts(context: Context, text: str) -> Source:
    path = unquote(urlsplit(text).path)
    if not text.startswith("mlflow-artifacts:"):
        path = path.partition(_PROXIED)[2]
    parts = path.strip("/").split("/")
    if ".." in parts or "" in parts:
        raise _invalid(text, "It is no plain path")
    if parts[0] == "registry" and len(parts) == 3:
        return Source(version=get_whole_version(context, parts[1], parts[2]).version.id)
    if len(parts) >= 4 and parts[1] == "models":
        if len(parts) > 4:
            raise _invalid(text, "It is only a part of a logged model")
        return _from_logged(context, from_model_id(parts[2]))
    if len(parts) >= 3 and parts[2] == "artifacts":
        return _from_run(context, parts[1], "/".join(parts[3:]))
    raise _invalid(text, "It names neither a run's folder nor a logged model")


def _invalid(text: str, why: str) -> InvalidInput:
    return InvalidInput(
        "seal.source_invalid",
        f"Invalid model version source: {text[:120]!r}. {why}.",
        hint="Log the model to this server and register runs:/<run>/<path> or models:/<model_id>.",
    )
