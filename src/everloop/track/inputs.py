"""What a run read and made, in another tracker's words: named data with a digest, logged models.

Data that such a client names is only named: its digest is the client's. Where the name or the
source says ``name@number`` of a dataset version of ours, the run is linked to that version.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from everloop.core.errors import Conflict, NotFound
from everloop.core.ids import Id, ProjectId, is_id
from everloop.core.ports import where
from everloop.core.records import Record, declared_kinds, record
from everloop.kernel.nodes import require_node
from everloop.kernel.unit_of_work import View, Work
from everloop.kernel.verbs import verb
from everloop.track import limits
from everloop.track.model import Run

MAX_INPUTS = 1_000
MAX_LONG_CHARS = 1_048_576
Name = Annotated[str, msgspec.Meta(max_length=500)]
Long = Annotated[str, msgspec.Meta(max_length=MAX_LONG_CHARS)]
_OURS = re.compile(r"(?<![\w.@-])([A-Za-z0-9][A-Za-z0-9._-]{0,99})@([1-9][0-9]{0,8})(?![\w@])")
CONTEXT = "mlflow.data.context"
READ = "read"
MADE = "made"


@record("run_input", unique=(("run", "name", "digest"),))
class RunInput(Record, frozen=True, kw_only=True):
    """Data that a run read, as its client named it.

    Attributes:
        digest: The client's, of a sample often; never one of ours.
        schema: As the client wrote it, JSON mostly.
        context: What the run read it for, of the tag that MLflow keeps it in; for search.
    """

    project: ProjectId
    run: Id
    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None
    tags: dict[str, str]
    context: str | None = None


@record("run_model", unique=(("run", "role", "model"),), index=(("model",),))
class RunModel(Record, frozen=True, kw_only=True):
    """A logged model that a run read or made.

    Attributes:
        role: ``read`` or ``made``.
        model: The model's id, as its client writes it.
        step: At which step it was made.
    """

    project: ProjectId
    run: Id
    role: str
    model: str
    step: int = 0


class NamedData(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Data as a client names it."""

    name: Name
    digest: Name
    source_type: Name = ""
    source: Long = ""
    schema: Long | None = None
    profile: Long | None = None
    tags: dict[str, str] = msgspec.field(default_factory=dict)


class NamedModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A logged model by its id."""

    model: Name
    step: int = 0


class AddInputs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``run.add_inputs`` takes."""

    run: Name
    data: Annotated[tuple[NamedData, ...], msgspec.Meta(max_length=MAX_INPUTS)] = ()
    models: Annotated[tuple[NamedModel, ...], msgspec.Meta(max_length=MAX_INPUTS)] = ()


class AddOutputs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``run.add_outputs`` takes."""

    run: Name
    models: Annotated[tuple[NamedModel, ...], msgspec.Meta(max_length=MAX_INPUTS)]


class RunExtended(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``run.add_inputs`` and ``run.add_outputs``: how many were new."""

    run: Id
    added: int


@verb("run.add_inputs", permission="run:write")
def add_inputs(ask: AddInputs, work: Work) -> RunExtended:
    """Write down what a run read; what is written already stays as it is.

    Raises:
        NotFound: ``run.not_found``.
        Conflict: ``run.deleted``.
        InvalidInput: a tag is not usable.
    """
    run = _active(work, ask.run)
    added = 0
    for data in ask.data:
        limits.check_texts(data.tags, "Tag", limits.MAX_TAG_CHARS)
        if work.first(RunInput, *where(run=run.id, name=data.name, digest=data.digest)) is None:
            work.insert(
                RunInput(
                    id=work.new_id(),
                    project=work.project,
                    run=run.id,
                    name=data.name,
                    digest=data.digest,
                    source_type=data.source_type,
                    source=data.source,
                    schema=data.schema,
                    profile=data.profile,
                    tags=data.tags,
                    context=data.tags.get(CONTEXT),
                )
            )
            added += 1
        for node in _ours(work, data):
            work.link(f"run:{run.id}", "read", node)
    return RunExtended(run=run.id, added=added + _add_models(work, run, READ, ask.models))


@verb("run.add_outputs", permission="run:write")
def add_outputs(ask: AddOutputs, work: Work) -> RunExtended:
    """Write down which logged models a run made.

    Raises:
        NotFound: ``run.not_found``.
        Conflict: ``run.deleted``.
    """
    run = _active(work, ask.run)
    return RunExtended(run=run.id, added=_add_models(work, run, MADE, ask.models))


def _active(work: Work, key: str) -> Run:
    run = work.get(Run, Id(key))
    if run.deleted_at is not None:
        raise Conflict(
            "run.deleted",
            f"Run {run.id} is in the trash; it can't be changed there.",
            hint="Restore it first.",
        )
    work.touch(f"run:{run.id}")
    return run


def _add_models(work: Work, run: Run, role: str, models: tuple[NamedModel, ...]) -> int:
    added = 0
    for named in models:
        if work.first(RunModel, *where(run=run.id, role=role, model=named.model)) is None:
            work.insert(
                RunModel(
                    id=work.new_id(),
                    project=work.project,
                    run=run.id,
                    role=role,
                    model=named.model,
                    step=named.step,
                )
            )
            added += 1
    return added


def require_dataset(view: View, text: str) -> str:
    """Return the node of a dataset version given by id, or by name and number (``credit@3``).

    Raises:
        InvalidInput: ``ref.invalid``.
        NotFound: ``dataset_version.not_found``.
    """
    bare = text.removeprefix("dataset_version:")
    if is_id(bare):
        return require_node(view, "dataset_version", bare)
    name, number = limits.read_dataset_ref(text)
    kind = declared_kinds().get("dataset_version")
    found = view.first(kind.type, *where(name=name, number=number)) if kind else None
    if found is None:
        raise NotFound(
            "dataset_version.not_found",
            f"There is no dataset version {text[:80]!r}.",
            hint=f"List them with `everloop data versions {name}`.",
        )
    return f"dataset_version:{found.id}"


def _ours(view: View, data: NamedData) -> list[str]:
    """Return the nodes of our dataset versions that the client's words name."""
    kind = declared_kinds().get("dataset_version")
    if kind is None:
        return []
    nodes = []
    for name, number in dict.fromkeys(_OURS.findall(f"{data.name} {data.source[:4_000]}")):
        version = view.first(kind.type, *where(name=name, number=int(number)))
        if version is not None:
            nodes.append(f"dataset_version:{version.id}")
    return nodes
