"""Logged models over MLflow's REST interface: made, filled, sealed when ready, searched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import msgspec

from everloop.core.digest import Digest
from everloop.core.errors import Conflict, Denied, InvalidInput, NotFound
from everloop.core.ids import Id
from everloop.core.manifest import FileEntry, check_path
from everloop.interop.mlflow.logged_search import SearchLoggedModels, select_models
from everloop.interop.mlflow.places import ARTIFACTS, Place, address_invalid
from everloop.interop.mlflow.reading import number
from everloop.interop.mlflow.routing import Context, Json, Nothing, Route
from everloop.interop.mlflow.words import Pair, experiment_id, pairs_of, to_ms, to_texts
from everloop.registry.folders import (
    CreateLoggedModel,
    DropLoggedFiles,
    FinishLoggedModel,
    NameLoggedModel,
    PutLoggedFile,
    UpdateLoggedModel,
)
from everloop.registry.logged import LoggedModel, LoggedStatus
from everloop.registry.logged_queries import LoggedFiles, LoggedModelView, ShowLoggedModel

_PREFIX: Final = "m-"
_MODEL_ID: Final = re.compile(r"m-[0-9a-f]{32}")
_STATUS: Final = {
    LoggedStatus.PENDING: "LOGGED_MODEL_PENDING",
    LoggedStatus.READY: "LOGGED_MODEL_READY",
    LoggedStatus.FAILED: "LOGGED_MODEL_UPLOAD_FAILED",
}
_FROM_STATUS: Final = {text: status for status, text in _STATUS.items()} | {
    "1": LoggedStatus.PENDING,
    "2": LoggedStatus.READY,
    "3": LoggedStatus.FAILED,
}


class _Ask(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Create(_Ask, frozen=True, kw_only=True):
    """Body of ``logged-models``."""

    experiment_id: str = "0"
    name: str = ""
    model_type: str = ""
    source_run_id: str = ""
    params: tuple[Pair, ...] = ()
    tags: tuple[Pair, ...] = ()


class Get(_Ask, frozen=True, kw_only=True):
    """Query of ``logged-models/<id>``."""

    allow_deleted: str = "false"


class Finalize(_Ask, frozen=True, kw_only=True):
    """Body of a ``PATCH`` of ``logged-models/<id>``."""

    status: str | int = ""


class SetTags(_Ask, frozen=True, kw_only=True):
    """Body of ``logged-models/<id>/tags``."""

    tags: tuple[Pair, ...] = ()


class LogParams(_Ask, frozen=True, kw_only=True):
    """Body of ``logged-models/<id>/params``."""

    params: tuple[Pair, ...] = ()


class ListFiles(_Ask, frozen=True, kw_only=True):
    """Query of ``logged-models/<id>/artifacts/directories``."""

    artifact_directory_path: str = ""
    page_token: str = ""


def model_id(key: str) -> str:
    """Return MLflow's form of a logged model's id: ``m-`` and 32 digits."""
    return _PREFIX + key.replace("-", "")


def from_model_id(text: str) -> Id:
    """Return our id of a logged model.

    Raises:
        NotFound: ``logged_model.not_found`` for what is no id of one.
    """
    if _MODEL_ID.fullmatch(text) is None:
        raise NotFound(
            "logged_model.not_found",
            f"There is no logged model {text[:60]!r}.",
            hint="Its id starts with 'm-', as log_model returned it.",
        )
    return Id(str(UUID(hex=text.removeprefix(_PREFIX))))


def model_uri(model: LoggedModel) -> str:
    """Return where a client finds the files of a logged model: through this server."""
    return f"mlflow-artifacts:/{model.experiment}/models/{model_id(model.id)}/{ARTIFACTS}"


def to_logged_model(view: LoggedModelView) -> Json:
    """Return a logged model as MLflow shows it."""
    model = view.model
    info: Json = {
        "model_id": model_id(model.id),
        "experiment_id": model.experiment,
        "name": model.name,
        "creation_timestamp_ms": to_ms(model.created_at),
        "last_updated_timestamp_ms": to_ms(model.updated_at),
        "artifact_uri": model_uri(model),
        "status": _STATUS[model.status],
        "tags": pairs_of(model.tags),
        "registrations": [
            {"name": version.name, "version": str(version.number)} for version in view.versions
        ],
    }
    if model.kind:
        info["model_type"] = model.kind
    if model.run is not None:
        info["source_run_id"] = model.run
    return {"info": info, "data": {"params": pairs_of(model.params), "metrics": _metrics(view)}}


def _metrics(view: LoggedModelView) -> list[Json]:
    found = []
    for row in view.metrics:
        metric: Json = {
            "key": row.key,
            "value": number(float(row.text)),
            "timestamp": to_ms(row.at),
            "step": row.step,
            "model_id": model_id(row.model),
            "run_id": row.run,
        }
        if row.dataset_name:
            metric |= {"dataset_name": row.dataset_name, "dataset_digest": row.dataset_digest}
        found.append(metric)
    return found


def create(context: Context, ask: Create) -> Json:
    """Begin a logged model; without a name it gets one made of its id."""
    _check_name(ask.name)
    key = context.new_id()
    made = CreateLoggedModel(
        model=key,
        experiment=experiment_id(context, ask.experiment_id),
        run=ask.source_run_id or None,
        name=ask.name or f"model-{key[-8:]}",
        kind=ask.model_type,
        params=to_texts(ask.params),
        tags=to_texts(ask.tags),
    )
    model = context.perform("logged_model.create", made, LoggedModel)
    return {"model": to_logged_model(LoggedModelView(model=model))}


def _check_name(name: str) -> None:
    wrong = sorted({letter for letter in name if letter in "/:.%\"'"})
    if wrong:
        raise InvalidInput(
            "logged_model.name_invalid",
            f"The model's name {name[:80]!r} holds {wrong[0]!r}.",
            hint="Leave out / : . % and quotation marks.",
        )


def get(context: Context, ask: Get) -> Json:
    """Find a logged model."""
    return {"model": _show(context, trashed=ask.allow_deleted.lower() == "true")}


def _show(context: Context, *, trashed: bool = False) -> Json:
    named = ShowLoggedModel(model=from_model_id(context.path["model_id"]), trashed=trashed)
    return to_logged_model(context.perform("logged_model.show", named, LoggedModelView))


def finalize(context: Context, ask: Finalize) -> Json:
    """Seal a logged model, or say that its upload failed."""
    status = _FROM_STATUS.get(str(ask.status))
    if status is None or status is LoggedStatus.PENDING:
        raise InvalidInput(
            "logged_model.status_invalid",
            f"{str(ask.status)[:40]!r} does not end a logged model.",
            hint="Send LOGGED_MODEL_READY or LOGGED_MODEL_UPLOAD_FAILED.",
        )
    done = FinishLoggedModel(model=from_model_id(context.path["model_id"]), status=status)
    context.perform("logged_model.finish", done, LoggedModel)
    return {"model": _show(context)}


def _update(context: Context, **changed: object) -> None:
    key = from_model_id(context.path["model_id"])
    ask = UpdateLoggedModel(model=key, **changed)  # type: ignore[arg-type]
    context.perform("logged_model.update", ask, LoggedModel)


def set_tags(context: Context, ask: SetTags) -> Json:
    """Set tags of a logged model."""
    _update(context, tags=to_texts(ask.tags))
    return {"model": _show(context)}


def delete_tag(context: Context, ask: Nothing) -> Json:
    """Take a tag from a logged model."""
    del ask
    _update(context, untag=(context.path["tag_key"],))
    return {}


def log_params(context: Context, ask: LogParams) -> Json:
    """Add parameters to a logged model."""
    _update(context, params=to_texts(ask.params))
    return {}


def delete(context: Context, ask: Nothing) -> Json:
    """Put a logged model into the trash."""
    del ask
    named = NameLoggedModel(model=from_model_id(context.path["model_id"]))
    context.perform("logged_model.delete", named, LoggedModel)
    return {}


def search(context: Context, ask: SearchLoggedModels) -> Json:
    """Find logged models of experiments."""
    found, following = select_models(context, ask)
    answer: Json = {"models": [to_logged_model(view) for view in found]}
    if following:
        answer["next_page_token"] = following
    return answer


def list_directory(context: Context, ask: ListFiles) -> Json:
    """List what lies directly within a folder of a logged model, with paths from its top."""
    key = from_model_id(context.path["model_id"])
    named = ShowLoggedModel(model=key)
    model = context.perform("logged_model.show", named, LoggedModelView).model
    inside = ask.artifact_directory_path.strip("/")
    below = f"{inside}/" if inside else ""
    files = [
        {**file, "path": below + file["path"]} for file in ModelPlace(context, key).files(inside)
    ]
    return {"root_uri": model_uri(model), "files": files}


def files_within(files: tuple[FileEntry, ...], path: str) -> list[Json]:
    """Return what lies directly within a folder; a file lies in itself, as MLflow has it."""
    below = f"{path.strip('/')}/" if path.strip("/") else ""
    found: dict[str, Json] = {}
    for entry in files:
        if entry.path == path:
            name = path.rpartition("/")[2]
            return [{"path": name, "is_dir": False, "file_size": entry.size_bytes}]
        if entry.path.startswith(below):
            name, is_folder, _ = entry.path.removeprefix(below).partition("/")
            found[name] = (
                {"path": name, "is_dir": True}
                if is_folder
                else {"path": name, "is_dir": False, "file_size": entry.size_bytes}
            )
    return [found[name] for name in sorted(found)]


def file_among(files: tuple[FileEntry, ...], path: str) -> tuple[Digest, int]:
    """Return digest and size of the file with this path.

    Raises:
        NotFound: ``file.not_found``.
    """
    for entry in files:
        if entry.path == path:
            return entry.digest, entry.size_bytes
    raise NotFound(
        "file.not_found", f"There is no file {path[:80]!r} there.", hint="List the files first."
    )


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """The files of a logged model; once it is ready they never change."""

    context: Context
    model: Id

    def files(self, path: str) -> list[Json]:
        """Return what lies directly within a folder."""
        return files_within(self._all().files, path)

    def find(self, path: str) -> tuple[Digest, int]:
        """Return digest and size of a file."""
        return file_among(self._all().files, path)

    def admit(self, path: str) -> None:
        """Refuse a file for a sealed model or of a reader, before its bytes are read."""
        check_path(path)
        ask = ShowLoggedModel(model=self.model)
        found = self.context.perform("logged_model.may_put", ask, LoggedFiles)
        if found.status is not LoggedStatus.PENDING:
            raise sealed(f"The logged model {model_id(self.model)}")

    def add(self, path: str, digest: Digest, size: int) -> None:
        """Keep a file of a pending model."""
        ask = PutLoggedFile(model=self.model, path=path, digest=digest, size_bytes=size)
        try:
            self.context.perform("logged_model.put", ask, LoggedModel)
        except Conflict as error:
            raise sealed(f"The logged model {model_id(self.model)}") from error

    def drop(self, path: str) -> None:
        """Remove a file or a folder of a pending model."""
        ask = DropLoggedFiles(model=self.model, path=path)
        try:
            self.context.perform("logged_model.drop", ask, LoggedModel)
        except Conflict as error:
            raise sealed(f"The logged model {model_id(self.model)}") from error

    def _all(self) -> LoggedFiles:
        ask = ShowLoggedModel(model=self.model)
        return self.context.perform("logged_model.files", ask, LoggedFiles)


def sealed(what: str) -> Denied:
    """Return the refusal of a write to bytes that are sealed."""
    return Denied(
        "artifact.sealed",
        f"{what} is sealed: its files never change, so that its name always means these bytes.",
        hint="Log the changed model as a new one and register that.",
    )


def model_place(context: Context, parts: list[str]) -> tuple[Place, str]:
    """Return a logged model's folder, for ``<experiment>/models/<model_id>/artifacts/...``.

    Raises:
        InvalidInput: ``artifact.address_invalid``.
        NotFound: ``logged_model.not_found``.
    """
    if len(parts) < 4 or parts[3] != ARTIFACTS:
        raise address_invalid("/".join(parts))
    return ModelPlace(context, from_model_id(parts[2])), "/".join(parts[4:])


_ONE = "2.0/mlflow/logged-models/{model_id}"
ROUTES: tuple[Route, ...] = (
    Route("POST", "2.0/mlflow/logged-models", create),
    Route("POST", "2.0/mlflow/logged-models/search", search),
    Route("GET", _ONE, get),
    Route("PATCH", _ONE, finalize),
    Route("DELETE", _ONE, delete),
    Route("PATCH", f"{_ONE}/tags", set_tags),
    Route("DELETE", f"{_ONE}/tags/{{tag_key}}", delete_tag),
    Route("POST", f"{_ONE}/params", log_params),
    Route("GET", f"{_ONE}/artifacts/directories", list_directory),
)
