"""Devices come and go: enrolled with a token of their own, moved, revoked; and what they ask.

A device's token may do three things: ask what to run, fetch that, and report. It works for one
device in one fleet, and a revoked device gets nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from msgspec import Meta, Struct, structs

from everloop.core.canonical import canonical_json
from everloop.core.clock import Instant, to_text
from everloop.core.digest import Digest
from everloop.core.errors import Conflict, Denied, InvalidInput
from everloop.core.ids import ActorId, check_name
from everloop.core.ports import where
from everloop.edge.device.bundle import OFFER_CONTEXT
from everloop.edge.model import EdgeBundle
from everloop.edge.queries import EdgePart, read_part
from everloop.fleet.lookup import (
    bundle_for,
    calling_device,
    get_device,
    get_fleet,
    live_release,
)
from everloop.fleet.model import Device, Fleet
from everloop.kernel.authz import Actor, ActorKind, Project, Role, RoleGrant, TokenKind
from everloop.kernel.authz import Token as TokenRecord
from everloop.kernel.tokens import issue_token
from everloop.kernel.unit_of_work import View, Work
from everloop.kernel.verbs import Payload, query, verb
from everloop.registry.evidence import EVALUATOR

Name = Annotated[str, Meta(min_length=1, max_length=100)]
SCOPE = ("device:predict",)
MOST_DAYS = 3_660


class EnrolDevice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fleet and the group that a new device belongs to.

    Attributes:
        group: The last one when None.
        days: How long its token lives.
    """

    fleet: Name
    name: Name
    group: Annotated[str, Meta(max_length=40)] | None = None
    days: Annotated[float, Meta(gt=0, le=MOST_DAYS)] = 730.0


class EnrolledDevice(Struct, frozen=True, kw_only=True):
    """All that a device must be given; the token is shown this once.

    Attributes:
        key: The only public key, in hex, whose bundles and offers the device may trust.
    """

    device: Device
    fleet: str
    project: str
    token: str
    key: str
    expires_at: Instant


class MoveDevice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The device, and the group that it goes to."""

    fleet: Name
    name: Name
    group: Annotated[str, Meta(max_length=40)]


class RevokeDevice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The device that shall get nothing any more."""

    fleet: Name
    name: Name


class PollDevice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device's question what it should run.

    Attributes:
        nonce: A fresh random text, which the answer repeats: no old answer can stand in for it.
        running: SHA-256 of the bundle that it runs.
    """

    nonce: Annotated[str, Meta(min_length=16, max_length=100)]
    running: Annotated[Digest, Meta(max_length=80)] | None = None


class Offer(Struct, frozen=True, kw_only=True):
    """What a device should run.

    Attributes:
        epoch: Counts the changes; a device never goes back in it.
        digest: SHA-256 of the bundle's file; None for nothing yet.
        number: The version's number. A lower one than the device's counts only with ``rollback``.
    """

    kind: str
    project: str
    fleet: str
    device: str
    nonce: str
    epoch: int
    digest: Digest | None
    size_bytes: int
    number: int
    version: str
    rollback: bool
    issued_at: str


class SignedOffer(Struct, frozen=True, kw_only=True):
    """An offer as canonical JSON, and the Ed25519 signature over it in hex."""

    offer: str
    signature: str


class FetchBundle(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which part of the offered bundle to send."""

    digest: Annotated[Digest, Meta(max_length=80)]
    offset: Annotated[int, Meta(ge=0, le=1 << 40)] = 0


@verb("device.enrol", permission="device:admin", payload=Payload.SECRET)
def enrol_device(ask: EnrolDevice, work: Work) -> EnrolledDevice:
    """Add a device to a fleet and make the token with which it alone comes.

    Raises:
        NotFound: ``fleet.not_found``.
        InvalidInput: ``name.invalid``, or ``fleet.group_unknown``.
        Conflict: ``device.exists``.
    """
    fleet = get_fleet(work, ask.fleet)
    check_name(ask.name, "Device")
    group = ask.group or fleet.groups[-1]
    _require_group(fleet, group)
    if work.first(Device, *where(fleet=fleet.id, name=ask.name)) is not None:
        raise Conflict(
            "device.exists",
            f"The fleet {fleet.name!r} has had a device {ask.name!r}.",
            hint="Choose another name: what a device told stays under its own.",
        )
    actor = _act_as(work, fleet, ask.name)
    token = issue_token(
        work,
        actor,
        name=f"device {ask.name}",
        kind=TokenKind.API,
        lifetime=timedelta(days=ask.days),
        scope=SCOPE,
        project=work.project,
    )
    device = work.insert(
        Device(
            id=work.new_id(),
            project=work.project,
            fleet=fleet.id,
            name=ask.name,
            group=group,
            actor=actor,
            token=token.id,
            enrolled_at=work.now,
            enrolled_by=work.caller.actor,
        )
    )
    work.touch(f"device:{device.id}", f"fleet:{fleet.id}")
    return EnrolledDevice(
        device=device,
        fleet=fleet.name,
        project=_project_name(work),
        token=token.secret,
        key=work.services.signers[EVALUATOR].public_key.hex(),
        expires_at=token.expires_at,
    )


@verb("device.move", permission="device:admin")
def move_device(ask: MoveDevice, work: Work) -> Device:
    """Put a device into another group; it gets that group's version when it asks next.

    Raises:
        NotFound: ``fleet.not_found`` or ``device.not_found``.
        InvalidInput: ``fleet.group_unknown``.
    """
    fleet = get_fleet(work, ask.fleet)
    device = get_device(work, fleet, ask.name)
    _require_group(fleet, ask.group)
    if device.group == ask.group:
        return device
    work.touch(f"device:{device.id}", f"fleet:{fleet.id}")
    # What this device should run may change, and it believes only what is newer than what it has.
    work.replace(structs.replace(fleet, epoch=fleet.epoch + 1))
    return work.replace(structs.replace(device, group=ask.group))


@verb("device.revoke", permission="device:admin")
def revoke_device(ask: RevokeDevice, work: Work) -> Device:
    """End a device's token at once; it goes on with what it has, and gets nothing more.

    Raises:
        NotFound: ``fleet.not_found`` or ``device.not_found``.
    """
    fleet = get_fleet(work, ask.fleet)
    device = get_device(work, fleet, ask.name)
    token = work.tx.find(TokenRecord, device.token)
    work.touch(f"device:{device.id}", f"fleet:{fleet.id}")
    if token is not None and token.revoked_at is None:
        work.replace(structs.replace(token, revoked_at=work.now))
    if device.revoked_at is not None:
        return device
    return work.replace(structs.replace(device, revoked_at=work.now))


@query("device.poll", permission="device:predict")
def poll_device(ask: PollDevice, view: View) -> SignedOffer:
    """Tell a device what it should run, signed and bound to its question.

    Raises:
        Denied: ``device.unknown``.
    """
    device, fleet, bundle = _offered(view)
    running = None
    if ask.running is not None:
        running = view.first(EdgeBundle, *where(digest=ask.running))
    offer = Offer(
        kind="everloop fleet offer",
        project=view.project,
        fleet=fleet.name,
        device=device.name,
        nonce=ask.nonce,
        epoch=fleet.epoch,
        digest=bundle.digest if bundle else None,
        size_bytes=bundle.size_bytes if bundle else 0,
        number=bundle.number if bundle else 0,
        version=bundle.semver if bundle else "",
        rollback=bundle is not None and running is not None and bundle.number < running.number,
        issued_at=to_text(view.services.clock.now()),
    )
    text = canonical_json(offer)
    signature = view.services.signers[EVALUATOR].sign(OFFER_CONTEXT + text).hex()
    return SignedOffer(offer=text.decode(), signature=signature)


@query("device.fetch", permission="device:predict")
def fetch_bundle(ask: FetchBundle, view: View) -> EdgePart:
    """Send a device a part of the bundle that it is offered, and of no other.

    Raises:
        Denied: ``device.unknown`` or ``device.not_offered``.
    """
    _, _, bundle = _offered(view)
    if bundle is None or bundle.digest != ask.digest:
        raise Denied(
            "device.not_offered",
            "This bundle is not what this device should run now.",
            hint="Ask again what to run.",
        )
    return read_part(view, bundle, ask.offset)


def _offered(view: View) -> tuple[Device, Fleet, EdgeBundle | None]:
    device = calling_device(view)
    fleet = view.get(Fleet, device.fleet)
    bundle = bundle_for(view, fleet, device.group, live_release(view, fleet))
    return device, fleet, bundle


def _act_as(work: Work, fleet: Fleet, name: str) -> ActorId:
    """Make the actor as whom a device comes; its token narrows the role to three verbs."""
    actor = work.insert(
        Actor(
            id=work.new_id(),
            name=f"device.{work.project}.{fleet.name}.{name}"[:300],
            kind=ActorKind.SERVICE,
            created_at=work.now,
        )
    )
    work.insert(
        RoleGrant(
            id=work.new_id(),
            actor=ActorId(actor.id),
            project=work.project,
            role=Role.CONTRIBUTOR,
            granted_by=work.caller.actor,
            granted_at=work.now,
        )
    )
    return ActorId(actor.id)


def _require_group(fleet: Fleet, group: str) -> None:
    if group not in fleet.groups:
        raise InvalidInput(
            "fleet.group_unknown",
            f"The fleet {fleet.name!r} has no group {group[:40]!r}.",
            hint=f"Its groups are {', '.join(fleet.groups)}.",
        )


def _project_name(work: Work) -> str:
    found = work.tx.find(Project, work.project)  # type: ignore[arg-type]
    return found.name if found else work.project
