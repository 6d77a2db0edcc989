"""``everloop import``: brings in what MLflow, W&B, Neptune or TensorBoard recorded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from everloop.cli import output
from everloop.cli.session import Session

SHOWN_SKIPS = 20
F = Callable[..., Any]


def _options(command: F) -> F:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--reason", help="Why, for the record."),
        click.option("--no-files", is_flag=True, help="Leave the files of runs out."),
        click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing."),
    ):
        command = option(command)
    return command


@contextmanager
def _progress(*, is_quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on the error stream where a person may look at it."""
    if is_quiet or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield tell


def _import(session: Session, source: Any, given: dict[str, Any]) -> int:
    from everloop.app.client import with_reason
    from everloop.interop.importers.loading import Importer, Options

    options = Options(
        dry_run=given["dry_run"],
        with_files=not given["no_files"],
        with_deleted=given.get("with_deleted", False),
        with_models=not given.get("no_models", False),
    )
    reason = given["reason"] or f"imported from {source.system} at {source.place}"[:2_000]
    performer = with_reason(session.client, reason)
    with _progress(is_quiet=given["as_json"]) as tell:
        report = Importer(performer, source, options, tell).run()
    if given["as_json"]:
        output.write_json(report)
    else:
        _show(report)
    return 0


def _show(report: Any) -> None:
    if report.dry_run:
        output.write("This is what would be done; nothing was changed.")
    names = ("experiments", "runs", "logged models", "models", "versions")
    output.write_table(
        ("", "new", "changed", "same", "skipped"),
        [(name, t.new, t.changed, t.same, t.skipped) for name in names
         if (t := getattr(report, name.replace(" ", "_"))) is not None],
    )  # fmt: skip
    output.write(
        f"{report.points:,} points, {report.params:,} parameters, {report.tags:,} tags, "
        f"{report.files:,} files ({report.file_bytes:,} bytes) in {report.seconds:.1f} s."
    )
    for skip in report.skipped[:SHOWN_SKIPS]:
        output.write_clean(f"left out: {skip.what}: {skip.why}")
    more = len(report.skipped) + report.more_skipped - SHOWN_SKIPS
    if more > 0:
        output.write(f"{more:,} more were left out; --json lists them.")


@click.group("import", no_args_is_help=True)
def group() -> None:
    """Bring in what other systems recorded; a second import adds only what is new."""


@group.command("mlflow")
@click.argument("uri")
@click.option(
    "--artifacts",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder in which the server keeps artifacts, for a database without its server.",
)
@click.option("--with-deleted", is_flag=True, help="Also bring in what is in the trash there.")
@click.option("--no-models", is_flag=True, help="Leave registered models out.")
@_options
@click.pass_obj
def mlflow(session: Session, /, uri: str, artifacts: Path | None, **given: Any) -> int:
    """Import an MLflow database, server or folder.

    URI is sqlite:///mlflow.db, postgresql://user@host/database, http://server:5000, or the path
    of an mlruns folder. Runs keep their times, parameters, whole metric histories, tags and files.
    """
    from everloop.interop.importers.mlflow import open_mlflow

    return _import(session, open_mlflow(uri, artifacts), given)


_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_EXPERIMENT = click.option("--experiment", help="Name of the experiment that they go to.")


@group.command("wandb")
@click.argument("folder", type=_FOLDER)
@_EXPERIMENT
@_options
@click.pass_obj
def wandb(session: Session, /, folder: Path, experiment: str | None, **given: Any) -> int:
    """Import W&B's offline runs below FOLDER, or histories exported as Parquet."""
    from everloop.interop.importers.wandb import WandbFolder

    return _import(session, WandbFolder(folder, experiment), given)


@group.command("neptune")
@click.argument("folder", type=_FOLDER)
@click.option("--files", type=_FOLDER, help="The exporter's --files-path, when it is elsewhere.")
@click.option(
    "--step-multiplier",
    type=click.IntRange(1, 10**6),
    default=1,
    help="What decimal steps are multiplied by to become whole. [1]",
)
@_options
@click.pass_obj
def neptune(
    session: Session, /, folder: Path, files: Path | None, step_multiplier: int, **given: Any
) -> int:
    """Import what neptune-exporter wrote into FOLDER, its --data-path."""
    from everloop.interop.importers.neptune import NeptuneFolder

    return _import(session, NeptuneFolder(folder, files, step_multiplier), given)


@group.command("tensorboard")
@click.argument("folder", type=_FOLDER)
@_EXPERIMENT
@_options
@click.pass_obj
def tensorboard(session: Session, /, folder: Path, experiment: str | None, **given: Any) -> int:
    """Import TensorBoard's event files below FOLDER: scalars and hyper-parameters."""
    from everloop.interop.importers.tensorboard import TensorboardFolder

    return _import(session, TensorboardFolder(folder, experiment), given)


COMMANDS = {"import": group}
