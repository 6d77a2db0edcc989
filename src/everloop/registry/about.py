"""What is known about a model itself, with or without versions, for whoever shows it whole."""

from __future__ import annotations

from msgspec import Struct

from everloop.core.ports import where
from everloop.core.refs import parse_ref
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.registry.lookup import get_model
from everloop.registry.model import Model, RetiredName, VersionNotes
from everloop.registry.protection import PRODUCTION, registry_settings
from everloop.registry.queries import RefText

MOST_NOTES = 1_000


class DescribeModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model by its name, in use or in the trash."""

    name: RefText


class ModelAbout(Struct, frozen=True, kw_only=True):
    """A model and what people said about its versions.

    Attributes:
        notes: Of its newest versions, those in the trash too, the newest first.
        former_names: What it was called before.
        protected: Aliases that not everybody may move.
    """

    model: Model
    notes: tuple[VersionNotes, ...]
    former_names: tuple[str, ...]
    protected: tuple[str, ...]


@query("model.about", permission="model:read")
def describe_model(ask: DescribeModel, view: View) -> ModelAbout:
    """Describe a model: what is said about it and its versions, and what it was called before.

    Raises:
        NotFound: ``model.not_found``.
    """
    model = get_model(view, parse_ref(ask.name, kind="model").name, trashed=True)
    notes = view.select(
        VersionNotes, *where(model=model.id), order="number", descending=True, limit=MOST_NOTES
    )
    retired = view.select(RetiredName, *where(model=model.id))
    return ModelAbout(
        model=model,
        notes=tuple(notes),
        former_names=tuple(row.name for row in retired),
        protected=(PRODUCTION, *registry_settings(view).protected_aliases),
    )
