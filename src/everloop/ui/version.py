"""One model version: what it takes and answers, what speaks for it, where it came from."""

from __future__ import annotations

from starlette.responses import Response

from everloop.core.errors import NotFound
from everloop.core.manifest import FileEntry
from everloop.data.model import DatasetVersion
from everloop.gate.queries import GateList, GateView
from everloop.govern.cards import CardView
from everloop.registry.model import ModelVersion
from everloop.registry.queries import AliasMoveList, ModelView
from everloop.release.queries import ReleaseList
from everloop.track.queries import RunDetails
from everloop.ui import tables
from everloop.ui.files import open_file, send_bytes
from everloop.ui.visit import Visit

EXAMPLES_SHOWN = 10


def show(visit: Visit) -> Response:
    """Show one version of a model."""
    view = _find(visit)
    version = view.version
    releases = visit.query("release.list", ReleaseList, limit=200)
    gates = visit.query("gate.list", GateList, model=version.name, limit=1000)
    moves = visit.get("model.alias_history", AliasMoveList, name=version.name, limit=1000)
    return visit.show(
        "version.html",
        model=view,
        version=version,
        notes=view.notes,
        moves=[item for item in moves.items if version.id in {item.move.version, item.move.before}],
        gate=visit.find("gate.show", GateView, ref=version.id),
        reports=[gate for gate in (gates.items if gates else ()) if _is_of(gate.version, version)],
        card=visit.find("card.show", CardView, ref=version.id),
        run=visit.find("run.show", RunDetails, run=version.run) if version.run else None,
        training=_data(visit, version.dataset_version),
        holdout=_data(visit, version.holdout),
        examples=_examples(visit, version),
        releases=[
            item
            for item in (releases.items if releases else ())
            if item.release.candidate == version.id
        ],
    )


def show_file(visit: Visit) -> Response:
    """Show one file of a version."""
    view = _find(visit)
    entry = _entry(view.version, visit.param("path"))
    return visit.show(
        "version_file.html",
        version=view.version,
        shown=open_file(visit, entry.path, entry.digest, entry.size_bytes),
        with_scripts=visit.param("scripts") == "yes",
    )


def send_file(visit: Visit) -> Response:
    """Send the bytes of a version's file in a sandbox of their own."""
    entry = _entry(_find(visit).version, visit.param("path"))
    return send_bytes(visit, entry.path, entry.digest)


def edit(visit: Visit) -> Response:
    """Write the notes of a version."""
    return _edited(visit, "version.update", description=visit.prose("description"))


def set_tag(visit: Visit) -> Response:
    """Set a tag."""
    return _edited(visit, "version.update", tags=visit.tag())


def take_tag(visit: Visit) -> Response:
    """Take a tag away."""
    return _edited(visit, "version.update", untag=(visit.form.get("key", ""),))


def delete(visit: Visit) -> Response:
    """Put the version into the trash."""
    visit.change("version.delete", version=_ref(visit))
    return visit.redirect("models", visit.path("name"))


def restore(visit: Visit) -> Response:
    """Take the version out of the trash."""
    return _edited(visit, "version.restore")


def _ref(visit: Visit) -> str:
    return f"{visit.path('name')}@{visit.path('version')}"


def _find(visit: Visit) -> ModelView:
    return visit.get("model.show", ModelView, ref=_ref(visit))


def _edited(visit: Visit, verb: str, **fields: object) -> Response:
    visit.edit(verb, version=_ref(visit), **fields)
    return visit.redirect("models", visit.path("name"), visit.path("version"))


def _entry(version: ModelVersion, path: str | None) -> FileEntry:
    for entry in version.files:
        if entry.path == path:
            return entry
    raise NotFound(
        "model.file_not_found",
        f"{version.name} {version.version} holds no such file.",
        hint="Choose one from the list of its files.",
    )


def _is_of(text: str, version: ModelVersion) -> bool:
    return text == version.version


def _data(visit: Visit, version: str | None) -> DatasetVersion | None:
    return visit.find("data.show", DatasetVersion, ref=version) if version else None


def _examples(visit: Visit, version: ModelVersion) -> tables.Table | None:
    """Return the first example rows; None where there are none or they cannot be read."""
    if version.examples is None:
        return None
    blobs = visit.blobs
    size = blobs.size(version.examples)
    try:
        found = tables.read(blobs, version.examples, size or 0, "examples.parquet", "")
    except tables.Unreadable:
        return None
    return tables.first_rows(found, EXAMPLES_SHOWN)
