"""Questions about fleets: who runs what, how a release goes, what drifts."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from everloop.core.clock import Instant
from everloop.core.digest import Digest
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.data.model import DatasetVersion
from everloop.data.profile import Profile
from everloop.data.sketch import Moments
from everloop.edge.model import EdgeBundle
from everloop.fleet.lookup import bundle_for, devices_of, find_bundle, get_fleet, live_release
from everloop.fleet.model import Device, Fleet, FleetRelease, FleetSketch
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.monitor.drift import DriftReport, detect_drift
from everloop.registry.model import Model, ModelVersion

Name = Annotated[str, Meta(min_length=1, max_length=100)]


class ListFleets(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which page of the fleets to list."""

    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100
    after: Annotated[str, Meta(max_length=100)] | None = None


class ShowFleet(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fleet to show."""

    fleet: Name


class GroupView(Struct, frozen=True, kw_only=True):
    """How one group is doing.

    Attributes:
        wanted: The version that its devices should run.
        devices: Devices in it that are not revoked.
        adopted: Those that run it.
        refused: Those that tried it and left it.
    """

    name: str
    wanted: str | None
    digest: Digest | None
    devices: int
    adopted: int
    refused: int


class DeviceView(Struct, frozen=True, kw_only=True):
    """A device, and the version that it runs."""

    device: Device
    version: str | None


class VersionView(Struct, frozen=True, kw_only=True):
    """What a fleet's devices told of one version; None where there were no answers."""

    version: str
    version_id: Id
    answers: int
    errors: int
    invalid: int
    mean_latency_us: float | None
    output: Moments | None
    updated_at: Instant


class FleetView(Struct, frozen=True, kw_only=True):
    """A fleet with its groups, devices and versions."""

    fleet: Fleet
    model: str
    target: str | None
    previous: str | None
    release: FleetRelease | None
    candidate: str | None
    groups: tuple[GroupView, ...]
    devices: tuple[DeviceView, ...]
    versions: tuple[VersionView, ...]


class FleetSummary(Struct, frozen=True, kw_only=True):
    """A fleet in short."""

    id: Id
    name: str
    model: str
    target: str | None
    candidate: str | None
    devices: int
    epoch: int


class FleetList(Struct, frozen=True, kw_only=True):
    """One page of fleets."""

    items: tuple[FleetSummary, ...]
    next: str | None = None


class ShowDrift(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fleet and the version whose inputs to compare with the training data."""

    fleet: Name
    version: Name


class FleetDrift(Struct, frozen=True, kw_only=True):
    """The inputs of a version on all devices against its training data.

    Attributes:
        profile: Merged over all devices.
        report: None where there is nothing to compare with; ``why`` says what is missing.
    """

    version: str
    profile: Profile
    report: DriftReport | None
    why: str


@query("fleet.list", permission="fleet:read")
def list_fleets(ask: ListFleets, view: View) -> FleetList:
    """List the fleets of the project."""
    rows, following = view.page(Fleet, limit=ask.limit, after=ask.after)
    return FleetList(items=tuple(_summary(view, row) for row in rows), next=following)


@query("fleet.show", permission="fleet:read")
def show_fleet(ask: ShowFleet, view: View) -> FleetView:
    """Show a fleet: what each group should run and runs, its devices, and its release.

    Raises:
        NotFound: ``fleet.not_found``.
    """
    return view_fleet(view, get_fleet(view, ask.fleet))


@query("fleet.drift", permission="fleet:read")
def show_drift(ask: ShowDrift, view: View) -> FleetDrift:
    """Compare what all devices were asked of a version with what it was trained on.

    Raises:
        NotFound: ``fleet.not_found`` or ``fleet_sketch.not_found``.
        MissingExtra: SciPy is not installed.
    """
    fleet = get_fleet(view, ask.fleet)
    found = next(
        (
            sketch
            for sketch in view.select(FleetSketch, *where(fleet=fleet.id))
            if ask.version in {sketch.version, _semver(view, sketch.version)}
        ),
        None,
    )
    if found is None:
        found = view.get(FleetSketch, Id(ask.version))
    trained = _trained(view, found.reference)
    why = "" if trained else "its training data has no profile here"
    report = detect_drift(trained, found.profile) if trained and found.answers else None
    return FleetDrift(
        version=_semver(view, found.version), profile=found.profile, report=report, why=why
    )


def view_fleet(view: View, fleet: Fleet) -> FleetView:
    """Return all that is known of a fleet."""
    release = live_release(view, fleet)
    devices = devices_of(view, fleet)
    names = {b.digest: b.semver for b in view.select(EdgeBundle, *where(model=fleet.model))}
    candidate = find_bundle(view, release.candidate) if release else None
    return FleetView(
        fleet=fleet,
        model=_model_name(view, fleet),
        target=_version_of(view, fleet.target),
        previous=_version_of(view, fleet.previous),
        release=release,
        candidate=candidate.semver if candidate else None,
        groups=tuple(_group(view, fleet, name, release, devices) for name in fleet.groups),
        devices=tuple(
            DeviceView(device=device, version=names.get(device.running) if device.running else None)
            for device in devices
        ),
        versions=tuple(
            _told(view, sketch) for sketch in view.select(FleetSketch, *where(fleet=fleet.id))
        ),
    )


def _group(
    view: View, fleet: Fleet, name: str, release: FleetRelease | None, devices: list[Device]
) -> GroupView:
    bundle = bundle_for(view, fleet, name, release)
    members = [d for d in devices if d.group == name and d.revoked_at is None]
    digest = bundle.digest if bundle else None
    return GroupView(
        name=name,
        wanted=bundle.semver if bundle else None,
        digest=digest,
        devices=len(members),
        adopted=sum(digest is not None and device.running == digest for device in members),
        refused=sum(
            any(refusal.digest == digest for refusal in device.refused) for device in members
        ),
    )


def _told(view: View, sketch: FleetSketch) -> VersionView:
    return VersionView(
        version=_semver(view, sketch.version),
        version_id=sketch.version,
        answers=sketch.answers,
        errors=sketch.errors,
        invalid=sketch.invalid,
        mean_latency_us=sketch.latency_us / sketch.answers if sketch.answers else None,
        output=sketch.output,
        updated_at=sketch.updated_at,
    )


def _summary(view: View, fleet: Fleet) -> FleetSummary:
    release = live_release(view, fleet)
    return FleetSummary(
        id=fleet.id,
        name=fleet.name,
        model=_model_name(view, fleet),
        target=_version_of(view, fleet.target),
        candidate=_version_of(view, release.candidate) if release else None,
        devices=view.count(Device, *where(fleet=fleet.id, revoked_at=None)),
        epoch=fleet.epoch,
    )


def _trained(view: View, reference: Digest | None) -> Profile | None:
    found = view.first(DatasetVersion, *where(reference=reference)) if reference else None
    if found is None or found.profile is None:
        return None
    return msgspec.json.decode(view.services.blobs.get(found.profile), type=Profile)


def _version_of(view: View, key: Id | None) -> str | None:
    bundle = find_bundle(view, key)
    return bundle.semver if bundle else None


def _semver(view: View, key: Id) -> str:
    version = view.find(ModelVersion, key)
    return version.version if version else key


def _model_name(view: View, fleet: Fleet) -> str:
    model = view.find(Model, fleet.model)
    return model.name if model else fleet.model
