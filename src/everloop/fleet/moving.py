"""The changes of a staged release: the next group, the end, the way back."""

from __future__ import annotations

from msgspec.structs import replace

from everloop.core.errors import Conflict
from everloop.edge.model import EdgeBundle
from everloop.fleet.deciding import is_worse, why_not_yet
from everloop.fleet.lookup import adoption_of, live_release
from everloop.fleet.model import Fleet, FleetRelease, State
from everloop.kernel.unit_of_work import Work


def step(work: Work, fleet: Fleet, release: FleetRelease, why: str) -> FleetRelease:
    """Bring the candidate to the next group; after the last one, make it the fleet's target."""
    work.touch(f"fleet:{fleet.id}", f"fleet_release:{release.id}")
    if release.stage + 1 < len(fleet.groups):
        work.replace(replace(fleet, epoch=fleet.epoch + 1))
        return work.replace(replace(release, stage=release.stage + 1, stage_at=work.now, why=why))
    work.replace(
        replace(fleet, epoch=fleet.epoch + 1, target=release.candidate, previous=fleet.target)
    )
    return end(work, release, State.DONE, why)


def end(work: Work, release: FleetRelease, state: State, why: str) -> FleetRelease:
    """End a release."""
    work.decide(state.value, why)
    return work.replace(replace(release, state=state, live=None, ended_at=work.now, why=why))


def go_back(work: Work, fleet: Fleet, why: str) -> Fleet:
    """End the live release or, when there is none, go back to the bundle before.

    Raises:
        Conflict: ``fleet.nothing_before`` when there is neither.
    """
    live = live_release(work, fleet)
    work.touch(f"fleet:{fleet.id}")
    if live is not None:
        work.touch(f"fleet_release:{live.id}")
        end(work, live, State.ROLLED_BACK, why)
        return work.replace(replace(fleet, epoch=fleet.epoch + 1))
    if fleet.previous is None:
        raise Conflict(
            "fleet.nothing_before",
            f"The fleet {fleet.name!r} has no live release and no bundle before this one.",
            hint="Release another version with `everloop fleet release`.",
        )
    return work.replace(replace(fleet, epoch=fleet.epoch + 1, target=fleet.previous, previous=None))


def decide(work: Work, fleet: Fleet, release: FleetRelease, candidate: EdgeBundle) -> FleetRelease:
    """Roll back or step on where the evidence says so; ``not proven`` is never a reason for it."""
    if is_worse(release):
        why = (
            f"Devices that run it fare worse: the evidence is {release.evidence_bad:.0f}, and "
            f"{1 / release.config.alpha:.0f} suffices."
        )
        go_back(work, fleet, why)
        return work.get(FleetRelease, release.id)
    adoption = adoption_of(work, fleet, release, candidate)
    lacking = why_not_yet(release, adoption, work.now, release.config)
    if lacking is None and release.config.step == "evidence":
        why = (
            f"{adoption.adopted} of {adoption.wanted} devices run it and {release.answers} answers "
            "speak not against it; that it is no worse is not proven."
        )
        return step(work, fleet, release, why)
    why = "A person may take the next step." if lacking is None else f"Waiting: {lacking}."
    return release if why == release.why else work.replace(replace(release, why=why))
