"""How a staged release goes on: pure decisions from what devices have told so far.

A device counts once for each kind of bad event, since the answers of one device are not
independent. Who did it is judged as in any release, by the share of devices that run the candidate
when the event is learned; groups are chosen by people, not by chance, so the evidence says that the
devices of one group fare worse, and it is for a person to say whether the version is why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import NamedTuple

from msgspec.structs import replace

from everloop.core.clock import Instant
from everloop.core.digest import Digest
from everloop.core.ids import Id
from everloop.fleet.model import Device, FleetConfig, FleetRelease, Guardrail
from everloop.release.eprocess import BadEventProcess, judge, start_bad_events, update


class BadDevice(NamedTuple):
    """A device of which something bad was learned, and whether it ran the candidate."""

    device: Id
    guardrail: Guardrail
    by_candidate: bool


class Adoption(NamedTuple):
    """Devices of the groups that a release has reached, and those that run the candidate."""

    wanted: int
    adopted: int


def begin() -> dict[str, BadEventProcess]:
    """Return the guardrails of a release that has seen nothing."""
    return {guardrail.value: start_bad_events() for guardrail in Guardrail}


def share_of_candidate(
    devices: Iterable[Device], candidate: Digest, before: Digest | None
) -> float:
    """Return which part of the devices that run one of both runs, or ran, the candidate."""
    theirs = others = 0
    for device in devices:
        if device.revoked_at is not None:
            continue
        if device.running == candidate or has_refused(device, candidate):
            theirs += 1
        elif before is not None and device.running == before:
            others += 1
    return theirs / (theirs + others) if theirs + others else 0.0


def has_refused(device: Device, digest: Digest) -> bool:
    """Tell whether a device tried a bundle and left it."""
    return any(refusal.digest == digest for refusal in device.refused)


def take_in(release: FleetRelease, events: Sequence[BadDevice], share: float) -> FleetRelease:
    """Return a release that has taken in bad events; a device that has counted counts no more."""
    guardrails, counted = dict(release.guardrails), dict(release.counted)
    for event in events:
        name = event.guardrail.value
        known = counted.get(name, ())
        possible = 0.0 < share < 1.0
        if event.device in known:
            continue
        counted[name] = (*known, event.device)
        if possible:
            guardrails[name] = update(guardrails[name], by_canary=event.by_candidate, share=share)
    verdict = judge(guardrails, alpha=release.config.alpha)
    return replace(
        release, guardrails=guardrails, counted=counted, evidence_bad=verdict.evidence_bad
    )


def is_worse(release: FleetRelease) -> bool:
    """Tell whether the evidence against the candidate suffices for a rollback."""
    return judge(release.guardrails, alpha=release.config.alpha).decision == "rollback"


def adoption_of(devices: Iterable[Device], groups: Sequence[str], candidate: Digest) -> Adoption:
    """Count the devices of some groups, and those of them that run the candidate."""
    wanted = [d for d in devices if d.revoked_at is None and d.group in groups]
    return Adoption(len(wanted), sum(d.running == candidate for d in wanted))


def why_not_yet(
    release: FleetRelease, adoption: Adoption, now: Instant, config: FleetConfig
) -> str | None:
    """Say what the evidence lacks for the next step; None when it lacks nothing."""
    if release.evidence_bad >= config.step_up_evidence:
        return f"the evidence against it is {release.evidence_bad:.1f}"
    if not adoption.wanted or adoption.adopted < config.min_adopted * adoption.wanted:
        return f"{adoption.adopted} of {adoption.wanted} devices run it"
    if release.answers < config.min_answers:
        return f"it has answered {release.answers} of {config.min_answers} requests"
    if now - release.stage_at < timedelta(hours=config.soak_hours):
        return f"it has not run for {config.soak_hours:g} hours yet"
    return None
