"""Runs a pipeline: each step call is looked up in the cache, run if need be, and recorded."""

from __future__ import annotations

import inspect
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, TypedDict, Unpack

import msgspec

from everloop.core.clock import Clock, Instant
from everloop.core.digest import parse_digest
from everloop.core.errors import EverloopError, InvalidInput
from everloop.kernel.performer import Performer
from everloop.pipeline.codecs import DatasetRef, Encoded, FileRef, encode
from everloop.pipeline.context import (
    ACTIVE,
    Active,
    Arguments,
    FutureResult,
    Named,
    StepLog,
    replay,
)
from everloop.pipeline.decoding import decode
from everloop.pipeline.fingerprint import (
    Fingerprint,
    explain,
    fingerprint,
    read_surroundings,
    source_digest,
    step_name,
)
from everloop.pipeline.futures import StepFuture, settle
from everloop.pipeline.model import StepRun, StepStatus
from everloop.pipeline.pool import WorkerPool, to_exception
from everloop.pipeline.progress import Progress, StepOutcome
from everloop.pipeline.queries import FindStep, StepFound
from everloop.pipeline.steps import Pipeline, Step
from everloop.pipeline.trail import Trail, part_digests
from everloop.pipeline.verbs import RESULT, FinishedStep, RecordSteps, StepsRecorded
from everloop.pipeline.worker import Answer, Task
from everloop.track.handle import RunHandle
from everloop.track.limits import MAX_ERROR_CHARS

LOG: Final = "log"
MOST_PENDING: Final = 100
AnyStep = Step[..., object]


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How steps are run; see ``PipelineOptions``."""

    use_cache: bool
    workers: int | None
    root: Path
    clock: Clock


class _Call(msgspec.Struct, frozen=True, kw_only=True):
    """One step call before it has a result."""

    number: int
    step: AnyStep
    name: str
    bound: inspect.BoundArguments
    inputs: dict[str, Encoded]
    print: Fingerprint
    follows: tuple[int, ...]
    why: str
    started_at: Instant
    started: float
    is_apart: bool


class _Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A result from the cache."""

    value: object


class _Made(msgspec.Struct, frozen=True, kw_only=True):
    """A fresh result."""

    value: object
    encoded: Encoded
    log: bytes
    seconds: float


class Engine:
    """Runs the steps of one pipeline execution; used by one thread."""

    def __init__(
        self, handle: RunHandle, performer: Performer, options: EngineOptions, progress: Progress
    ) -> None:
        self.outcomes: list[StepOutcome] = []
        self._handle = handle
        self._performer = performer
        self._options = options
        self._progress = progress
        self._now = options.clock.now
        self._surroundings = read_surroundings(options.root)
        self._files = handle.folder / "files"
        self._trail = Trail()
        self._pending: list[FinishedStep] = []
        self._futures: list[StepFuture] = []
        self._pool: WorkerPool | None = None
        self._count = 0

    def run(self, function: Pipeline[..., object], arguments: Mapping[str, object]) -> object:
        """Run the pipeline's body and wait for every step that it began."""
        active = Active(runner=self, log=self._handle, performer=self._performer)
        token = ACTIVE.set(active)
        try:
            value = settle(function.function(**arguments))
            for future in self._futures:
                future.result()
        except BaseException as error:
            self._keep_what_is_done()
            if isinstance(error, Exception):
                error.add_note(
                    f"Everloop run {self._handle.id} failed. Run the pipeline again when the cause "
                    "is gone: finished steps come from the cache."
                )
            with suppress(EverloopError):
                self._flush()
            raise
        finally:
            ACTIVE.reset(token)
        self._flush()
        return value

    def close(self) -> None:
        """End worker processes."""
        if self._pool is not None:
            self._pool.close()

    def call(self, step: object, args: Arguments, kwargs: Named) -> object:
        """Return the step's result, from the cache or by running it."""
        assert isinstance(step, Step)
        if step.options.process or step.options.timeout_s is not None:
            return self.submit(step, args, kwargs).result()
        call, found = self._prepare(step, args, kwargs, is_apart=False)
        hit = self._take_hit(call, found)
        if hit is not None:
            return hit.value
        self._progress.step_started(call.number, call.name, call.why)
        return self._attempt(call, lambda: self._run_here(call)).value

    def submit(self, step: object, args: Arguments, kwargs: Named) -> FutureResult:
        """Begin a step in another process; a result from the cache is there at once."""
        assert isinstance(step, Step)
        call, found = self._prepare(step, args, kwargs, is_apart=True)
        hit = self._take_hit(call, found)
        if hit is not None:
            return StepFuture(lambda: hit.value)
        self._progress.step_started(call.number, call.name, call.why)
        future = self._begin(call, step.options.timeout_s)
        self._futures.append(future)
        return future

    def _begin(self, call: _Call, timeout_s: float | None) -> StepFuture:
        self._pool = pool = self._pool or WorkerPool(self._options.workers)
        task = self._task(call)

        def perform() -> _Made:
            started = time.perf_counter()
            answer = pool.perform(task, timeout_s)
            return self._accept(call, answer, time.perf_counter() - started)

        first = [pool.submit(perform)]

        def attempt() -> _Made:
            return first.pop().result() if first else perform()

        return StepFuture(lambda: self._attempt(call, attempt).value, first[0])

    def _prepare(
        self, step: AnyStep, args: Arguments, kwargs: Named, *, is_apart: bool
    ) -> tuple[_Call, StepRun | None]:
        started_at, started = self._now(), time.perf_counter()
        number, self._count = self._count, self._count + 1
        name = step_name(step.function)
        bound = inspect.signature(step.function).bind(
            *(settle(value) for value in args),
            **{key: settle(value) for key, value in kwargs.items()},
        )
        bound.apply_defaults()
        inputs = {
            parameter: encode(value, f"Argument {parameter!r} of step {step.function.__qualname__}")
            for parameter, value in bound.arguments.items()
        }
        made = self._fingerprint(step, inputs)
        found = StepFound(match=None, last=None)
        if made.key is not None:
            ask = FindStep(name=name, key=made.key)
            found = self._performer.perform("pipeline.lookup", ask, StepFound)
        call = _Call(
            number=number,
            step=step,
            name=name,
            bound=bound,
            inputs=inputs,
            print=made,
            follows=self._trail.find_producers(bound.arguments, inputs),
            why=self._explain(made, found),
            started_at=started_at,
            started=started,
            is_apart=is_apart,
        )
        return call, found.match if self._options.use_cache else None

    def _fingerprint(self, step: AnyStep, inputs: dict[str, Encoded]) -> Fingerprint:
        if not step.options.cache:
            return Fingerprint(key=None, parts={}, reason="the step says cache=False")
        return fingerprint(
            step.function, inputs, variables=step.options.env, surroundings=self._surroundings
        )

    def _explain(self, made: Fingerprint, found: StepFound) -> str:
        if made.key is None:
            return f"not cached: {made.reason}"
        if not self._options.use_cache:
            return "the cache was not asked"
        if found.match is not None:
            return "nothing changed"
        if found.last is None:
            return "first run"
        return "; ".join(explain(made.parts, found.last.key_parts)) or "the result was not kept"

    def _take_hit(self, call: _Call, found: StepRun | None) -> _Hit | None:
        """Return the stored result if its bytes are there, whole and readable."""
        if found is None:
            return None
        blobs = self._performer.blobs
        try:
            data = blobs.get(parse_digest(found.outputs[RESULT]))
            log = blobs.get(parse_digest(found.outputs[LOG])) if LOG in found.outputs else b""
            value = decode(data, self._files)
        except (EverloopError, KeyError):
            return None
        if log:
            replay(log, self._handle)
        self._trail.add(call.number, value, found.outputs)
        self._keep(call, StepStatus.HIT, found.outputs, cached_from=found.id)
        if len(self._pending) >= MOST_PENDING:
            self._flush()
        return _Hit(value=value)

    def _attempt(self, call: _Call, attempt: Callable[[], _Made]) -> _Made:
        """Try the step as often as it may be tried, and record how it ended."""
        tries = 0
        while True:
            tries += 1
            try:
                made = attempt()
            except BaseException as error:
                # What is wrong with the input stays wrong; only other failures may pass.
                is_final = isinstance(error, InvalidInput) or not isinstance(error, Exception)
                if is_final or tries > call.step.options.retries:
                    self._fail(call, error, tries)
                    raise
            else:
                return self._finish(call, made, tries)

    def _run_here(self, call: _Call) -> _Made:
        log = StepLog(self._handle)
        active = Active(runner=None, log=log, performer=self._performer)
        token = ACTIVE.set(active)
        started = time.perf_counter()
        try:
            value = call.step.function(*call.bound.args, **call.bound.kwargs)
        finally:
            ACTIVE.reset(token)
        seconds = time.perf_counter() - started
        encoded = encode(value, f"The result of step {call.name}")
        return _Made(value=value, encoded=encoded, log=log.pack(), seconds=seconds)

    def _task(self, call: _Call) -> Task:
        main = sys.modules["__main__"]
        arguments = encode((call.bound.args, call.bound.kwargs), f"Arguments of {call.name}")
        is_script = call.step.function.__module__ == "__main__"
        modules = {kind.__module__ for kind in arguments.types} - {"__main__"}
        return Task(
            sys_path=tuple(sys.path),
            environ=dict(os.environ),
            source=source_digest(call.step.function) if call.print.key else "",
            module=call.step.function.__module__,
            qualname=call.step.function.__qualname__,
            script=getattr(main, "__file__", None) if is_script else None,
            modules=tuple(sorted(modules)),
            arguments=arguments.data,
            files=str(self._files),
        )

    def _accept(self, call: _Call, answer: Answer, seconds: float) -> _Made:
        if answer.failure is not None:
            raise to_exception(answer.failure)
        value = decode(answer.result, self._files)
        encoded = encode(value, f"The result of step {call.name}")
        return _Made(value=value, encoded=encoded, log=answer.log, seconds=seconds)

    def _finish(self, call: _Call, made: _Made, tries: int) -> _Made:
        if made.log and call.is_apart:
            replay(made.log, self._handle)
        changed = _changed_arguments(call)
        if changed:
            reason = f"not cached: the step changed its argument {', '.join(changed)}"
            call = msgspec.structs.replace(
                call, print=Fingerprint(key=None, parts=call.print.parts), why=reason
            )
        blobs = self._performer.blobs
        outputs: dict[str, str] = {RESULT: blobs.put(made.encoded.data)}
        outputs |= {f"{RESULT}.{name}": part for name, part in part_digests(made.value).items()}
        if made.log:
            outputs[LOG] = blobs.put(made.log)
        self._trail.add(call.number, made.value, outputs)
        self._keep(
            call,
            StepStatus.RAN,
            outputs,
            tries=tries,
            seconds=made.seconds,
            writes=made.encoded.datasets,
        )
        self._flush()
        return made

    def _fail(self, call: _Call, error: BaseException, tries: int) -> None:
        text = f"{type(error).__name__}: {error}"[:MAX_ERROR_CHARS]
        self._keep(call, StepStatus.FAILED, {}, tries=tries, error=text)

    def _keep(
        self,
        call: _Call,
        status: StepStatus,
        outputs: dict[str, str],
        **more: Unpack[_More],
    ) -> None:
        seconds = more.pop("seconds", time.perf_counter() - call.started)
        self._pending.append(
            FinishedStep(
                number=call.number,
                name=call.name,
                status=status,
                key=call.print.key,
                inputs={name: encoded.digest for name, encoded in call.inputs.items()},
                outputs=outputs,
                key_parts=call.print.parts,
                why=call.why,
                started_at=call.started_at,
                ended_at=self._now(),
                seconds=seconds,
                attempts=more.get("tries", 0),
                error=more.get("error"),
                cached_from=more.get("cached_from"),
                follows=call.follows,
                reads=tuple(
                    version for encoded in call.inputs.values() for version in encoded.datasets
                ),
                writes=more.get("writes", ()),
            )
        )
        outcome = StepOutcome(
            number=call.number,
            name=call.name,
            status=status,
            seconds=seconds,
            key=call.print.key,
            why=call.why,
        )
        self.outcomes.append(outcome)
        self._progress.step_finished(outcome)

    def _flush(self) -> None:
        """Record the finished steps; each batch has a request id of its own, so it counts once."""
        if not self._pending:
            return
        steps, self._pending = tuple(self._pending), []
        self._performer.perform(
            "step.record",
            RecordSteps(run=self._handle.id, steps=steps),
            StepsRecorded,
            request=f"step.record:{self._handle.id}:{steps[0].number}:{steps[-1].number}",
        )

    def _keep_what_is_done(self) -> None:
        """Record what other processes have finished when the pipeline fails."""
        for future in self._futures:
            if future.is_done:
                with suppress(Exception):
                    future.result()


class _More(TypedDict, total=False):
    tries: int
    seconds: float
    error: str
    cached_from: str
    writes: tuple[str, ...]


def _changed_arguments(call: _Call) -> list[str]:
    """Return the arguments that the step changed in place: its result is not all that it did."""
    if call.print.key is None or call.is_apart:
        return []
    return [
        name
        for name, value in call.bound.arguments.items()
        if not _is_frozen(value) and encode(value, name).digest != call.inputs[name].digest
    ]


def _is_frozen(value: object) -> bool:
    kind = type(value)
    return (
        value is None
        or kind in {bool, int, float, str, bytes, FileRef, DatasetRef}
        or kind.__module__.partition(".")[0] == "pyarrow"
    )
