"""Verbs that change runs: start, log and finish.

All three may be repeated safely. ``run.log`` also keeps a cursor per run: a batch that comes from
a spool says which bytes of it it carries, and what has already arrived is not stored again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from everloop.core.clock import Instant
from everloop.core.digest import Digest, parse_digest
from everloop.core.errors import Conflict, InvalidInput, NotFound
from everloop.core.ids import Id, is_id
from everloop.core.ports import Compare, Condition, where
from everloop.kernel.unit_of_work import Desk, View, Work
from everloop.kernel.verbs import Payload, verb
from everloop.track import columns, limits
from everloop.track.fields import insert_run, replace_run
from everloop.track.inputs import require_dataset
from everloop.track.mixed import MixedPoints, decode_mixed
from everloop.track.model import ArtifactEntry, Experiment, Run, RunCursor, RunStatus
from everloop.track.series import PreparedPoints, add_points, prepare_points, settle_points

ROWS_AT_ONCE = 500
Texts = dict[str, str]
Commit = Annotated[str, msgspec.Meta(max_length=64)]


class SpoolRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which bytes of a spool a batch carries.

    Attributes:
        spool: Id of the spool; empty for the one that the run began with. Each process that takes
            a run up again writes a spool of its own.
    """

    start: int
    end: int
    spool: Annotated[str, msgspec.Meta(max_length=40)] = ""


class Ending(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a run ends; ``ended_at`` None means now."""

    status: RunStatus = RunStatus.FINISHED
    error: str | None = None
    ended_at: Instant | None = None


class StartRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``run.start`` takes.

    Attributes:
        run: Id made by the client, so that a run can start while the server is away.
        experiment_id: Id of an experiment that exists; it goes before the name.
        name: Shown name; made from the id when empty.
        started_at: When it began, if that was before the call.
        environment: Blob with the captured environment.
        spool: The part of the run's spool that says all this; None without a spool.
    """

    run: str
    experiment: Annotated[str, msgspec.Meta(max_length=limits.MAX_EXPERIMENT_CHARS)] = (
        limits.DEFAULT_EXPERIMENT
    )
    experiment_id: str | None = None
    name: Annotated[str, msgspec.Meta(max_length=limits.MAX_NAME_CHARS)] = ""
    parent: str | None = None
    pipeline: Annotated[str, msgspec.Meta(max_length=300)] | None = None
    params: Texts = msgspec.field(default_factory=dict)
    tags: Texts = msgspec.field(default_factory=dict)
    started_at: Instant | None = None
    environment: str | None = None
    code_commit: Commit | None = None
    spool: SpoolRange | None = None


class RunStarted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``run.start``."""

    run: Id
    experiment: Id


class MetricSeries(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """New points of one metric, as a chunk in the format of ``everloop.track.columns``."""

    key: str
    data: bytes


class ArtifactFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file whose bytes were put before."""

    path: str
    digest: str
    size_bytes: int


class LogRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``run.log`` takes: one batch.

    Attributes:
        metrics: Points by metric.
        mixed: Points of several metrics in one piece.
        reads: Dataset versions that the run read, as ids or as refs such as ``credit@3``.
        spool: The part of the spool it comes from; None for a batch without a spool.
        amend: Whether it may still add to a run that has ended.
        environment: Blob with the environment, when it was captured after the start; the first
            one counts.
        code_commit: Git commit of the code, likewise.
        ending: How the run ends, in the batch that is its last.
    """

    run: str
    metrics: tuple[MetricSeries, ...] = ()
    mixed: MixedPoints | None = None
    params: Texts = msgspec.field(default_factory=dict)
    tags: Texts = msgspec.field(default_factory=dict)
    artifacts: tuple[ArtifactFile, ...] = ()
    reads: tuple[str, ...] = ()
    spool: SpoolRange | None = None
    amend: bool = False
    environment: str | None = None
    code_commit: Commit | None = None
    ending: Ending | None = None


class RunLogged(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``run.log``.

    Attributes:
        points: How many points were stored by this call.
        offset: Where the run's spool should be read on.
    """

    run: Id
    points: int
    offset: int


class FinishRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``run.finish`` takes."""

    run: str
    status: RunStatus = RunStatus.FINISHED
    error: str | None = None
    ended_at: Instant | None = None


class RunFinished(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``run.finish``."""

    run: Id
    status: RunStatus


@verb("run.start", permission="run:write")
def start_run(ask: StartRun, work: Work) -> RunStarted:
    """Begin a run, making its experiment if that is new.

    Raises:
        InvalidInput: a name, parameter or tag is not usable.
        NotFound: the parent run or the environment's blob does not exist.
        Conflict: ``run.exists`` when the id belongs to another run.
    """
    run_id = _check_start(ask, work)
    experiment = _experiment(work, ask)
    existing = work.find(Run, run_id)
    if existing is not None:
        if existing.created_by != work.caller.actor or existing.experiment != experiment.id:
            raise Conflict(
                "run.exists",
                f"There is already a run {run_id}.",
                hint="Make a new id for a new run.",
            )
        return RunStarted(run=run_id, experiment=experiment.id)
    started = min(ask.started_at or work.now, work.now)
    work.touch(f"run:{run_id}")
    insert_run(
        work,
        Run(
            id=run_id,
            project=work.project,
            experiment=experiment.id,
            name=ask.name or f"run-{run_id[-8:]}",
            status=RunStatus.RUNNING,
            started_at=started,
            parent=Id(ask.parent) if ask.parent else None,
            pipeline=ask.pipeline,
            params=ask.params,
            tags=ask.tags,
            environment=Digest(ask.environment) if ask.environment else None,
            code_commit=ask.code_commit,
            created_by=work.caller.actor,
        ),
    )
    if ask.spool is not None:
        _move_cursor(work, run_id, None, ask.spool)
    if ask.code_commit:
        work.link(f"run:{run_id}", "code", f"commit:{ask.code_commit}")
    return RunStarted(run=run_id, experiment=experiment.id)


def _check_start(ask: StartRun, work: Work) -> Id:
    if not is_id(ask.run):
        raise InvalidInput(
            "run.id_invalid",
            f"{ask.run[:60]!r} is not a run id.",
            hint="Start runs through everloop.start_run, which makes the id.",
        )
    limits.check_texts(ask.params, "Parameter", limits.MAX_PARAM_CHARS)
    limits.check_texts(ask.tags, "Tag", limits.MAX_TAG_CHARS)
    limits.check_count(len(ask.params), limits.MAX_PARAMS_A_RUN, "parameters")
    limits.check_count(len(ask.tags), limits.MAX_PARAMS_A_RUN, "tags")
    limits.check_texts(
        {"name": ask.name, "pipeline": ask.pipeline or ""}, "Run", limits.MAX_NAME_CHARS
    )
    if ask.parent is not None:
        work.get(Run, Id(ask.parent))
    if ask.environment is not None:
        _require_blob(work.services.blobs.size(parse_digest(ask.environment)), ask.environment)
    _check_commit(ask.code_commit)
    return Id(ask.run)


def _check_commit(commit: str | None) -> None:
    if commit is not None and not commit.isalnum():
        raise InvalidInput(
            "run.commit_invalid",
            f"{commit!r} is not a commit.",
            hint="Give the full hex name that `git rev-parse HEAD` prints.",
        )


def _experiment(work: Work, ask: StartRun) -> Experiment:
    if ask.experiment_id is not None:
        found: Experiment | None = work.get(Experiment, Id(ask.experiment_id))
    else:
        name = limits.check_experiment(ask.experiment)
        found = work.first(Experiment, *where(name=name))
    if found is not None and found.deleted_at is not None:
        raise Conflict(
            "experiment.deleted",
            f"Experiment {found.name[:60]!r} is in the trash.",
            hint="Restore it, or choose another name.",
        )
    return found or work.insert(
        Experiment(
            id=work.new_id(),
            project=work.project,
            name=ask.experiment,
            created_at=work.now,
            created_by=work.caller.actor,
        )
    )


def prepare_log(ask: LogRun, desk: Desk) -> PreparedPoints:
    """Decode and check the points, and store large ones as blobs, before the transaction.

    Raises:
        InvalidInput: a chunk, key or path is not usable.
        NotFound: ``blob.not_found`` for an artifact whose bytes were never put.
    """
    limits.check_texts(ask.params, "Parameter", limits.MAX_PARAM_CHARS)
    limits.check_texts(ask.tags, "Tag", limits.MAX_TAG_CHARS)
    limits.check_count(len(ask.metrics), limits.MAX_KEYS_A_RUN, "metrics in a batch")
    _check_commit(ask.code_commit)
    if ask.environment is not None:
        size = desk.services.blobs.size(parse_digest(ask.environment))
        _require_blob(size, ask.environment)
    for artifact in ask.artifacts:
        limits.check_artifact_path(artifact.path)
        size = desk.services.blobs.size(parse_digest(artifact.digest))
        _require_blob(size, artifact.digest)
        if size != artifact.size_bytes:
            raise InvalidInput(
                "run.artifact_size",
                f"Artifact {artifact.path} has {size} bytes, not {artifact.size_bytes}.",
                hint="Log the file again; it changed while it was read.",
            )
    # One after the other: a small request can name far more points than memory holds.
    decoded = (
        (limits.check_key(series.key, "Metric"), columns.decode(series.data))
        for series in ask.metrics
    )
    mixed = decode_mixed(ask.mixed) if ask.mixed is not None else None
    limits.check_count(len(mixed.keys) if mixed else 0, limits.MAX_KEYS_A_RUN, "metrics in a batch")
    return prepare_points(decoded, mixed, desk.services.blobs)


@verb("run.log", permission="run:write", prepare=prepare_log, payload=Payload.DIGEST)
def log_run(ask: LogRun, work: Work, prepared: PreparedPoints) -> RunLogged:
    """Store one batch of metrics, parameters, tags, artifacts and inputs of a run, or its end.

    A spool batch that does not begin at the run's cursor stores nothing; the answer then says
    where to read on.

    Raises:
        NotFound: ``run.not_found``, or a dataset version named does not exist.
        Conflict: ``run.ended`` or ``run.param_changed``.
        LimitExceeded: the run would hold too many parameters or metrics.
    """
    run = work.get(Run, Id(ask.run))
    work.touch(f"run:{run.id}")
    offset = 0
    if ask.spool is not None:
        cursor = work.first(RunCursor, *where(run=run.id, spool=ask.spool.spool))
        offset = cursor.offset if cursor else 0
        if ask.spool.start != offset or ask.spool.end <= offset:
            return RunLogged(run=run.id, points=0, offset=offset)
        offset = ask.spool.end
        _move_cursor(work, run.id, cursor, ask.spool)
    _require_active(run)
    if run.status in {RunStatus.FINISHED, RunStatus.FAILED} and not ask.amend:
        raise Conflict(
            "run.ended",
            f"Run {run.id} is {run.status}; it takes no more.",
            hint="Start another run, with this one as its parent if they belong together.",
        )
    add_points(work, run, prepared)
    if ask.ending is not None:
        settle_points(work, run)
    _change_run(work, run, ask)
    if ask.artifacts:
        _add_artifacts(work, run, ask.artifacts)
    for version in ask.reads:
        work.link(f"run:{run.id}", "read", require_dataset(work, version))
    return RunLogged(run=run.id, points=prepared.count, offset=offset)


def _require_active(run: Run) -> None:
    if run.deleted_at is not None:
        raise Conflict(
            "run.deleted",
            f"Run {run.id} is in the trash; it takes no more.",
            hint="Restore it first.",
        )


def _move_cursor(work: Work, run: Id, cursor: RunCursor | None, arrived: SpoolRange) -> None:
    if cursor is None:
        work.insert(
            RunCursor(
                id=work.new_id(),
                project=work.project,
                run=run,
                spool=arrived.spool,
                offset=arrived.end,
                at=work.now,
            )
        )
    else:
        work.replace(msgspec.structs.replace(cursor, offset=arrived.end, at=work.now))


def _change_run(work: Work, run: Run, ask: LogRun) -> None:
    """Write what the batch says of the run itself, with one change of its row."""
    for key, value in ask.params.items():
        if run.params.get(key, value) != value:
            raise Conflict(
                "run.param_changed",
                f"Parameter {key[:60]!r} of run {run.id} is already set to another value.",
                hint="A parameter is set once; log what changes as a metric or a tag.",
            )
    params, tags = run.params | ask.params, run.tags | ask.tags
    limits.check_count(len(params), limits.MAX_PARAMS_A_RUN, "parameters")
    limits.check_count(len(tags), limits.MAX_PARAMS_A_RUN, "tags")
    changed = msgspec.structs.replace(run, params=params, tags=tags)
    if ask.environment is not None and run.environment is None:
        changed = msgspec.structs.replace(changed, environment=Digest(ask.environment))
    if ask.code_commit is not None and run.code_commit is None:
        changed = msgspec.structs.replace(changed, code_commit=ask.code_commit)
        work.link(f"run:{run.id}", "code", f"commit:{ask.code_commit}")
    if ask.ending is not None:
        changed = _ended(changed, ask.ending, work.now)
    if changed != run:
        replace_run(work, run, changed)


def _add_artifacts(work: Work, run: Run, artifacts: Sequence[ArtifactFile]) -> None:
    latest = {artifact.path: artifact for artifact in artifacts}
    known = _entries(work, run, tuple(latest))
    for path, artifact in latest.items():
        found, digest = known.get(path), Digest(artifact.digest)
        if found is None:
            work.insert(
                ArtifactEntry(
                    id=work.new_id(),
                    project=work.project,
                    run=run.id,
                    path=path,
                    digest=digest,
                    size_bytes=artifact.size_bytes,
                )
            )
        elif found.digest != digest:
            size = artifact.size_bytes
            work.replace(msgspec.structs.replace(found, digest=digest, size_bytes=size))
    work.link(f"run:{run.id}", "wrote", *(f"blob:{artifact.digest}" for artifact in artifacts))


def _entries(view: View, run: Run, paths: tuple[str, ...]) -> dict[str, ArtifactEntry]:
    found: dict[str, ArtifactEntry] = {}
    for first in range(0, len(paths), ROWS_AT_ONCE):
        group = Condition("path", Compare.IN, paths[first : first + ROWS_AT_ONCE])
        found |= {row.path: row for row in view.select(ArtifactEntry, *where(run=run.id), group)}
    return found


@verb("run.finish", permission="run:write")
def finish_run(ask: FinishRun, work: Work) -> RunFinished:
    """End a run; ending it again in the same way changes nothing.

    A run that was given up as killed may still end in another way when its process comes back.

    Raises:
        NotFound: ``run.not_found``.
        InvalidInput: ``run.status_invalid`` for the status running.
        Conflict: ``run.ended`` when it ended in another way.
    """
    run = work.get(Run, Id(ask.run))
    ending = Ending(status=ask.status, error=ask.error, ended_at=ask.ended_at)
    changed = _ended(run, ending, work.now)
    if changed != run:
        work.touch(f"run:{run.id}")
        settle_points(work, run)
        work.replace(changed)
    return RunFinished(run=run.id, status=ask.status)


def _ended(run: Run, ending: Ending, now: Instant) -> Run:
    """Return the run as it is after its end.

    Raises:
        InvalidInput: ``run.status_invalid`` for the status running.
        Conflict: ``run.ended`` when it ended in another way.
    """
    if ending.status is RunStatus.RUNNING:
        raise InvalidInput(
            "run.status_invalid",
            "A run cannot end as running.",
            hint="Use finished, failed or killed.",
        )
    if run.status is ending.status:
        return run
    if run.status not in {RunStatus.RUNNING, RunStatus.KILLED}:
        raise Conflict(
            "run.ended",
            f"Run {run.id} is already {run.status}.",
            hint="Look at it with `everloop runs show`; start another run for another try.",
        )
    return msgspec.structs.replace(
        run,
        status=ending.status,
        ended_at=max(min(ending.ended_at or now, now), run.started_at),
        error=None if ending.error is None else ending.error[: limits.MAX_ERROR_CHARS],
    )


def _require_blob(size: int | None, digest: str) -> None:
    if size is None:
        raise NotFound(
            "blob.not_found",
            f"There are no bytes under {digest}.",
            hint="Put the bytes before naming them.",
        )
