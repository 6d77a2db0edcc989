"""The record of pipelines: one row for each step that ran, was found in the cache, or failed."""

from __future__ import annotations

from enum import StrEnum

from everloop.core.clock import Instant
from everloop.core.ids import Id, ProjectId
from everloop.core.records import Record, record


class StepStatus(StrEnum):
    """How a step came to its result."""

    RAN = "ran"
    HIT = "hit"
    FAILED = "failed"


@record(
    "step_run",
    unique=(("run", "number"),),
    # With the id, so that the newest of thousands is found without sorting them.
    index=(("project", "key", "id"), ("project", "name", "id")),
)
class StepRun(Record, frozen=True, kw_only=True):
    """One step of one run.

    Attributes:
        number: Its place in the run, from 0.
        name: ``module:function``.
        key: Digest of everything that the result depends on; None when it cannot be cached.
        inputs: Digest of each argument.
        outputs: Digest of the result under ``return``, and of its parts.
        cached_from: The step run whose result was taken, for a hit.
        key_parts: What the key was made of, part by part.
        why: Why it ran, was a hit or could not be cached.
        seconds: How long it took; for a hit, how long finding it took.
    """

    project: ProjectId
    run: Id
    number: int
    name: str
    status: StepStatus
    key: str | None
    inputs: dict[str, str]
    outputs: dict[str, str]
    cached_from: Id | None
    key_parts: dict[str, str]
    why: str
    started_at: Instant
    ended_at: Instant
    seconds: float
    attempts: int
    error: str | None
