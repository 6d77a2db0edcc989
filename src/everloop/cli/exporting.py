"""``everloop export``: what a search finds as a file, or a model as what serves it elsewhere."""

from __future__ import annotations

from importlib import import_module
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
# Names of the commands in `everloop.cli.packaging`, here so that the help need not import it.
PACKAGES = ("bundle", "image", "kubernetes", "kserve", "seldon", "systemd", "compose")


class ExportGroup(click.Group):
    """The tables of `WHAT`, each a command made when asked for, then what serves elsewhere."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names: tables first."""
        return [*WHAT, *PACKAGES, "edge"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Make or import a command."""
        if cmd_name in WHAT:
            return _table_command(cmd_name)
        if cmd_name == "edge":
            return import_module("everloop.cli.edge").COMMANDS[cmd_name]  # type: ignore[no-any-return]
        if cmd_name in PACKAGES:
            return import_module("everloop.cli.packaging").COMMANDS[cmd_name]  # type: ignore[no-any-return]
        return None


def _table_command(what: str) -> click.Command:
    """Return the command that writes one kind of rows."""
    params: list[click.Parameter] = []
    if what == "metrics":
        params.append(click.Argument(["names"], nargs=-1))
        text = "Write a run's metrics to a file. NAMES: a run, and the metrics; all when left out."
    else:
        text = f"Write the {what} that a search finds to a file: params.x, metrics.x and tags.x \
become columns."
        params += [
            click.Option(
                ["--filter", "filter_text"],
                default="",
                help="Which rows; see the filter reference.",
            ),
            click.Option(
                ["--order"], default="", help="How they are sorted, such as 'metrics.auc DESC'."
            ),
            click.Option(
                ["--limit"], type=click.IntRange(1), help="Rows at most; all when left out."
            ),
        ]
    params += [
        click.Option(
            ["-o", "--output", "file"],
            required=True,
            type=click.Path(path_type=Path, dir_okay=False),
            help="A file that ends in .parquet or .csv.",
        ),
        click.Option(["--force"], is_flag=True, help="Replace a file that is there."),
        click.Option(
            ["--json", "as_json"], is_flag=True, help="Print JSON: the file and its rows."
        ),
    ]

    @click.pass_obj
    def perform(session: Session, /, file: Path, **given: Any) -> int:
        return _write_table(session, what, file, given)

    return click.Command(what, params=params, callback=perform, help=text)


def _write_table(session: Session, what: str, file: Path, given: dict[str, Any]) -> int:
    from everloop.app.verbs import load_verbs
    from everloop.interop import exporting

    form = table_form(file, force=given["force"])
    load_verbs()
    try:
        if what == "metrics":
            points = exporting.metric_rows(session.client, *_metrics(session, given["names"]))
            count = exporting.export_points(points, file, form)
        else:
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


COMMANDS = {
    "export": ExportGroup(
        "export",
        no_args_is_help=True,
        help="Write what a search finds as Parquet or CSV, or a model as what serves it elsewhere.",
    )
}
