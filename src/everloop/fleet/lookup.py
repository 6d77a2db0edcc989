"""Finds fleets, devices and their bundles."""

from __future__ import annotations

from everloop.core.errors import Denied, NotFound
from everloop.core.ids import Id, is_id
from everloop.core.ports import Compare, Condition, where
from everloop.edge.model import EdgeBundle
from everloop.fleet.deciding import Adoption
from everloop.fleet.model import LIVE, Device, Fleet, FleetRelease
from everloop.kernel.unit_of_work import View


def get_fleet(view: View, name: str) -> Fleet:
    """Return the fleet of that name or id.

    Raises:
        NotFound: ``fleet.not_found``.
    """
    bare = name.removeprefix("fleet:")
    found = view.find(Fleet, Id(bare)) if is_id(bare) else view.first(Fleet, *where(name=bare))
    if found is None:
        raise NotFound(
            "fleet.not_found",
            f"There is no fleet {bare[:60]!r}.",
            hint="List them with `everloop fleet list`.",
        )
    return found


def get_device(view: View, fleet: Fleet, name: str) -> Device:
    """Return a device of a fleet.

    Raises:
        NotFound: ``device.not_found``.
    """
    found = view.first(Device, *where(fleet=fleet.id, name=name))
    if found is None:
        raise NotFound(
            "device.not_found",
            f"The fleet {fleet.name!r} has no device {name[:60]!r}.",
            hint=f"`everloop fleet show {fleet.name}` lists its devices.",
        )
    return found


def devices_of(view: View, fleet: Fleet) -> list[Device]:
    """Return all devices of a fleet, revoked ones too."""
    return view.select(Device, *where(fleet=fleet.id), order="name")


def calling_device(view: View) -> Device:
    """Return the device that calls, by its token.

    Raises:
        Denied: ``device.unknown`` for any other caller.
    """
    token = view.caller.token
    found = view.first(Device, *where(token=token)) if token else None
    if found is None or found.revoked_at is not None:
        raise Denied(
            "device.unknown",
            "This is for enrolled devices only.",
            hint="Enrol the device with `everloop fleet enrol`, and use the token that it gives.",
        )
    return found


def live_release(view: View, fleet: Fleet) -> FleetRelease | None:
    """Return the release of a fleet that is undecided, or None."""
    return view.first(FleetRelease, *where(fleet=fleet.id, live=LIVE))


def find_bundle(view: View, key: Id | None) -> EdgeBundle | None:
    """Return a bundle, or None."""
    return view.find(EdgeBundle, key) if key else None


def bundle_for(
    view: View, fleet: Fleet, group: str, release: FleetRelease | None
) -> EdgeBundle | None:
    """Return what the devices of a group should run now, or None before the first release."""
    if release is not None and group in reached(fleet, release):
        return find_bundle(view, release.candidate)
    return find_bundle(view, fleet.target)


def reached(fleet: Fleet, release: FleetRelease) -> tuple[str, ...]:
    """Return the groups that a release has reached."""
    return fleet.groups[: release.stage + 1]


def adoption_of(view: View, fleet: Fleet, release: FleetRelease, candidate: EdgeBundle) -> Adoption:
    """Count the devices that a release has reached, without loading them."""
    theirs = (
        *where(fleet=fleet.id, revoked_at=None),
        Condition("group", Compare.IN, reached(fleet, release)),
    )
    return Adoption(
        view.count(Device, *theirs),
        view.count(Device, *theirs, *where(running=candidate.digest)),
        view.count(Device, *theirs, *where(left_in=release.id)),
    )
