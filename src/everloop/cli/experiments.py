"""``everloop experiments``: groups of runs, by name or id."""

from __future__ import annotations

from typing import Any

import click

from everloop.cli import output
from everloop.cli.binding import Bound, BoundGroup, VerbGroup
from everloop.cli.session import Session
from everloop.cli.tagging import parse_tags, require_change
from everloop.core.ids import is_id
from everloop.track.experiments import (
    ExperimentNamed,
    ExperimentShown,
    ShowExperiment,
    TagExperiment,
    UntagExperiment,
    UpdateExperiment,
)
from everloop.track.model import Experiment

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_reason = click.option("--reason", help="Why, for the record.")


def _find(session: Session, name: str) -> Experiment:
    bare = name.removeprefix("experiment:")
    ask = ShowExperiment(experiment=bare) if is_id(bare) else ShowExperiment(name=name)
    return session.perform("experiment.show", ask, ExperimentShown).experiment


def _tell(experiment: Experiment, text: str, *, as_json: bool) -> int:
    if as_json:
        output.write_json({"experiment": experiment})
    else:
        output.write_clean(text)
    return 0


@click.command("show")
@click.argument("experiment")
@_as_json
@click.pass_obj
def show(session: Session, experiment: str, as_json: bool) -> int:
    """Show an experiment, also one in the trash."""
    found = _find(session, experiment)
    if as_json:
        return _tell(found, "", as_json=True)
    output.write_fields(found)
    return 0


@click.command("rename")
@click.argument("experiment")
@click.argument("name")
@_reason
@_as_json
@click.pass_obj
def rename(session: Session, experiment: str, name: str, reason: str | None, as_json: bool) -> int:
    """Give an experiment another name; its runs stay with it."""
    ask = UpdateExperiment(experiment=_find(session, experiment).id, name=name)
    made = session.perform("experiment.update", ask, ExperimentShown, reason=reason).experiment
    return _tell(made, f"Experiment {made.id} is {made.name!r}.", as_json=as_json)


@click.command("tag")
@click.argument("experiment")
@click.argument("tags", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--remove", multiple=True, help="Key of a tag to take away.")
@_reason
@_as_json
@click.pass_obj
def tag(session: Session, /, experiment: str, tags: tuple[str, ...], **told: Any) -> int:
    """Set tags of an experiment, or take them away."""
    require_change(tags, told["remove"])
    found = _find(session, experiment)
    asks: list[tuple[str, TagExperiment | UntagExperiment]] = []
    if tags:
        asks.append(("experiment.tag", TagExperiment(experiment=found.id, tags=parse_tags(tags))))
    for key in told["remove"]:
        asks.append(("experiment.untag", UntagExperiment(experiment=found.id, key=key)))
    for verb, ask in asks:
        found = session.perform(verb, ask, ExperimentShown, reason=told["reason"]).experiment
    if told["as_json"]:
        return _tell(found, "", as_json=True)
    output.write_fields({"experiment": found.name, "tags": found.tags})
    return 0


@click.command("delete")
@click.argument("experiment")
@_reason
@_as_json
@click.pass_obj
def delete(session: Session, experiment: str, reason: str | None, as_json: bool) -> int:
    """Put an experiment and its runs into the trash, from which they can be restored."""
    ask = ExperimentNamed(experiment=_find(session, experiment).id)
    gone = session.perform("experiment.delete", ask, ExperimentShown, reason=reason).experiment
    text = f"{gone.name!r} and its runs are in the trash; `everloop experiments restore` helps."
    return _tell(gone, text, as_json=as_json)


@click.command("restore")
@click.argument("experiment")
@_reason
@_as_json
@click.pass_obj
def restore(session: Session, experiment: str, reason: str | None, as_json: bool) -> int:
    """Take an experiment out of the trash, with all its runs."""
    ask = ExperimentNamed(experiment=_find(session, experiment).id)
    back = session.perform("experiment.restore", ask, ExperimentShown, reason=reason).experiment
    return _tell(back, f"{back.name!r} is back, with its runs.", as_json=as_json)


def _tell_created(answer: Any) -> None:
    output.write_clean(f"{answer.experiment.name} {answer.experiment.id}")


GROUP = VerbGroup(
    "experiments",
    BoundGroup(
        help="Experiments: groups of runs.",
        bound={
            "list": Bound("experiment.search", columns=("name", "id", "created_at", "tags")),
            "create": Bound(
                "experiment.create",
                arguments=("name",),
                show=_tell_created,
            ),
        },
        written={
            "show": show,
            "rename": rename,
            "tag": tag,
            "delete": delete,
            "restore": restore,
        },
    ),
)
COMMANDS = {"experiments": GROUP}
