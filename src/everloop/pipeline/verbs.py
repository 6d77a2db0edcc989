"""The verb that records finished steps."""

from __future__ import annotations

import msgspec

from everloop.core.clock import Instant
from everloop.core.digest import parse_digest
from everloop.core.errors import Conflict, InvalidInput
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.kernel.nodes import require_node
from everloop.kernel.unit_of_work import Desk, Work
from everloop.kernel.verbs import verb
from everloop.pipeline.model import StepRun, StepStatus
from everloop.track.limits import MAX_ERROR_CHARS, check_count
from everloop.track.model import Run, RunStatus

MAX_STEPS_A_BATCH = 1_000
MAX_NAME_CHARS = 300
MAX_PARTS = 5_000
RESULT = "return"


class FinishedStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One finished step, as the engine reports it; see ``StepRun`` for the fields.

    Attributes:
        follows: Numbers of the steps of the same run whose results it took.
        reads: Ids of dataset versions among its arguments.
        writes: Ids of dataset versions in its result.
    """

    number: int
    name: str
    status: StepStatus
    key: str | None
    inputs: dict[str, str]
    outputs: dict[str, str]
    cached_from: str | None = None
    key_parts: dict[str, str] = msgspec.field(default_factory=dict)
    why: str = ""
    started_at: Instant
    ended_at: Instant
    seconds: float
    attempts: int = 1
    error: str | None = None
    follows: tuple[int, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


class RecordSteps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``step.record`` takes."""

    run: str
    steps: tuple[FinishedStep, ...]


class StepsRecorded(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``step.record``: ids in the order of the steps given."""

    ids: tuple[Id, ...]


def check_steps(ask: RecordSteps, desk: Desk) -> frozenset[str]:
    """Check what steps claim before the transaction; return the inputs whose bytes are kept.

    Raises:
        InvalidInput: ``step.invalid`` or ``digest.invalid``.
        LimitExceeded: ``run.too_many``.
    """
    check_count(len(ask.steps), MAX_STEPS_A_BATCH, "steps in a batch")
    kept = set()
    for step in ask.steps:
        problem = _problem(step)
        if problem:
            raise InvalidInput(
                "step.invalid",
                f"Step {step.name[:80]!r} cannot be recorded: {problem}.",
                hint="Record steps through the pipeline engine.",
            )
        check_count(len(step.key_parts), MAX_PARTS, "key parts")
        for digest in step.outputs.values():
            parse_digest(digest)
        for digest in step.inputs.values():
            if desk.services.blobs.size(parse_digest(digest)) is not None:
                kept.add(digest)
        result = step.outputs.get(RESULT)
        if result is not None and desk.services.blobs.size(parse_digest(result)) is None:
            raise InvalidInput(
                "step.result_missing",
                f"The result of step {step.name[:80]!r} was never put.",
                hint="Put the result's bytes before recording the step.",
            )
    return frozenset(kept)


def _problem(step: FinishedStep) -> str | None:
    if not 0 < len(step.name) <= MAX_NAME_CHARS:
        return "its name is empty or too long"
    if step.number < 0 or step.attempts < 0 or not 0 <= step.seconds < 1e12:
        return "its number, attempts or seconds are out of range"
    if step.status is StepStatus.FAILED and step.outputs:
        return "a failed step has no result"
    if step.status is not StepStatus.FAILED and RESULT not in step.outputs:
        return "it has no result"
    if (step.status is StepStatus.HIT) != (step.cached_from is not None):
        return "a hit, and only a hit, names the step run that it was taken from"
    return None


@verb("step.record", permission="run:write", prepare=check_steps)
def record_steps(ask: RecordSteps, work: Work, kept: frozenset[str]) -> StepsRecorded:
    """Record finished steps of a run with their lineage.

    Raises:
        NotFound: the run, a step run or a dataset version named does not exist.
        Conflict: ``run.ended``, ``step.cache_forged`` or ``record.exists`` for a number taken.
    """
    run = work.get(Run, Id(ask.run))
    if run.status is not RunStatus.RUNNING:
        raise Conflict(
            "run.ended",
            f"Run {run.id} is {run.status}; it takes no more steps.",
            hint="Run the pipeline again; finished steps come from the cache.",
        )
    return StepsRecorded(ids=tuple(_record(work, run, step, kept) for step in ask.steps))


def _record(work: Work, run: Run, step: FinishedStep, kept: frozenset[str]) -> Id:
    if step.cached_from is not None:
        _require_origin(work, step)
    row = work.insert(
        StepRun(
            id=work.new_id(),
            project=work.project,
            run=run.id,
            number=step.number,
            name=step.name,
            status=step.status,
            key=step.key,
            inputs=step.inputs,
            outputs=step.outputs,
            cached_from=Id(step.cached_from) if step.cached_from else None,
            key_parts=step.key_parts,
            why=step.why[:MAX_ERROR_CHARS],
            started_at=step.started_at,
            ended_at=step.ended_at,
            seconds=step.seconds,
            attempts=step.attempts,
            error=None if step.error is None else step.error[:MAX_ERROR_CHARS],
        )
    )
    work.touch(f"run:{run.id}", f"step_run:{row.id}")
    # Only what has bytes becomes a node, so that every digest in the lineage can be verified.
    for digest in dict.fromkeys(row.inputs.values()):
        if digest in kept:
            work.link(f"step_run:{row.id}", "read", f"blob:{digest}")
    _link(work, run, row, step)
    return row.id


def _require_origin(work: Work, step: FinishedStep) -> None:
    origin = work.get(StepRun, Id(step.cached_from or ""))
    if origin.key != step.key or origin.outputs != step.outputs or step.key is None:
        raise Conflict(
            "step.cache_forged",
            f"Step {step.name[:80]!r} does not have the result of the step run it names.",
            hint="A hit has the same key and the same result as the run it was taken from.",
        )


def _link(work: Work, run: Run, row: StepRun, step: FinishedStep) -> None:
    node = f"step_run:{row.id}"
    work.link(f"run:{run.id}", "executed", node)
    if RESULT in row.outputs:
        work.link(node, "wrote", f"blob:{row.outputs[RESULT]}")
    if row.cached_from is not None:
        work.link(node, "cached_from", f"step_run:{row.cached_from}")
    for version in dict.fromkeys(step.reads):
        dataset = require_node(work, "dataset_version", version)
        work.link(node, "read", dataset)
        work.link(f"run:{run.id}", "read", dataset)
    for version in dict.fromkeys(step.writes):
        work.link(node, "wrote", require_node(work, "dataset_version", version))
    for number in dict.fromkeys(step.follows):
        producer = work.first(StepRun, *where(run=run.id, number=number))
        if producer is not None and producer.id != row.id:
            work.link(node, "followed", f"step_run:{producer.id}")
