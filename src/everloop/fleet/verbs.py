"""The verbs of fleets: make one, release to its groups, take the next step, go back."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, structs

from everloop.core.digest import Digest
from everloop.core.errors import Conflict, InvalidInput
from everloop.core.ids import check_name
from everloop.core.ports import where
from everloop.core.records import kind_of
from everloop.edge.model import EdgeBundle
from everloop.edge.queries import get_bundle
from everloop.fleet import devices, erasing, reporting  # noqa: F401 -- declare their verbs
from everloop.fleet.deciding import begin
from everloop.fleet.lookup import find_bundle, get_fleet, live_release
from everloop.fleet.model import (
    LIVE,
    Fleet,
    FleetConfig,
    FleetRelease,
    Groups,
    State,
)
from everloop.fleet.moving import go_back, step
from everloop.fleet.queries import FleetView, view_fleet
from everloop.kernel.unit_of_work import Work
from everloop.kernel.verbs import verb
from everloop.registry.evidence import require_pass
from everloop.registry.lookup import get_model
from everloop.registry.model import ModelVersion
from everloop.registry.proof import require_proven

Name = Annotated[str, Meta(min_length=1, max_length=100)]
Why = Annotated[str, Meta(max_length=2_000)]


class CreateFleet(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The name of a new fleet, its model, and its groups.

    Attributes:
        groups: In the order in which they get a version; the first is the canary.
        config: When a version may go on to the next group.
    """

    name: Name
    model: Name
    groups: Groups = ("canary", "rest")
    config: FleetConfig = FleetConfig()


class ReleaseFleet(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bundle to bring to a fleet, group by group.

    Attributes:
        digest: SHA-256 of the bundle's file, as `edge.build` gives it.
    """

    fleet: Name
    digest: Annotated[Digest, Meta(max_length=80)]


class StepFleet(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fleet whose release goes on to the next group, and why."""

    fleet: Name
    why: Why = ""


class RollBackFleet(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fleet that goes back, and why."""

    fleet: Name
    why: Why = ""


@verb("fleet.create", permission="fleet:write")
def create_fleet(ask: CreateFleet, work: Work) -> FleetView:
    """Make a fleet for a model; asking again for the same one changes nothing.

    Raises:
        InvalidInput: ``name.invalid``, or ``fleet.groups_invalid`` when a group stands twice.
        NotFound: ``model.not_found``.
        Conflict: ``fleet.exists`` when the name is another fleet's.
    """
    model = get_model(work, ask.model.removeprefix("model:"))
    check_name(ask.name, "Fleet")
    if len(set(ask.groups)) != len(ask.groups):
        raise InvalidInput(
            "fleet.groups_invalid",
            "A group stands twice.",
            hint="Name each group once, in the order in which they get a version.",
        )
    found = work.first(Fleet, *where(name=ask.name))
    if found is None:
        found = work.insert(
            Fleet(
                id=work.new_id(),
                project=work.project,
                name=ask.name,
                model=model.id,
                groups=ask.groups,
                target=None,
                previous=None,
                epoch=0,
                config=ask.config,
                created_at=work.now,
                created_by=work.caller.actor,
            )
        )
        work.touch(f"fleet:{found.id}")
    if (found.model, found.groups, found.config) != (model.id, ask.groups, ask.config):
        raise Conflict(
            "fleet.exists",
            f"There is a fleet {ask.name!r} with another model, groups or settings.",
            hint="Choose another name.",
        )
    return view_fleet(work, found)


@verb("fleet.release", permission="fleet:release")
def release_fleet(ask: ReleaseFleet, work: Work) -> FleetView:
    """Begin to bring a bundle to a fleet: to its first group, and on by evidence or a person.

    Raises:
        NotFound: ``fleet.not_found`` or ``edge_bundle.not_found``.
        InvalidInput: ``fleet.other_model``.
        Conflict: ``fleet.live`` while another release is undecided, ``fleet.target_already``.
        GateFailed: its version's evidence no longer admits it.
    """
    fleet = get_fleet(work, ask.fleet)
    bundle = get_bundle(work, ask.digest)
    _require_startable(work, fleet, bundle)
    version = work.get(ModelVersion, bundle.version)
    require_proven(work, version)
    evidence = require_pass(work, version)
    evidence_ref = f"{kind_of(evidence).name}:{evidence.id}"
    fleet = work.replace(structs.replace(fleet, epoch=fleet.epoch + 1))
    release = work.insert(
        FleetRelease(
            id=work.new_id(),
            project=work.project,
            fleet=fleet.id,
            candidate=bundle.id,
            before=fleet.target,
            state=State.ROLLING,
            live=LIVE,
            stage=0,
            stage_at=work.now,
            config=fleet.config,
            guardrails=begin(),
            answers=0,
            evidence_bad=1.0,
            started_at=work.now,
            started_by=work.caller.actor,
            ended_at=None,
            why=work.reason or f"Started with the group {fleet.groups[0]}.",
            evidence=evidence_ref,
        )
    )
    work.touch(f"fleet_release:{release.id}", f"fleet:{fleet.id}", f"model_version:{version.id}")
    work.link(f"fleet_release:{release.id}", "released", f"edge_bundle:{bundle.id}")
    work.link(f"fleet_release:{release.id}", "allowed_by", evidence_ref)
    return view_fleet(work, fleet)


@verb("fleet.step", permission="fleet:release")
def step_fleet(ask: StepFleet, work: Work) -> FleetView:
    """Bring the live release to the next group by a person's decision; after the last, end it.

    Raises:
        NotFound: ``fleet.not_found``.
        Conflict: ``fleet.no_release`` without a live one.
        GateFailed: its version's evidence no longer admits it.
    """
    fleet = get_fleet(work, ask.fleet)
    release = live_release(work, fleet)
    if release is None:
        raise Conflict(
            "fleet.no_release",
            f"The fleet {fleet.name!r} has no live release.",
            hint="Start one with `everloop fleet release`.",
        )
    bundle = find_bundle(work, release.candidate)
    assert bundle is not None
    require_pass(work, work.get(ModelVersion, bundle.version))
    step(work, fleet, release, ask.why or work.reason or "A person took the next step.")
    return view_fleet(work, get_fleet(work, fleet.id))


@verb("fleet.rollback", permission="fleet:release")
def roll_back_fleet(ask: RollBackFleet, work: Work) -> FleetView:
    """End the live release or, when there is none, go back to the bundle before.

    Devices go back when they ask next; what they are told is signed and newer than what they have.

    Raises:
        NotFound: ``fleet.not_found``.
        Conflict: ``fleet.nothing_before`` when there is neither.
    """
    fleet = get_fleet(work, ask.fleet)
    why = ask.why or work.reason or "Rolled back by a person."
    return view_fleet(work, go_back(work, fleet, why))


def _require_startable(work: Work, fleet: Fleet, bundle: EdgeBundle) -> None:
    if bundle.model != fleet.model:
        raise InvalidInput(
            "fleet.other_model",
            f"The bundle is of {bundle.name!r}, which is not the fleet's model.",
            hint="Seal a version of the fleet's model.",
        )
    if live_release(work, fleet) is not None:
        raise Conflict(
            "fleet.live",
            f"The fleet {fleet.name!r} has a live release.",
            hint="Step it on or roll it back first.",
        )
    if fleet.target == bundle.id:
        raise Conflict(
            "fleet.target_already",
            f"The fleet {fleet.name!r} runs this bundle already.",
            hint="Name another bundle.",
        )
