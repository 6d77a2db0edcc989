"""``everloop predict``: the rows of files answered by a version, as serving answers them."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from everloop.cli import output
from everloop.cli.session import Session

STATUSES = ("ok", "invalid", "refused")


@click.command("predict")
@click.argument("ref")
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "-o",
    "--output",
    "target",
    required=True,
    type=click.Path(path_type=Path),
    help="A file that ends in .parquet or .csv, or a folder for one Parquet file a part.",
)
@click.option("--keep", multiple=True, help="A column of the input to keep beside the answers.")
@click.option(
    "--on",
    "place",
    type=click.Choice(["here", "ray"]),
    default="here",
    help="Processes of this machine, or a Ray cluster that sees the files. [here]",
)
@click.option("--workers", type=click.IntRange(1), help="Processes at once; all cores if left out.")
@click.option(
    "--part-rows", type=click.IntRange(1), default=262_144, help="Rows of a part. [262144]"
)
@click.option("--restart", is_flag=True, help="Throw away what was answered there before.")
@click.option("--reason", help="Why, for the record.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: what was written.")
@click.pass_obj
def predict(  # noqa: PLR0913, PLR0917 -- one parameter an option
    session: Session,
    ref: str,
    sources: tuple[Path, ...],
    target: Path,
    keep: tuple[str, ...],
    place: str,
    workers: int | None,
    part_rows: int,
    restart: bool,
    reason: str | None,
    as_json: bool,
) -> int:
    """Answer the rows of Parquet or CSV files by the version or deployment that REF names.

    The sealed bundle answers that serving answers with, so the version must have passed its gate.
    Each row gets a prediction id, the version, a status with its reason, and its answer, in the
    order of the rows.
    Given again after an interruption, the command goes on where it stopped.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from everloop.app.batch import Batch
    from everloop.app.exporting import fetch_subject

    subject = fetch_subject(session.client, ref, reason=reason, to_score=True)
    batch = Batch(subject, sources, target, keep=keep, part_rows=part_rows, restart=restart)
    parts = batch.remaining()
    done = len(batch.plan.parts) - len(parts)
    columns = (TextColumn("Answering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # On the error stream: what a program reads stays clean.
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        for _ in bar.track(
            batch.run("ray" if place == "ray" else "here", workers), total=len(parts)
        ):
            pass
    counts = batch.finish()
    told = {
        "version": f"{subject.bundle.model}@{subject.bundle.semver}",
        "rows": sum(counts.values()),
        **{status: counts.get(status, 0) for status in STATUSES},
        "parts": len(batch.plan.parts),
        "resumed": done,
        "written": str(target),
    }
    if as_json:
        output.write_json(told)
    else:
        output.write_fields(told)
    return 0


COMMANDS = {"predict": predict}
