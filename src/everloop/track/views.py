"""Saved views: names for a filter, an order and a choice of columns that people come back to.

A view holds the parameters of a page's address and nothing else, so that a view and a shared
link are the same thing.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from everloop.core.clock import Instant
from everloop.core.errors import InvalidInput, LimitExceeded, NotFound
from everloop.core.ids import ActorId, ProjectId
from everloop.core.ports import where
from everloop.core.records import Record, record
from everloop.kernel.unit_of_work import View, Work
from everloop.kernel.verbs import query, verb
from everloop.track import limits

MAX_VIEWS: Final = 200
MAX_QUERY_CHARS: Final = 4_000
PAGES: Final = frozenset({"runs", "models"})
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Page = Annotated[str, msgspec.Meta(max_length=20)]


@record("saved_view", unique=(("project", "page", "name"),))
class SavedView(Record, frozen=True, kw_only=True):
    """A named state of a page, for everybody in the project.

    Attributes:
        page: ``runs`` or ``models``.
        query: Parameters of the page's address, as they stand behind its question mark.
    """

    project: ProjectId
    page: str
    name: str
    query: str
    saved_by: ActorId
    saved_at: Instant


class SaveView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``view.save`` takes; a view of that name is overwritten."""

    name: Name
    page: Page = "runs"
    query: Annotated[str, msgspec.Meta(max_length=MAX_QUERY_CHARS)]


class ListViews(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``view.list`` takes."""

    page: Page = "runs"


class SavedViews(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``view.list``: all views of a page by name."""

    items: tuple[SavedView, ...]


class DeleteView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``view.delete`` takes."""

    name: Name
    page: Page = "runs"


@verb("view.save", permission="view:write")
def save_view(ask: SaveView, work: Work) -> SavedView:
    """Save the state of a page under a name, over what had that name before.

    Raises:
        InvalidInput: ``view.page_unknown``, or a text is not usable.
        LimitExceeded: ``view.too_many``.
    """
    _check_page(ask.page)
    limits.check_key(ask.name, "View")
    limits.check_texts({"query": ask.query}, "View", MAX_QUERY_CHARS)
    known = work.first(SavedView, *where(page=ask.page, name=ask.name))
    work.touch(f"saved_view:{ask.page}/{ask.name}")
    if known is not None:
        return work.replace(
            msgspec.structs.replace(
                known, query=ask.query, saved_by=work.caller.actor, saved_at=work.now
            )
        )
    if work.count(SavedView, *where(page=ask.page)) >= MAX_VIEWS:
        raise LimitExceeded(
            "view.too_many",
            f"There are {MAX_VIEWS} saved views already.",
            hint="Delete one that nobody uses.",
        )
    return work.insert(
        SavedView(
            id=work.new_id(),
            project=work.project,
            page=ask.page,
            name=ask.name,
            query=ask.query,
            saved_by=work.caller.actor,
            saved_at=work.now,
        )
    )


@query("view.list", permission="view:read")
def list_views(ask: ListViews, view: View) -> SavedViews:
    """List the saved views of a page by name."""
    return SavedViews(items=tuple(view.select(SavedView, *where(page=ask.page), order="name")))


@verb("view.delete", permission="view:write")
def delete_view(ask: DeleteView, work: Work) -> SavedView:
    """Delete a saved view; what it showed stays.

    Raises:
        NotFound: ``view.not_found``.
    """
    known = work.first(SavedView, *where(page=ask.page, name=ask.name))
    if known is None:
        raise NotFound(
            "view.not_found",
            f"There is no view {ask.name[:60]!r}.",
            hint="Reload the page; somebody else may have deleted it.",
        )
    work.touch(f"saved_view:{ask.page}/{ask.name}")
    work.delete(known)
    return known


def _check_page(page: str) -> None:
    if page not in PAGES:
        raise InvalidInput(
            "view.page_unknown",
            f"{page!r} is no page whose views are saved.",
            hint=f"Use one of {', '.join(sorted(PAGES))}.",
        )
