"""Models: the list, and one model with its versions, what is said of it, and its aliases' past."""

from __future__ import annotations

from starlette.responses import Response

from everloop.core.errors import EverloopError, InvalidInput
from everloop.gate.queries import GateList, GateSummary
from everloop.registry.about import ModelAbout
from everloop.registry.model import ModelVersion
from everloop.registry.queries import AliasMoveList, AliasStandings, ModelList, ModelVersionList
from everloop.registry.search import FoundVersions
from everloop.ui.visit import Visit

PAGE = 100


def show_list(visit: Visit) -> Response:
    """Show the models that a filter lets through, or those in the trash."""
    trash = visit.param("trash") == "yes"
    text, problem = (visit.param("filter") or "").strip(), None
    found = ModelList(items=())
    try:
        found = visit.get(
            "model.search",
            ModelList,
            filter=text or None,
            order=visit.param("order"),
            after=visit.param("after"),
            deleted="deleted" if trash else None,
            limit=PAGE,
        )
    except InvalidInput as error:
        problem = error
    return _answer(visit, "models.html", problem, models=found, filter=text, trash=trash)


def show_model(visit: Visit) -> Response:
    """Show a model: its versions, what its gate said of each, where its aliases pointed when."""
    about = visit.get("model.about", ModelAbout, name=visit.path("name"))
    name = about.model.name
    trash = visit.param("trash") == "yes" or about.model.deleted_at is not None
    text = (visit.param("filter") or "").strip()
    versions, problem = _versions(visit, name, text, trash=trash)
    gates = visit.query("gate.list", GateList, model=name, limit=1000)
    history = visit.get(
        "model.alias_history", AliasMoveList, name=name, alias=visit.param("alias"), limit=200
    )
    now = visit.get("model.aliases_at", AliasStandings, name=name)
    return _answer(
        visit,
        "model.html",
        problem,
        about=about,
        model=about.model,
        name=name,
        trash=trash,
        filter=text,
        versions=versions,
        notes={notes.version: notes for notes in about.notes},
        judged=_judged(gates),
        history=history.items,
        standing=now.items,
        aliases={item.alias: item.version for item in now.items if item.version},
        then=_then(visit, name),
    )


def edit(visit: Visit) -> Response:
    """Change what is said about a model: only the fields that the form has."""
    given = {
        field: visit.prose(field)
        for field in ("description", "owner", "licence", "intended_use")
        if field in visit.form
    }
    return _edited(visit, "model.update", **given)


def set_tag(visit: Visit) -> Response:
    """Set a tag."""
    return _edited(visit, "model.update", tags=visit.tag())


def take_tag(visit: Visit) -> Response:
    """Take a tag away."""
    return _edited(visit, "model.update", untag=(visit.form.get("key", ""),))


def move_alias(visit: Visit) -> Response:
    """Point an alias at a version, or take it away, with a reason."""
    name = visit.path("name")
    visit.edit(
        "model.alias",
        model=name,
        alias=visit.form.get("alias", "").strip(),
        version=visit.form.get("version", "").strip() or None,
        why=visit.form.get("reason", "").strip(),
    )
    return visit.redirect("models", name)


def delete(visit: Visit) -> Response:
    """Put the model into the trash."""
    visit.change("model.delete", name=visit.path("name"))
    return visit.redirect("models")


def restore(visit: Visit) -> Response:
    """Take the model out of the trash."""
    return _edited(visit, "model.restore")


def _edited(visit: Visit, verb: str, **fields: object) -> Response:
    name = visit.path("name")
    visit.edit(verb, name=name, **fields)
    return visit.redirect("models", name)


def _answer(
    visit: Visit, template: str, problem: EverloopError | None, **context: object
) -> Response:
    page = visit.show(template, problem=problem, **context)
    page.status_code = 200 if problem is None else 400
    return page


def _versions(
    visit: Visit, name: str, text: str, *, trash: bool
) -> tuple[ModelVersionList, EverloopError | None]:
    after = visit.param("after")
    if trash or not text:
        state = "deleted" if trash else None
        ask = {"name": name, "deleted": state, "after": after, "limit": PAGE}
        return visit.get("model.versions", ModelVersionList, **ask), None
    try:
        found = visit.get(
            "version.search", FoundVersions, name=name, filter=text, after=after, limit=PAGE
        )
    except InvalidInput as error:
        return ModelVersionList(items=()), error
    versions: tuple[ModelVersion, ...] = tuple(item.version for item in found.items)
    return ModelVersionList(items=versions, next=found.next), None


def _judged(gates: GateList | None) -> dict[str, GateSummary]:
    """Return the newest report of each version."""
    return {gate.version: gate for gate in reversed(gates.items)} if gates else {}


def _then(visit: Visit, name: str) -> AliasStandings | EverloopError | None:
    """Return where the aliases pointed at the time in the address, or what is wrong with it."""
    when = visit.param("as_of")
    if when is None:
        return None
    # What a browser's field for a time sends has no zone; our times are UTC.
    exact = f"{when}Z" if "T" in when and when[-1].isdigit() and "+" not in when else when
    try:
        return visit.get("model.aliases_at", AliasStandings, name=name, as_of=exact)
    except InvalidInput as error:
        return error
