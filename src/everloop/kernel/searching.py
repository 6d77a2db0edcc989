"""Searches by text: from a filter and an order as people write them to one page of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from everloop.core.filter.parser import LONGEST
from everloop.core.filter.scene import Scene, kind_named
from everloop.core.filter.vocabulary import Vocabulary, lower_filter, lower_order
from everloop.core.records import R
from everloop.core.search import All, Filter, Page
from everloop.kernel.authz import authorise
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import find_verb

LONGEST_CURSOR = 4_000
LENIENT_LONGEST = 200_000
"""How long a filter of another system's client may be: those write long lists of ids."""
FilterText = Annotated[str, Meta(max_length=LONGEST)]
CursorText = Annotated[str, Meta(max_length=LONGEST_CURSOR)]
PageLimit = Annotated[int, Meta(ge=1, le=1_000)]


class Search(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every search takes.

    Attributes:
        filter: Which rows, such as "status = 'finished' AND metrics.auc > 0.9"; see the reference
            of filters.
        order: How they are sorted, such as "metrics.auc DESC, started_at".
        limit: Rows on a page at most.
        after: The cursor that came with the page before, for the same filter and order.
    """

    filter: FilterText = ""
    order: FilterText = ""
    limit: PageLimit = 100
    after: CursorText | None = None


def scene_of(view: View, *, lenient: bool = False) -> Scene:
    """Return what lowering a filter of this project needs.

    Names that go along a link need the permission of a search over there.
    """

    def allow(noun: str) -> None:
        verb = find_verb(f"{noun}.search")
        assert verb is not None, noun
        authorise(view.tx, view.caller, verb.permission, view.project)

    now = view.services.clock.now()
    return Scene(text="", now=now, reader=view, allow=allow, lenient=lenient)


def search_rows(
    view: View, kind: type[R], vocabulary: Vocabulary, ask: Search, *also: Filter
) -> Page[R]:
    """Return one page of the rows that meet the filter, and what is asked besides.

    Raises:
        InvalidInput: ``filter.invalid``, ``order.invalid`` or ``query.cursor_invalid``.
        LimitExceeded: ``query.too_complex``.
        Denied: ``access.denied`` for names of things that the caller may not read.
    """
    return search_text(view, kind, vocabulary, (ask.filter, ask.order), also, page=ask)


def search_text(
    view: View,
    kind: type[R],
    vocabulary: Vocabulary,
    texts: tuple[str, str | Sequence[str]],
    also: Sequence[Filter],
    *,
    page: Search,
    scene: Scene | None = None,
    longest: int = LONGEST,
) -> Page[R]:
    """Search as ``search_rows``, with the texts of filter and order apart from the page's size."""
    assert kind is kind_named(vocabulary.kind)
    here = scene or scene_of(view)
    filter_text, order = texts
    found = lower_filter(vocabulary, filter_text, here, longest=longest)
    return view.search(
        kind,
        All((*also, found)) if also else found,
        order=lower_order(vocabulary, order, here),
        limit=page.limit,
        after=page.after,
    )
