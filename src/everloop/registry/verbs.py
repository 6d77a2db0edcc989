"""Registering a model version and moving an alias."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta, Struct, structs

from everloop.core.digest import Digest, parse_digest
from everloop.core.errors import EverloopError, InvalidInput, NotFound
from everloop.core.ids import Id, check_name, is_id
from everloop.core.manifest import FileEntry, Files, make_manifest
from everloop.core.ports import BlobStore
from everloop.kernel.nodes import require_node
from everloop.kernel.safe_load import LoadPolicy
from everloop.kernel.unit_of_work import Desk, View, Work
from everloop.kernel.verbs import verb
from everloop.registry.aliases import check_alias, move_alias
from everloop.registry.examples import read_examples
from everloop.registry.formats import (
    ModelFormat,
    artifact_digest,
    load_predictor,
    open_version,
    require_inputs,
    require_waiver,
)
from everloop.registry.keeping import add_version, open_model, raced, reuse_version, standing_of
from everloop.registry.loaders import Predictor
from everloop.registry.lookup import get_model, newest_version, resolve_model
from everloop.registry.model import AliasMove, ModelVersion
from everloop.registry.protection import require_mover
from everloop.registry.queries import RefText
from everloop.registry.signature import (
    Signature,
    check_signature,
    find_breaks,
    find_row_problems,
    to_matrix,
)
from everloop.registry.versioning import (
    Bump,
    Comparison,
    Override,
    compare_answers,
    decide_bump,
    override_bump,
)

Name = Annotated[str, Meta(min_length=1, max_length=100)]
Text = Annotated[str, Meta(max_length=2_000)]
BlobName = Annotated[Digest, Meta(max_length=80)]
RowId = Annotated[Id, Meta(max_length=36)]
Params = Annotated[
    dict[Annotated[str, Meta(max_length=200)], Annotated[str, Meta(max_length=2_000)]],
    Meta(max_length=1_000),
]


class RegisterModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A trained model; the bytes of its files are uploaded before.

    Attributes:
        signature: What it takes and answers; its output names the target.
        run: Id of the run that trained it.
        dataset: Id of the dataset version it was trained on.
        holdout: Id of a dataset version kept from training, on which gates measure it.
        reference: Blob of the reference of its training inputs.
        examples: Blob of a Parquet table of example rows.
        environment: Blob of the environment it was trained in, as a run captures it.
        waiver: Why a function that runs code of its own may be registered; ``pyfunc`` needs it.
        bump: The part of the version to raise, against the rule; needs ``bump_reason``.
    """

    name: Name
    files: Files
    format: ModelFormat
    signature: Signature
    description: Text = ""
    run: RowId | None = None
    dataset: RowId | None = None
    holdout: RowId | None = None
    reference: BlobName | None = None
    examples: BlobName | None = None
    params: Params = {}
    environment: BlobName | None = None
    waiver: Text = ""
    bump: Override | None = None
    bump_reason: Text = ""


class MoveAlias(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The alias to move, and the version to point it at; None takes it away."""

    model: Name
    alias: Name
    version: RefText | None
    why: Annotated[str, Meta(min_length=1, max_length=2_000)]


class _Registration(Struct, frozen=True, kw_only=True):
    """What is worked out about a registration before its transaction."""

    artifact: Digest
    files: tuple[FileEntry, ...]
    previous: int
    bump: Bump


def _prepare_register(ask: RegisterModel, desk: Desk) -> _Registration:
    check_name(ask.name, "Model")
    check_signature(ask.signature)
    files = make_manifest(ask.files).files
    require_waiver(ask.format, ask.waiver)
    for digest in (*(entry.digest for entry in files), *_blobs_beside(ask)):
        if digest is not None:
            parse_digest(digest)
    blobs, policy = desk.services.blobs, desk.services.policy
    with desk.read() as view:
        standing = standing_of(view, ask.name)
        previous = newest_version(view, standing.model.id) if standing.model else None
    data = _read(blobs, files)
    predictor = load_predictor(ask.format, data, policy)
    try:
        require_inputs(predictor, ask.signature)
        _try_examples(ask, predictor, blobs)
        found = decide_bump(
            standing.version,
            find_breaks(previous.signature, ask.signature) if previous else (),
            _compare(previous, ask.signature, predictor, blobs, policy),
        )
    finally:
        predictor.close()
    if ask.bump is not None:
        found = override_bump(standing.version, found, ask.bump, ask.bump_reason)
    return _Registration(
        artifact=artifact_digest(ask.format, files, ask.signature),
        files=files,
        previous=standing.number,
        bump=found,
    )


@verb("model.register", permission="model:write", prepare=_prepare_register)
def register_model(ask: RegisterModel, work: Work, found: _Registration) -> ModelVersion:
    """Register a trained model as the next version.

    The same artifact again is the same version; one that is in the trash comes out of it.

    Raises:
        InvalidInput: files, signature and examples do not fit together.
        UnsafeArtifact: the server's policy does not trust the format or a type in it.
        NotFound: a run, a dataset version or bytes that it names do not exist.
        Conflict: ``model.version_raced`` when another version was registered meanwhile.
    """
    _require_origins(work, ask)
    model = open_model(work, ask.name)
    known = reuse_version(work, model, found.artifact)
    if known is not None:
        return known
    if model.last_number != found.previous:
        raise raced(ask.name)
    if ask.description and not model.description:
        model = work.replace(structs.replace(model, description=ask.description))
    version = ModelVersion(
        id=work.new_id(),
        project=work.project,
        model=model.id,
        name=ask.name,
        number=found.previous + 1,
        version=str(found.bump.version),
        artifact=found.artifact,
        files=found.files,
        format=ask.format,
        signature=ask.signature,
        target=ask.signature.output.name,
        run=ask.run,
        dataset_version=ask.dataset,
        holdout=ask.holdout,
        reference=ask.reference,
        examples=ask.examples,
        params=ask.params,
        environment=ask.environment,
        waiver=ask.waiver.strip(),
        bump=found.bump.kind,
        bump_reason=found.bump.reason,
        created_at=work.now,
        created_by=work.caller.actor,
    )
    add_version(work, model, version)
    _link_origins(work, version)
    return version


@verb("model.alias", permission="model:write")
def set_alias(ask: MoveAlias, work: Work) -> AliasMove:
    """Point an alias of a model at a version, with the reason on record.

    An alias that the project protects needs the permission ``model:release``, too.

    Raises:
        Denied: ``alias.reserved`` for ``production``, which only releases move; ``access.denied``
            for a protected alias.
        NotFound: the model or the version does not exist.
        InvalidInput: ``alias.invalid``, ``alias.other_model`` or ``alias.reason_missing``.
    """
    check_alias(ask.alias)
    require_mover(work, ask.alias, ask.why)
    model = get_model(work, ask.model)
    version = None
    if ask.version is not None:
        is_whole = "@" in ask.version or ":" in ask.version or is_id(ask.version)
        version = resolve_model(work, ask.version if is_whole else f"{model.name}@{ask.version}")
    work.touch(f"model:{model.id}")
    return move_alias(work, model, ask.alias, version, ask.why)


def _read(blobs: BlobStore, files: Iterable[FileEntry]) -> dict[str, bytes]:
    read = {}
    for entry in files:
        data = blobs.get(entry.digest)
        if len(data) != entry.size_bytes:
            raise InvalidInput(
                "file.size_mismatch",
                f"{entry.path[:80]!r} has {len(data)} bytes, not {entry.size_bytes}.",
                hint="State the size of the bytes that were uploaded.",
            )
        read[entry.path] = data
    return read


def _try_examples(ask: RegisterModel, predictor: Predictor, blobs: BlobStore) -> None:
    """Refuse examples that do not fit the signature; the model must answer them without error."""
    if ask.examples is None:
        return
    table = read_examples(blobs, ask.examples)
    problems = find_row_problems(ask.signature, table)
    if problems:
        raise InvalidInput(
            "model.examples_refused",
            f"The example rows do not fit the signature: {'; '.join(problems[:3])}.",
            hint="Take examples from data with the columns and values of the training table.",
        )
    predictor.predict(to_matrix(ask.signature, table))


def _compare(
    previous: ModelVersion | None,
    signature: Signature,
    predictor: Predictor,
    blobs: BlobStore,
    policy: LoadPolicy,
) -> Comparison:
    """Compare the answers of two versions on the previous one's examples, as its callers ask."""
    if previous is None or previous.examples is None:
        return Comparison(None)
    try:
        table = read_examples(blobs, previous.examples)
        rows = to_matrix(signature, table)
        older = open_version(blobs, previous, policy)
    except EverloopError:
        # Whatever cannot be compared counts as changed: a minor version claims less than a patch.
        return Comparison(None)
    try:
        before = older.predict(to_matrix(previous.signature, table))
    finally:
        older.close()
    after = predictor.predict(rows)
    return compare_answers(before, after)


def _blobs_beside(ask: RegisterModel) -> tuple[Digest | None, ...]:
    return ask.reference, ask.examples, ask.environment


def _require_origins(view: View, ask: RegisterModel) -> None:
    for kind, key in (
        ("run", ask.run),
        ("dataset_version", ask.dataset),
        ("dataset_version", ask.holdout),
    ):
        if key is not None:
            require_node(view, kind, key)
    for digest in _blobs_beside(ask):
        if digest is not None and view.services.blobs.size(digest) is None:
            raise NotFound(
                "blob.not_found",
                f"The bytes {digest} are not stored.",
                hint="Upload the bytes first, then name their digest.",
            )


def _link_origins(work: Work, version: ModelVersion) -> None:
    node = f"model_version:{version.id}"
    if version.run is not None:
        work.link(node, "trained_by", f"run:{version.run}")
    if version.dataset_version is not None:
        work.link(node, "trained_on", f"dataset_version:{version.dataset_version}")
    if version.holdout is not None:
        work.link(node, "held_out", f"dataset_version:{version.holdout}")
