"""Pages of rows keep their place while rows come and go between them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from everloop.core.errors import InvalidInput
from everloop.core.ids import Id, ProjectId
from everloop.kernel.bootstrap import OWNER, local_caller
from everloop.kernel.lineage import Edge
from everloop.kernel.unit_of_work import View
from tests.kit import World

HERE = ProjectId("paging")


@contextmanager
def looking(place: World) -> Iterator[View]:
    caller = local_caller(place.kernel, OWNER)
    with place.kernel.store.read() as tx:
        yield View(tx, caller, HERE, place.kernel.services)


def keep(place: World, *keys: str) -> None:
    with place.kernel.store.write() as tx:
        for key in keys:
            tx.insert(
                Edge(
                    id=Id(key),
                    project=HERE,
                    source=key,
                    relation="says",
                    target=f"{9 - int(key)}",
                    at=place.clock.now(),
                )
            )


def drop(place: World, key: str) -> None:
    with place.kernel.store.write() as tx:
        row = tx.find(Edge, Id(key))
        assert row is not None
        tx.delete(row)


def page(place: World, after: str | None, **sorted_by: object) -> tuple[list[str], str | None]:
    with looking(place) as view:
        found, more = view.page(Edge, limit=2, after=after, **sorted_by)  # type: ignore[arg-type]
    return [row.id for row in found], more


@pytest.mark.parametrize(
    ("descending", "gone", "last"), [(False, "2", ["3", "4"]), (True, "4", ["3", "2"])]
)
def test_a_page_begins_where_the_one_before_ended_though_that_row_is_gone(
    place: World, descending: bool, gone: str, last: list[str]
) -> None:
    keep(place, "1", "2", "4", "5")
    _, more = page(place, None, descending=descending)
    keep(place, "3")
    drop(place, gone)

    assert gone == more
    assert last == page(place, more, descending=descending)[0]


def test_another_order_than_by_id_refuses_a_cursor_whose_row_is_gone(place: World) -> None:
    keep(place, "1", "2", "3")
    first, more = page(place, None, order="target")
    assert (["3", "2"], "2") == (first, more)
    assert ["1"] == page(place, more, order="target")[0]

    drop(place, "2")
    with pytest.raises(InvalidInput) as refused:
        page(place, more, order="target")

    assert "query.cursor_invalid" == refused.value.code
