"""The experiments of a project: how much each holds, its tags and note, the trash."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from everloop.core.errors import EverloopError, InvalidInput
from everloop.track.experiments import ExperimentShown
from everloop.track.queries import ExperimentCount, ExperimentCounts
from everloop.track.search import Deleted, FoundExperiments
from everloop.ui.run import HOUSEKEEPING, NOTE
from everloop.ui.visit import Visit

PAGE: Final = 50
NONE: Final = FoundExperiments(items=(), next=None)


def show_list(visit: Visit) -> Response:
    """Show the experiments that a filter lets through, the newest first."""
    trash = visit.param("trash") == "yes"
    found, problem = _search(visit, trash=trash)
    page = visit.show(
        "experiments.html",
        experiments=found,
        counts=_counts(visit, [item.id for item in found.items]),
        filter=visit.param("filter") or "",
        problem=problem,
        trash=trash,
        note=NOTE,
    )
    page.status_code = 200 if problem is None else 400
    return page


def show(visit: Visit) -> Response:
    """Show one experiment, also when it is in the trash."""
    found = visit.get("experiment.show", ExperimentShown, experiment=visit.path("experiment"))
    experiment = found.experiment
    return visit.show(
        "experiment.html",
        experiment=experiment,
        count=_counts(visit, [experiment.id])[experiment.id],
        note=experiment.tags.get(NOTE, ""),
        tags={
            key: text for key, text in experiment.tags.items() if not key.startswith(HOUSEKEEPING)
        },
    )


def make(visit: Visit) -> Response:
    """Make an experiment that has no runs yet."""
    visit.edit("experiment.create", name=visit.form.get("name", "").strip())
    return visit.redirect("experiments")


def rename(visit: Visit) -> Response:
    """Give it another name; its runs stay with it."""
    return _edited(visit, "experiment.update", name=visit.form.get("name", "").strip())


def write_note(visit: Visit) -> Response:
    """Write its note."""
    return _edited(visit, "experiment.tag", tags={NOTE: visit.prose("note")})


def set_tag(visit: Visit) -> Response:
    """Set a tag."""
    return _edited(visit, "experiment.tag", tags=visit.tag())


def take_tag(visit: Visit) -> Response:
    """Take a tag away."""
    return _edited(visit, "experiment.untag", key=visit.form.get("key", ""))


def delete(visit: Visit) -> Response:
    """Put it and all its runs into the trash."""
    visit.change("experiment.delete", experiment=visit.path("experiment"))
    return visit.redirect("experiments")


def restore(visit: Visit) -> Response:
    """Take it and its runs out of the trash."""
    return _edited(visit, "experiment.restore")


def _edited(visit: Visit, verb: str, **fields: object) -> Response:
    experiment = visit.path("experiment")
    visit.edit(verb, experiment=experiment, **fields)
    return visit.redirect("experiments", experiment)


def _search(visit: Visit, *, trash: bool) -> tuple[FoundExperiments, EverloopError | None]:
    try:
        found = visit.get(
            "experiment.search",
            FoundExperiments,
            filter=visit.param("filter"),
            after=visit.param("after"),
            limit=PAGE,
            deleted=Deleted.DELETED if trash else None,
        )
    except InvalidInput as error:
        return NONE, error
    return found, None


def _counts(visit: Visit, keys: list[str]) -> dict[str, ExperimentCount]:
    found = visit.get("experiment.counts", ExperimentCounts, experiments=keys)
    return {item.experiment: item for item in found.items}
