"""How a staged release goes on: pure decisions from what devices have told so far.

A device counts once for each kind of bad answer, since the answers of one device are not
independent. Who did it is judged as in any release, by the share of the candidate among the devices
that could still have done it, as the books stood before the device told. Groups are chosen by
people, not by chance, so the evidence says that the devices of one group fare worse, and it is for
a person to say whether the version is why.

A bundle that a device tried and left is no such evidence: the bundle before is not installed anew
meanwhile, so there is nothing to compare with, and devices that are full or lose power would take
back a version that is no worse. Too many of them stop the release from going on by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from msgspec.structs import replace

from everloop.core.clock import Instant
from everloop.fleet.model import FleetConfig, FleetRelease, Guardrail
from everloop.release.eprocess import BadEventProcess, judge, start_bad_events, update


class BadDevice(NamedTuple):
    """A device of which something bad was learned, for the first time in this release.

    Attributes:
        by_candidate: Whether it ran the candidate.
        share: The part of the devices that could have been it which ran the candidate.
    """

    guardrail: Guardrail
    by_candidate: bool
    share: float


class Adoption(NamedTuple):
    """Devices of the groups that a release has reached: all, those that run it, that left it."""

    wanted: int
    adopted: int
    left: int = 0


def begin() -> dict[str, BadEventProcess]:
    """Return the guardrails of a release that has seen nothing."""
    return {guardrail.value: start_bad_events() for guardrail in Guardrail}


def share_of(candidate: int, before: int) -> float:
    """Return the candidate's share of the devices that run it or the bundle before."""
    return candidate / (candidate + before) if candidate + before else 0.0


def take_in(release: FleetRelease, events: Sequence[BadDevice]) -> FleetRelease:
    """Return a release that has taken in bad events; with one side alone nothing is learned."""
    guardrails = dict(release.guardrails)
    for event in events:
        name = event.guardrail.value
        guardrails[name] = update(guardrails[name], by_canary=event.by_candidate, share=event.share)
    verdict = judge(guardrails, alpha=release.config.alpha)
    return replace(release, guardrails=guardrails, evidence_bad=verdict.evidence_bad)


def is_worse(release: FleetRelease) -> bool:
    """Tell whether the evidence against the candidate suffices for a rollback."""
    return judge(release.guardrails, alpha=release.config.alpha).decision == "rollback"


def why_not_yet(
    release: FleetRelease, adoption: Adoption, now: Instant, config: FleetConfig
) -> str | None:
    """Say what the evidence lacks for the next step; None when it lacks nothing."""
    wanted, adopted, left = adoption
    if release.evidence_bad >= config.step_up_evidence:
        return f"the evidence against it is {release.evidence_bad:.1f}"
    if left > config.max_left * wanted:
        return f"{left} of {wanted} devices tried it and left it, so a person decides"
    if not wanted or adopted < config.min_adopted * wanted:
        return f"{adopted} of {wanted} devices run it"
    if release.answers < config.min_answers:
        return f"it has answered {release.answers} of {config.min_answers} requests"
    if now - release.stage_at < timedelta(hours=config.soak_hours):
        return f"it has not run for {config.soak_hours:g} hours yet"
    return None
