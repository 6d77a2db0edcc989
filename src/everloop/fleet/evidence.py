"""What a device's report says about a live release, read from the books as they stood before it.

The books count devices in the database, so a report costs the same in a fleet of any size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from everloop.core.ports import Compare, Condition, where
from everloop.edge.model import EdgeBundle
from everloop.fleet.deciding import BadDevice, share_of, take_in
from everloop.fleet.lookup import find_bundle, live_release, reached
from everloop.fleet.model import Device, Fleet, FleetRelease, Guardrail
from everloop.fleet.moving import decide
from everloop.fleet.telemetry import ToldSketch
from everloop.kernel.unit_of_work import View, Work

_MARKS: Final = {Guardrail.ERROR: "erred_in", Guardrail.INVALID: "invalid_in"}


class Trial(NamedTuple):
    """A live release with the bundles that it compares."""

    fleet: Fleet
    release: FleetRelease
    candidate: EdgeBundle
    before: EdgeBundle | None


def find_trial(view: View, fleet: Fleet) -> Trial | None:
    """Return the fleet's live release, or None."""
    release = live_release(view, fleet)
    candidate = find_bundle(view, release.candidate) if release else None
    if release is None or candidate is None:
        return None
    return Trial(fleet, release, candidate, find_bundle(view, release.before))


def find_bad(
    view: View, trial: Trial, device: Device, sketches: Mapping[str, ToldSketch]
) -> list[BadDevice]:
    """Return what counts against the bundle that a device was known to run before it told.

    Faults of another version, of a log from before a change, count on neither side; nor does what
    a device tells that was not heard of before in this release.
    """
    _, release, candidate, before = trial
    if device.seen_at is None or device.seen_at < release.started_at:
        return []
    ran = next((b for b in (candidate, before) if b and b.digest == device.running), None)
    told = sketches.get(ran.version) if ran else None
    if ran is None or told is None:
        return []
    faults = {Guardrail.ERROR: told.errors, Guardrail.INVALID: told.invalid}
    return [
        BadDevice(
            guardrail,
            ran is candidate,
            share_of(
                _at_risk(view, trial, guardrail, candidate),
                _at_risk(view, trial, guardrail, before),
            ),
        )
        for guardrail, count in faults.items()
        if count and getattr(device, _MARKS[guardrail]) != release.id
    ]


def _at_risk(view: View, trial: Trial, guardrail: Guardrail, bundle: EdgeBundle | None) -> int:
    """Count the devices heard of that run a bundle and have not counted for a guardrail yet."""
    if bundle is None:
        return 0
    running = (
        *where(fleet=trial.fleet.id, running=bundle.digest, revoked_at=None),
        Condition("seen_at", Compare.GE, trial.release.started_at),
    )
    counted = where(**{_MARKS[guardrail]: trial.release.id})
    return view.count(Device, *running) - view.count(Device, *running, *counted)


def marked(device: Device, trial: Trial, bad: Sequence[BadDevice]) -> Device:
    """Return a device that remembers what of it counts in a release."""
    marks = [_MARKS[event.guardrail] for event in bad]
    if any(refusal.digest == trial.candidate.digest for refusal in device.refused):
        marks.append("left_in")
    return replace(device, **dict.fromkeys(marks, trial.release.id))


def take_in_report(
    work: Work,
    trial: Trial,
    device: Device,
    bad: Sequence[BadDevice],
    sketches: Mapping[str, ToldSketch],
) -> None:
    """Let a live release take in what a device told, and go on or back."""
    fleet, release, candidate, _ = trial
    told = sketches.get(candidate.version)
    answers = told.answers if told and device.group in reached(fleet, release) else 0
    if bad or answers:
        release = take_in(release, bad)
        release = work.replace(replace(release, answers=release.answers + answers))
    decide(work, fleet, release, candidate)
