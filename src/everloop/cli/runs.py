"""``everloop runs``: what ran, with which parameters, and what it measured."""

from __future__ import annotations

from typing import Any

import click

from everloop.cli import output
from everloop.cli.binding import Bound, BoundGroup, VerbGroup
from everloop.cli.session import Session


def _show_run(answer: Any) -> None:
    run = answer.run
    output.write_fields(
        {
            "run": run.id,
            "name": run.name,
            "experiment": answer.experiment,
            "pipeline": run.pipeline,
            "status": run.status,
            "started_at": run.started_at,
            "ended_at": run.ended_at,
            "code_commit": run.code_commit,
            "error": run.error,
            "artifacts": answer.artifacts,
            "params": run.params,
            "tags": run.tags,
        }
    )
    if answer.metrics:
        output.write("")
        output.write_table(
            ("metric", "last", "step", "least", "greatest", "points"),
            [
                (m.key, m.last_text, m.last_step, m.minimum, m.maximum, m.count)
                for m in answer.metrics
            ],
        )


def _show_history(answer: Any) -> None:
    output.write_table(("step", answer.key), zip(answer.steps, answer.values, strict=True))
    if answer.sampled:
        output.write(f"{len(answer.steps):,} of {answer.count:,} points; extremes are kept.")


@click.command("compare")
@click.argument("runs", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def compare(session: Session, runs: tuple[str, ...], as_json: bool) -> int:
    """Show the parameters and metrics of several runs side by side."""
    from everloop.track.queries import RunDetails, ShowRun

    found = [session.perform("run.show", ShowRun(run=run), RunDetails) for run in runs]
    rows: dict[str, list[object]] = {}
    for place, details in enumerate(found):
        values: dict[str, object] = {
            **{f"param {key}": value for key, value in details.run.params.items()},
            **{metric.key: metric.last_text for metric in details.metrics},
        }
        for key, value in values.items():
            rows.setdefault(key, [None] * len(found))[place] = value
    if as_json:
        output.write_json({"runs": [details.run.id for details in found], "values": rows})
        return 0
    headers = [details.run.name or details.run.id[:13] for details in found]
    output.write_table(("", *headers), [(key, *values) for key, values in sorted(rows.items())])
    return 0


GROUP = VerbGroup(
    "runs",
    BoundGroup(
        help="Runs: executions that log parameters, metrics and artifacts.",
        bound={
            "list": Bound(
                "run.search",
                fixed={"fields": ("metrics",)},
                columns=(
                    "id", "name", "experiment", "pipeline", "status", "started_at", "seconds",
                    "metrics",
                ),
            ),
            "show": Bound("run.show", arguments=("run",), show=_show_run),
            "metric": Bound("run.history", arguments=("run", "key"), show=_show_history),
            "artifacts": Bound(
                "run.artifacts",
                arguments=("run",),
                columns=("path", "bytes=size_bytes", "digest"),
            ),
            "steps": Bound(
                "step.list", columns=("name", "status", "run", "started_at", "cached_from")
            ),
            "pipelines": Bound(
                "pipeline.list",
                columns=("pipeline", "status", "steps", "hits", "started_at", "run", "error"),
            ),
            "experiments": Bound("experiment.search", columns=("name", "id", "created_at", "tags")),
        },
        written={"compare": compare},
    ),
)  # fmt: skip
COMMANDS = {"runs": GROUP}
