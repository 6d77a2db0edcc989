"""Verbs over the life of runs: naming, tagging, reopening, trash and restore.

The trash only hides: a run in it keeps all it holds, and is restored with one call.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from everloop.core.clock import Instant
from everloop.core.errors import Conflict, NotFound
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition, where
from everloop.kernel.unit_of_work import View, Work
from everloop.kernel.verbs import query, verb
from everloop.track import limits
from everloop.track.fields import replace_run
from everloop.track.model import ArtifactEntry, Run, RunStatus

Text = Annotated[str, msgspec.Meta(max_length=limits.MAX_EXPERIMENT_CHARS)]
Key = Annotated[str, msgspec.Meta(max_length=limits.MAX_KEY_CHARS)]


class Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a verb here takes: no field that it does not know."""


class UpdateRun(Ask, frozen=True, kw_only=True):
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


class RunNamed(Ask, frozen=True, kw_only=True):
    """What ``run.delete`` and ``run.restore`` take."""

    run: Text


class UntagRun(Ask, frozen=True, kw_only=True):
    """What ``run.untag`` takes."""

    run: Text
    key: Key


class DropFiles(Ask, frozen=True, kw_only=True):
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
    check_tags(ask.tags)
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
    tags = without_tag(run.tags, ask.key)
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


def check_tags(tags: dict[str, str]) -> None:
    """Refuse tags that are not usable.

    Raises:
        InvalidInput: a name or value is not usable.
        LimitExceeded: ``run.too_many``.
    """
    limits.check_texts(tags, "Tag", limits.MAX_TAG_CHARS)
    limits.check_count(len(tags), limits.MAX_PARAMS_A_RUN, "tags")


def without_tag(tags: dict[str, str], key: str) -> dict[str, str]:
    """Return the tags without one.

    Raises:
        NotFound: ``tag.not_found``.
    """
    if key not in tags:
        raise NotFound(
            "tag.not_found",
            f"There is no tag {key[:60]!r}.",
            hint="Look at the tags that are set; their names are case-sensitive.",
        )
    return {name: value for name, value in tags.items() if name != key}
