"""``everloop run``: runs a pipeline of the project with its progress shown."""

from __future__ import annotations

import sys
import time
from typing import get_type_hints

import click
import msgspec

from everloop.cli import failures, output
from everloop.cli.session import Session
from everloop.cli.text import clean_line, to_cell
from everloop.core.errors import EverloopError, InvalidInput
from everloop.core.ids import Id
from everloop.pipeline.progress import StepOutcome
from everloop.track.model import RunStatus


class Lines:
    """Progress as lines on the standard error stream."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def pipeline_started(self, name: str, run: Id) -> None:
        """Say that the pipeline began."""
        self._say(f"{name}  run {run}")

    def step_started(self, number: int, name: str, why: str) -> None:
        """Say that a step began, and why it was not taken from the cache."""
        self._say(f"  [{number}] {name}: runs ({why})")

    def step_finished(self, outcome: StepOutcome) -> None:
        """Say how a step ended."""
        state = to_cell(outcome.status)
        self._say(f"  [{outcome.number}] {outcome.name}: {state} in {outcome.seconds:.2f} s")

    def pipeline_finished(self, run: Id, status: RunStatus) -> None:
        """Say how the pipeline ended."""
        del run
        self._say(f"{to_cell(status)} after {time.perf_counter() - self._began:.1f} s")

    def _say(self, text: str) -> None:
        sys.stderr.write(clean_line(text) + "\n")
        sys.stderr.flush()


@click.command("run")
@click.argument("target")
@click.option("--param", "-p", "params", multiple=True, help="NAME=VALUE; values are JSON or text.")
@click.option("--no-cache", is_flag=True, help="Run every step anew.")
@click.option("--workers", type=click.IntRange(1), help="Most processes at work at once.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def run(  # noqa: PLR0917 -- one parameter an option
    session: Session,
    target: str,
    params: tuple[str, ...],
    no_cache: bool,
    workers: int | None,
    as_json: bool,
) -> int:
    """Run the pipeline TARGET, written as module:function, from the project's folder."""
    from everloop.app import sdk
    from everloop.app.loading import load_pipeline

    client = session.client
    folder = client.home.project_folder if client.home is not None else None
    function = load_pipeline(target, folder)
    arguments = _with_refs(function, dict(_read_param(text) for text in params))
    sdk.use(client)
    try:
        result = sdk.run_pipeline(
            function, arguments, use_cache=not no_cache, workers=workers, progress=Lines()
        )
    except EverloopError:
        raise
    except Exception as error:  # noqa: BLE001 -- the user's code may raise anything
        return failures.report_pipeline(error, folder)
    if as_json:
        output.write_json({"run": result.run_id, "steps": result.steps})
    else:
        output.write_clean(f"run:{result.run_id}")
    return 0


def _with_refs(function: object, arguments: dict[str, object]) -> dict[str, object]:
    """Turn text into a ref where the pipeline asks for a dataset, such as ``training=bike@3``."""
    from everloop.pipeline import DatasetRef, Pipeline

    plain = function.function if isinstance(function, Pipeline) else function
    try:
        hints = get_type_hints(plain)
    except (NameError, TypeError):  # hints of names that exist for type checkers only
        return arguments
    return {
        name: DatasetRef(value)
        if hints.get(name) is DatasetRef and isinstance(value, str)
        else value
        for name, value in arguments.items()
    }


def _read_param(text: str) -> tuple[str, object]:
    name, found, value = text.partition("=")
    if not found or not name.isidentifier():
        raise InvalidInput(
            "param.invalid",
            f"{text[:60]!r} is no parameter.",
            hint="Write --param name=value.",
        )
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value


COMMANDS = {"run": run}
