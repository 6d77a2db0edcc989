"""``everloop feedback``: the truth about predictions, from files and tables."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict, Unpack

import click

from everloop.cli import output
from everloop.cli.binding import Bound, BoundGroup, VerbGroup
from everloop.cli.session import Session

WAIT_HOURS = 24.0


class _Given(TypedDict):
    """The options of ``everloop feedback add``, whose names are the columns of ``Columns``."""

    deployment: str | None
    prediction: str
    key: str | None
    value: str
    wait_hours: float
    is_dry: bool
    source: str
    as_json: bool


@click.command("add")
@click.argument("file")
@click.option("--deployment", help="Name of the deployment whose predictions are meant.")
@click.option("--key", metavar="COLUMN", help="Join by this column of business keys.")
@click.option(
    "--prediction", metavar="COLUMN", default="prediction", help="Join by this column of ids."
)
@click.option("--value", metavar="COLUMN", default="value", help="The column with the truth.")
@click.option(
    "--wait-hours",
    type=click.FloatRange(min=0, max=24 * 366),
    default=WAIT_HOURS,
    help="How long labels wait for predictions that are not known yet.",
)
@click.option("--dry-run", "is_dry", is_flag=True, help="Only say what would become of them.")
@click.option("--source", default="file", help="Who says so, in a word.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def add(session: Session, file: str, **given: Unpack[_Given]) -> int:
    """Join labels from a CSV, Parquet or JSON lines file, or from a dataset such as dataset:x@3.

    A dash reads JSON lines or CSV from the input. Labels may come late, twice, or corrected.
    Further columns count if they are there: overridden, and at for when the label was known.
    """
    from everloop.app.labels import Columns, Telling, labels_in, tell_labels

    client = session.client
    columns = Columns(prediction=given["prediction"], key=given["key"], value=given["value"])
    how = Telling(
        deployment=given["deployment"],
        source=given["source"],
        wait_hours=given["wait_hours"],
        is_dry=given["is_dry"],
    )
    with _place(file) as place, _progress(is_quiet=given["as_json"]) as tell:
        told = tell_labels(client, labels_in(client, place, columns), how, tell)
    if given["as_json"]:
        output.write_json(told)
        return 0
    would = "would be " if given["is_dry"] else ""
    output.write(
        f"{told.joined:,} {would}joined, {told.corrected:,} corrected, {told.repeated:,} known "
        f"already, {len(told.unknown):,} unknown ({told.waiting:,} wait for their prediction), "
        f"{len(told.refused):,} refused."
    )
    for name in told.unknown[:10]:
        output.write_clean(f"  unknown: {name}")
    for name, reason in list(zip(told.refused, told.reasons, strict=True))[:10]:
        output.write_clean(f"  {reason.value.replace('_', ' ')}: {name}")
    return 0


@contextmanager
def _place(file: str) -> Iterator[str]:
    """Yield a path to read; what comes by the input is put into a file first."""
    if file != "-":
        yield file
        return
    data = sys.stdin.buffer.read()
    suffix = ".jsonl" if data.lstrip()[:1] == b"{" else ".csv"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"labels{suffix}"
        path.write_bytes(data)
        yield str(path)


@contextmanager
def _progress(*, is_quiet: bool) -> Iterator[Callable[[int], None] | None]:
    if is_quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = SpinnerColumn(), TextColumn("{task.completed:,.0f} labels")
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("labels", total=None)
        yield lambda count: bar.advance(task, count)


GROUP = VerbGroup(
    "feedback",
    BoundGroup(
        help="Feedback: late labels, joined with predictions by their ids or business keys.",
        bound={
            "list": Bound(
                "feedback.list",
                arguments=("deployment",),
                deployments=("deployment",),
                columns=("seq", "fresh", "corrected", "source", "received_at", "id"),
            ),
            "waiting": Bound(
                "feedback.waiting", arguments=("deployment",), deployments=("deployment",)
            ),
            "refused": Bound(
                "feedback.refused",
                arguments=("deployment",),
                deployments=("deployment",),
                columns=("reason", "count", "newest"),
            ),
        },
        written={"add": add},
    ),
)
COMMANDS = {"feedback": GROUP}
