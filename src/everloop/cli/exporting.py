"""``everloop export``: what a search finds, or a run's metrics, as a Parquet or CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from everloop.cli import output
from everloop.cli.session import Session
from everloop.core.errors import Conflict, InvalidInput, NotFound

WHAT = (
    "runs", "experiments", "models", "versions", "datasets", "deployments", "releases",
    "predictions", "metrics",
)  # fmt: skip


@click.command("export")
@click.argument("what", type=click.Choice(WHAT))
@click.argument("names", nargs=-1)
@click.option("--filter", "filter_text", default="", help="Which rows; see the filter reference.")
@click.option("--order", default="", help="How they are sorted, such as 'metrics.auc DESC'.")
@click.option("--limit", type=click.IntRange(1), help="Rows at most; all when left out.")
@click.option(
    "-o",
    "--output",
    "file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file that ends in .parquet or .csv.",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the file and its rows.")
@click.pass_obj
def export(session: Session, /, what: str, names: tuple[str, ...], file: Path, **given: Any) -> int:
    """Write WHAT a search finds to a file: params.x, metrics.x and tags.x become columns.

    NAMES are for metrics: a run, and the metrics to write; all of them when left out.
    """
    from everloop.app.verbs import load_verbs
    from everloop.interop import exporting

    form = table_form(file, force=given["force"])
    load_verbs()
    try:
        if what == "metrics":
            points = exporting.metric_rows(session.client, *_metrics(session, names))
            count = exporting.export_points(points, file, form)
        else:
            if names:
                raise click.UsageError(f"{what} take no names; use --filter.")
            rows = exporting.found_rows(
                session.client,
                what,
                filter=given["filter_text"],
                order=given["order"],
                limit=given["limit"],
            )
            count = exporting.export_rows(rows, file, form)
    except OSError as error:
        raise unwritable(file, error) from error
    if given["as_json"]:
        output.write_json({"file": str(file), "rows": count})
    else:
        output.write_clean(f"{file}: {count:,} rows")
    return 0


def table_form(file: Path, *, force: bool) -> Literal["parquet", "csv"]:
    """Return how a table is written to a file, by its ending.

    Raises:
        InvalidInput: ``export.format_unknown``.
        Conflict: ``file.exists``.
    """
    ending = file.suffix.lower()
    if ending not in {".parquet", ".csv"}:
        raise InvalidInput(
            "export.format_unknown",
            f"{file.name[:80]!r} ends neither in .parquet nor in .csv.",
            hint="The ending says how the file is written.",
        )
    if file.exists() and not force:
        raise Conflict(
            "file.exists", f"{file.name} is there already.", hint="Use --force, or another name."
        )
    return "csv" if ending == ".csv" else "parquet"


def unwritable(file: Path, error: OSError) -> InvalidInput:
    """Return the error for a file that the system does not let us write."""
    return InvalidInput(
        "file.unwritable",
        f"{str(file)[:200]} could not be written: {error.strerror or error}.",
        hint="Choose another place, or make room.",
    )


def _metrics(session: Session, names: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    if not names:
        raise click.UsageError("Name the run: everloop export metrics RUN -o FILE.")
    from everloop.track.queries import RunDetails, ShowRun

    found = session.perform("run.show", ShowRun(run=names[0]), RunDetails)
    known = tuple(metric.key for metric in found.metrics)
    unknown = sorted(set(names[1:]) - set(known))
    if unknown:
        raise NotFound(
            "metric.not_found",
            f"Run {found.run.id} has no metric {unknown[0][:60]!r}.",
            hint="`everloop runs show` lists the metrics of a run.",
        )
    return found.run.id, names[1:] or known


COMMANDS = {"export": export}
