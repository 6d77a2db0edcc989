"""Registering a folder that another system made: sealed under digests, and never loaded by itself.

The bytes come from where they are kept already: a sealed logged model, a folder of a run, another
version. A client names the place, never the content. What the folder says of itself is read as
plain text; only a file of a safe format inside of it is tried, and only as the policy allows.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, structs

from everloop.core.digest import Digest
from everloop.core.errors import EverloopError, InvalidInput, NotFound
from everloop.core.ids import Id, check_name
from everloop.core.manifest import LONGEST_PATH, MOST_FILES, FileEntry, make_manifest
from everloop.core.ports import Compare, Condition, where
from everloop.core.records import declared_kinds
from everloop.kernel.lineage import Edge
from everloop.kernel.nodes import require_node
from everloop.kernel.unit_of_work import Desk, View, Work
from everloop.kernel.verbs import verb
from everloop.registry.formats import (
    MLFLOW,
    artifact_digest,
    load_predictor,
    native_name,
    require_inputs,
)
from everloop.registry.keeping import add_version, open_model, raced, reuse_version, standing_of
from everloop.registry.lifecycle import Tags, Text, UpdateVersion, update_version
from everloop.registry.logged import LoggedStatus
from everloop.registry.logged_queries import get_logged_model
from everloop.registry.lookup import newest_version, resolve_model
from everloop.registry.mlflow_folder import Told, read_folder
from everloop.registry.model import ModelVersion
from everloop.registry.queries import RefText
from everloop.registry.signature import find_breaks, name_outputs
from everloop.registry.versioning import Bump, Comparison, decide_bump

Name = Annotated[str, Meta(min_length=1, max_length=100)]
RowId = Annotated[Id, Meta(max_length=36)]
TARGET = "everloop.target"


class SealModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A folder to register as the next version; exactly one of three places says where it lies.

    Attributes:
        logged_model: A logged model that is ready.
        run: The run that trained it; with ``folder`` also the place.
        folder: Folder of that run's files; the empty text is all of them.
        version: Another version, whose bytes get one more name.
        source: Where the client says that it came from; kept as its words.
        target: Name of the column that it predicts, where that is known.
        dataset: Id of the dataset version it was trained on; as the run read it when left out.
        holdout: Id of a dataset version kept from training, on which gates measure it.
    """

    name: Name
    logged_model: RowId | None = None
    run: RowId | None = None
    folder: Annotated[str, Meta(max_length=LONGEST_PATH)] | None = None
    version: RefText | None = None
    source: Annotated[str, Meta(max_length=2_000)] = ""
    description: Text = ""
    tags: Tags = {}
    target: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    dataset: RowId | None = None
    holdout: RowId | None = None


class _Origin(Struct, frozen=True, kw_only=True):
    """Where a folder lies, and what is known of it there."""

    files: tuple[FileEntry, ...]
    run: Id | None
    logged_model: Id | None
    tags: dict[str, str] = {}


class _Sealed(Struct, frozen=True, kw_only=True):
    """What is worked out before the transaction."""

    origin: _Origin
    files: tuple[FileEntry, ...]
    artifact: Digest
    previous: int
    bump: Bump
    told: Told


def _prepare(ask: SealModel, desk: Desk) -> _Sealed:
    check_name(ask.name, "Model")
    with desk.read() as view:
        origin = _find_origin(view, ask)
        standing = standing_of(view, ask.name)
        previous = newest_version(view, standing.model.id) if standing.model else None
        target = ask.target or ask.tags.get(TARGET) or origin.tags.get(TARGET)
        target = target or _configured_target(view, ask.name)
    files = make_manifest(origin.files).files
    told = _try_native(_read(desk, files, target), files, desk)
    breaks: tuple[str, ...] = ()
    if previous is not None and previous.signature.inputs and told.signature.inputs:
        breaks = find_breaks(previous.signature, told.signature)
    return _Sealed(
        origin=origin,
        files=files,
        artifact=artifact_digest(MLFLOW, files, told.signature),
        previous=standing.number,
        bump=decide_bump(standing.version, breaks, Comparison(None)),
        told=told,
    )


@verb("model.seal", permission="model:write", prepare=_prepare)
def seal_model(ask: SealModel, work: Work, found: _Sealed) -> ModelVersion:
    """Register a folder that another system made as the next version of a model.

    The same folder again is the same version, with the new notes and tags; one that is in the trash
    comes out of it.

    Raises:
        InvalidInput: ``seal.source_invalid``, or a path or a name is not usable.
        NotFound: the run, the logged model, the version or a dataset version does not exist, or
            ``seal.nothing_there`` when there are no files.
        Conflict: ``model.version_raced`` when another version was registered meanwhile.
    """
    run = found.origin.run
    for kind, key in (
        ("run", run), ("dataset_version", ask.dataset), ("dataset_version", ask.holdout),
    ):  # fmt: skip
        if key is not None:
            require_node(work, kind, key)
    model = open_model(work, ask.name)
    known = reuse_version(work, model, found.artifact)
    if known is not None:
        said = UpdateVersion(version=known.id, description=ask.description or None, tags=ask.tags)
        update_version(said, work)
        return known
    if model.last_number != found.previous:
        raise raced(ask.name)
    dataset = ask.dataset or (_read_by(work, run) if run else None)
    version = ModelVersion(
        id=work.new_id(),
        project=work.project,
        model=model.id,
        name=model.name,
        number=found.previous + 1,
        version=str(found.bump.version),
        artifact=found.artifact,
        files=found.files,
        format=MLFLOW,
        signature=found.told.signature,
        target=found.told.signature.output.name,
        run=run,
        dataset_version=dataset,
        holdout=ask.holdout,
        reference=_reference(work, dataset),
        examples=None,
        params={},
        bump=found.bump.kind,
        bump_reason=found.bump.reason,
        created_at=work.now,
        created_by=work.caller.actor,
        source=ask.source,
        logged_model=found.origin.logged_model,
        servable_as=found.told.servable_as,
        servable_file=found.told.file if found.told.servable_as else "",
    )
    add_version(work, model, version, description=ask.description, tags=ask.tags)
    _link(work, version)
    return version


def _find_origin(view: View, ask: SealModel) -> _Origin:
    named = [ask.logged_model, ask.folder if ask.run else None, ask.version]
    if sum(place is not None for place in named) != 1:
        raise InvalidInput(
            "seal.source_invalid",
            "A folder is registered from exactly one place.",
            hint="Name a logged model, a folder of a run, or another version.",
        )
    if ask.logged_model is not None:
        return _from_logged(view, ask)
    if ask.version is not None:
        other = resolve_model(view, ask.version)
        return _Origin(files=other.files, run=ask.run or other.run, logged_model=other.logged_model)
    assert ask.run is not None
    return _from_run(view, ask.run, (ask.folder or "").strip("/"))


def _from_logged(view: View, ask: SealModel) -> _Origin:
    model = get_logged_model(view, str(ask.logged_model))
    if model.status is not LoggedStatus.READY:
        raise InvalidInput(
            "seal.source_invalid",
            f"The logged model {model.name[:60]!r} is {model.status.value}, not ready.",
            hint="Register it once it is finished; only sealed files are registered.",
        )
    if not model.files:
        raise _nothing(f"The logged model {model.name[:60]!r}")
    return _Origin(
        files=model.files,
        run=ask.run or model.run,
        logged_model=model.id,
        tags=_run_tags(view, ask.run or model.run) | model.tags,
    )


def _from_run(view: View, run: Id, folder: str) -> _Origin:
    require_node(view, "run", run)
    entries = declared_kinds()["artifact_entry"].type
    below = f"{folder}/" if folder else ""
    rows = view.select(
        entries,
        *where(run=run),
        Condition("path", Compare.PREFIX, below),
        order="path",
        limit=MOST_FILES + 1,
    )
    if not rows:
        raise _nothing(f"The folder {folder[:80]!r} of run {run}")
    files = tuple(
        FileEntry(
            path=row.path.removeprefix(below),  # type: ignore[attr-defined]
            digest=row.digest,  # type: ignore[attr-defined]
            size_bytes=row.size_bytes,  # type: ignore[attr-defined]
        )
        for row in rows
    )
    if len(files) > MOST_FILES:
        raise InvalidInput(
            "seal.source_invalid",
            f"The folder {folder[:80]!r} holds more than {MOST_FILES:,} files.",
            hint="Register the folder of the model alone.",
        )
    return _Origin(files=files, run=run, logged_model=None, tags=_run_tags(view, run))


def _nothing(what: str) -> NotFound:
    return NotFound(
        "seal.nothing_there",
        f"{what} holds no files that could be registered.",
        hint="Log the model's files to this server first; a version is its bytes.",
    )


def _run_tags(view: View, run: Id | None) -> dict[str, str]:
    found = view.find(declared_kinds()["run"].type, run) if run else None
    return dict(getattr(found, "tags", {}))


def _configured_target(view: View, name: str) -> str | None:
    models = view.settings().get("models")
    model = models.get(name) if isinstance(models, dict) else None
    target = model.get("target") if isinstance(model, dict) else None
    return target if isinstance(target, str) and target else None


def _read(desk: Desk, files: tuple[FileEntry, ...], target: str | None) -> Told:
    digests = {entry.path: entry.digest for entry in files}
    sizes = {entry.path: entry.size_bytes for entry in files}
    return read_folder(sizes, lambda path: desk.services.blobs.get(digests[path]), target)


def _try_native(told: Told, files: tuple[FileEntry, ...], desk: Desk) -> Told:
    """Return what is known after the file of a safe format was tried; it stays one, or is none."""
    if told.servable_as is None:
        return told
    digest = next(entry.digest for entry in files if entry.path == told.file)
    signature = told.signature
    try:
        data = desk.services.blobs.get(digest)
        named = {native_name(told.servable_as, told.file): data}
        predictor = load_predictor(told.servable_as, named, desk.services.policy)
        try:
            task = "classification" if predictor.is_classifier else signature.task
            if predictor.outputs or task != signature.task:
                signature = name_outputs(structs.replace(signature, task=task), predictor.outputs)
            require_inputs(predictor, signature)
        finally:
            predictor.close()
    except EverloopError:
        return told._replace(servable_as=None, file="")
    return told._replace(signature=signature)


def _read_by(view: View, run: Id) -> Id | None:
    """Return the dataset version that a run read, if it was one only."""
    prefix = "dataset_version:"
    found = view.select(
        Edge,
        *where(source=f"run:{run}", relation="read"),
        Condition("target", Compare.PREFIX, prefix),
        limit=2,
    )
    return Id(found[0].target.removeprefix(prefix)) if len(found) == 1 else None


def _reference(view: View, dataset: Id | None) -> Digest | None:
    kind = declared_kinds().get("dataset_version")
    found = view.find(kind.type, dataset) if kind and dataset else None
    return getattr(found, "reference", None)


def _link(work: Work, version: ModelVersion) -> None:
    node = f"model_version:{version.id}"
    if version.logged_model is not None:
        work.link(node, "sealed_from", f"logged_model:{version.logged_model}")
    if version.run is not None:
        work.link(node, "trained_by", f"run:{version.run}")
    if version.dataset_version is not None:
        work.link(node, "trained_on", f"dataset_version:{version.dataset_version}")
    if version.holdout is not None:
        work.link(node, "held_out", f"dataset_version:{version.holdout}")
