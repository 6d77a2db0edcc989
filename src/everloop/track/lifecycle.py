"""Verbs over the life of runs and experiments: naming, tagging, reopening, trash and restore.

The trash only hides: a thing in it keeps all it holds, and is restored with one call. Runs that
go to the trash with their experiment come back with it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from everloop.core.clock import Instant
from everloop.core.errors import Conflict, InvalidInput, NotFound
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition, where
from everloop.kernel.unit_of_work import View, Work
from everloop.kernel.verbs import query, verb
from everloop.track import limits
from everloop.track.fields import replace_run
from everloop.track.model import ArtifactEntry, Experiment, Run, RunStatus

Text = Annotated[str, msgspec.Meta(max_length=limits.MAX_EXPERIMENT_CHARS)]
Key = Annotated[str, msgspec.Meta(max_length=limits.MAX_KEY_CHARS)]


class _Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ShowExperiment(_Ask, frozen=True, kw_only=True):
    """What ``experiment.show`` takes: an id, or a name."""

    experiment: Text | None = None
    name: Text | None = None


class ExperimentShown(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of the verbs over one experiment: its state after the call."""

    experiment: Experiment


class CreateExperiment(_Ask, frozen=True, kw_only=True):
    """What ``experiment.create`` takes."""

    name: str
    tags: dict[str, str] = msgspec.field(default_factory=dict)


class UpdateExperiment(_Ask, frozen=True, kw_only=True):
    """What ``experiment.update`` takes: the new name."""

    experiment: Text
    name: str


class ExperimentNamed(_Ask, frozen=True, kw_only=True):
    """What ``experiment.delete`` and ``experiment.restore`` take: the experiment's id."""

    experiment: Text


class TagExperiment(_Ask, frozen=True, kw_only=True):
    """What ``experiment.tag`` takes: tags to set, the others stay."""

    experiment: Text
    tags: dict[str, str]


class UntagExperiment(_Ask, frozen=True, kw_only=True):
    """What ``experiment.untag`` takes."""

    experiment: Text
    key: Key


class UpdateRun(_Ask, frozen=True, kw_only=True):
    """What ``run.update`` takes; what is left out stays.

    Attributes:
        status: ``running`` opens an ended run again.
        ended_at: When it ended; now, for a status that ends it, when left out.
    """

    run: Text
    name: str | None = None
    status: RunStatus | None = None
    ended_at: Instant | None = None
    tags: dict[str, str] = msgspec.field(default_factory=dict)


class RunNamed(_Ask, frozen=True, kw_only=True):
    """What ``run.delete`` and ``run.restore`` take."""

    run: Text


class UntagRun(_Ask, frozen=True, kw_only=True):
    """What ``run.untag`` takes."""

    run: Text
    key: Key


class DropFiles(_Ask, frozen=True, kw_only=True):
    """What ``run.drop_files`` takes: a file's path, a folder's, or nothing for all files."""

    run: Text
    path: Text = ""


class FilesDropped(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``run.drop_files``."""

    run: Id
    files: int


class RunShown(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of the verbs over one run: its state after the call."""

    run: Run


@query("experiment.show", permission="run:read")
def show_experiment(ask: ShowExperiment, view: View) -> ExperimentShown:
    """Show one experiment by its id or its name, also when it is in the trash.

    Raises:
        NotFound: ``experiment.not_found``.
        InvalidInput: ``experiment.unnamed`` without id and name.
    """
    if ask.experiment is not None:
        return ExperimentShown(experiment=view.get(Experiment, Id(ask.experiment)))
    if ask.name is None:
        raise InvalidInput(
            "experiment.unnamed",
            "Neither an id nor a name was given.",
            hint="Give one of them; `experiment.search` lists both.",
        )
    found = view.first(Experiment, *where(name=ask.name))
    if found is None:
        raise NotFound(
            "experiment.not_found",
            f"There is no experiment {ask.name[:60]!r}.",
            hint="See them on the page of experiments, or ask `experiment.search`.",
        )
    return ExperimentShown(experiment=found)


@verb("experiment.create", permission="run:write")
def create_experiment(ask: CreateExperiment, work: Work) -> ExperimentShown:
    """Make an experiment; ``run.start`` also makes one that is named there first.

    Raises:
        Conflict: ``experiment.exists``, also for one in the trash.
        InvalidInput: the name or a tag is not usable.
    """
    name = limits.check_experiment(ask.name)
    _check_tags(ask.tags)
    _require_free(work, name)
    made = work.insert(
        Experiment(
            id=work.new_id(),
            project=work.project,
            name=name,
            created_at=work.now,
            created_by=work.caller.actor,
            tags=ask.tags,
        )
    )
    work.touch(f"experiment:{made.id}")
    return ExperimentShown(experiment=made)


@verb("experiment.update", permission="run:write")
def update_experiment(ask: UpdateExperiment, work: Work) -> ExperimentShown:
    """Rename an experiment; its runs stay with it.

    Raises:
        NotFound: ``experiment.not_found``.
        Conflict: ``experiment.exists`` or ``experiment.deleted``.
        InvalidInput: ``experiment.name_invalid``.
    """
    found = _active_experiment(work, ask.experiment)
    name = limits.check_experiment(ask.name)
    if name == found.name:
        return ExperimentShown(experiment=found)
    _require_free(work, name)
    return _change(work, found, name=name)


@verb("experiment.tag", permission="run:write")
def tag_experiment(ask: TagExperiment, work: Work) -> ExperimentShown:
    """Set tags of an experiment.

    Raises:
        NotFound: ``experiment.not_found``.
        Conflict: ``experiment.deleted``.
        InvalidInput: a tag is not usable.
        LimitExceeded: ``run.too_many`` tags.
    """
    found = _active_experiment(work, ask.experiment)
    _check_tags(ask.tags)
    tags = found.tags | ask.tags
    limits.check_count(len(tags), limits.MAX_PARAMS_A_RUN, "tags")
    if tags == found.tags:
        return ExperimentShown(experiment=found)
    return _change(work, found, tags=tags)


@verb("experiment.untag", permission="run:write")
def untag_experiment(ask: UntagExperiment, work: Work) -> ExperimentShown:
    """Take a tag from an experiment.

    Raises:
        NotFound: ``experiment.not_found`` or ``tag.not_found``.
        Conflict: ``experiment.deleted``.
    """
    found = _active_experiment(work, ask.experiment)
    return _change(work, found, tags=_without(found.tags, ask.key))


@verb("experiment.delete", permission="run:write")
def delete_experiment(ask: ExperimentNamed, work: Work) -> ExperimentShown:
    """Put an experiment and all its runs into the trash.

    Raises:
        NotFound: ``experiment.not_found``.
        Conflict: ``experiment.deleted`` when it is there already.
    """
    found = _active_experiment(work, ask.experiment)
    for run in work.select(Run, *where(experiment=found.id, deleted_at=None)):
        work.replace(msgspec.structs.replace(run, deleted_at=work.now))
    return _change(work, found, deleted_at=work.now)


@verb("experiment.restore", permission="run:write")
def restore_experiment(ask: ExperimentNamed, work: Work) -> ExperimentShown:
    """Take an experiment out of the trash, with all its runs.

    Raises:
        NotFound: ``experiment.not_found``.
        Conflict: ``experiment.active`` when it is not in the trash.
    """
    found = work.get(Experiment, Id(ask.experiment))
    if found.deleted_at is None:
        raise Conflict(
            "experiment.active",
            f"Experiment {found.name[:60]!r} is not in the trash.",
            hint="There is nothing to restore.",
        )
    for run in work.select(Run, *where(experiment=found.id)):
        if run.deleted_at is not None:
            work.replace(msgspec.structs.replace(run, deleted_at=None))
    return _change(work, found, deleted_at=None)


@query("run.may_log", permission="run:write")
def may_log(ask: RunNamed, view: View) -> RunShown:
    """Tell a caller who may log to a run that it takes more, before large bytes are sent.

    Raises:
        NotFound: ``run.not_found``.
        Conflict: ``run.deleted``.
    """
    return RunShown(run=_active_run(view, ask.run))


@verb("run.update", permission="run:write")
def update_run(ask: UpdateRun, work: Work) -> RunShown:
    """Change a run's name, tags or status; ``running`` opens an ended run again.

    Raises:
        NotFound: ``run.not_found``.
        Conflict: ``run.deleted``.
        InvalidInput: ``run.name_invalid``, or a tag is not usable.
    """
    run = _active_run(work, ask.run)
    _check_tags(ask.tags)
    changed: dict[str, object] = {}
    if ask.name is not None:
        changed["name"] = limits.check_run_name(ask.name)
    if ask.tags:
        changed["tags"] = run.tags | ask.tags
    if ask.status is RunStatus.RUNNING:
        changed |= {"status": ask.status, "ended_at": None, "error": None}
    elif ask.status is not None:
        changed |= {"status": ask.status, "ended_at": ask.ended_at or run.ended_at or work.now}
    elif ask.ended_at is not None:
        changed["ended_at"] = ask.ended_at
    if all(getattr(run, field) == value for field, value in changed.items()):
        return RunShown(run=run)
    work.touch(f"run:{run.id}")
    return RunShown(run=replace_run(work, run, msgspec.structs.replace(run, **changed)))


@verb("run.untag", permission="run:write")
def untag_run(ask: UntagRun, work: Work) -> RunShown:
    """Take a tag from a run.

    Raises:
        NotFound: ``run.not_found`` or ``tag.not_found``.
        Conflict: ``run.deleted``.
    """
    run = _active_run(work, ask.run)
    tags = _without(run.tags, ask.key)
    work.touch(f"run:{run.id}")
    return RunShown(run=replace_run(work, run, msgspec.structs.replace(run, tags=tags)))


@verb("run.drop_files", permission="run:write")
def drop_files(ask: DropFiles, work: Work) -> FilesDropped:
    """Let a run forget a file or a folder; the bytes stay until they are purged.

    Raises:
        NotFound: ``run.not_found``, or ``artifact.not_found`` when nothing lies there.
        Conflict: ``run.deleted``.
    """
    run = _active_run(work, ask.run)
    own = where(run=run.id)
    found = [
        *work.select(ArtifactEntry, *own, *where(path=ask.path)),
        *work.select(ArtifactEntry, *own, *_within(ask.path)),
    ]
    if not found and ask.path:
        raise NotFound(
            "artifact.not_found",
            f"Run {run.id} kept no file {ask.path[:80]!r}.",
            hint="List its files; paths are exact.",
        )
    if found:
        work.touch(f"run:{run.id}")
    for entry in found:
        work.delete(entry)
    return FilesDropped(run=run.id, files=len(found))


def _within(path: str) -> tuple[Condition, ...]:
    return (Condition("path", Compare.PREFIX, f"{path}/"),) if path else ()


@verb("run.delete", permission="run:write")
def delete_run(ask: RunNamed, work: Work) -> RunShown:
    """Put a run into the trash; repeating it changes nothing.

    Raises:
        NotFound: ``run.not_found``.
    """
    return _set_deleted(work, ask.run, work.now)


@verb("run.restore", permission="run:write")
def restore_run(ask: RunNamed, work: Work) -> RunShown:
    """Take a run out of the trash; repeating it changes nothing.

    Raises:
        NotFound: ``run.not_found``.
    """
    return _set_deleted(work, ask.run, None)


def _set_deleted(work: Work, run_id: str, at: Instant | None) -> RunShown:
    run = work.get(Run, Id(run_id))
    if (run.deleted_at is None) == (at is None):
        return RunShown(run=run)
    work.touch(f"run:{run.id}")
    return RunShown(run=work.replace(msgspec.structs.replace(run, deleted_at=at)))


def _active_run(view: View, run_id: str) -> Run:
    run = view.get(Run, Id(run_id))
    if run.deleted_at is not None:
        raise Conflict(
            "run.deleted",
            f"Run {run.id} is in the trash; it can't be changed there.",
            hint="Restore it first.",
        )
    return run


def _active_experiment(work: Work, experiment: str) -> Experiment:
    found = work.get(Experiment, Id(experiment))
    if found.deleted_at is not None:
        raise Conflict(
            "experiment.deleted",
            f"Experiment {found.name[:60]!r} is in the trash.",
            hint="Restore it first.",
        )
    return found


def _require_free(work: Work, name: str) -> None:
    taken = work.first(Experiment, *where(name=name))
    if taken is None:
        return
    raise Conflict(
        "experiment.exists",
        f"There is already an experiment {name[:60]!r}"
        f"{' in the trash' if taken.deleted_at else ''}.",
        hint="Restore it, or choose another name." if taken.deleted_at else "Choose another name.",
    )


def _change(work: Work, found: Experiment, **changed: object) -> ExperimentShown:
    work.touch(f"experiment:{found.id}")
    fresh = msgspec.structs.replace(found, updated_at=work.now, **changed)
    return ExperimentShown(experiment=work.replace(fresh))


def _check_tags(tags: dict[str, str]) -> None:
    limits.check_texts(tags, "Tag", limits.MAX_TAG_CHARS)
    limits.check_count(len(tags), limits.MAX_PARAMS_A_RUN, "tags")


def _without(tags: dict[str, str], key: str) -> dict[str, str]:
    if key not in tags:
        raise NotFound(
            "tag.not_found",
            f"There is no tag {key[:60]!r}.",
            hint="Look at the tags that are set; their names are case-sensitive.",
        )
    return {name: value for name, value in tags.items() if name != key}
