"""Saved views: a name for what a page shows."""

from __future__ import annotations

import pytest

from everloop.core.errors import Denied, InvalidInput, LimitExceeded, NotFound
from everloop.kernel.authz import Role
from everloop.track import views
from everloop.track.views import DeleteView, ListViews, SavedView, SavedViews, SaveView
from tests.kit import World, world


@pytest.fixture
def fresh() -> World:
    return world()


def save(fresh: World, name: str, query: str = "") -> SavedView:
    return fresh.owner.perform("view.save", SaveView(name=name, query=query), SavedView)


def names(fresh: World, page: str = "runs") -> list[str]:
    found = fresh.owner.perform("view.list", ListViews(page=page), SavedViews)
    return [view.name for view in found.items]


def test_a_view_comes_back_with_what_it_was_saved_with(fresh: World) -> None:
    save(fresh, "good ones", "filter=metrics.auc+%3E+.9&col=params.a&col=params.b")

    found = fresh.owner.perform("view.list", ListViews(), SavedViews).items[0]

    assert "filter=metrics.auc+%3E+.9&col=params.a&col=params.b" == found.query
    assert [] == names(fresh, page="models")


def test_saving_under_a_name_again_overwrites_what_was_there(fresh: World) -> None:
    save(fresh, "mine", "a=1")
    save(fresh, "mine", "b=1")

    assert ["mine"] == names(fresh)
    assert "b=1" == fresh.owner.perform("view.list", ListViews(), SavedViews).items[0].query


def test_a_deleted_view_is_gone_and_cannot_be_deleted_again(fresh: World) -> None:
    save(fresh, "mine")
    fresh.owner.perform("view.delete", DeleteView(name="mine"), SavedView)

    assert [] == names(fresh)
    with pytest.raises(NotFound, match=r"view\.not_found"):
        fresh.owner.perform("view.delete", DeleteView(name="mine"), SavedView)


def test_a_viewer_reads_views_and_saves_none(fresh: World) -> None:
    vera = fresh.person("vera", Role.VIEWER)
    save(fresh, "mine")

    assert 1 == len(vera.perform("view.list", ListViews(), SavedViews).items)
    with pytest.raises(Denied):
        vera.perform("view.save", SaveView(name="hers", query=""), SavedView)


def test_a_view_of_an_unknown_page_is_refused(fresh: World) -> None:
    with pytest.raises(InvalidInput, match=r"view\.page_unknown"):
        fresh.owner.perform("view.save", SaveView(name="x", page="audit", query=""), SavedView)


def test_views_have_an_end(fresh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MAX_VIEWS", 2)
    save(fresh, "one")
    save(fresh, "two")

    save(fresh, "two", "again=1")
    with pytest.raises(LimitExceeded, match=r"view\.too_many"):
        save(fresh, "three")
