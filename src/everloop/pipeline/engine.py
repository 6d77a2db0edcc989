"""Runs a pipeline as one run: the way in for the command line, the loop and Python programs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path

import msgspec

from everloop.core.errors import InvalidInput
from everloop.core.ids import Id
from everloop.kernel.performer import Performer
from everloop.pipeline.calls import Engine, EngineOptions
from everloop.pipeline.context import ACTIVE
from everloop.pipeline.progress import Progress, Silence, StepOutcome
from everloop.pipeline.steps import Pipeline
from everloop.track.client import RunDraft, RunPorts, start_run
from everloop.track.environment import capture_environment
from everloop.track.model import RunStatus


class PipelineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a pipeline is run.

    Attributes:
        experiment: Experiment of its run; named after the pipeline when None.
        parent: Run that it belongs to.
        tags: Tags of its run.
        use_cache: False runs every step anew; results are still kept.
        workers: Most processes at work at once; as many as processors when None.
        root: Folder of the project, for git and the lock file; the present one when None.
        ports: Spool folder and sources of time and ids.
    """

    experiment: str | None = None
    parent: str | None = None
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    use_cache: bool = True
    workers: int | None = None
    root: Path | None = None
    ports: RunPorts = msgspec.field(default_factory=RunPorts)


class PipelineResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a pipeline returned, and how each of its steps came to its result."""

    run_id: Id
    value: object
    steps: tuple[StepOutcome, ...]


def run_pipeline(
    function: Pipeline[..., object],
    arguments: Mapping[str, object],
    performer: Performer,
    *,
    options: PipelineOptions | None = None,
    progress: Progress | None = None,
) -> PipelineResult:
    """Run a pipeline as one run, taking from the cache what has not changed.

    Args:
        function: A function decorated with ``@pipeline``.
        arguments: Its arguments by name.
        performer: Where runs and results are recorded.
        options: How it is run.
        progress: Who hears of it.

    Raises:
        InvalidInput: it is no pipeline, the arguments do not fit, or a value has no canonical form.
        Unavailable: the server is away.
        Exception: whatever a step raises, with a note on the run.
    """
    options, progress = options or PipelineOptions(), progress or Silence()
    _check(function, arguments)
    root = options.root or Path.cwd()
    draft = RunDraft(
        experiment=options.experiment or function.name,
        parent=options.parent,
        pipeline=function.name,
        params={
            name: value
            for name, value in arguments.items()
            if value is None or isinstance(value, str | bool | int | float)
        },
        tags=options.tags,
        environment=capture_environment(root),
    )
    handle = start_run(performer, draft, ports=options.ports)
    engine = Engine(
        handle,
        performer,
        EngineOptions(
            use_cache=options.use_cache,
            workers=options.workers,
            root=root,
            clock=options.ports.clock,
        ),
        progress,
    )
    progress.pipeline_started(function.name, handle.id)
    status = RunStatus.FAILED
    try:
        with handle:
            value = engine.run(function, arguments)
        status = RunStatus.FINISHED
    finally:
        engine.close()
        progress.pipeline_finished(handle.id, status)
    return PipelineResult(run_id=handle.id, value=value, steps=tuple(engine.outcomes))


def _check(function: Pipeline[..., object], arguments: Mapping[str, object]) -> None:
    if not isinstance(function, Pipeline):
        raise InvalidInput(
            "pipeline.not_a_pipeline",
            f"{function!r} is not a pipeline.",
            hint="Decorate the function with @pipeline.",
        )
    if ACTIVE.get() is not None:
        raise InvalidInput(
            "pipeline.nested",
            f"Pipeline {function.name} was started inside another one or inside a step.",
            hint="Call the pipeline's function instead: its steps then belong to the outer one.",
        )
    try:
        inspect.signature(function.function).bind(**arguments)
    except TypeError as error:
        raise InvalidInput(
            "pipeline.arguments_invalid",
            f"The arguments do not fit pipeline {function.name}: {error}.",
            hint=f"It takes {inspect.signature(function.function)}.",
        ) from error
