"""Questions about logged models: one, a list of them, and the files of one."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from everloop.core.errors import InvalidInput, NotFound
from everloop.core.ids import Id
from everloop.core.manifest import MOST_FILES, FileEntry
from everloop.core.ports import Compare, Condition, where
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.registry.logged import LoggedFile, LoggedMetric, LoggedModel, LoggedStatus
from everloop.registry.model import ModelVersion

MOST_MODELS = 1_000
RowId = Annotated[str, Meta(max_length=36)]


class ShowLoggedModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A logged model by its id, and whether it may be in the trash."""

    model: RowId
    trashed: bool = False


class ListLoggedModels(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which logged models to list: of experiments, or of a run; the newest first."""

    experiments: Annotated[tuple[RowId, ...], Meta(max_length=1_000)] = ()
    run: RowId | None = None
    limit: Annotated[int, Meta(ge=1, le=MOST_MODELS)] = 100
    after: Annotated[str, Meta(max_length=100)] | None = None


class LoggedModelView(Struct, frozen=True, kw_only=True):
    """A logged model, what was measured on it, and the versions that were registered from it."""

    model: LoggedModel
    metrics: tuple[LoggedMetric, ...] = ()
    versions: tuple[ModelVersion, ...] = ()


class LoggedModelList(Struct, frozen=True, kw_only=True):
    """One page of logged models; ``next`` is the cursor of the page after it."""

    items: tuple[LoggedModelView, ...]
    next: str | None = None


class LoggedFiles(Struct, frozen=True, kw_only=True):
    """All files of a logged model, by path."""

    model: Id
    status: LoggedStatus
    files: tuple[FileEntry, ...]


@query("logged_model.show", permission="model:read")
def show_logged_model(ask: ShowLoggedModel, view: View) -> LoggedModelView:
    """Show a logged model with what was measured on it and registered from it."""
    return _view(view, get_logged_model(view, ask.model, trashed=ask.trashed))


@query("logged_model.list", permission="model:read")
def list_logged_models(ask: ListLoggedModels, view: View) -> LoggedModelList:
    """List the logged models of experiments or of a run, the newest first."""
    conditions = list(where(deleted_at=None))
    if ask.experiments:
        conditions.append(Condition("experiment", Compare.IN, ask.experiments))
    if ask.run is not None:
        conditions += where(run=ask.run)
    page, more = view.page(
        LoggedModel,
        *conditions,
        order="created_at",
        descending=True,
        limit=ask.limit,
        after=ask.after,
    )
    return LoggedModelList(items=tuple(_view(view, model) for model in page), next=more)


@query("logged_model.files", permission="model:read")
def list_logged_files(ask: ShowLoggedModel, view: View) -> LoggedFiles:
    """List all files of a logged model, by path."""
    model = get_logged_model(view, ask.model, trashed=ask.trashed)
    files = model.files or tuple(
        FileEntry(path=row.path, digest=row.digest, size_bytes=row.size_bytes)
        for row in sorted(pending_files(view, model), key=lambda row: row.path)
    )
    return LoggedFiles(model=model.id, status=model.status, files=files)


@query("logged_model.may_put", permission="model:write")
def may_put_file(ask: ShowLoggedModel, view: View) -> LoggedFiles:
    """Say whether the caller may put files into a logged model, before their bytes are sent.

    Raises:
        NotFound: ``logged_model.not_found``.
    """
    return list_logged_files(ask, view)


def get_logged_model(view: View, key: str, *, trashed: bool = False) -> LoggedModel:
    """Return a logged model by its id.

    Raises:
        NotFound: ``logged_model.not_found``, also for one in the trash unless asked for.
    """
    found = view.find(LoggedModel, Id(key))
    if found is None or (found.deleted_at is not None and not trashed):
        raise NotFound(
            "logged_model.not_found",
            f"There is no logged model {key[:60]!r}.",
            hint="Search the logged models of the experiment.",
        )
    return found


def pending_files(view: View, model: LoggedModel) -> list[LoggedFile]:
    """Return the files that a pending model has so far.

    Raises:
        InvalidInput: ``logged_model.too_many_files``.
    """
    found = view.select(LoggedFile, *where(model=model.id), limit=MOST_FILES + 1)
    if len(found) > MOST_FILES:
        raise InvalidInput(
            "logged_model.too_many_files",
            f"The logged model has more than {MOST_FILES:,} files.",
            hint="Pack them, or log them as artifacts of the run.",
        )
    return found


def _view(view: View, model: LoggedModel) -> LoggedModelView:
    return LoggedModelView(
        model=model,
        metrics=tuple(view.select(LoggedMetric, *where(model=model.id), limit=1_000)),
        versions=tuple(view.select(ModelVersion, *where(logged_model=model.id), limit=100)),
    )
