"""How a pipeline tells what it is doing; the command line shows it, tests note it down."""

from __future__ import annotations

from typing import Protocol

import msgspec

from everloop.core.ids import Id
from everloop.pipeline.model import StepStatus
from everloop.track.model import RunStatus


class StepOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How one step ended.

    Attributes:
        why: Why it ran instead of being taken from the cache, or that it was.
    """

    number: int
    name: str
    status: StepStatus
    seconds: float
    key: str | None
    why: str


class Progress(Protocol):
    """Hears what a pipeline does.

    Contract: called in the pipeline's thread, in order; ``step_finished`` follows every
    ``step_started`` unless the process dies; what it raises ends the pipeline.
    """

    def pipeline_started(self, name: str, run: Id) -> None:
        """Hear that the pipeline began."""
        ...

    def step_started(self, number: int, name: str, why: str) -> None:
        """Hear that a step began to run, and why it was not taken from the cache."""
        ...

    def step_finished(self, outcome: StepOutcome) -> None:
        """Hear how a step ended."""
        ...

    def pipeline_finished(self, run: Id, status: RunStatus) -> None:
        """Hear how the pipeline ended."""
        ...


class Silence:
    """Progress that nobody watches."""

    def pipeline_started(self, name: str, run: Id) -> None:
        """Do nothing."""

    def step_started(self, number: int, name: str, why: str) -> None:
        """Do nothing."""

    def step_finished(self, outcome: StepOutcome) -> None:
        """Do nothing."""

    def pipeline_finished(self, run: Id, status: RunStatus) -> None:
        """Do nothing."""
