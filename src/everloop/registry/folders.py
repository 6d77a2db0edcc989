"""Verbs of logged models: a folder that a run fills, and that is sealed once it is ready.

MLflow's clients ask for these. A sealed folder is a manifest under one root: what is registered
from it is those bytes, and nothing puts others in their place.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Annotated

from msgspec import Meta, Struct, structs

from everloop.core.digest import parse_digest
from everloop.core.errors import Conflict, InvalidInput, NotFound
from everloop.core.ids import Id, is_id
from everloop.core.manifest import FileEntry, check_path, make_manifest, manifest_root
from everloop.core.ports import where
from everloop.kernel.nodes import require_node
from everloop.kernel.unit_of_work import Work
from everloop.kernel.verbs import verb
from everloop.registry.lifecycle import TagKey, Tags
from everloop.registry.logged import LoggedFile, LoggedMetric, LoggedModel, LoggedStatus
from everloop.registry.logged_queries import get_logged_model, pending_files

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RowId = Annotated[str, Meta(max_length=36)]
Name = Annotated[str, Meta(max_length=500)]
FilePath = Annotated[str, Meta(min_length=1, max_length=1_024)]


class CreateLoggedModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that a run is about to write.

    Attributes:
        model: Its id, made by the caller so that a repetition changes nothing.
        experiment: Id of the experiment it belongs to.
        run: Id of the run that writes it.
        kind: What its author calls its type.
    """

    model: RowId
    experiment: RowId
    run: RowId | None = None
    name: Name
    kind: Name = ""
    params: Tags = {}
    tags: Tags = {}


class PutLoggedFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a pending model, whose bytes are stored already."""

    model: RowId
    path: FilePath
    digest: Annotated[str, Meta(max_length=80)]
    size_bytes: Annotated[int, Meta(ge=0, le=2**53)]


class DropLoggedFiles(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of a pending model, or a folder of it with all that it holds."""

    model: RowId
    path: FilePath


class FinishLoggedModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether a pending model became ready or failed."""

    model: RowId
    status: LoggedStatus


class UpdateLoggedModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tags to set and to take away, and parameters to add."""

    model: RowId
    tags: Tags = {}
    untag: tuple[TagKey, ...] = ()
    params: Tags = {}


class NameLoggedModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A logged model by its id."""

    model: RowId


class Measured(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One value that a run measured on a logged model, and maybe on a dataset.

    Attributes:
        text: The value exactly, such as ``0.25``, ``nan`` or ``-inf``.
        time_us: When, in microseconds since 1970.
    """

    model: RowId
    key: TagKey
    text: Annotated[str, Meta(max_length=40)]
    step: int = 0
    time_us: Annotated[int, Meta(ge=0, le=2**55)]
    dataset_name: Name = ""
    dataset_digest: Annotated[str, Meta(max_length=100)] = ""


class MeasureLoggedModels(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run measured on logged models."""

    run: RowId
    metrics: Annotated[tuple[Measured, ...], Meta(max_length=1_000)]


class MeasuredCount(Struct, frozen=True, kw_only=True):
    """How many values were taken."""

    taken: int


@verb("logged_model.create", permission="model:write")
def create_logged_model(ask: CreateLoggedModel, work: Work) -> LoggedModel:
    """Begin a model's folder; the same id again gives the same one.

    Raises:
        InvalidInput: ``logged_model.id_invalid``.
        NotFound: the experiment or the run does not exist.
        Conflict: ``logged_model.exists`` when the id stands for another one.
    """
    if not is_id(ask.model):
        raise InvalidInput(
            "logged_model.id_invalid",
            f"{ask.model[:60]!r} is not an id.",
            hint="Make a UUID of version 7 for a new logged model.",
        )
    require_node(work, "experiment", ask.experiment)
    if ask.run is not None:
        require_node(work, "run", ask.run)
    known = work.find(LoggedModel, Id(ask.model))
    if known is not None:
        if (known.experiment, known.name, known.created_by) != (
            ask.experiment, ask.name, work.caller.actor,
        ):  # fmt: skip
            raise Conflict(
                "logged_model.exists",
                f"There is a logged model {ask.model} already.",
                hint="Make a new id for a new logged model.",
            )
        return known
    work.touch(f"logged_model:{ask.model}")
    made = work.insert(
        LoggedModel(
            id=Id(ask.model),
            project=work.project,
            experiment=Id(ask.experiment),
            run=Id(ask.run) if ask.run else None,
            name=ask.name,
            kind=ask.kind,
            params=ask.params,
            tags=ask.tags,
            created_at=work.now,
            updated_at=work.now,
            created_by=work.caller.actor,
        )
    )
    if made.run is not None:
        work.link(f"logged_model:{made.id}", "trained_by", f"run:{made.run}")
    return made


@verb("logged_model.put", permission="model:write")
def put_logged_file(ask: PutLoggedFile, work: Work) -> LoggedModel:
    """Put a file into a pending model; another one of the same path gives way.

    Raises:
        InvalidInput: ``path.invalid`` or ``digest.invalid``.
        NotFound: ``logged_model.not_found`` or ``blob.not_found``.
        Conflict: ``logged_model.sealed`` once it is ready.
    """
    model = require_open(get_logged_model(work, ask.model))
    check_path(ask.path)
    digest = parse_digest(ask.digest)
    if work.services.blobs.size(digest) != ask.size_bytes:
        raise NotFound(
            "blob.not_found",
            f"There are no {ask.size_bytes} bytes under {digest}.",
            hint="Put the bytes before naming them.",
        )
    work.touch(f"logged_model:{model.id}")
    known = work.first(LoggedFile, *where(model=model.id, path=ask.path))
    if known is None:
        work.insert(
            LoggedFile(
                id=work.new_id(),
                project=work.project,
                model=model.id,
                path=ask.path,
                digest=digest,
                size_bytes=ask.size_bytes,
            )
        )
    elif known.digest != digest:
        work.replace(structs.replace(known, digest=digest, size_bytes=ask.size_bytes))
    return model


@verb("logged_model.drop", permission="model:write")
def drop_logged_files(ask: DropLoggedFiles, work: Work) -> LoggedModel:
    """Remove a file or a folder from a pending model.

    Raises:
        NotFound: ``logged_model.not_found`` or ``file.not_found``.
        Conflict: ``logged_model.sealed`` once it is ready.
    """
    model = require_open(get_logged_model(work, ask.model))
    found = [
        file
        for file in pending_files(work, model)
        if file.path == ask.path or file.path.startswith(ask.path + "/")
    ]
    if not found:
        raise NotFound(
            "file.not_found",
            f"The logged model has no {ask.path[:80]!r}.",
            hint="List its files first.",
        )
    work.touch(f"logged_model:{model.id}")
    for file in found:
        work.delete(file)
    return model


@verb("logged_model.finish", permission="model:write")
def finish_logged_model(ask: FinishLoggedModel, work: Work) -> LoggedModel:
    """Seal a pending model with the files that it has, or give it up.

    Finishing it again in the same way changes nothing.

    Raises:
        NotFound: ``logged_model.not_found``.
        InvalidInput: ``path.collision`` when two of its paths can mean one file.
        Conflict: ``logged_model.sealed`` when it was finished in another way.
    """
    model = get_logged_model(work, ask.model)
    if model.status is ask.status:
        return model
    if model.status is LoggedStatus.READY:
        raise _sealed(model)
    work.touch(f"logged_model:{model.id}")
    changed = structs.replace(model, status=ask.status, updated_at=work.now)
    if ask.status is LoggedStatus.READY:
        rows = pending_files(work, model)
        files = make_manifest(
            FileEntry(path=row.path, digest=row.digest, size_bytes=row.size_bytes) for row in rows
        )
        root = manifest_root(files)
        changed = structs.replace(changed, files=files.files, root=root)
        for row in rows:
            work.delete(row)
    return work.replace(changed)


@verb("logged_model.update", permission="model:write")
def update_logged_model(ask: UpdateLoggedModel, work: Work) -> LoggedModel:
    """Set and take away tags, and add parameters; its files stay as they are.

    Raises:
        NotFound: ``logged_model.not_found``, or ``tag.not_found`` for a tag to take away.
        Conflict: ``logged_model.param_changed``.
    """
    model = get_logged_model(work, ask.model)
    for key, value in ask.params.items():
        if model.params.get(key, value) != value:
            raise Conflict(
                "logged_model.param_changed",
                f"Parameter {key[:60]!r} is already set to another value.",
                hint="A parameter is set once.",
            )
    for key in ask.untag:
        if key not in model.tags:
            raise NotFound(
                "tag.not_found", f"There is no tag {key[:60]!r}.", hint="Look at the tags first."
            )
    tags = {key: value for key, value in (model.tags | ask.tags).items() if key not in ask.untag}
    changed = structs.replace(model, tags=tags, params=model.params | ask.params)
    if changed == model:
        return model
    work.touch(f"logged_model:{model.id}")
    return work.replace(structs.replace(changed, updated_at=work.now))


@verb("logged_model.measure", permission="run:write")
def measure_logged_models(ask: MeasureLoggedModels, work: Work) -> MeasuredCount:
    """Keep the newest value of each metric that a run measured on a logged model.

    Raises:
        NotFound: the run or a logged model does not exist.
        InvalidInput: ``metric.not_a_number``.
    """
    require_node(work, "run", ask.run)
    newest: dict[tuple[str, ...], Measured] = {}
    for metric in ask.metrics:
        key = (metric.model, metric.key, metric.dataset_name, metric.dataset_digest)
        known = newest.get(key)
        if known is None or (known.step, known.time_us) <= (metric.step, metric.time_us):
            newest[key] = metric
    for metric in newest.values():
        _measure(work, Id(ask.run), metric)
    return MeasuredCount(taken=len(newest))


@verb("logged_model.delete", permission="model:write")
def delete_logged_model(ask: NameLoggedModel, work: Work) -> LoggedModel:
    """Put a logged model into the trash; versions registered from it keep their bytes.

    Raises:
        NotFound: ``logged_model.not_found``.
    """
    model = get_logged_model(work, ask.model)
    work.touch(f"logged_model:{model.id}")
    return work.replace(structs.replace(model, deleted_at=work.now, updated_at=work.now))


def require_open(model: LoggedModel) -> LoggedModel:
    """Return a model that still takes files.

    Raises:
        Conflict: ``logged_model.sealed``.
    """
    if model.status is not LoggedStatus.PENDING:
        raise _sealed(model)
    return model


def _sealed(model: LoggedModel) -> Conflict:
    return Conflict(
        "logged_model.sealed",
        f"The logged model {model.name!r} is {model.status.value}: its files never change again.",
        hint="Log the changed model as a new one; what was registered stays what it was.",
        context={"model": model.id, "root": model.root},
    )


def _measure(work: Work, run: Id, metric: Measured) -> None:
    model = get_logged_model(work, metric.model)
    try:
        value = float(metric.text)
    except ValueError as error:
        raise InvalidInput(
            "metric.not_a_number",
            f"{metric.text!r} is not a number.",
            hint="Send the value as text, such as 0.25, nan or -inf.",
        ) from error
    told = {
        "value": value if math.isfinite(value) else None,
        "text": repr(value),
        "step": metric.step,
        "at": _EPOCH + timedelta(microseconds=metric.time_us),
    }
    same = where(
        model=model.id,
        run=run,
        key=metric.key,
        dataset_name=metric.dataset_name,
        dataset_digest=metric.dataset_digest,
    )
    known = work.first(LoggedMetric, *same)
    if known is None:
        work.insert(
            LoggedMetric(
                id=work.new_id(),
                project=work.project,
                model=model.id,
                run=run,
                key=metric.key,
                dataset_name=metric.dataset_name,
                dataset_digest=metric.dataset_digest,
                **told,  # type: ignore[arg-type]
            )
        )
    elif (known.step, known.at) <= (metric.step, told["at"]):
        work.replace(structs.replace(known, **told))
    work.touch(f"logged_model:{model.id}", f"run:{run}")
