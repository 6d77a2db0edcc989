"""``everloop runs verify``: whether lists and search show what was logged."""

from __future__ import annotations

from typing import Any

import click

from everloop.cli import output
from everloop.cli.session import Session
from everloop.core.errors import IntegrityError


@click.command("verify")
@click.argument("runs", nargs=-1)
@click.option("--rebuild", is_flag=True, help="Make anew what does not agree.")
@click.option("--reason", help="Why, for the record.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def verify(
    session: Session, runs: tuple[str, ...], rebuild: bool, reason: str | None, as_json: bool
) -> int:
    """Compare what lists and search show of RUNS, or of all runs, with what was logged.

    Reads every point. Fails when something does not agree and was not rebuilt.
    """
    from everloop.track.deriving import CheckRuns, RebuildRuns, RunsChecked, RunsRebuilt

    checked = rows = rebuilt = more = 0
    findings: list[Any] = []
    left: list[str] = []
    after: str | None = None
    while True:
        page = session.perform("run.check", CheckRuns(runs=runs, after=after), RunsChecked)
        checked, rows, more = checked + page.runs, rows + page.rows, more + page.more
        findings += page.findings
        if rebuild and page.bad_runs:
            ask = RebuildRuns(runs=page.bad_runs)
            rebuilt += session.perform("run.rebuild", ask, RunsRebuilt, reason=reason).rows
            left += [each.run for each in page.findings if each.run not in page.bad_runs]
        else:
            left += [each.run for each in page.findings]
        after = page.next
        if after is None:
            break
    if as_json:
        told = {"runs": checked, "rows": rows, "rebuilt": rebuilt, "findings": findings}
        output.write_json(told)
    else:
        for each in findings:
            output.write_clean(f"{each.run}: {each.what}: {each.why}")
        if more:
            output.write(f"{more:,} more findings are not shown.")
        output.write(f"{checked:,} runs, {rows:,} rows compared, {rebuilt:,} made anew.")
    if left:
        raise IntegrityError(
            "run.not_as_logged",
            f"{len(set(left)):,} runs are not shown as they were logged.",
            hint="Use --rebuild; restore points that are gone or damaged from a backup.",
        )
    return 0
