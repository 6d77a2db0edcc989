"""Verbs over experiments: making, naming, tagging, trash and restore.

The trash only hides: an experiment in it keeps all it holds, and is restored with one call. Runs
that go to the trash with it come back with it.
"""

from __future__ import annotations

import msgspec

from everloop.core.errors import Conflict, InvalidInput, NotFound
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.kernel.unit_of_work import View, Work
from everloop.kernel.verbs import query, verb
from everloop.track import limits
from everloop.track.lifecycle import Ask, Key, Text, check_tags, without_tag
from everloop.track.model import Experiment, Run


class ShowExperiment(Ask, frozen=True, kw_only=True):
    """What ``experiment.show`` takes: an id, or a name."""

    experiment: Text | None = None
    name: Text | None = None


class ExperimentShown(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of the verbs over one experiment: its state after the call."""

    experiment: Experiment


class CreateExperiment(Ask, frozen=True, kw_only=True):
    """What ``experiment.create`` takes."""

    name: str
    tags: dict[str, str] = msgspec.field(default_factory=dict)


class UpdateExperiment(Ask, frozen=True, kw_only=True):
    """What ``experiment.update`` takes: the new name."""

    experiment: Text
    name: str


class ExperimentNamed(Ask, frozen=True, kw_only=True):
    """What ``experiment.delete`` and ``experiment.restore`` take: the experiment's id."""

    experiment: Text


class TagExperiment(Ask, frozen=True, kw_only=True):
    """What ``experiment.tag`` takes: tags to set, the others stay."""

    experiment: Text
    tags: dict[str, str]


class UntagExperiment(Ask, frozen=True, kw_only=True):
    """What ``experiment.untag`` takes."""

    experiment: Text
    key: Key


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
    check_tags(ask.tags)
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
    check_tags(ask.tags)
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
    return _change(work, found, tags=without_tag(found.tags, ask.key))


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
