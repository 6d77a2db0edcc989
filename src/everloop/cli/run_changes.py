"""``everloop runs rename`` and ``tag``: what people change about a run that is there."""

from __future__ import annotations

import click

from everloop.cli import output
from everloop.cli.session import Session
from everloop.cli.tagging import parse_tags, require_change


@click.command("rename")
@click.argument("run")
@click.argument("name")
@click.option("--reason", help="Why, for the record.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def rename(session: Session, run: str, name: str, reason: str | None, as_json: bool) -> int:
    """Give a run another name; its id stays."""
    from everloop.track.lifecycle import RunShown, UpdateRun

    ask = UpdateRun(run=run, name=name)
    answer = session.perform("run.update", ask, RunShown, reason=reason)
    if as_json:
        output.write_json(answer)
    else:
        output.write_clean(f"Run {answer.run.id} is {answer.run.name!r}.")
    return 0


@click.command("tag")
@click.argument("run")
@click.argument("tags", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--remove", multiple=True, help="Key of a tag to take away.")
@click.option("--reason", help="Why, for the record.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def tag(  # noqa: PLR0917 -- one parameter an option
    session: Session,
    run: str,
    tags: tuple[str, ...],
    remove: tuple[str, ...],
    reason: str | None,
    as_json: bool,
) -> int:
    """Set tags of a run, or take them away."""
    from everloop.track.lifecycle import RunShown, UntagRun, UpdateRun

    require_change(tags, remove)
    asks: list[tuple[str, UpdateRun | UntagRun]] = []
    if tags:
        asks.append(("run.update", UpdateRun(run=run, tags=parse_tags(tags))))
    asks += [("run.untag", UntagRun(run=run, key=key)) for key in remove]
    answers = [session.perform(verb, ask, RunShown, reason=reason) for verb, ask in asks]
    answer = answers[-1]
    if as_json:
        output.write_json(answer)
    else:
        output.write_fields({"run": answer.run.id, "tags": answer.run.tags})
    return 0
