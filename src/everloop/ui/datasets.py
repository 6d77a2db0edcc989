"""Datasets: the list, the versions of one, and one version with its schema and distributions."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.responses import Response

from everloop.data.model import DatasetVersion
from everloop.data.profile import ColumnProfile
from everloop.data.queries import DatasetList, DatasetVersionList, ProfileAnswer
from everloop.data.schema import ColumnSchema
from everloop.ui.drawing import Bar, NamedShare, histogram, top_names
from everloop.ui.visit import Visit


@dataclass(frozen=True, slots=True)
class ColumnPicture:
    """A column with its profile and the picture of its distribution."""

    schema: ColumnSchema
    profile: ColumnProfile | None
    bars: tuple[Bar, ...]
    names: tuple[NamedShare, ...]


def show_list(visit: Visit) -> Response:
    """Show the datasets of the project."""
    found = visit.query("data.list", DatasetList, after=visit.param("after"))
    return visit.show("datasets.html", datasets=found)


def show_versions(visit: Visit) -> Response:
    """Show the versions of a dataset."""
    name = visit.path("name")
    found = visit.get("data.versions", DatasetVersionList, name=name, after=visit.param("after"))
    return visit.show("dataset.html", name=name, versions=found)


def show_version(visit: Visit) -> Response:
    """Show a version: where it came from, its columns and how their values are spread."""
    ref = f"{visit.path('name')}@{visit.path('number')}"
    version = visit.get("data.show", DatasetVersion, ref=ref)
    answer = visit.query("data.profile", ProfileAnswer, ref=ref) if version.profile else None
    profiled = answer.profile.columns if answer else {}
    schemas = version.schema.columns if version.schema else ()
    return visit.show(
        "dataset_version.html",
        version=version,
        columns=[_picture(schema, profiled.get(schema.name)) for schema in schemas],
    )


def _picture(schema: ColumnSchema, profile: ColumnProfile | None) -> ColumnPicture:
    if profile is None:
        return ColumnPicture(schema, None, (), ())
    return ColumnPicture(schema, profile, histogram(profile), top_names(profile))
