"""The records of models, their immutable versions and the moves of their aliases."""

from __future__ import annotations

import msgspec

from everloop.core.clock import Instant
from everloop.core.digest import Digest
from everloop.core.ids import ActorId, Id, ProjectId
from everloop.core.manifest import FileEntry
from everloop.core.records import Record, record
from everloop.registry.signature import Signature


@record("model", unique=(("project", "name"),))
class Model(Record, frozen=True, kw_only=True):
    """A name under which versions of a model are kept.

    The row stays for ever, also when everything under it is purged: it is what keeps the numbers
    of its versions from being given to other bytes.

    Attributes:
        last_number: The highest number that a version of it ever had; numbers are never reused.
        deleted_at: When it was put into the trash; None while it is in use.
        last_version: The semantic version of that number; empty before the first.
        updated_at: When it or a version of it was changed last; None before the first change.
    """

    project: ProjectId
    name: str
    description: str
    created_at: Instant
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    owner: str = ""
    licence: str = ""
    intended_use: str = ""
    last_number: int = 0
    deleted_at: Instant | None = None
    last_version: str = ""
    updated_at: Instant | None = None


@record("retired_name", unique=(("project", "name"),))
class RetiredName(Record, frozen=True, kw_only=True):
    """A name that a model had before it was renamed; no other model's versions may bear it.

    Attributes:
        model: The model that had it.
        last_number: The highest number that was given under it.
        last_version: The semantic version of that number.
    """

    project: ProjectId
    name: str
    model: Id
    last_number: int
    last_version: str
    at: Instant


@record(
    "model_version",
    unique=(("model", "number"), ("model", "version"), ("model", "artifact")),
    index=(
        ("project", "name", "number"),
        ("project", "created_at"),
        ("run",),
        ("logged_model",),
    ),
)
class ModelVersion(Record, frozen=True, kw_only=True):
    """A model as it was registered; nothing of it ever changes but the model's name.

    What may change about it is kept in its ``VersionNotes``.

    Attributes:
        model: The model it belongs to.
        name: The model's name.
        number: Counts the versions of the model from 1.
        version: Semantic version.
        artifact: Digest over format, files and signature: what evidence and approvals bind to.
        target: Name of the column that it predicts.
        run: The run that trained it.
        dataset_version: The data it was trained on.
        holdout: Data kept from training, on which gates measure it.
        reference: Blob of the reference of its training inputs.
        examples: Blob of a Parquet table of example rows, on which the next version's predictions
            are compared with this one's.
        params: What it was trained with.
        bump: ``first``, ``major``, ``minor`` or ``patch``.
        bump_reason: Why.
        source: Where another system says that it came from, such as ``runs:/<id>/model``.
        logged_model: The logged model whose sealed files it holds.
        environment: Blob of the environment it was trained in, as a run captures it.
        waiver: Why a function that runs code of its own was let in; empty for safe formats.
        servable_as: The format in which the native file inside a ``mlflow`` folder is loaded; None
            when the version's own format says how, or when nothing here may load it.
        servable_file: Path of that file; empty without one.
    """

    project: ProjectId
    model: Id
    name: str
    number: int
    version: str
    artifact: Digest
    files: tuple[FileEntry, ...]
    format: str
    signature: Signature
    target: str
    run: Id | None
    dataset_version: Id | None
    holdout: Id | None
    reference: Digest | None
    examples: Digest | None
    params: dict[str, str]
    bump: str
    bump_reason: str
    created_at: Instant
    created_by: ActorId
    source: str = ""
    logged_model: Id | None = None
    servable_as: str | None = None
    environment: Digest | None = None
    waiver: str = ""
    servable_file: str = ""


@record(
    "version_notes",
    unique=(("version",), ("model", "number")),
    index=(("project", "updated_at"), ("project", "stage")),
)
class VersionNotes(Record, frozen=True, kw_only=True):
    """What may change about a version; made with it, one for each.

    Attributes:
        stage: MLflow's stage: ``None``, ``Staging``, ``Production`` or ``Archived``. Nothing here
            goes by it; deployments and the alias ``production`` say what answers.
        updated_by: Who changed it last.
        deleted_at: When the version was put into the trash; None while it is in use.
    """

    project: ProjectId
    model: Id
    version: Id
    number: int
    description: str = ""
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    stage: str = "None"
    updated_at: Instant
    updated_by: ActorId
    deleted_at: Instant | None = None


@record("alias_move", unique=(("model", "alias", "number"),), index=(("project", "model"),))
class AliasMove(Record, frozen=True, kw_only=True):
    """One move of an alias; the highest number tells where it points now.

    Attributes:
        version: Where it points from then on; None takes it away.
        before: Where it pointed until then.
    """

    project: ProjectId
    model: Id
    alias: str
    number: int
    version: Id | None
    before: Id | None
    who: ActorId
    when: Instant
    why: str
