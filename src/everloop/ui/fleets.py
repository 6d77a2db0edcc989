"""Fleets: which group runs what, how a release goes, which devices are silent, what drifts."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from everloop.core.errors import EverloopError
from everloop.fleet.queries import FleetDrift, FleetList, FleetView
from everloop.ui.visit import Visit

SHOWN: Final = 200


def show_list(visit: Visit) -> Response:
    """Show the fleets of the project."""
    return visit.show(
        "fleets.html", fleets=visit.query("fleet.list", FleetList, after=visit.param("after"))
    )


def show_fleet(visit: Visit) -> Response:
    """Show one fleet, and what may be done with it."""
    found = visit.get("fleet.show", FleetView, fleet=visit.path("name"))
    return visit.show(
        "fleet.html",
        view=found,
        fleet=found.fleet,
        devices=found.devices[:SHOWN],
        hidden=max(0, len(found.devices) - SHOWN),
        drift=[_drift(visit, found, told.version_id) for told in found.versions],
    )


def step(visit: Visit) -> Response:
    """Bring the live release to the next group."""
    name = visit.path("name")
    visit.change("fleet.step", fleet=name, why=visit.form.get("reason", "").strip())
    return visit.redirect("fleets", name)


def roll_back(visit: Visit) -> Response:
    """End the live release or go back to the bundle before."""
    name = visit.path("name")
    visit.change("fleet.rollback", fleet=name, why=visit.form.get("reason", "").strip())
    return visit.redirect("fleets", name)


def _drift(visit: Visit, found: FleetView, version: str) -> FleetDrift | None:
    try:
        return visit.query("fleet.drift", FleetDrift, fleet=found.fleet.name, version=version)
    except EverloopError:  # without the extra for statistics the page says the rest
        return None
