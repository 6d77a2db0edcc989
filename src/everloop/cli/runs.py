"""``everloop runs``: what ran, with which parameters, and what it measured."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from everloop.cli import output
from everloop.cli.binding import Bound, BoundGroup, VerbGroup
from everloop.cli.run_changes import rename, tag
from everloop.cli.run_checks import verify
from everloop.cli.run_files import download
from everloop.cli.session import Session
from everloop.core.errors import NotFound
from everloop.track.files import FindFile
from everloop.track.model import ArtifactEntry
from everloop.track.queries import RunDetails, ShowRun
from everloop.track.watch import PATCH


def _show_run(session: Session, answer: Any) -> None:
    from everloop.track.search import FoundRuns, SearchRuns

    run = answer.run
    ask = SearchRuns(filter=f"parent = '{run.id}'", limit=20)
    below = session.perform("run.search", ask, FoundRuns)
    output.write_fields(
        {
            "run": run.id,
            "name": run.name,
            "experiment": answer.experiment,
            "pipeline": run.pipeline,
            "status": run.status,
            "started_at": run.started_at,
            "ended_at": run.ended_at,
            "created_by": run.created_by,
            "parent": run.parent,
            "children": [item.id for item in below.items] + (["..."] if below.next else []),
            "code_commit": run.code_commit,
            "environment": run.environment and f"everloop runs environment {run.id}",
            "error": run.error,
            "deleted_at": run.deleted_at,
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


@click.command("show")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show(session: Session, run: str, as_json: bool) -> int:
    """Show one run: its state, parameters, tags, and the summary of each of its metrics."""
    answer = _details(session, run)
    if as_json:
        output.write_json(answer)
    else:
        _show_run(session, answer)
    return 0


@click.command("environment")
@click.argument("run")
@click.option("--patch", is_flag=True, help="Print the uncommitted changes of the code instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def environment(session: Session, run: str, patch: bool, as_json: bool) -> int:
    """Show what a run ran in: command line, code, packages, seeds and machine, secrets masked."""
    if patch:
        entry = session.perform("run.file", FindFile(run=run, path=PATCH), ArtifactEntry)
        output.write_clean(session.client.blobs.get(entry.digest).decode(errors="replace"))
        return 0
    found = _details(session, run).run
    if found.environment is None:
        raise NotFound(
            "run.no_environment",
            f"Nothing is known of what run {found.id} ran in.",
            hint="Runs that everloop.start_run begins capture it; those of other clients do not.",
        )
    known = msgspec.json.decode(session.client.blobs.get(found.environment))
    if as_json:
        output.write_json(known)
    else:
        packages = known.pop("packages", [])
        output.write_fields(known)
        output.write(f"packages  {len(packages)}")
        for name in packages:
            output.write_clean(f"  {name}")
    return 0


def _details(session: Session, run: str) -> RunDetails:
    return session.perform("run.show", ShowRun(run=run), RunDetails)


def _show_history(answer: Any) -> None:
    output.write_table(("step", answer.key), zip(answer.steps, answer.values, strict=True))
    if answer.sampled:
        output.write(f"{len(answer.steps):,} of {answer.count:,} points; extremes are kept.")


def _tell_deleted(answer: Any) -> None:
    output.write(f"Run {answer.run.id} is in the trash; `everloop runs restore` brings it back.")


def _tell_restored(answer: Any) -> None:
    output.write(f"Run {answer.run.id} is back.")


@click.command("compare")
@click.argument("runs", nargs=-1, required=True)
@click.option("--differing", is_flag=True, help="Only what is not the same in all of them.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def compare(session: Session, runs: tuple[str, ...], differing: bool, as_json: bool) -> int:
    """Show the parameters and metrics of several runs side by side; * marks what differs."""
    found = [_details(session, run) for run in runs]
    rows: dict[str, list[object]] = {}
    for place, details in enumerate(found):
        values: dict[str, object] = {
            **{f"params.{key}": value for key, value in details.run.params.items()},
            **{f"metrics.{metric.key}": metric.last_text for metric in details.metrics},
        }
        for key, value in values.items():
            rows.setdefault(key, [None] * len(found))[place] = value
    if differing:
        rows = {key: values for key, values in rows.items() if len(set(values)) > 1}
    if as_json:
        output.write_json({"runs": [details.run.id for details in found], "values": rows})
        return 0
    headers = [details.run.name or details.run.id[:13] for details in found]
    output.write_table(
        ("", "", *headers),
        [
            ("*" if len(set(values)) > 1 else "", key, *values)
            for key, values in sorted(rows.items(), key=lambda row: (row[0][0] == "m", row[0]))
        ],
    )
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
                    "id", "name", "experiment", "status", "started_at", "seconds", "metrics",
                ),
            ),
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
            "delete": Bound(
                "run.delete",
                arguments=("run",),
                show=_tell_deleted,
            ),
            "restore": Bound(
                "run.restore",
                arguments=("run",),
                show=_tell_restored,
            ),
        },
        written={
            "show": show,
            "environment": environment,
            "compare": compare,
            "download": download,
            "rename": rename,
            "tag": tag,
            "verify": verify,
        },
    ),
)  # fmt: skip
COMMANDS = {"runs": GROUP}
