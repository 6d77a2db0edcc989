"""Searching alerts: what their names mean in a filter, and the query."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from everloop.core.filter.fields import ChoiceField, InstantField, TextField
from everloop.core.filter.joins import Hop, Route
from everloop.core.filter.vocabulary import Linked, Vocabulary, declare
from everloop.core.ids import Id
from everloop.core.ports import Compare
from everloop.core.search import Filter, Link, Order, Test
from everloop.kernel.searching import Search, search_rows
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.monitor.model import Alert, AlertKind, AlertState
from everloop.monitor.queries import AlertList

ALERTS = declare(
    Vocabulary(
        noun="alert",
        kind="alert",
        fields={
            "id": TextField("id", "its id"),
            "kind": ChoiceField("kind", "what it is about", tuple(AlertKind)),
            "state": ChoiceField("state", "where it stands", tuple(AlertState)),
            "at": InstantField("at", "the event time of what caused it"),
            "raised_at": InstantField("raised_at", "when it was raised"),
            "summary": TextField("summary", "what it says"),
            "subject": TextField("subject", "the window or loss point behind it"),
        },
        synonyms={"status": "state"},
        links={
            "deployment": Linked(
                "deployment",
                (Route((Hop("deployment", Link("id", "deployment")),)),),
                "the deployment that it is about",
                is_single=True,
            ),
            "version": Linked(
                "version",
                (Route((Hop("model_version", Link("id", "version")),)),),
                "the version that answered then",
                is_single=True,
            ),
        },
        order=(Order("raised_at", descending=True), Order("id", descending=True)),
    )
)


class SearchAlerts(Search, frozen=True, kw_only=True):
    """What ``alert.search`` takes; the newest come first when nothing else is asked.

    Attributes:
        deployment: Id of the deployment; alerts of all of them when left out.
        kind: What the alerts are about.
        state: Where the alerts stand.
    """

    deployment: Annotated[Id, Meta(max_length=40)] | None = None
    kind: AlertKind | None = None
    state: AlertState | None = None


@query("alert.search", permission="alert:read")
def find_alerts(ask: SearchAlerts, view: View) -> AlertList:
    """Find alerts by filter and order, a page at a time.

    Raises:
        InvalidInput: ``filter.invalid`` or ``order.invalid``, with the position.
    """
    wanted = {"deployment": ask.deployment, "kind": ask.kind, "state": ask.state}
    also: list[Filter] = [
        Test(name, Compare.EQ, value) for name, value in wanted.items() if value is not None
    ]
    page = search_rows(view, Alert, ALERTS, ask, *also)
    return AlertList(items=tuple(page.rows), next=page.next)
